//! SVG text to PNG bytes, and pictures to files.

use std::path::Path;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{FontResolver, Options, Tree};

use crate::PlotError;
use crate::font;

/// The longest side of a PNG, in pixels: more than any screen, and one gigabyte of memory at worst.
const LONGEST_SIDE: u32 = 16_384;

/// PNGs that [`write()`] makes have this many pixels for each unit of the SVG, so that they are sharp on dense screens.
const FILE_SCALE: f32 = 2.0;

/// Draws SVG text (ours, or any other) as a PNG with `scale` pixels per SVG unit; the page is light.
///
/// # Errors
/// When the text is not SVG, or the picture would be longer than 16,384 pixels on a side.
pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>, PlotError> {
    let options = Options {
        font_family: "Ubuntu".to_owned(),
        fontdb: font::database_for(svg),
        font_resolver: FontResolver {
            select_font: FontResolver::default_font_selector(),
            select_fallback: Box::new(|letter, tried, database| font::fallback(letter, tried, database)),
        },
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(PlotError::Svg)?;
    let size = tree.size();
    let (width, height) = (f64::from(size.width() * scale).ceil(), f64::from(size.height() * scale).ceil());
    let too_large = || PlotError::TooLarge { width: width as u64, height: height as u64, limit: LONGEST_SIDE };
    if !(width <= f64::from(LONGEST_SIDE) && height <= f64::from(LONGEST_SIDE)) {
        return Err(too_large());
    }
    let mut pixels = Pixmap::new((width as u32).max(1), (height as u32).max(1)).ok_or_else(too_large)?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| PlotError::Encode { reason: error.to_string() })
}

/// Writes a picture to `path`: as it is for `.svg`, drawn at twice its size for `.png`.
///
/// # Errors
/// When the extension is another, the picture cannot be drawn, or the file cannot be written.
pub fn write(path: impl AsRef<Path>, svg: &str) -> Result<(), PlotError> {
    let path = path.as_ref();
    let bytes = match PictureKind::of(path)? {
        PictureKind::Svg => svg.as_bytes().to_vec(),
        PictureKind::Png => png(svg, FILE_SCALE)?,
    };
    std::fs::write(path, bytes).map_err(|source| PlotError::Write { path: path.to_owned(), source })
}

/// The kinds of picture that [`write()`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// Scalable vector graphics: sharp at any size, light or dark with the reader's page.
    Svg,
    /// Pixels, on a light page.
    Png,
}

impl PictureKind {
    /// The kind that the extension of `path` asks for, upper or lower case. Call it before long work whose picture
    /// goes to `path`.
    ///
    /// # Errors
    /// When the extension is neither `.svg` nor `.png`.
    pub fn of(path: &Path) -> Result<Self, PlotError> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
        match extension.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(PlotError::Extension { path: path.to_owned(), extension }),
        }
    }
}
