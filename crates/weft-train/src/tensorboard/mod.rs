//! Scalars as TensorBoard event files.
//!
//! A file is a row of records in TFRecord framing: length (u64), its checksum, the bytes, their checksum, all little
//! endian; the checksum is CRC-32C, masked. The bytes are one `Event` message each (TensorFlow's `event.proto`,
//! `summary.proto`), of which a scalar needs so little that it is encoded here by hand:
//!
//! ```text
//! Event      1 wall_time: double   2 step: int64   3 file_version: string   5 summary   7 session_log
//! Summary    1 value (repeated)
//! Value      1 tag: string   2 simple_value: float
//! SessionLog 1 status: enum (START = 1)
//! ```

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes scalars to one event file. Each call is one write to the file, so that TensorBoard sees it at once and a
/// killed run leaves whole records behind (at worst a torn last one, which readers skip).
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
}

impl EventWriter {
    /// Starts a new event file in `folder`, which is made if it is missing; files that are there stay as they are.
    /// TensorBoard shows all files of a folder as one run.
    ///
    /// `first_step` is the first step that this writer will report: a resumed run passes the step after its checkpoint,
    /// and TensorBoard drops what an earlier file says about that step and later ones. A fresh run passes `None`.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn create(folder: &Path, first_step: Option<u64>) -> Result<Self, EventFileError> {
        std::fs::create_dir_all(folder).map_err(|source| EventFileError::Create { path: folder.to_owned(), source })?;
        let name = format!("events.out.tfevents.{:010}.{}", wall_time() as u64, host_name());
        let (path, file) = create_new(folder, &name)?;
        let mut writer = Self { path, file, length: 0 };
        writer.append(&Content::FileVersion, 0)?;
        if let Some(step) = first_step {
            writer.append(&Content::SessionStart, step)?;
        }
        Ok(writer)
    }

    /// Where the events go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reports values measured at a step. A tag such as `loss/training` is shown in the group `loss`.
    ///
    /// # Errors
    /// When the file cannot be written, for example because the disk is full; the records before stay readable.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f32)]) -> Result<(), EventFileError> {
        self.append(&Content::Scalars(values), step)
    }

    /// Waits until the events are on the disk itself, to be called when a checkpoint is.
    ///
    /// # Errors
    /// When the disk reports a failure.
    pub fn sync(&self) -> Result<(), EventFileError> {
        self.file.sync_data().map_err(|source| EventFileError::Write { path: self.path.clone(), source })
    }

    fn append(&mut self, content: &Content<'_>, step: u64) -> Result<(), EventFileError> {
        let record = record(&event(wall_time(), step, content));
        if let Err(source) = self.file.write_all(&record) {
            // Part of the record may be there; behind it no reader would find the next one. Should this fail as well,
            // the first error is still the one to report.
            let _ = self.file.set_len(self.length);
            return Err(EventFileError::Write { path: self.path.clone(), source });
        }
        self.length += record.len() as u64;
        Ok(())
    }
}

/// An event file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EventFileError {
    /// The folder or the file cannot be made.
    #[error("cannot make {} for TensorBoard events", path.display())]
    Create {
        /// The folder or the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An event cannot be added.
    #[error("cannot add an event to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl EventFileError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let (Self::Create { source, path } | Self::Write { source, path }) = self;
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("make room on the disk".into()),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Some(format!("choose a folder that you may write to instead of {}", path.parent()?.display()))
            }
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Some(format!("{} must be a folder; move the file of that name away", path.display()))
            }
            _ => None,
        }
    }
}

/// Makes a file that was not there: two runs that start within one second must not write into each other's.
fn create_new(folder: &Path, name: &str) -> Result<(PathBuf, File), EventFileError> {
    let mut path = folder.join(name);
    let mut attempt = 0u32;
    loop {
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 1000 => {
                attempt += 1;
                path = folder.join(format!("{name}.{attempt}"));
            }
            Err(source) => return Err(EventFileError::Create { path, source }),
        }
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The name of the machine, as far as it can be learnt without a system call of our own; fit for a file name.
fn host_name() -> String {
    let from_file =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|path| std::fs::read_to_string(path).ok());
    let from_environment = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let name = from_file.or_else(from_environment).unwrap_or_default();
    let is_safe = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(is_safe).take(64).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// What an event says.
enum Content<'a> {
    /// The first event of a file: the version whose readers know about [`Content::SessionStart`].
    FileVersion,
    /// A run (re)starts at the event's step.
    SessionStart,
    /// Tags and values.
    Scalars(&'a [(&'a str, f32)]),
}

fn event(wall_time: f64, step: u64, content: &Content<'_>) -> Vec<u8> {
    let mut message = Message::default();
    message.double(1, wall_time);
    // A step is an int64 there; a default value is left out.
    if step > 0 {
        message.varint(2, step.min(i64::MAX as u64));
    }
    match content {
        Content::FileVersion => message.bytes(3, b"brain.Event:2"),
        Content::SessionStart => {
            let mut session = Message::default();
            session.varint(1, 1);
            message.bytes(7, &session.encoded);
        }
        Content::Scalars(values) => {
            let mut summary = Message::default();
            for (tag, value) in *values {
                let mut scalar = Message::default();
                if !tag.is_empty() {
                    scalar.bytes(1, tag.as_bytes());
                }
                scalar.float(2, *value);
                summary.bytes(1, &scalar.encoded);
            }
            message.bytes(5, &summary.encoded);
        }
    }
    message.encoded
}

/// A protocol buffer message: each field is its key (number and wire type), then its value.
#[derive(Default)]
struct Message {
    encoded: Vec<u8>,
}

impl Message {
    fn varint(&mut self, field: u8, value: u64) {
        self.encoded.push(field << 3);
        self.bare_varint(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.encoded.push(field << 3 | 1);
        self.encoded.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.encoded.push(field << 3 | 2);
        self.bare_varint(value.len() as u64);
        self.encoded.extend(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.encoded.push(field << 3 | 5);
        self.encoded.extend(value.to_le_bytes());
    }

    /// Seven bits to a byte, the lowest first; the eighth says that more follow.
    fn bare_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.encoded.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.encoded.push(value as u8);
    }
}

/// The bytes in TFRecord framing.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(crc32c(bytes)).to_le_bytes());
    record
}

/// Checksums are stored turned and shifted, because the checksum of bytes that contain their own is a weak one.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli's polynomial, reflected: 0x82f63b78), a byte at a time: events are few and small.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut remainder = index as u32;
            let mut bit = 0;
            while bit < 8 {
                remainder = if remainder & 1 == 1 { remainder >> 1 ^ 0x82f6_3b78 } else { remainder >> 1 };
                bit += 1;
            }
            table[index] = remainder;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}
