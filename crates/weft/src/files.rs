//! Lines from files and pipes, whole and with their numbers.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use weft_text::{TextCorpus, TextFormat};

use crate::error::{Error, NOT_UTF8_HINT, Result};

/// What is read at once: as much as a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// The lines of a text file, plain, .gz or .zst; empty lines count.
///
/// # Errors
/// A file that cannot be read, is empty, or is not UTF-8.
pub(crate) fn lines_of(path: &Path) -> Result<Vec<String>> {
    let corpus = TextCorpus { format: TextFormat::Plain, ..TextCorpus::new([path]) };
    if path.is_dir() {
        return Err(Error::new(format!("{} is a folder, not a file", path.display())).hint("name a file in the folder"));
    }
    let mut text = String::new();
    for piece in corpus.pieces()? {
        text.push_str(&piece?.text);
    }
    Ok(text.lines().map(str::to_owned).collect())
}

/// Checks that the file to write is none of those that are read: it would be emptied before. No input is standard input.
///
/// # Errors
/// The same file, by whatever path or link.
pub(crate) fn refuse_input(output: Option<&Path>, inputs: &[Option<&Path>]) -> Result {
    let Some(output) = output else { return Ok(()) };
    if inputs.iter().any(|input| is_same_file(output, input.unwrap_or(Path::new("/dev/stdin")))) {
        return Err(Error::new(format!("{} is the input: writing to it would empty it first", output.display()))
            .hint("write to another file, and rename it afterwards"));
    }
    Ok(())
}

#[cfg(unix)]
fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|found| identity(other) == Some(found))
}

#[cfg(not(unix))]
fn is_same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|found| other.canonicalize().is_ok_and(|other| other == found))
}

/// A path as it can be typed.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Lines of standard input or a file, in portions of what is there.
pub(crate) struct LineStream {
    reader: BufReader<Box<dyn Read>>,
    name: PathBuf,
    /// Lines read so far.
    count: usize,
    /// A portion has at most this many lines.
    most: usize,
}

impl LineStream {
    /// From `path`, or from standard input.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn open(path: Option<&Path>, most: usize) -> Result<Self> {
        let source: Box<dyn Read> = match path {
            Some(path) => Box::new(File::open(path).map_err(|error| Error::file("open", path, &error))?),
            None => Box::new(std::io::stdin()),
        };
        let name = path.map_or_else(|| PathBuf::from("standard input"), Path::to_owned);
        Ok(Self { reader: BufReader::with_capacity(BUFFER_BYTES, source), name, count: 0, most })
    }

    /// What the lines come from, for messages.
    pub(crate) fn name(&self) -> String {
        self.name.display().to_string()
    }

    /// The next lines, without their ends, and what went wrong after them. Waits for one line, then takes those that
    /// can be had without waiting. No lines and no error: the end.
    pub(crate) fn next_portion(&mut self) -> (Vec<String>, Result) {
        let mut lines = Vec::new();
        while lines.len() < self.most && (lines.is_empty() || self.reader.buffer().contains(&b'\n')) {
            match self.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => return (lines, Err(error)),
            }
        }
        (lines, Ok(()))
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes);
        if read.map_err(|error| Error::file("read", &self.name, &error))? == 0 {
            return Ok(None);
        }
        self.count += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        String::from_utf8(bytes).map(Some).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Error::new(format!("{}: line {} is not UTF-8 at its byte {}", self.name(), self.count, offset + 1))
                .hint(NOT_UTF8_HINT)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bytes: &'static [u8], most: usize) -> LineStream {
        let reader: Box<dyn Read> = Box::new(bytes);
        LineStream { reader: BufReader::new(reader), name: "here".into(), count: 0, most }
    }

    #[test]
    fn lines_come_in_portions_and_lose_only_their_ends() {
        let mut lines = stream(b"a\r\n\n c \nlast", 2);
        let (first, second, third) = (lines.next_portion().0, lines.next_portion().0, lines.next_portion().0);
        assert_eq!(first, ["a", ""]);
        assert_eq!(second, [" c "]);
        assert_eq!(third, ["last"]);
        assert!(lines.next_portion().0.is_empty());
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        let (lines, end) = stream(b"a\nb\xffc\nd\n", 10).next_portion();
        assert_eq!(lines, ["a"]);
        let shown = end.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(shown.starts_with("error: here: line 2 is not UTF-8 at its byte 2\n"), "{shown}");
    }
}
