//! Pairs of sentences from two line-aligned files, a TSV, JSON lines or TMX.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::input::combined_hash;
use super::lines::LineReader;
use super::skip::{SkipReason, SkipReport};
use super::tmx::TmxReader;
use crate::error::{PathList, TextError};

/// Where the two sides of a parallel corpus stand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParallelFiles {
    /// Two files: line n of one translates line n of the other.
    Lines {
        /// The source sentences.
        source: PathBuf,
        /// The target sentences.
        target: PathBuf,
    },
    /// One file of lines with a source, a tab and a target.
    Tsv {
        /// The file.
        path: PathBuf,
    },
    /// One JSON object a line, `{"translation": {"en": ..., "de": ...}}` or `{"en": ..., "de": ...}`.
    JsonLines {
        /// The file.
        path: PathBuf,
        /// The source's key.
        source_language: String,
        /// The target's key.
        target_language: String,
    },
    /// Translation Memory eXchange 1.4. Languages match whatever the case and by their first part: `en` finds `en-US`.
    Tmx {
        /// The file.
        path: PathBuf,
        /// The source language.
        source_language: String,
        /// The target language.
        target_language: String,
    },
}

impl ParallelFiles {
    /// The files, source first.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Lines { source, target } => vec![source, target],
            Self::Tsv { path } | Self::JsonLines { path, .. } | Self::Tmx { path, .. } => {
                vec![path]
            }
        }
    }

    pub(crate) fn path_list(&self) -> PathList {
        PathList(self.paths().into_iter().map(Path::to_owned).collect())
    }
}

/// A parallel corpus on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelCorpus {
    /// Where its two sides stand.
    pub files: ParallelFiles,
}

/// Which sentences of a parallel corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source sentences, for a source vocabulary.
    Source,
    /// The target sentences, for a target vocabulary.
    Target,
    /// Both, in turn, for a shared vocabulary.
    Both,
}

/// A sentence and its translation, as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The source sentence.
    pub source: String,
    /// The target sentence.
    pub target: String,
    /// The line in the (source) file, from 1; for TMX, the line on which the translation unit begins.
    pub line: usize,
}

impl ParallelCorpus {
    /// A corpus in known files.
    pub fn new(files: ParallelFiles) -> Self {
        Self { files }
    }

    /// Starts reading.
    ///
    /// # Errors
    /// A file that is missing, unreadable, empty, or compressed in an unknown way. While reading, the iterator yields
    /// an error for the first malformed line and then ends.
    pub fn pairs(&self) -> Result<Pairs, TextError> {
        let reader = match &self.files {
            ParallelFiles::Lines { source, target } => Reader::Lines {
                source: Box::new(LineReader::open(source)?),
                target: Box::new(LineReader::open(target)?),
            },
            ParallelFiles::Tsv { path } => Reader::Tsv(Box::new(LineReader::open(path)?)),
            ParallelFiles::JsonLines { path, source_language, target_language } => Reader::Json {
                lines: Box::new(LineReader::open(path)?),
                source_language: source_language.clone(),
                target_language: target_language.clone(),
            },
            ParallelFiles::Tmx { path, source_language, target_language } => {
                Reader::Tmx(Box::new(TmxReader::open(path, source_language, target_language)?))
            }
        };
        Ok(Pairs { reader, skipped: SkipReport::default(), state: State::Reading })
    }

    /// The sentences of one side or both, for a tokenizer to be trained on.
    ///
    /// # Errors
    /// Like [`ParallelCorpus::pairs`].
    pub fn texts(&self, side: Side) -> Result<impl Iterator<Item = Result<String, TextError>> + use<>, TextError> {
        Ok(self.pairs()?.flat_map(move |pair| {
            let [first, second] = match (pair, side) {
                (Ok(pair), Side::Source) => [Some(Ok(pair.source)), None],
                (Ok(pair), Side::Target) => [Some(Ok(pair.target)), None],
                (Ok(pair), Side::Both) => [Some(Ok(pair.source)), Some(Ok(pair.target))],
                (Err(error), _) => [Some(Err(error)), None],
            };
            first.into_iter().chain(second)
        }))
    }

    /// The file that a [`Pair`]'s line counts in.
    pub fn line_path(&self) -> &Path {
        match &self.files {
            ParallelFiles::Lines { source: path, .. }
            | ParallelFiles::Tsv { path }
            | ParallelFiles::JsonLines { path, .. }
            | ParallelFiles::Tmx { path, .. } => path,
        }
    }
}

/// The pairs of a [`ParallelCorpus`], read one by one. Pairs with an empty side are left out and counted.
pub struct Pairs {
    reader: Reader,
    skipped: SkipReport,
    state: State,
}

enum Reader {
    Lines { source: Box<LineReader>, target: Box<LineReader> },
    Tsv(Box<LineReader>),
    Json { lines: Box<LineReader>, source_language: String, target_language: String },
    Tmx(Box<TmxReader>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Finished,
    Failed,
}

impl Pairs {
    /// What was left out so far.
    pub fn skipped(&self) -> &SkipReport {
        &self.skipped
    }

