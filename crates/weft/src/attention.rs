//! Alignments as pictures: which source tokens a translator looked at.

use std::ops::Range;
use std::path::{Path, PathBuf};

use weft_plot::{Alignment, PictureKind, alignment, missing_letters};

use crate::error::{Error, Result};
use crate::model::TranslationModel;
use crate::output::say;

/// Letters that a warning names at most.
const MOST_LETTERS: usize = 8;

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
    let width = sources.len();
    let (sources, targets) = (characters(sources), characters(targets));
    let weights = pooled(&weights, width, &targets, &sources);
    let labels = |tokens: Vec<(String, Range<usize>)>| tokens.into_iter().map(|(label, _)| label);
    Ok(Alignment::new(labels(sources), labels(targets), weights)?)
}

/// The labels with the tokens that each stands for: tokens that are bytes of one character become that character.
fn characters(labels: Vec<String>) -> Vec<(String, Range<usize>)> {
    let mut joined = Vec::new();
    let mut start = 0;
    while let Some(label) = labels.get(start) {
        let mut bytes = Vec::new();
        let mut found = (label.clone(), start..start + 1);
        // A character has at most four bytes.
        for (end, label) in labels.iter().enumerate().skip(start).take(4) {
            let Some(more) = bytes_of(label) else { break };
            bytes.extend(more);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                found = (text.to_owned(), start..end + 1);
                break;
            }
        }
        start = found.1.end;
        joined.push(found);
    }
    joined
}

/// The bytes that a label such as `<0xE6><0x97>` names.
fn bytes_of(label: &str) -> Option<Vec<u8>> {
    let inner = label.strip_prefix("<0x")?.strip_suffix('>')?;
    inner.split("><0x").map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

/// Weights `[rows, width]` of joined tokens: what a character was looked at is the sum over its tokens, what it looked
/// at the mean, so that rows still sum to one.
fn pooled(
    weights: &[f32],
    width: usize,
    rows: &[(String, Range<usize>)],
    columns: &[(String, Range<usize>)],
) -> Vec<f32> {
    let cell = |row: usize, columns: &Range<usize>| weights[row * width..][columns.clone()].iter().sum::<f32>();
    let cells = rows.iter().flat_map(|(_, rows)| {
        columns
            .iter()
            .map(move |(_, columns)| rows.clone().map(|row| cell(row, columns)).sum::<f32>() / rows.len() as f32)
    });
    cells.collect()
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
    /// Whether it was said that letters are missing.
    warned: bool,
}

impl Pictures {
    /// Pictures of the kind that the extension of `path` names.
    ///
    /// # Errors
    /// Another extension than `.svg` or `.png`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        PictureKind::of(path)?;
        Ok(Self { path: path.to_owned(), first: None, several: false, warned: false })
    }

    /// Draws the alignment of a line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn draw(&mut self, line: usize, map: &Alignment) -> Result {
        let svg = alignment(map);
        if !self.warned
            && PictureKind::of(&self.path)? == PictureKind::Png
            && let Some(warning) = warning(&missing_letters(&svg))
        {
            self.warned = true;
            say!("{warning}");
        }
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

/// What is said of letters that no font has.
fn warning(missing: &[char]) -> Option<String> {
    let named: String = missing.iter().take(MOST_LETTERS).collect();
    let more = match missing.len().saturating_sub(MOST_LETTERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!missing.is_empty()).then(|| {
        format!(
            "warning: no font on this machine has {named}{more}: the picture shows boxes; \
             install one that does (fonts-noto-cjk for Chinese, Japanese and Korean), or write an .svg"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_one_character_are_one_label() {
        let labels = ["▁a", "<0xE6>", "<0x97>", "<0xA5>", "<0xE6><0x9C>", "<0xAC>", "<0xE6>", "b"];
        let found = characters(labels.map(str::to_owned).to_vec());
        let wanted = [("▁a", 0..1), ("日", 1..4), ("本", 4..6), ("<0xE6>", 6..7), ("b", 7..8)];
        assert_eq!(found, wanted.map(|(label, tokens)| (label.to_owned(), tokens)));
    }

    #[test]
    fn joined_rows_still_sum_to_one() {
        // From ends to ranges.
        let parts = |ends: &[usize]| {
            let starts = [&[0], ends].concat();
            starts.into_iter().zip(ends).map(|(start, &end)| (String::new(), start..end)).collect::<Vec<_>>()
        };
        let weights = [0.5, 0.25, 0.25, 0.0, 1.0, 0.0];
        let found = pooled(&weights, 3, &parts(&[2]), &parts(&[1, 3]));
        assert_eq!(found, [0.25, 0.75]);
        assert_eq!(pooled(&weights, 3, &parts(&[1, 2]), &parts(&[1, 2, 3])), weights);
    }

    #[test]
    fn missing_letters_are_named_with_the_remedy() {
        assert_eq!(warning(&[]), None);
        let text = warning(&"日本語".chars().collect::<Vec<_>>()).unwrap_or_default();
        assert!(
            text.starts_with("warning: no font on this machine has 日本語: ") && text.contains("fonts-noto-cjk"),
            "{text}"
        );
        let text = warning(&('一'..'丏').collect::<Vec<_>>()).unwrap_or_default();
        assert!(text.contains(" and 7 more: "), "{text}");
    }
}
