//! Streaming readers of parallel and monolingual text.
//!
//! Every reader takes plain, gzip and zstd files and tells them apart by their first bytes; a byte order mark is
//! dropped and CRLF reads as LF. Nothing holds more than one line, record or translation unit, and the SHA-256 of the
//! decompressed content is computed on the way.

mod guess;
mod input;
mod lines;
mod parallel;
mod skip;
mod text;
mod tmx;

#[cfg(test)]
mod tests;

pub use input::{hash_file, hexadecimal};
pub use parallel::{Pair, Pairs, ParallelCorpus, ParallelFiles, Side};
pub use skip::{Place, SkipReason, SkipReport};
pub use text::{TextCorpus, TextFormat, TextPiece, TextPieces};
