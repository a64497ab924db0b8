//! What the binary says when it cannot go on: a sentence, its causes, and a hint.

use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// What is said where nothing better is known.
const LAST_HINT: &str = "`weft help COMMAND` explains every option";
/// What can be done about text in another encoding.
pub(crate) const NOT_UTF8_HINT: &str = "convert the text to UTF-8, for example with iconv -f LATIN1 -t UTF-8";
/// The exit code of an error.
const FAILURE: u8 = 1;
/// The exit code after Ctrl-C, as shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// The result of a command.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// Why a command ends early.
pub(crate) enum Error {
    /// Something went wrong, and the user is told.
    Failure {
        /// What, on one line.
        message: String,
        /// Why, from the outside in, on one line each.
        causes: Vec<String>,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// Nobody reads our output any more: `weft translate ... | head`.
    BrokenPipe,
    /// Ctrl-C; what there was to say has been said.
    Interrupted,
}

impl Error {
    /// A failure without a cause.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Failure { message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A failure with the error that caused it.
    pub(crate) fn because(message: impl Into<String>, cause: &(dyn StdError + 'static)) -> Self {
        let mut causes = vec![cause.to_string()];
        causes.extend(sources(cause));
        Self::Failure { message: message.into(), causes, hint: None }
    }

    /// A library's error with its causes and its hint; the system's errors have one of ours.
    pub(crate) fn of(error: &(dyn StdError + 'static), hint: Option<String>) -> Self {
        let hint = hint.or_else(|| io_hint(chain(error).find_map(|cause| cause.downcast_ref())?));
        Self::Failure { message: error.to_string(), causes: sources(error).collect(), hint }
    }

    /// A failure to write to standard output; a closed pipe is none.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::because("cannot write to standard output", error).or_hint(io_hint(error)),
        }
    }

    /// A failure to open, read or write a file.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::because(format!("cannot {verb} {}", path.display()), error).or_hint(io_hint(error))
    }

    /// The same failure with advice.
    pub(crate) fn hint(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Failure { message, causes, .. } => Self::Failure { message, causes, hint: Some(advice.into()) },
            other => other,
        }
    }

    /// The same failure, with advice if it has none yet.
    pub(crate) fn or_hint(self, advice: Option<String>) -> Self {
        match self {
            Self::Failure { message, causes, hint } => Self::Failure { message, causes, hint: hint.or(advice) },
            other => other,
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failure { .. } => ExitCode::from(FAILURE),
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Interrupted => ExitCode::from(INTERRUPTED),
        }
    }
}

impl fmt::Display for Error {
    /// `error: ...`, the causes, and after an empty line the hint; nothing where nothing is to be said.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failure { message, causes, hint } = self else { return Ok(()) };
        writeln!(formatter, "error: {message}")?;
        for cause in causes {
            writeln!(formatter, "  caused by: {cause}")?;
        }
        writeln!(formatter, "\nhint: {}", hint.as_deref().unwrap_or(LAST_HINT))
    }
}

/// The causes of an error, from the outside in.
fn sources<'error>(error: &'error (dyn StdError + 'static)) -> impl Iterator<Item = String> + 'error {
    chain(error).skip(1).map(ToString::to_string)
}

/// An error and its causes, from the outside in.
fn chain<'error>(
    error: &'error (dyn StdError + 'static),
) -> impl Iterator<Item = &'error (dyn StdError + 'static)> + 'error {
    std::iter::successors(Some(error), |cause: &&'error (dyn StdError + 'static)| (*cause).source())
}

/// What can be done about a setting outside its range.
pub(crate) fn range_hint(wanted: &str) -> String {
    format!("set it to {wanted}, or leave it out for the default")
}

