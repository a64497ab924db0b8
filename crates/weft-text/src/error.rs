//! What can go wrong between a file and a batch.

use std::fmt;
use std::path::PathBuf;

use crate::corpus::SkipReport;

/// The cause of a tokenizer failure, as the `tokenizers` crate reports it.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Several paths in one message: `a.en, a.de`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathList(pub Vec<PathBuf>);

impl fmt::Display for PathList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{}", path.display())?;
        }
        Ok(())
    }
}

/// An error of this crate: facts in the message, causes as sources, remedies in [`TextError::hint`].
///
/// Lines count from 1; byte offsets count from 0 in the decompressed content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file or folder cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Reading failed half-way: a device error, or a truncated or damaged compressed file.
    #[error("cannot read {} after line {line}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line that was read whole.
        line: usize,
        /// What the system or the decompressor said.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The first bytes belong to a compression or encoding that is not supported.
    #[error("{}: found {found}, wanted UTF-8 text, plain or compressed as .gz or .zst", path.display())]
    UnsupportedContent {
        /// The file.
        path: PathBuf,
        /// What its first bytes say it is.
        found: &'static str,
    },
    /// A line is not UTF-8.
    #[error("{}:{line}: malformed UTF-8 at byte {offset} of the file", path.display())]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The first byte that is wrong, counted in the decompressed file.
        offset: u64,
    },
    /// A line is longer than any text: most likely not text.
    #[error("{}:{line}: the line is longer than {limit} bytes", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The most bytes that a line may have.
        limit: usize,
    },
    /// A file has no content.
    #[error("{} is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// Two line-aligned files differ in their number of lines.
    #[error(
        "{} has {source_lines} lines, but {} has {target_lines}",
        source_path.display(),
        target_path.display()
    )]
    UnequalLines {
        /// The source side.
        source_path: PathBuf,
        /// Its number of lines.
        source_lines: usize,
        /// The target side.
        target_path: PathBuf,
        /// Its number of lines.
        target_lines: usize,
    },
    /// A line of a TSV has too few columns or too many.
    #[error("{}:{line}: found {found} tab-separated columns, wanted 2", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// Columns that the line has.
        found: usize,
    },
    /// A line of a JSON lines file is not JSON.
    #[error("{}:{line}: not a JSON record", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A JSON record lacks a field or has another type there.
    #[error("{}:{line}: wanted a string in field `{field}`, found {found}", path.display())]
    JsonField {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The field that was looked for.
        field: String,
        /// What stands there instead.
        found: String,
    },
    /// A TMX file is not well-formed XML.
    #[error("{}:{line}: malformed XML", path.display())]
    Xml {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What the parser said.
        #[source]
        source: quick_xml::Error,
    },
    /// A TMX file is XML, but not as TMX has it.
    #[error("{}:{line}: {problem}", path.display())]
    Tmx {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// No translation unit or record has both languages.
    #[error("{}: nothing in languages `{source_language}` and `{target_language}`; found {}", path.display(), list(found))]
    MissingLanguages {
        /// The file.
        path: PathBuf,
        /// The source language asked for.
        source_language: String,
        /// The target language asked for.
        target_language: String,
        /// The languages that the file has.
        found: Vec<String>,
    },
    /// Two languages are needed, and the file does not say which.
    #[error("{}: cannot tell the two languages; found {}", path.display(), list(found))]
    UnknownLanguages {
        /// The file.
        path: PathBuf,
        /// The languages that the file has.
        found: Vec<String>,
    },
    /// The paths do not look like any corpus that this crate reads.
    #[error("cannot tell the format of {paths}: {problem}")]
    UnknownFormat {
        /// The paths as given.
        paths: PathList,
        /// Why.
        problem: &'static str,
    },
    /// Every item of a corpus was skipped.
    #[error("nothing is left of {paths}: {skipped}")]
    NothingLeft {
        /// The files.
        paths: PathList,
        /// What was skipped, and why.
        skipped: SkipReport,
    },
    /// A tokenizer was to be trained on no text.
    #[error("there is no text to train a tokenizer on")]
    NoTrainingText,
    /// The vocabulary cannot hold what every tokenizer of the kind needs.
    #[error("a vocabulary of {wanted} is too small for this text, which needs at least {minimum}")]
    VocabularyTooSmall {
        /// The size asked for.
        wanted: usize,
        /// The least size that works.
        minimum: usize,
    },
    /// A tokenizer file cannot be understood.
    #[error("{} is not a usable tokenizer", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A tokenizer does not have a special token that a model needs.
    #[error("the tokenizer has no token for {role}; looked for {}", list(looked_for))]
    MissingSpecialToken {
        /// What the token is for.
        role: &'static str,
        /// The names that would have been taken.
        looked_for: Vec<String>,
    },
    /// A text cannot be encoded (imported tokenizers only: our own encode every text).
    #[error("the tokenizer cannot encode {text:?}")]
    Encode {
        /// The beginning of the text.
        text: String,
        /// What the tokenizer said.
        #[source]
        source: Cause,
    },
    /// Token ids cannot be decoded (imported tokenizers only).
    #[error("the tokenizer cannot decode {count} ids")]
    Decode {
        /// Number of ids.
        count: usize,
        /// What the tokenizer said.
        #[source]
        source: Cause,
    },
    /// A character of the recall tasks that a tokenizer does not write as one token.
    #[error("the tokenizer has no token of its own for `{character}`, which the recall tasks write")]
    NotOneToken {
        /// The character.
        character: char,
    },
    /// A setting of the batches makes no sense.
    #[error("{field} is {found}, wanted {wanted}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: usize,
        /// What would be right.
        wanted: &'static str,
    },
    /// A text is shorter than one window of a language model.
    #[error("the text has {found} tokens, but a window needs {wanted}")]
    TextTooShort {
        /// Tokens in the text.
        found: usize,
        /// Tokens that one window needs.
        wanted: usize,
    },
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<String> = items.iter().map(|item| format!("`{item}`")).collect();
    quoted.join(", ")
}