    /// The SHA-256 of the decompressed files (of two files, of their hashes in order), once all pairs were read.
    pub fn hash(&self) -> Option<String> {
        if self.state != State::Finished {
            return None;
        }
        Some(match &self.reader {
            Reader::Lines { source, target } => combined_hash(&[source.digest(), target.digest()]),
            Reader::Tsv(lines) | Reader::Json { lines, .. } => combined_hash(&[lines.digest()]),
            Reader::Tmx(reader) => combined_hash(&[reader.digest()]),
        })
    }
}

impl Iterator for Pairs {
    type Item = Result<Pair, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.state == State::Reading {
            match self.reader.next_pair(&mut self.skipped) {
                Ok(Some(pair)) => {
                    if pair.source.trim().is_empty() || pair.target.trim().is_empty() {
                        let path = self.reader.empty_side_path(&pair);
                        self.skipped.add(SkipReason::EmptySide, path, pair.line);
                    } else {
                        return Some(Ok(pair));
                    }
                }
                Ok(None) => self.state = State::Finished,
                Err(error) => {
                    self.state = State::Failed;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Reader {
    fn next_pair(&mut self, skipped: &mut SkipReport) -> Result<Option<Pair>, TextError> {
        match self {
            Self::Lines { source, target } => aligned_pair(source, target),
            Self::Tsv(lines) => tsv_pair(lines),
            Self::Json { lines, source_language, target_language } => {
                json_pair(lines, source_language, target_language)
            }
            Self::Tmx(reader) => reader.next_pair(skipped),
        }
    }

    /// The file in which a pair's empty side stands.
    fn empty_side_path(&self, pair: &Pair) -> &Path {
        match self {
            Self::Lines { source, .. } if pair.source.trim().is_empty() => source.path(),
            Self::Lines { target, .. } => target.path(),
            Self::Tsv(lines) | Self::Json { lines, .. } => lines.path(),
            Self::Tmx(reader) => reader.path(),
        }
    }
}

fn aligned_pair(source: &mut LineReader, target: &mut LineReader) -> Result<Option<Pair>, TextError> {
    match (source.advance()?, target.advance()?) {
        (true, true) => {
            Ok(Some(Pair { source: source.text().to_owned(), target: target.text().to_owned(), line: source.line() }))
        }
        (false, false) => Ok(None),
        _ => Err(TextError::UnequalLines {
            source_lines: source.count_lines()?,
            source_path: source.path().to_owned(),
            target_lines: target.count_lines()?,
            target_path: target.path().to_owned(),
        }),
    }
}

fn tsv_pair(lines: &mut LineReader) -> Result<Option<Pair>, TextError> {
    if !lines.advance()? {
        return Ok(None);
    }
    match lines.text().split_once('\t') {
        Some((source, target)) if !target.contains('\t') => {
            Ok(Some(Pair { source: source.to_owned(), target: target.to_owned(), line: lines.line() }))
        }
        _ => Err(TextError::Columns {
            path: lines.path().to_owned(),
            line: lines.line(),
            found: lines.text().split('\t').count(),
        }),
    }
}

fn json_pair(lines: &mut LineReader, source_language: &str, target_language: &str) -> Result<Option<Pair>, TextError> {
    let Some(mut record) = next_record(lines)? else {
        return Ok(None);
    };
    let mut sides = record.get_mut("translation").map(Value::take).unwrap_or(record);
    let mut side = |language: &str| take_string(lines, language, &mut sides);
    Ok(Some(Pair { source: side(source_language)?, target: side(target_language)?, line: lines.line() }))
}

/// The next JSON record; lines of white space between records are passed over.
pub(super) fn next_record(lines: &mut LineReader) -> Result<Option<Value>, TextError> {
    while lines.advance()? {
        if !lines.text().trim().is_empty() {
            let record = serde_json::from_str(lines.text());
            return record.map(Some).map_err(|source| TextError::Json {
                path: lines.path().to_owned(),
                line: lines.line(),
                source,
            });
        }
    }
    Ok(None)
}

/// The names of a record's fields that hold strings.
pub(super) fn string_fields(record: &Value) -> Vec<String> {
    let fields = record.as_object().into_iter().flatten();
    fields.filter(|(_, value)| value.is_string()).map(|(name, _)| name.clone()).collect()
}

/// Takes the string out of a record's field.
pub(super) fn take_string(lines: &LineReader, name: &str, record: &mut Value) -> Result<String, TextError> {
    let found = match record.get_mut(name) {
        Some(Value::String(text)) => return Ok(std::mem::take(text)),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(_)) => "a boolean".to_owned(),
        Some(Value::Number(_)) => "a number".to_owned(),
        Some(Value::Array(_)) => "an array".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        None => match &string_fields(record)[..] {
            [] => "no such field".to_owned(),
            names => format!("no such field, but strings in `{}`", names.join("`, `")),
        },
    };
    Err(TextError::JsonField { path: lines.path().to_owned(), line: lines.line(), field: name.to_owned(), found })
}