/// What can be done about a corpus, in the words of the command line.
fn text_hint(error: &weft_text::TextError) -> Option<String> {
    use weft_text::TextError;
    match error {
        TextError::MissingLanguages { .. } => {
            Some("name the source's and the target's language as the file does: --languages SOURCE TARGET".to_owned())
        }
        TextError::JsonField { .. } => Some(
            "name what all records have: --languages SOURCE TARGET for pairs, --set data.field=NAME for text"
                .to_owned(),
        ),
        TextError::UnknownLanguages { .. } => Some(
            "name the languages of pairs as the file does: --languages SOURCE TARGET; \
             for text in JSON lines name its field: --architecture gpt --set data.field=NAME"
                .to_owned(),
        ),
        TextError::UnknownFormat { .. } => Some(
            "pairs are two line-aligned files, or one .tsv, .jsonl or .tmx file; \
             for text choose a language model: --architecture gpt"
                .to_owned(),
        ),
        TextError::Setting { wanted, .. } => Some(range_hint(wanted)),
        _ => error.hint(),
    }
}

/// What can be done about an error of the system.
fn io_hint(error: &std::io::Error) -> Option<String> {
    let hint = match error.kind() {
        ErrorKind::NotFound => "check the spelling of the path",
        ErrorKind::PermissionDenied => "check the permissions of the file and of its folders",
        ErrorKind::IsADirectory => "name a file, not a folder",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        ErrorKind::StorageFull => "free some space and try again",
        ErrorKind::ReadOnlyFilesystem => "choose a folder that may be written to",
        _ => return None,
    };
    Some(hint.to_owned())
}

impl From<weft_text::TextError> for Error {
    fn from(error: weft_text::TextError) -> Self {
        Self::of(&error, text_hint(&error))
    }
}

impl From<weft_models::CheckpointError> for Error {
    fn from(error: weft_models::CheckpointError) -> Self {
        let hint = match &error {
            weft_models::CheckpointError::Write { source, .. } => io_hint(source).or_else(|| error.hint()),
            _ => error.hint(),
        };
        Self::of(&error, hint.or_else(|| Some("copy the model's folder again: its files belong together".to_owned())))
    }
}

impl From<weft_models::ConfigError> for Error {
    fn from(error: weft_models::ConfigError) -> Self {
        Self::of(&error, error.hint())
    }
}

impl From<weft_decode::DecodeError> for Error {
    fn from(error: weft_decode::DecodeError) -> Self {
        let hint = match &error {
            weft_decode::DecodeError::Config { wanted, .. } => Some(range_hint(wanted)),
            _ => error.hint(),
        };
        Self::of(&error, hint)
    }
}

impl From<weft_metrics::MetricError> for Error {
    fn from(error: weft_metrics::MetricError) -> Self {
        let hint = match &error {
            weft_metrics::MetricError::Setting { wanted, .. } => Some(range_hint(wanted)),
            _ => error.hint(),
        };
        Self::of(&error, hint)
    }
}

impl From<weft_train::TrainError> for Error {
    fn from(error: weft_train::TrainError) -> Self {
        use weft_train::TrainError;
        let hint = match &error {
            TrainError::Text(error) => text_hint(error),
            // A full disk is where a run can say more: that it can be resumed.
            TrainError::Write { source, .. }
            | TrainError::Checkpoint(weft_models::CheckpointError::Write { source, .. })
                if source.kind() != ErrorKind::StorageFull =>
            {
                io_hint(source)
            }
            TrainError::SettingRange { wanted, .. } => Some(range_hint(wanted)),
            TrainError::Damaged { path, .. } if path.ends_with("metrics.jsonl") => {
                Some("mend or remove that line: only the history of the run stands in the file".to_owned())
            }
            _ => None,
        };
        Self::of(&error, hint.or_else(|| error.hint()))
    }
}

impl From<weft_plot::PlotError> for Error {
    fn from(error: weft_plot::PlotError) -> Self {
        Self::of(&error, error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_its_causes_and_its_hint() {
        let cause = std::io::Error::from(ErrorKind::PermissionDenied);
        let error = Error::file("read", std::path::Path::new("a.en"), &cause);
        let wanted = "error: cannot read a.en\n  caused by: permission denied\n\n\
                      hint: check the permissions of the file and of its folders\n";
        assert_eq!(error.to_string(), wanted);
        assert_eq!(Error::new("no").to_string(), format!("error: no\n\nhint: {LAST_HINT}\n"));
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        let error = Error::output(&std::io::Error::from(ErrorKind::BrokenPipe));
        assert!(matches!(error, Error::BrokenPipe));
        assert_eq!(error.to_string(), "");
    }
}
