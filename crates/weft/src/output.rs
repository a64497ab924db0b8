//! Standard output or a file, with errors that say which.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where a command's data goes.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// None: standard output.
    path: Option<PathBuf>,
}

impl Output {
    /// To `path`, or to standard output.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let writer: Box<dyn Write> = match path {
            Some(path) => Box::new(File::create(path).map_err(|error| Error::file("write", path, &error))?),
            None => Box::new(std::io::stdout()),
        };
        Ok(Self { writer: BufWriter::new(writer), path: path.map(Path::to_owned) })
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result {
        self.writer.write_all(text.as_bytes()).map_err(|error| self.failed(&error))
    }

    /// Writes a line and its end.
    pub(crate) fn line(&mut self, line: &str) -> Result {
        self.text(line)?;
        self.text("\n")
    }

    /// Hands on what was written so far.
    pub(crate) fn flush(&mut self) -> Result {
        self.writer.flush().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        match &self.path {
            Some(path) => Error::file("write", path, error),
            None => Error::output(error),
        }
    }
}

/// Tells the user something, on standard error; nothing happens if it is closed.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

pub(crate) use say;
