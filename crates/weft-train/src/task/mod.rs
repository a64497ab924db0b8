//! What a model learns from: pairs for a translator; a stream of text, or questions, for a language model.

mod language_modelling;
mod recalling;
mod translation;

use std::path::Path;

use burn::Tensor;
use burn::tensor::Device;
use weft_models::{Architecture, Noise};
use weft_text::Tokenizer;

pub use language_modelling::LanguageModelling;
pub use recalling::Recalling;
pub use translation::Translating;

use crate::checkpoint::DataHashes;
use crate::error::TrainError;

/// The tokenizer's file in a model folder; the target's, where there are two.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The source tokenizer's file, where it is another one than the target's.
pub const SOURCE_TOKENIZER_FILE: &str = "source_tokenizer.json";

/// What the training loop needs of the data: its order is a pure function of seed, epoch and position.
pub trait Task<M: Architecture>: Send {
    /// Goes to an epoch, from 0, and returns its number of micro-batches, at least 1.
    ///
    /// # Errors
    /// Data of which there is too little for one micro-batch.
    fn begin_epoch(&mut self, epoch: u64) -> Result<usize, TrainError>;

    /// The sum of the token losses of a micro-batch of this epoch, and the number of these tokens.
    ///
    /// # Errors
    /// Data that cannot be put into a batch.
    fn loss(
        &self,
        model: &M,
        position: usize,
        noise: &mut Noise,
        device: &Device,
    ) -> Result<(Tensor<1>, usize), TrainError>;

    /// The same over the validation data, without dropout and label smoothing.
    ///
    /// # Errors
    /// As [`Task::loss`].
    fn validation_loss(&self, model: &M, device: &Device) -> Result<(f64, usize), TrainError>;

    /// Translations of the first validation sentences and their BLEU, where the task has such.
    ///
    /// # Errors
    /// Scores that are NaN.
    fn translations(&self, _: &M) -> Result<Option<Translations>, TrainError> {
        Ok(None)
    }

    /// The share of validation answers that are right, 0 to 1, where the task asks for answers.
    fn accuracy(&self, _: &M) -> Option<f64> {
        None
    }

    /// What the run is about.
    fn hashes(&self) -> DataHashes;

    /// The target's tokenizer and, where it is another one, the source's.
    fn tokenizers(&self) -> (&Tokenizer, Option<&Tokenizer>);

    /// Writes the tokenizers into a model's folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn save_tokenizers(&self, folder: &Path) -> Result<(), TrainError> {
        let (target, source) = self.tokenizers();
        target.save(folder.join(TOKENIZER_FILE))?;
        if let Some(source) = source {
            source.save(folder.join(SOURCE_TOKENIZER_FILE))?;
        }
        Ok(())
    }
}

/// What a model made of validation sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct Translations {
    /// BLEU, 0 to 100.
    pub bleu: f64,
    /// How it was computed.
    pub signature: String,
    /// The sentences, in the order of the data.
    pub sentences: Vec<Translated>,
}

/// One validation sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The source.
    pub source: String,
    /// What the model made of it.
    pub hypothesis: String,
    /// What stands in the data.
    pub reference: String,
}

/// The value of a loss.
pub(crate) fn scalar(loss: &Tensor<1>) -> f64 {
    loss.to_data().iter::<f64>().next().unwrap_or(f64::NAN)
}
