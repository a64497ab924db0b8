//! Monolingual text from files, folders and JSON lines.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::input::combined_hash;
use super::lines::{LineReader, MAX_LINE_BYTES};
use super::parallel::{next_record, take_string};
use super::skip::{SkipReason, SkipReport};
use crate::error::{PathList, TextError};

/// A piece of a text file ends at the first line after this many bytes that is followed by visible text: few pieces,
/// yet many to encode side by side.
const PIECE_BYTES: usize = 256 * 1024;

/// How the files of a [`TextCorpus`] are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextFormat {
    /// JSON lines where the name ends in `.jsonl` or `.ndjson` (before `.gz` or `.zst`), plain text elsewhere.
    #[default]
    ByName,
    /// Every file is one document of plain text.
    Plain,
    /// Every line of every file is a JSON object that holds one document.
    JsonLines,
}

/// Text on disk: files, and folders that are walked recursively in sorted order.
///
/// In folders, names that start with a dot, empty files, and folders behind symbolic links are left out and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextCorpus {
    /// Files and folders, in reading order.
    pub paths: Vec<PathBuf>,
    /// How the files are read.
    pub format: TextFormat,
    /// The field of a JSON record that holds its text.
    pub json_field: String,
}

/// A document, or a part of a large one: whole lines, their ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPiece {
    /// The text. Joined, a document's pieces are the file with CRLF read as LF and without a byte order mark.
    pub text: String,
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, on which the piece begins.
    pub line: usize,
    /// Whether the document ends here.
    pub ends_document: bool,
}

impl TextCorpus {
    /// Text in files or folders, JSON lines by name, with the text of a record in `text`.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            format: TextFormat::ByName,
            json_field: "text".to_owned(),
        }
    }

    /// Starts reading: lists the files, opens none of them yet.
    ///
    /// # Errors
    /// No paths, a path that does not exist or cannot be listed, or folders without any file. While reading, the
    /// iterator yields an error for the first file or line that cannot be read, and then ends.
    pub fn pieces(&self) -> Result<TextPieces, TextError> {
        let mut skipped = SkipReport::default();
        let mut files = VecDeque::new();
        for path in &self.paths {
            let metadata = path.metadata().map_err(|source| TextError::Open { path: path.clone(), source })?;
            if metadata.is_dir() {
                walk(path, &mut files, &mut skipped)?;
            } else {
                files.push_back(Listed { path: path.clone(), in_folder: false });
            }
        }
        if files.is_empty() {
            return Err(TextError::NothingLeft { paths: self.path_list(), skipped });
        }
        Ok(TextPieces {
            corpus: self.clone(),
            files,
            open: None,
            digests: Vec::new(),
            skipped,
            found_text: false,
            failed: false,
        })
    }

    /// The texts alone, for a tokenizer to be trained on.
    ///
    /// # Errors
    /// Like [`TextCorpus::pieces`].
    pub fn texts(&self) -> Result<impl Iterator<Item = Result<String, TextError>> + use<>, TextError> {
        Ok(self.pieces()?.map(|piece| piece.map(|piece| piece.text)))
    }

    pub(crate) fn path_list(&self) -> PathList {
        PathList(self.paths.clone())
    }

    pub(super) fn is_json_lines(&self, path: &Path) -> bool {
        match self.format {
            TextFormat::Plain => false,
            TextFormat::JsonLines => true,
            TextFormat::ByName => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
                let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
                name.ends_with(".jsonl") || name.ends_with(".ndjson")
            }
        }
    }
}

struct Listed {
    path: PathBuf,
    in_folder: bool,
}

fn walk(folder: &Path, files: &mut VecDeque<Listed>, skipped: &mut SkipReport) -> Result<(), TextError> {
    let open_error = |source| TextError::Open { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(open_error)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(open_error)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|source| TextError::Open { path: path.clone(), source })?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            skipped.add(SkipReason::HiddenFile, &path, 0);
        } else if kind.is_dir() {
            walk(&path, files, skipped)?;
        } else if path.is_file() {
            files.push_back(Listed { path, in_folder: true });
        } else {
            // Also folders behind symbolic links: following them could lead in circles.
            skipped.add(SkipReason::NotAFile, &path, 0);
        }
    }
    Ok(())
}

/// The pieces of a [`TextCorpus`], read one by one.
pub struct TextPieces {
    corpus: TextCorpus,
    files: VecDeque<Listed>,
    open: Option<OpenFile>,
    digests: Vec<[u8; 32]>,
    skipped: SkipReport,
    found_text: bool,
    failed: bool,
}

struct OpenFile {
    lines: LineReader,
    json: bool,
    /// Whether `lines` stands on a line that no piece has yet.
    pending: bool,
}

impl TextPieces {
    /// What was left out so far.
    pub fn skipped(&self) -> &SkipReport {
        &self.skipped
    }

    /// The SHA-256 of the decompressed file (of several files, of their hashes in order), once all was read.
    pub fn hash(&self) -> Option<String> {
        let finished = self.files.is_empty() && self.open.is_none() && !self.failed;
        finished.then(|| combined_hash(&self.digests))
    }

    fn next_piece(&mut self) -> Result<Option<TextPiece>, TextError> {
        loop {
            if let Some(open) = &mut self.open {
                let piece = if open.json { open.next_record(&self.corpus.json_field)? } else { open.next_lines()? };
                if piece.is_some() {
                    self.found_text = true;
                    return Ok(piece);
                }
                self.digests.push(open.lines.digest());
                self.open = None;
            }
            let Some(Listed { path, in_folder }) = self.files.pop_front() else {
                if self.found_text {
                    return Ok(None);
                }
                return Err(TextError::NothingLeft { paths: self.corpus.path_list(), skipped: self.skipped.clone() });
            };
            match LineReader::open(&path) {
                Ok(mut lines) => {
                    let json = self.corpus.is_json_lines(&path);
                    let pending = !json && lines.advance()?;
                    self.open = Some(OpenFile { lines, json, pending });
                }
                Err(TextError::EmptyFile { .. }) if in_folder => {
                    self.skipped.add(SkipReason::EmptyFile, &path, 0);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for TextPieces {
    type Item = Result<TextPiece, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || (self.files.is_empty() && self.open.is_none()) {
            return None;
        }
        let piece = self.next_piece();
        self.failed = piece.is_err();
        piece.transpose()
    }
}

impl OpenFile {
    fn next_record(&mut self, field: &str) -> Result<Option<TextPiece>, TextError> {
        let Some(mut record) = next_record(&mut self.lines)? else {
            return Ok(None);
        };
        let text = take_string(&self.lines, field, &mut record)?;
        Ok(Some(TextPiece { text, path: self.lines.path().to_owned(), line: self.lines.line(), ends_document: true }))
    }

    /// Lines up to a good place to cut: before a line that does not begin with white space, so that the cut falls
    /// between two words of the tokenizers here, whose runs of white space never begin a word at a line's start.
    fn next_lines(&mut self) -> Result<Option<TextPiece>, TextError> {
        if !self.pending {
            return Ok(None);
        }
        let line = self.lines.line();
        let mut text = String::new();
        while self.pending {
            let next = self.lines.text();
            let may_cut = next.starts_with(|first: char| !first.is_whitespace());
            if (text.len() >= PIECE_BYTES && may_cut) || text.len() >= MAX_LINE_BYTES {
                break;
            }
            text.push_str(next);
            let ended = self.lines.ended();
            if ended {
                text.push('\n');
            }
            self.pending = self.lines.advance()?;
        }
        Ok(Some(TextPiece { text, path: self.lines.path().to_owned(), line, ends_document: !self.pending }))
    }
}
