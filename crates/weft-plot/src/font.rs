//! The fonts that travel with the crate, how wide a text is in them, and where missing letters come from.
//!
//! Ubuntu Light carries Latin, Greek and Cyrillic, Hack the symbols it lacks, Noto Emoji the pictograms. Other
//! scripts come from the fonts of the machine, which are looked at only when a picture needs them.

use std::sync::{Arc, OnceLock};

use resvg::usvg::fontdb::{Database, FaceInfo, ID, Source, Style};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};
use unicode_width::UnicodeWidthChar;

/// The families named in our SVG text: ours first, then what browsers are likely to have.
pub(crate) const FAMILIES: &str = "Ubuntu, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif";

/// Browsers set our text in another font when Ubuntu is not installed; theirs are up to this much wider.
const OTHER_FONTS_ARE_WIDER: f64 = 1.08;

const EMBEDDED: [&[u8]; 3] =
    [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR, epaint_default_fonts::NOTO_EMOJI_REGULAR];

fn embedded_faces() -> &'static [FontRef<'static>] {
    static FACES: OnceLock<Vec<FontRef<'static>>> = OnceLock::new();
    FACES.get_or_init(|| EMBEDDED.iter().filter_map(|bytes| FontRef::new(bytes).ok()).collect())
}

/// The width of a line of text in pixels, a little on the generous side.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let size_in_font = Size::new(size as f32);
    let faces = embedded_faces();
    // One letter that the first face lacks may send the whole line to the second, wider one. The third has pictograms,
    // and digits as wide as they are: nobody takes it for what another face has.
    let one_face_does =
        faces.first().is_some_and(|face| text.chars().all(|letter| face.charmap().map(letter).is_some()));
    let (letters, pictograms) = faces.split_at(if one_face_does { 1 } else { 2.min(faces.len()) });
    let widths = text.chars().map(|letter| {
        let width = |face: &FontRef<'static>| {
            let glyph = face.charmap().map(letter)?;
            face.glyph_metrics(size_in_font, LocationRef::default()).advance_width(glyph)
        };
        let widest = |faces: &'static [FontRef<'static>]| faces.iter().filter_map(width).reduce(f32::max);
        let known = widest(letters).or_else(|| widest(pictograms));
        match (known, letter.width().unwrap_or(0)) {
            (Some(width), _) => f64::from(width),
            (None, 0) => 0.0,
            (None, 1) => 0.7 * size,
            (None, _) => size,
        }
    });
    widths.sum::<f64>() * OTHER_FONTS_ARE_WIDER
}

/// Whether every letter of `text` has a glyph in a font of ours.
fn is_covered(text: &str) -> bool {
    text.chars()
        .all(|letter| letter.is_control() || embedded_faces().iter().any(|face| face.charmap().map(letter).is_some()))
}

/// The fonts to draw `svg` with: ours alone where they suffice, otherwise ours before those of the machine.
pub(crate) fn database_for(svg: &str) -> Arc<Database> {
    static OURS: OnceLock<Arc<Database>> = OnceLock::new();
    static ALL: OnceLock<Arc<Database>> = OnceLock::new();
    if is_covered(svg) {
        return Arc::clone(OURS.get_or_init(|| Arc::new(ours())));
    }
    Arc::clone(ALL.get_or_init(|| {
        let mut database = ours();
        database.load_system_fonts();
        Arc::new(database)
    }))
}

/// The letters of a text that no font has, neither ours nor the machine's: a PNG shows boxes in their places.
#[must_use]
pub fn missing_letters(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = text.chars().filter(|letter| !is_covered(letter.encode_utf8(&mut [0; 4]))).collect();
    letters.sort_unstable();
    letters.dedup();
    letters.retain(|letter| letter.width().unwrap_or(0) > 0);
    if !letters.is_empty() {
        let database = database_for(text);
        letters.retain(|&letter| fallback(letter, &[], &database).is_none());
    }
    letters
}

fn ours() -> Database {
    let mut database = Database::new();
    for bytes in EMBEDDED {
        database.load_font_source(Source::Binary(Arc::new(bytes)));
    }
    database.set_sans_serif_family("Ubuntu");
    database
}

/// A face that has `letter` and has not been tried yet: an upright one of normal weight if there is one.
pub(crate) fn fallback(letter: char, tried: &[ID], database: &Database) -> Option<ID> {
    let is_plain = |face: &&FaceInfo| face.style == Style::Normal && (300..=500).contains(&face.weight.0);
    let has_letter = |face: &&FaceInfo| {
        let has = |bytes: &[u8], index| {
            FontRef::from_index(bytes, index).is_ok_and(|font| font.charmap().map(letter).is_some())
        };
        !tried.contains(&face.id) && database.with_face_data(face.id, has).unwrap_or(false)
    };
    let plain = database.faces().filter(is_plain).find(has_letter);
    plain.or_else(|| database.faces().find(has_letter)).map(|face| face.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_grow_with_text_and_size() {
        assert_eq!(text_width("", 12.0), 0.0);
        assert!(text_width("iiii", 12.0) < text_width("MMMM", 12.0));
        let (small, large) = (text_width("attention", 10.0), text_width("attention", 20.0));
        assert!((large - 2.0 * small).abs() < 0.01, "{small} {large}");
        assert!(text_width("日本", 10.0) >= 20.0);
        // The second face's letters are 6.02 wide at this size, the pictograms' digits twice that.
        assert!(text_width("→ 1910", 10.0) < 40.0);
    }

    #[test]
    fn european_scripts_and_emoji_need_no_font_of_the_machine() {
        for text in ["Größe, façade, señal, ação, łódź, İstanbul", "Ελληνικά", "Русский, Українська", "▁the Ġa ↵ □ 😀"]
        {
            assert!(is_covered(text), "{text}");
        }
        assert!(!is_covered("日本語"));
        // A private letter, which no font should have.
        assert_eq!(missing_letters("Größe 😀 \u{10ff00}a\u{10ff00}"), ['\u{10ff00}']);
        assert_eq!(embedded_faces().len(), EMBEDDED.len());
        assert_eq!(ours().len(), EMBEDDED.len());
    }
}
