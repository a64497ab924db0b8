//! One file as a stream of decompressed bytes, hashed and counted on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};

use crate::error::TextError;

/// Large enough that system calls do not matter, small enough for the second-level cache.
const BUFFER_BYTES: usize = 64 * 1024;
/// Memory that a zstd file may ask for, the same as the zstd program grants unasked.
const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// The SHA-256 of a file's decompressed content, in hexadecimal; its memory does not depend on the file's size.
///
/// A file compressed in another way has the same hash. The parallel and text readers report the same hash without
/// another pass.
pub fn hash_file(path: impl AsRef<Path>) -> Result<String, TextError> {
    let path = path.as_ref();
    let mut input = Input::open(path)?;
    let read_error = |source| TextError::Read { path: path.to_owned(), line: 0, source };
    loop {
        let available = input.fill_buf().map_err(read_error)?.len();
        if available == 0 {
            return Ok(hexadecimal(&input.digest()));
        }
        input.consume(available);
    }
}

/// The lower-case hexadecimal digits of some bytes: how hashes are written.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One hash for one or several files: of one file its own, of several the hash of their hashes in order.
pub(crate) fn combined_hash(digests: &[[u8; 32]]) -> String {
    match digests {
        [one] => hexadecimal(one),
        several => {
            let mut hasher = Sha256::new();
            several.iter().for_each(|digest| hasher.update(digest));
            hexadecimal(&hasher.finalize())
        }
    }
}

/// A file's decompressed content without its byte order mark.
pub(crate) struct Input {
    reader: Box<dyn BufRead + Send>,
    hasher: Sha256,
    offset: u64,
    newlines: usize,
}

impl Input {
    pub(crate) fn open(path: &Path) -> Result<Self, TextError> {
        let open_error = |source| TextError::Open { path: path.to_owned(), source };
        let read_error = |source| TextError::Read { path: path.to_owned(), line: 0, source };
        let file = File::open(path).map_err(open_error)?;
        if file.metadata().map_err(open_error)?.is_dir() {
            return Err(open_error(io::ErrorKind::IsADirectory.into()));
        }
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let start = file.fill_buf().map_err(read_error)?;
        let reader: Box<dyn BufRead + Send> = match start {
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdFrames::new(file)))
            }
            plain => {
                if let Some(found) = unsupported(plain) {
                    return Err(TextError::UnsupportedContent { path: path.to_owned(), found });
                }
                Box::new(file)
            }
        };
        let mut input = Self { reader, hasher: Sha256::new(), offset: 0, newlines: 0 };
        let start = input.fill_buf().map_err(read_error)?;
        if let Some(found) = unsupported(start) {
            return Err(TextError::UnsupportedContent { path: path.to_owned(), found });
        }
        if start.starts_with(b"\xef\xbb\xbf") {
            input.consume(3);
        }
        Ok(input)
    }

    /// Bytes consumed so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The line, from 1, on which the next byte lies.
    pub(crate) fn line(&self) -> usize {
        self.newlines + 1
    }

    /// The SHA-256 of what was consumed so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }
}

fn unsupported(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("an xz file"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Some("a bzip2 file"),
        [b'P', b'K', 3, 4, ..] => Some("a zip file"),
        _ => None,
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // The bytes are in the buffer already, so asking for them again does no input and cannot fail.
        if let Ok(available) = self.reader.fill_buf() {
            let consumed = &available[..count.min(available.len())];
            self.hasher.update(consumed);
            self.newlines += consumed.iter().filter(|&&byte| byte == b'\n').count();
            self.offset += consumed.len() as u64;
        }
        self.reader.consume(count);
    }
}

/// All frames of a zstd stream, one after another; skippable frames are passed over, checksums compared.
struct ZstdFrames {
    file: BufReader<File>,
    decoder: FrameDecoder,
    inside: bool,
}

impl ZstdFrames {
    fn new(file: BufReader<File>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self { file, decoder, inside: false }
    }

    /// Reads the next frame's header; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.file.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.file) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.file).take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(error)),
            }
        }
    }
}

impl Read for ZstdFrames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.inside {
                if buffer.is_empty() || !self.next_frame()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.file, BlockDecodingStrategy::UptoBlocks(1)).map_err(invalid)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(invalid("the zstd checksum does not match the content"));
            }
            self.inside = false;
        }
    }
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}
