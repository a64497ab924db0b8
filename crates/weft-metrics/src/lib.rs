//! BLEU, chrF, exact match, perplexity and bits per byte.
//!
//! BLEU and chrF give sacrebleu 2.6's numbers to the last printed digit, and name their settings in the same signature.
//!
//! ```
//! use weft_metrics::{Bleu, Chrf};
//!
//! let hypotheses = ["The cat sat on the mat.", "It was raining."];
//! let references = [["The cat sat on a mat.", "It rained."]]; // one list of lines per reference
//! let bleu = Bleu::default().corpus(&hypotheses, &references)?;
//! assert_eq!(format!("{:.2}", bleu.score), "36.87");
//! assert!(bleu.signature.starts_with("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:weft-"));
//! println!("{bleu}"); // BLEU = 36.87 72.7/44.4/28.6/20.0 (BP = 1.000 ratio = 1.100 hyp_len = 11 ref_len = 10)
//! let chrf = Chrf::plus_plus().corpus(&hypotheses, &references)?;
//! assert_eq!(chrf.to_string(), "chrF2++ = 58.18");
//! # Ok::<(), weft_metrics::MetricError>(())
//! ```

mod bleu;
mod chrf;
mod error;
mod exact_match;
mod ngrams;
mod perplexity;
mod text;
mod tokenize;

pub use bleu::{Bleu, BleuScore, Smoothing};
pub use chrf::{Chrf, ChrfScore};
pub use error::MetricError;
pub use exact_match::{ExactMatch, exact_match};
pub use perplexity::Perplexity;
pub use tokenize::BleuTokenizer;

/// What stands after `version:` in a signature.
pub(crate) const VERSION: &str = concat!("weft-", env!("CARGO_PKG_VERSION"));
