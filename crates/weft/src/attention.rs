//! Alignments as pictures: which source tokens a translator looked at.

use std::path::{Path, PathBuf};

use weft_plot::{Alignment, PictureKind, alignment};

use crate::error::{Error, Result};
use crate::model::TranslationModel;

/// The name of the end of a sentence in drawings.
const END: &str = "⏎";

/// The alignment of a source (its end token included) and one of its translations.
///
/// # Errors
/// A model that does not attend.
pub(crate) fn align(model: &TranslationModel, source: &[u32], target: &[u32]) -> Result<Alignment> {
    let weights = model.model.alignment(source, target).ok_or_else(no_alignment)?;
    let labels = |tokenizer: &weft_text::Tokenizer, ids: &[u32]| -> Vec<String> {
        let text = |&id: &u32| if id == tokenizer.eos_id() { END.to_owned() } else { tokenizer.token_text(id) };
        ids.iter().map(text).collect()
    };
    let sources = labels(&model.source, source);
    let mut targets = labels(&model.target, target);
    targets.push(END.to_owned());
    Ok(Alignment::new(sources, targets, weights)?)
}

/// Checks that a model attends to its source.
///
/// # Errors
/// One that does not.
pub(crate) fn check(model: &TranslationModel) -> Result {
    let end = model.source.eos_id();
    model.model.alignment(&[end], &[]).map(|_| ()).ok_or_else(no_alignment)
}

fn no_alignment() -> Error {
    Error::new("this model has no attention, so there is no alignment to draw")
        .hint("train one with `--attention additive`, or a Transformer")
}

/// Draws alignments into files: one into `path`, several into numbered files beside it.
pub(crate) struct Pictures {
    path: PathBuf,
    /// The first picture waits until it is known whether there is a second.
    first: Option<(usize, String)>,
    several: bool,
}

impl Pictures {
    /// Pictures of the kind that the extension of `path` names.
    ///
    /// # Errors
    /// Another extension than `.svg` or `.png`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        PictureKind::of(path)?;
        Ok(Self { path: path.to_owned(), first: None, several: false })
    }

    /// Draws the alignment of a line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn draw(&mut self, line: usize, map: &Alignment) -> Result {
        let svg = alignment(map);
        if self.several {
            return Ok(weft_plot::write(self.numbered(line), &svg)?);
        }
        match self.first.take() {
            None => self.first = Some((line, svg)),
            Some((first_line, first)) => {
                self.several = true;
                weft_plot::write(self.numbered(first_line), &first)?;
                weft_plot::write(self.numbered(line), &svg)?;
            }
        }
        Ok(())
    }

    /// Writes what is still waiting.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn finish(self) -> Result {
        match &self.first {
            Some((_, svg)) => Ok(weft_plot::write(&self.path, svg)?),
            None => Ok(()),
        }
    }

    /// `map.svg` and 12 make `map-12.svg`.
    fn numbered(&self, line: usize) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.path.extension().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!("{stem}-{line}.{extension}"))
    }
}
