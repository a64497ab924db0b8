//! The source-target alignment as a heat map.

use std::fmt::Write as _;

use crate::PlotError;
use crate::font::text_width;
use crate::svg::{Anchor, Canvas, escape, number, shorten};

/// Attention weights between a source and a target sentence, with a place for each pair of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    title: String,
    source: Vec<String>,
    target: Vec<String>,
    weights: Vec<f32>,
    /// The largest finite weight, at least 0: the one drawn darkest.
    largest: f64,
}

impl Alignment {
    /// An alignment without a title. `weights` is `[target, source]`, row by row; weights below zero count as zero,
    /// NaN is drawn as unknown.
    ///
    /// # Errors
    /// When the number of weights is not the product of the numbers of tokens.
    pub fn new<S: Into<String>, T: Into<String>>(
        source: impl IntoIterator<Item = S>,
        target: impl IntoIterator<Item = T>,
        weights: Vec<f32>,
    ) -> Result<Self, PlotError> {
        let source: Vec<String> = source.into_iter().map(Into::into).collect();
        let target: Vec<String> = target.into_iter().map(Into::into).collect();
        if weights.len() != source.len() * target.len() {
            return Err(PlotError::Weights { rows: target.len(), columns: source.len(), found: weights.len() });
        }
        let largest = weights.iter().copied().filter(|weight| weight.is_finite()).fold(0.0, f32::max).into();
        Ok(Self { title: String::new(), source, target, weights, largest })
    }

