//! The little SVG that our pictures need: a canvas that collects elements, and the style they share.

use std::fmt::Write as _;

use crate::font::{FAMILIES, text_width};

/// Colours of the series, in order: apart in hue and in lightness, also for colour-blind readers.
/// Each is (on a light page, on a dark page).
const SERIES: [(&str, &str); 12] = [
    ("#2563eb", "#60a5fa"),
    ("#d9580d", "#fb923c"),
    ("#0d9488", "#2dd4bf"),
    ("#be185d", "#f472b6"),
    ("#7c3aed", "#a78bfa"),
    ("#a16207", "#facc15"),
    ("#475569", "#94a3b8"),
    ("#15803d", "#4ade80"),
    ("#dc2626", "#f87171"),
    ("#18181b", "#fafafa"),
    ("#65a30d", "#bef264"),
    ("#78350f", "#d6a77a"),
];

/// The class that colours series number `index` (stroke, or fill with [`dot_class`]).
pub(crate) fn line_class(index: usize) -> String {
    format!("l{}", index % SERIES.len())
}

/// The class that fills a mark of series number `index`.
pub(crate) fn dot_class(index: usize) -> String {
    format!("d{}", index % SERIES.len())
}

/// Where a text hangs on its point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Elements in drawing order.
pub(crate) struct Canvas {
    body: String,
}

impl Canvas {
    pub(crate) fn new() -> Self {
        Self { body: String::new() }
    }

    /// Adds markup that is already well formed.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, size: f64, anchor: Anchor, text: &str) {
        let place = format!("x=\"{}\" y=\"{}\"", number(x), number(y));
        self.placed_text(&place, class, size, anchor, text);
    }

    /// A text that starts at a point, turned clockwise about it by some degrees.
    pub(crate) fn turned_text(&mut self, (x, y): (f64, f64), degrees: i32, class: &str, size: f64, text: &str) {
        let place = format!("transform=\"translate({} {}) rotate({degrees})\"", number(x), number(y));
        self.placed_text(&place, class, size, Anchor::Start, text);
    }

    fn placed_text(&mut self, place: &str, class: &str, size: f64, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (size, text) = (number(size), escape(text));
        self.raw(&format!("<text {place} class=\"{class}\" font-size=\"{size}\"{anchor}>{text}</text>"));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
        self.raw(&format!("<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"{class}\"/>"));
    }

    pub(crate) fn circle(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        let [x, y, radius] = [x, y, radius].map(number);
        self.raw(&format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" class=\"{class}\"/>"));
    }

    pub(crate) fn path(&mut self, data: &str, class: &str) {
        self.raw(&format!("<path d=\"{data}\" class=\"{class}\"/>"));
    }

    /// The whole document: `description` is read out by screen readers and shown on hover.
    pub(crate) fn finish(self, width: f64, height: f64, description: &str) -> String {
        let (width, height) = (number(width.ceil()), number(height.ceil()));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FAMILIES}\">\n\
             <title>{}</title>\n<style>\n{}</style>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" class=\"paper\"/>\n{}</svg>\n",
            escape(description),
            style(),
            self.body,
        )
    }
}

/// Light first, for PNG and old viewers; browsers on a dark page take the second half.
fn style() -> String {
    let colours = |dark: bool| {
        let pick = |light: &str, night: &str| if dark { night.to_owned() } else { light.to_owned() };
        let paper = pick("#ffffff", "#0d1117");
        let mut rules = String::new();
        let mut rule = |selector: &str, declarations: String| {
            let _ = writeln!(rules, "{selector} {{ {declarations} }}");
        };
        rule(".paper", format!("fill: {paper}"));
        rule(".ink", format!("fill: {}", pick("#1f2328", "#e6edf3")));
        rule(".soft", format!("fill: {}", pick("#59636e", "#9198a1")));
        rule(".grid", format!("stroke: {}", pick("#e6e9ed", "#232a33")));
        rule(".axis", format!("stroke: {}", pick("#9aa4af", "#57606a")));
        rule(".halo", format!("stroke: {paper}; stroke-width: 3.5; stroke-linejoin: round; paint-order: stroke"));
        rule(".ring", format!("stroke: {paper}; stroke-width: 1.5"));
        rule(".cell", format!("fill: {}", pick("#1d4ed8", "#60a5fa")));
        rule(".frame", format!("fill: {}", pick("#f4f6f9", "#161b22")));
        rule(".unknown", format!("fill: {}", pick("#c9ced6", "#3d444d")));
        for (index, (light, night)) in SERIES.iter().enumerate() {
            let colour = pick(light, night);
            rule(&format!(".l{index}"), format!("stroke: {colour}"));
            rule(&format!(".d{index}"), format!("fill: {colour}"));
        }
        rules
    };
    format!(
        "{}.line {{ fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }}\n\
         .faint {{ fill: none; stroke-width: 1; stroke-linejoin: round; opacity: 0.3 }}\n\
         .dashed {{ stroke-dasharray: 6 4 }}\n\
         @media (prefers-color-scheme: dark) {{\n{}}}\n",
        colours(false),
        colours(true),
    )
}

/// A coordinate with two decimals at most.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as XML: markup is escaped, and what XML 1.0 forbids becomes a box.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('□'),
            _ if letter.is_control() => escaped.push('□'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// The text, or as much of its beginning as fits `width` pixels, with an ellipsis.
pub(crate) fn shorten(text: &str, size: f64, width: f64) -> String {
    use unicode_segmentation::UnicodeSegmentation;
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for letter in text.graphemes(true) {
        if text_width(&format!("{kept}{letter}…"), size) > width {
            break;
        }
        kept.push_str(letter);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_are_escaped() {
        assert_eq!(escape("<s> & \"it's\"\n\u{0}\u{1b}"), "&lt;s&gt; &amp; &quot;it&#39;s&quot; □□");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, -0.001, 2.5, 1.0 / 3.0, 100.0].map(number), ["1", "0", "2.5", "0.33", "100"]);
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(shorten("word", 12.0, 500.0), "word");
        let short = shorten("Donaudampfschifffahrtsgesellschaft", 12.0, 80.0);
        assert!(short.starts_with("Donau") && short.ends_with('…') && text_width(&short, 12.0) <= 80.0, "{short}");
    }
}
