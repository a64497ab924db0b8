//! A file line by line, as UTF-8.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::input::Input;
use crate::error::TextError;

/// Longer lines are not text; without a bound, a file without line ends would fill the memory.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 20;

/// Goes through a file line by line; holds one line at a time.
pub(crate) struct LineReader {
    input: Input,
    path: PathBuf,
    line: usize,
    text: String,
    ended: bool,
}

impl LineReader {
    /// Opens a file; an empty one is an error.
    pub(crate) fn open(path: &Path) -> Result<Self, TextError> {
        let mut reader =
            Self { input: Input::open(path)?, path: path.to_owned(), line: 0, text: String::new(), ended: false };
        match reader.input.fill_buf().map(<[u8]>::is_empty) {
            Ok(false) => Ok(reader),
            Ok(true) => Err(TextError::EmptyFile { path: path.to_owned() }),
            Err(source) => Err(reader.read_error(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the line gone to last, from 1; at the end of the file, the number of lines.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The SHA-256 of what was read so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.input.digest()
    }

    /// Goes to the next line; false at the end of the file. A last line without a line end counts as a line.
    pub(crate) fn advance(&mut self) -> Result<bool, TextError> {
        let start = self.input.offset();
        let mut buffer = std::mem::take(&mut self.text).into_bytes();
        buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut buffer);
        read.map_err(|source| self.read_error(source))?;
        if buffer.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        self.ended = buffer.last() == Some(&b'\n');
        if self.ended {
            buffer.pop();
            if buffer.last() == Some(&b'\r') {
                buffer.pop();
            }
        }
        if buffer.len() > MAX_LINE_BYTES {
            return Err(TextError::LineTooLong { path: self.path.clone(), line: self.line, limit: MAX_LINE_BYTES });
        }
        self.text = String::from_utf8(buffer).map_err(|error| TextError::InvalidUtf8 {
            path: self.path.clone(),
            line: self.line,
            offset: start + error.utf8_error().valid_up_to() as u64,
        })?;
        Ok(true)
    }

    /// The line that was gone to last, without its line end.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a line end followed that line; false only for the last line of some files.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads to the end of the file, whatever its lines hold.
    pub(crate) fn count_lines(&mut self) -> Result<usize, TextError> {
        loop {
            match self.advance() {
                Ok(true) | Err(TextError::InvalidUtf8 { .. }) => {}
                Ok(false) => return Ok(self.line),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_error(&self, source: std::io::Error) -> TextError {
        TextError::Read { path: self.path.clone(), line: self.line, source }
    }
}
