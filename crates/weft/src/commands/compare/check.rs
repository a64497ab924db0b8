//! Whether what is planned can be trained: asked before anything is.

use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::transformer::Transformer;
use weft_text::{Tokenizer, TokenizerKind};
use weft_train::{ArchitectureKind, Buildable, RunConfig};

use crate::error::{Error, Result};
use crate::model::check_training;

/// A vocabulary in place of the one that is not there yet: what can be built does not hang on it.
const VOCABULARY: usize = 512;

/// Checks that the run's model can be built and that this machine can train it; `name` is what errors call it.
///
/// # Errors
/// A shape that the architecture cannot have, a model that is too large.
pub(super) fn check(name: &str, config: &RunConfig) -> Result {
    check_training(config)?;
    match config.model.architecture {
        ArchitectureKind::Transformer => check_shape::<Transformer>(name, config),
        ArchitectureKind::RnnEncoderDecoder => check_shape::<RnnEncoderDecoder>(name, config),
        ArchitectureKind::Gpt => check_shape::<Gpt>(name, config),
        ArchitectureKind::Llama => check_shape::<Llama>(name, config),
        ArchitectureKind::RecurrentLm => check_shape::<RecurrentLm>(name, config),
        ArchitectureKind::Mamba => check_shape::<Mamba>(name, config),
        ArchitectureKind::Rwkv4 => check_shape::<Rwkv4>(name, config),
        ArchitectureKind::Mamba2 => check_shape::<Mamba2>(name, config),
        ArchitectureKind::Rwkv7 => check_shape::<Rwkv7>(name, config),
    }
}

fn check_shape<M: Buildable>(name: &str, config: &RunConfig) -> Result {
    let text = std::iter::once(Ok(name.to_owned()));
    let vocabulary = Tokenizer::train(TokenizerKind::Characters, VOCABULARY, text)?;
    let shape = M::model_config(config, &vocabulary, &vocabulary);
    M::check(&shape).map_err(|error| Error::because(format!("{name} cannot be built"), &error).or_hint(error.hint()))
}
