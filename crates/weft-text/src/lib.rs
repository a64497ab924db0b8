//! Corpora, tokenizers and batches: from files of text to rows of token ids.
//!
//! ```
//! use weft_text::{
//!     BatchConfig, ParallelBatch, ParallelCorpus, ParallelDataset, ParallelFiles, Side, Tokenizer, TokenizerKind, epoch_batches,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("train.tsv");
//! std::fs::write(&path, "a red house\tein rotes Haus\na blue house\tein blaues Haus\n")?;
//!
//! // Two files, a TSV, JSON lines or TMX; plain, .gz or .zst.
//! let corpus = ParallelCorpus::new(ParallelFiles::guess(&[path], None)?);
//! let tokenizer = Tokenizer::train(TokenizerKind::Bpe, 400, corpus.texts(Side::Both)?)?;
//!
//! let dataset = ParallelDataset::build(&corpus, &tokenizer, &tokenizer, 100)?;
//! assert_eq!((dataset.len(), dataset.skipped.total()), (2, 0));
//!
//! let special = tokenizer.special_tokens();
//! for indices in epoch_batches(&dataset.lengths(), BatchConfig::default(), 42, 0) {
//!     let batch = ParallelBatch::collate(&dataset, &indices, special, special);
//!     assert_eq!(batch.source.len(), batch.len() * batch.source_time);
//! }
//! # Ok(())
//! # }
//! ```

mod batches;
mod corpus;
mod dataset;
mod error;
mod random;
mod recall;
mod tokenizer;

pub use batches::{
    BatchConfig, EvaluationWindow, PaddedRows, ParallelBatch, WindowBatch, epoch_batches, random_windows,
    sequential_windows, sorted_batches,
};
pub use corpus::{
    Pair, Pairs, ParallelCorpus, ParallelFiles, Place, Side, SkipReason, SkipReport, TextCorpus, TextFormat, TextPiece,
    TextPieces, hash_file, hexadecimal,
};
pub use dataset::{ParallelDataset, TextDataset, TokenSequences};
pub use error::{Cause, PathList, TextError};
pub use random::CounterRng;
pub use recall::{RecallKind, RecallQuestion, RecallTask, RecallText, RecallTokens};
pub use tokenizer::{SpecialTokens, TextStream, Tokenizer, TokenizerKind};
