//! Greedy search, beam search and sampling: pure functions from scores to choices.
//!
//! This crate knows integers and floats, not tensors or models. A caller runs its model, hands over one row of scores
//! per hypothesis and gets token ids back, so every search here is tested without a model.
//!
//! - [`BeamSearch`]: beam search for one sentence; the caller advances many of them side by side in one batch.
//! - [`argmax`]: greedy search, one token from one row.
//! - [`Sampler`]: temperature, top-k, top-p, min-p and repetition penalty, from a seed that reproduces.
//! - [`LengthPenalty`]: how hypotheses of different lengths are compared, as text: `wu:0.6`, `avg`, `length:1`, `none`.
//!
//! ```
//! use weft_decode::{BeamConfig, BeamSearch};
//!
//! // A "model" that knows one table: the logits of the next token (0 = end, 1 = a, 2 = b) after each token.
//! let table = [[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0]];
//! let mut search = BeamSearch::new(BeamConfig::new(2, 10, 0), 0)?;
//! while !search.is_done() {
//!     let logits: Vec<f32> = search.live().iter().flat_map(|&last| table[last as usize]).collect();
//!     let parents = search.advance_logits(&logits)?; // reorder the model's caches by these rows
//!     assert!(parents.len() <= 2);
//! }
//! let best = &search.into_hypotheses()[0];
//! assert_eq!(best.tokens, [2, 1]);
//! # Ok::<(), weft_decode::DecodeError>(())
//! ```

mod beam;
mod error;
mod greedy;
mod length_penalty;
mod random;
mod sampling;
mod scan;

pub use beam::{BeamConfig, BeamSearch, Hypothesis, StopRule};
pub use error::DecodeError;
pub use greedy::argmax;
pub use length_penalty::LengthPenalty;
pub use random::{philox, uniform};
pub use sampling::{Sampler, SamplingConfig};