impl TextError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Open { source, .. } | Self::Read { source, .. } | Self::Write { source, .. } => {
                return io_hint(source);
            }
            Self::UnsupportedContent { found, .. } if found.contains("UTF-16") => {
                "convert it first: iconv -f UTF-16 -t UTF-8"
            }
            Self::UnsupportedContent { .. } => "unpack it first, or pack it with gzip or zstd",
            Self::InvalidUtf8 { .. } => "convert the file to UTF-8, for example with iconv -f LATIN1 -t UTF-8",
            Self::LineTooLong { .. } => "check that the file is text, one sentence or one record a line",
            Self::EmptyFile { .. } => "check how the file was made",
            Self::UnequalLines { .. } => "line n of one file must translate line n of the other",
            Self::Columns { found: 0..2, .. } => {
                "a TSV has the source sentence, a tab, and the target sentence on each line"
            }
            Self::Columns { .. } => "keep the source's and the target's column: cut -f 1,2",
            Self::Json { line: 1, .. } => {
                "each line must be one whole JSON object; a JSON array or indented JSON is not JSON lines"
            }
            Self::Json { .. } => "each line must be one whole JSON object",
            Self::JsonField { .. } => "name the languages or the field that the records have",
            Self::Xml { .. } => "the file may be truncated; check it with xmllint --noout",
            Self::MissingLanguages { .. } | Self::UnknownLanguages { .. } => {
                "name the source and the target language as the file does"
            }
            Self::UnknownFormat { .. } => {
                "give two line-aligned files, or one .tsv, .jsonl or .tmx file, plain, .gz or .zst"
            }
            Self::NothingLeft { .. } => {
                "raise the length limit, or check that the columns or languages are the right ones"
            }
            Self::VocabularyTooSmall { minimum, .. } => {
                return Some(format!("ask for a vocabulary of {minimum} or more"));
            }
            Self::TokenizerFile { .. } => "a tokenizer is a tokenizer.json as the `tokenizers` library saves it",
            Self::MissingSpecialToken { .. } => "add the token to the tokenizer's `added_tokens`",
            Self::NotOneToken { .. } => {
                "choose a model with a token for every letter and digit, as the tokenizers `characters` and `byte-bpe` have"
            }
            Self::TextTooShort { .. } => "give more text, or a shorter window",
            Self::Tmx { .. }
            | Self::NoTrainingText
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::Setting { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

fn io_hint(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::NotFound => "check the spelling of the path",
        ErrorKind::PermissionDenied => "check the permissions of the file and of its folders",
        ErrorKind::UnexpectedEof => "the file ends too early: it may be a partial download or copy",
        ErrorKind::IsADirectory => "name a file in the folder",
        ErrorKind::StorageFull => "free some space and try again",
        _ => return None,
    };
    Some(hint.to_owned())
}
