//! Small drawings for the terminal: an alignment in shades, and a curve on one line.

use std::fmt::Write as _;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::Alignment;
use crate::alignment::visible;

/// How to draw in the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns of the terminal; a longer source sentence is drawn in several blocks, one below the other.
    pub width: usize,
    /// Shades or colours.
    pub colour: Colour,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { width: 80, colour: Colour::None }
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Unicode shade blocks, for files and pipes.
    #[default]
    None,
    /// ANSI escapes from the palette of 256 colours.
    Ansi256,
}

/// Columns of one cell: wide letters (Chinese, emoji) take two, and two make a cell nearly square.
const CELL: usize = 2;
/// Letters of a column's label, written downwards; longer ones end in a mark.
const LABEL_HEIGHT: usize = 14;
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
/// From the dark end to the bright end of the palette's blues and whites.
const PALETTE: [u8; 8] = [234, 17, 18, 19, 26, 33, 75, 159];

/// Draws an alignment with text: the source runs across, its labels written downwards, the target runs down. Each
/// line ends in a line break and takes at most `width` columns (except that a terminal narrower than 16 columns is
/// taken to have 16).
#[must_use]
pub fn alignment_text(map: &Alignment, options: &TextOptions) -> String {
    let width = options.width.max(16);
    let widest = map.target().iter().map(|token| visible(token).width()).max().unwrap_or(0);
    let label_width = widest.clamp(1, width / 3);
    let columns_per_block = ((width - label_width - 1) / CELL).max(1);
    let labels: Vec<String> = map.target().iter().map(|token| right_aligned(&visible(token), label_width)).collect();
    let mut text = String::new();
    let num_columns = map.source().len();
    for first in (0..num_columns).step_by(columns_per_block) {
        if first > 0 {
            text.push('\n');
        }
        let columns = first..num_columns.min(first + columns_per_block);
        draw_header(&mut text, &map.source()[columns.clone()], label_width);
        for (row, label) in labels.iter().enumerate() {
            let shades: Vec<Option<f64>> = columns.clone().map(|column| map.shade(row, column)).collect();
            let cells = match options.colour {
                Colour::None => shades.iter().map(|shade| block(*shade)).collect(),
                Colour::Ansi256 => coloured(&shades),
            };
            let _ = writeln!(text, "{}", format!("{label} {cells}").trim_end());
        }
    }
    text
}

/// The labels of some columns, written downwards and standing on the first row.
fn draw_header(text: &mut String, source: &[String], label_width: usize) {
    let labels: Vec<Vec<String>> = source.iter().map(|token| downwards(&visible(token))).collect();
    let height = labels.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let mut row = " ".repeat(label_width + 1);
        for label in &labels {
            let letter = (line + label.len()).checked_sub(height).and_then(|index| label.get(index));
            let letter = letter.map_or("", String::as_str);
            row.push_str(letter);
            row.push_str(&" ".repeat(CELL.saturating_sub(letter.width())));
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
}

/// The letters of a label, one to a line, each at most one cell wide.
fn downwards(label: &str) -> Vec<String> {
    let mut letters: Vec<String> = label
        .graphemes(true)
        .filter(|letter| letter.width() > 0)
        .map(|letter| if letter.width() <= CELL { letter.to_owned() } else { "□".to_owned() })
        .collect();
    if letters.len() > LABEL_HEIGHT {
        letters.truncate(LABEL_HEIGHT - 1);
        letters.push("⋮".to_owned());
    }
    letters
}

/// The label on exactly `width` columns, cut with an ellipsis where it is longer.
fn right_aligned(label: &str, width: usize) -> String {
    let mut kept = label.to_owned();
    if kept.width() > width {
        kept = String::new();
        for letter in label.graphemes(true) {
            if kept.width() + letter.width() + 1 > width {
                break;
            }
            kept.push_str(letter);
        }
        kept.push('…');
    }
    format!("{}{kept}", " ".repeat(width.saturating_sub(kept.width())))
}

fn block(shade: Option<f64>) -> &'static str {
    let Some(shade) = shade else { return "??" };
    // A weight gets a mark from a tenth of the largest: below that it is noise.
    let level = if shade < 0.1 { 0 } else { (shade * 4.0).ceil() as usize };
    SHADES[level.min(SHADES.len() - 1)]
}

fn coloured(shades: &[Option<f64>]) -> String {
    let mut cells = String::new();
    let mut current = None;
    for shade in shades {
        let (colour, mark) = match shade {
            Some(shade) => (PALETTE[(shade * (PALETTE.len() - 1) as f64).round() as usize], "  "),
            None => (240, "??"),
        };
        if current != Some(colour) {
            let _ = write!(cells, "\u{1b}[48;5;{colour}m");
            current = Some(colour);
        }
        cells.push_str(mark);
    }
    cells.push_str("\u{1b}[0m");
    cells
}