    /// The same alignment with a headline.
    #[must_use]
    pub fn titled(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// The source tokens: the columns.
    #[must_use]
    pub fn source(&self) -> &[String] {
        &self.source
    }

    /// The target tokens: the rows.
    #[must_use]
    pub fn target(&self) -> &[String] {
        &self.target
    }

    /// The weight of a pair of tokens; NaN outside the table.
    #[must_use]
    pub fn weight(&self, target_index: usize, source_index: usize) -> f32 {
        if source_index >= self.source.len() {
            return f32::NAN;
        }
        self.weights.get(target_index * self.source.len() + source_index).copied().unwrap_or(f32::NAN)
    }

    /// The weight as a share of the largest of the map, from 0 to 1; `None` for NaN.
    pub(crate) fn shade(&self, target_index: usize, source_index: usize) -> Option<f64> {
        let weight = self.weight(target_index, source_index);
        if weight.is_nan() {
            None
        } else if self.largest > 0.0 {
            Some((f64::from(weight) / self.largest).clamp(0.0, 1.0))
        } else {
            Some(0.0)
        }
    }
}

/// A token as a reader can see it: spaces at its ends as dots, line breaks and tabs as arrows, other control
/// characters as boxes.
pub(crate) fn visible(token: &str) -> String {
    let inner = token.trim_matches(' ');
    let start = token.len() - token.trim_start_matches(' ').len();
    let spaces = token.len() - inner.len();
    // All spaces: none are counted twice.
    let (before, after) = if inner.is_empty() { (spaces, 0) } else { (start, spaces - start) };
    let inner = inner.chars().map(|letter| match letter {
        '\n' | '\r' => '↵',
        '\t' => '⇥',
        letter if letter.is_control() => '□',
        letter => letter,
    });
    let dots = |count| std::iter::repeat_n('·', count);
    dots(before).chain(inner).chain(dots(after)).collect()
}

const MARGIN: f64 = 20.0;
const TITLE_SIZE: f64 = 18.0;
const NOTE_SIZE: f64 = 12.0;
/// Cells shrink with the number of tokens so that the map stays near this size, but never below [`SMALLEST_CELL`].
const MAP_SIZE: f64 = 640.0;
const LARGEST_CELL: f64 = 34.0;
const SMALLEST_CELL: f64 = 9.0;
/// Labels longer than this are cut with an ellipsis.
const LONGEST_LABEL: f64 = 220.0;
/// Weights of less than half a percent are white to the eye: leaving them out keeps the files small.
const FAINTEST: f64 = 0.005;

/// How the labels of the columns stand: as upright as their length and the cells allow.
#[derive(Clone, Copy)]
enum Tilt {
    None,
    Rising,
    Vertical,
}

/// Sine and cosine of the angle of [`Tilt::Rising`].
const SLOPE: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Draws an alignment as SVG text: a row for each target token, a column for each source token, darker where the
/// weight is larger; the largest weight of the map is darkest. Hovering over a cell in a browser tells its weight.
#[must_use]
pub fn alignment(map: &Alignment) -> String {
    let (rows, columns) = (map.target.len(), map.source.len());
    let most_tokens = rows.max(columns).max(1) as f64;
    let cell = (MAP_SIZE / most_tokens).clamp(SMALLEST_CELL, LARGEST_CELL).floor();
    let size = (cell * 0.5).clamp(8.0, 14.0);
    let label = |token: &String| shorten(&visible(token), size, LONGEST_LABEL);
    let source: Vec<String> = map.source.iter().map(label).collect();
    let target: Vec<String> = map.target.iter().map(label).collect();
    let widths = |labels: &[String]| labels.iter().map(|label| text_width(label, size)).collect::<Vec<_>>();
    let (source_widths, target_widths) = (widths(&source), widths(&target));
    let widest = |widths: &[f64]| widths.iter().copied().fold(0.0, f64::max);
    let tilt = if widest(&source_widths) <= cell - 2.0 {
        Tilt::None
    } else if cell * SLOPE >= size {
        Tilt::Rising
    } else {
        Tilt::Vertical
    };

    let left = MARGIN + widest(&target_widths) + 9.0;
    let right = left + cell * columns as f64;
    let mut top = MARGIN;
    if !map.title.is_empty() {
        top += TITLE_SIZE * 0.8 + 14.0;
    }
    top += 8.0
        + match tilt {
            Tilt::None => size,
            Tilt::Rising => (widest(&source_widths) + size) * SLOPE,
            Tilt::Vertical => widest(&source_widths),
        };
    let bottom = top + cell * rows as f64;
    let overhang = source_widths.iter().enumerate().map(|(index, width)| {
        let centre = left + (index as f64 + 0.5) * cell;
        match tilt {
            Tilt::None => centre + width / 2.0,
            Tilt::Rising => centre + (width + size) * SLOPE,
            Tilt::Vertical => centre + size,
        }
    });
    let most_right = overhang.fold(right, f64::max);
    let width = (most_right + MARGIN).max(MARGIN * 2.0 + 230.0).max(title_room(&map.title));

    let mut canvas = Canvas::new();
    if !map.title.is_empty() {
        let title = shorten(&map.title, TITLE_SIZE, width - 2.0 * MARGIN);
        canvas.text((MARGIN, MARGIN + TITLE_SIZE * 0.8), "ink", TITLE_SIZE, Anchor::Start, &title);
    }
    for (index, label) in source.iter().enumerate() {
        let x = left + (index as f64 + 0.5) * cell;
        match tilt {
            Tilt::None => canvas.text((x, top - 7.0), "ink", size, Anchor::Middle, label),
            Tilt::Rising => canvas.turned_text((x + size * 0.3, top - 6.0), -45, "ink", size, label),
            Tilt::Vertical => canvas.turned_text((x + size * 0.35, top - 6.0), -90, "ink", size, label),
        }
    }
    for (index, label) in target.iter().enumerate() {
        let y = top + (index as f64 + 0.5) * cell + size * 0.35;
        canvas.text((left - 9.0, y), "ink", size, Anchor::End, label);
    }
    draw_cells(&mut canvas, map, (left, top), cell);
    let foot = bottom + 30.0;
    draw_legend(&mut canvas, map, (MARGIN, foot));
    let description = if map.title.is_empty() { "Source-target alignment" } else { &map.title };
    canvas.finish(width, foot + MARGIN, description)
}

/// The width that shows the title in full, as long as that is not unreasonable.
fn title_room(title: &str) -> f64 {
    (text_width(title, TITLE_SIZE) + 2.0 * MARGIN).min(720.0)
}

fn draw_cells(canvas: &mut Canvas, map: &Alignment, (left, top): (f64, f64), cell: f64) {
    // A hairline of the frame between cells makes rows and columns easy to follow.
    let side = if cell >= 14.0 { cell - 2.0 } else { cell - 1.0 };
    let radius = if cell >= 20.0 { 3.0 } else { 1.0 };
    let [edge, radius] = [side, radius].map(number);
    let shape = format!("width=\"{edge}\" height=\"{edge}\" rx=\"{radius}\"");
    let x = |column: usize| number(left + column as f64 * cell + (cell - side) / 2.0);
    let y = |row: usize| number(top + row as f64 * cell + (cell - side) / 2.0);
    // One row of empty cells, used again for every row. Its name tells its shape: where several pictures are set into
    // one page, those that share the name share the shape.
    let empty: String = (0..map.source.len()).map(|column| format!("<rect x=\"{}\" {shape}/>", x(column))).collect();
    let name = format!("row-{}-{}-{edge}", map.source.len(), x(0).replace('.', "_"));
    let mut markup = format!("<defs><g id=\"{name}\" class=\"frame\">{empty}</g></defs>\n");
    for (row, target) in map.target.iter().enumerate() {
        let y = y(row);
        let _ = writeln!(markup, "<use href=\"#{name}\" y=\"{y}\"/>");
        for (column, source) in map.source.iter().enumerate() {
            let class = match map.shade(row, column) {
                None => "class=\"unknown\"".to_owned(),
                Some(shade) if shade < FAINTEST => continue,
                Some(shade) => format!("class=\"cell\" fill-opacity=\"{}\"", number(shade)),
            };
            let pair = escape(&format!("{} → {}: {:.3}", visible(target), visible(source), map.weight(row, column)));
            let _ =
                writeln!(markup, "<rect x=\"{}\" y=\"{y}\" {shape} {class}><title>{pair}</title></rect>", x(column));
        }
    }
    canvas.raw(&markup);
}

/// The scale of the shades, and what rows and columns are.
fn draw_legend(canvas: &mut Canvas, map: &Alignment, (left, y): (f64, f64)) {
    const STEPS: usize = 10;
    const STEP: f64 = 9.0;
    const NOTE: &str = "attention weight";
    canvas.text((left, y), "soft", NOTE_SIZE, Anchor::Start, NOTE);
    let bar = left + text_width(NOTE, NOTE_SIZE) + 22.0;
    canvas.text((bar - 6.0, y), "soft", NOTE_SIZE, Anchor::End, "0");
    for step in 0..STEPS {
        let opacity = number((step + 1) as f64 / STEPS as f64);
        let (x, top) = (number(bar + step as f64 * STEP), number(y - 9.5));
        canvas.raw(&format!(
            "<rect x=\"{x}\" y=\"{top}\" width=\"{STEP}\" height=\"10\" class=\"cell\" fill-opacity=\"{opacity}\"/>"
        ));
    }
    let largest = format!("{:.2}", map.largest);
    let end = bar + STEP * STEPS as f64 + 6.0;
    canvas.text((end, y), "soft", NOTE_SIZE, Anchor::Start, &largest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::png;

    fn diagonal(rows: usize, columns: usize) -> Vec<f32> {
        let near = |row: usize, column: usize| 1.0 / (1.0 + (row as f32 - column as f32).abs());
        (0..rows).flat_map(|row| (0..columns).map(move |column| near(row, column))).collect()
    }

    #[test]
    fn tokens_are_escaped_and_made_visible() {
        let map = Alignment::new(["<s>", "&", " the", "\n"], ["</s>"], vec![0.1, 0.2, 0.3, 0.4]).unwrap();
        let svg = alignment(&map);
        let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
        let nodes = document.descendants().filter(|node| node.has_tag_name("text"));
        let texts: Vec<&str> = nodes.filter_map(|node| node.text()).collect();
        assert_eq!(texts[..5], ["<s>", "&", "·the", "↵", "</s>"]);
        assert_eq!([" ", "  ", " a b ", "", "a\tb\u{7}"].map(visible), ["·", "··", "·a b·", "", "a⇥b□"]);
    }

    #[test]
    fn weights_must_fill_the_table() {
        let error = Alignment::new(["a", "b"], ["c"], vec![1.0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an alignment of 1 target tokens and 2 source tokens needs 2 weights, but 1 were given"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn shades_are_relative_to_the_largest_weight() {
        let map = Alignment::new(["a", "b", "c"], ["d"], vec![0.2, -1.0, f32::NAN]).unwrap();
        assert_eq!([0, 1, 2].map(|column| map.shade(0, column)), [Some(1.0), Some(0.0), None]);
        assert!(map.weight(0, 3).is_nan() && map.weight(1, 0).is_nan());
        let zero = Alignment::new(["a"], ["b"], vec![0.0]).unwrap();
        assert_eq!(zero.shade(0, 0), Some(0.0));
    }

    #[test]
    fn a_large_map_is_still_a_picture() {
        let tokens: Vec<String> = (0..120).map(|index| format!("token{index}")).collect();
        let map = Alignment::new(tokens.clone(), tokens, diagonal(120, 120)).unwrap();
        assert!(png(&alignment(&map), 1.0).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_alignment_is_a_readable_picture(
            source in prop::collection::vec(".{0,30}", 0..12),
            target in prop::collection::vec(".{0,30}", 0..12),
            odd in prop::collection::vec(prop_oneof![4 => 0f32..1.0, 1 => any::<f32>()], 144),
            title in ".{0,80}",
        ) {
            let weights = odd[..source.len() * target.len()].to_vec();
            let svg = alignment(&Alignment::new(source, target, weights).unwrap().titled(title));
            prop_assert!(resvg::usvg::Tree::from_str(&svg, &resvg::usvg::Options::default()).is_ok());
            prop_assert!(!svg.contains("NaN\" ") && !svg.contains("inf\""));
        }

        #[test]
        fn labels_in_any_script_can_be_drawn(source in prop::collection::vec("\\PC{0,8}", 1..4), target in "\\PC{0,8}") {
            let weights = vec![0.5; source.len()];
            let svg = alignment(&Alignment::new(source, [target], weights).unwrap());
            prop_assert!(png(&svg, 0.5).is_ok());
        }

        #[test]
        fn labels_and_cells_lie_inside_the_page(rows in 1usize..40, columns in 1usize..40, length in 1usize..60) {
            let tokens = |count: usize| vec!["W".repeat(length); count];
            let map = Alignment::new(tokens(columns), tokens(rows), diagonal(rows, columns)).unwrap();
            let svg = alignment(&map);
            let options = resvg::usvg::Options { fontdb: crate::font::database_for(&svg), ..Default::default() };
            let tree = resvg::usvg::Tree::from_str(&svg, &options).unwrap();
            let (page, drawn) = (tree.size(), tree.root().abs_bounding_box());
            let hair = 1e-3;
            prop_assert!(drawn.left() >= -hair && drawn.top() >= -hair, "{drawn:?}");
            let inside = drawn.right() <= page.width() + hair && drawn.bottom() <= page.height() + hair;
            prop_assert!(inside, "{drawn:?} {page:?}");
        }
    }
}