/// A curve on one line of at most `width` columns: `█▆▄▃▂▁▁`. Longer series are averaged in equal parts; values that
/// are not finite are left out, and a part without any is a space.
#[must_use]
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let num_columns = width.min(values.len());
    let mean = |column: usize| {
        let part = &values[column * values.len() / num_columns..(column + 1) * values.len() / num_columns];
        let finite: Vec<f64> = part.iter().copied().filter(|value| value.is_finite()).collect();
        // Divided first: the sum of large values may overflow.
        (!finite.is_empty()).then(|| finite.iter().map(|value| value / finite.len() as f64).sum::<f64>())
    };
    let means: Vec<Option<f64>> = (0..num_columns).map(mean).collect();
    let low = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |value: f64| {
        // Halves: the difference of two extreme values may overflow.
        let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        let share = if share.is_nan() { 0.5 } else { share };
        BARS[(share * 7.0).round() as usize % BARS.len()]
    };
    means.into_iter().map(|mean| mean.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(source: &[&str], target: &[&str], weights: &[f32]) -> Alignment {
        Alignment::new(source.iter().copied(), target.iter().copied(), weights.to_vec()).unwrap()
    }

    #[test]
    fn a_small_alignment_looks_like_this() {
        let map = map(
            &["a", "red", "house", "."],
            &["ein", "rotes", "Haus", "."],
            &[0.9, 0.1, 0.0, 0.0, 0.3, 0.6, 0.1, 0.0, 0.0, 0.2, 0.8, 0.0, 0.0, 0.0, 0.4, f32::NAN],
        );
        let wanted = "
          h
          o
        r u
        e s
      a d e .
  ein ██░░
rotes ▒▒▓▓░░
 Haus   ░░██
    .     ▒▒??
";
        assert_eq!(format!("\n{}", alignment_text(&map, &TextOptions::default())), wanted);
    }

    #[test]
    fn wide_letters_keep_the_columns() {
        let map = map(&["日本", "e\u{301}", "👩‍👧"], &["猫", "x"], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let wanted = "
   日
   本e\u{301} 👩‍👧
猫 ██
 x     ██
";
        assert_eq!(format!("\n{}", alignment_text(&map, &TextOptions::default())), wanted);
    }

    #[test]
    fn colours_are_reset_on_every_line() {
        let map = map(&["a", "b"], &["c", "d"], &[1.0, 0.0, 0.5, 0.5]);
        let options = TextOptions { colour: Colour::Ansi256, ..TextOptions::default() };
        let text = alignment_text(&map, &options);
        let wanted = "c \u{1b}[48;5;159m  \u{1b}[48;5;234m  \u{1b}[0m\nd \u{1b}[48;5;26m    \u{1b}[0m\n";
        assert_eq!(text, format!("  a b\n{wanted}"));
    }

    #[test]
    fn long_sentences_are_drawn_in_blocks() {
        let source: Vec<String> = (0..50).map(|index| (index % 10).to_string()).collect();
        let map = Alignment::new(source, ["y"], vec![0.5; 50]).unwrap();
        let text = alignment_text(&map, &TextOptions { width: 40, ..TextOptions::default() });
        assert_eq!(text.matches('█').count(), 100);
        assert_eq!(text.lines().filter(|line| line.starts_with('y')).count(), 3);
    }

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 80), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[4.0, 4.0, 2.0, 2.0, f64::NAN, f64::NAN, 0.0, f64::INFINITY], 4), "█▅ ▁");
        assert_eq!(sparkline(&[2.5, 2.5], 8), "▅▅");
        assert_eq!(sparkline(&[f64::MAX, f64::MIN], 8), "█▁");
        assert_eq!(sparkline(&[], 8), "");
        assert_eq!(sparkline(&[1.0], 0), "");
    }

    proptest! {
        #[test]
        fn drawings_fit_the_terminal(
            source in prop::collection::vec("[a-z é日本👍\\t<>&]{0,20}", 0..40),
            target in prop::collection::vec("[a-z é日本👍\\t<>&]{0,60}", 0..6),
            width in 0usize..100,
        ) {
            let weights = (0..source.len() * target.len()).map(|index| index as f32 % 7.0).collect();
            let map = Alignment::new(source, target, weights).unwrap();
            let text = alignment_text(&map, &TextOptions { width, colour: Colour::None });
            for line in text.lines() {
                prop_assert!(line.width() <= width.max(16), "{line}");
            }
        }

        #[test]
        fn sparklines_have_a_mark_for_each_part(values in prop::collection::vec(any::<f64>(), 0..200), width in 0usize..50) {
            prop_assert_eq!(sparkline(&values, width).chars().count(), width.min(values.len()));
        }
    }
}
