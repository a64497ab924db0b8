//! Whether the model that config.json describes can be in the file beside it, and whether one can be trained here:
//! asked before memory is taken for it.

use std::path::Path;

use weft_models::CellKind;
use weft_models::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use weft_models::gpt::GptConfig;
use weft_models::llama::LlamaConfig;
use weft_models::mamba::MambaConfig;
use weft_models::mamba2::Mamba2Config;
use weft_models::recurrent_lm::RecurrentLmConfig;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoderConfig;
use weft_models::rwkv4::Rwkv4Config;
use weft_models::rwkv7::Rwkv7Config;
use weft_models::transformer::TransformerConfig;
use weft_train::{ArchitectureKind, RunConfig};

use crate::error::{Error, Result};
use crate::memory;

/// Sinusoids are in no file; more of them than this are taken for a mistake.
const MOST_SINUSOIDS: u128 = 1 << 28;

/// Bytes that a parameter takes while it is trained: itself, its gradient and Adam's two moments, in `f32`.
const BYTES_TRAINED: u128 = 16;

/// Numbers that a model has, never more than it really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// In the file.
    parameters: u128,
    /// Made at run time.
    sinusoids: u128,
}

/// Checks that the weights can hold the model: a parameter has at least one byte there.
///
/// # Errors
/// A configuration that describes a much larger model, or a file that cannot be read.
pub(super) fn check(folder: &Path, size: Size) -> Result {
    let path = folder.join(WEIGHTS_FILE);
    let bytes = std::fs::metadata(&path).map_err(|error| Error::file("read", &path, &error))?.len();
    let config = folder.join(CONFIG_FILE);
    let (config, path) = (config.display(), path.display());
    if size.parameters > u128::from(bytes) {
        let wanted = size.parameters;
        return Err(Error::new(format!(
            "{config}: its widths, layers and vocabulary make {wanted} parameters or more, but {path} has {bytes} bytes"
        ))
        .hint("config.json and model.safetensors must come from the same model"));
    }
    if size.sinusoids > MOST_SINUSOIDS {
        return Err(Error::new(format!("{config}: `max_position_embeddings` makes {} sinusoids", size.sinusoids))
            .hint(format!("wanted at most {MOST_SINUSOIDS}, positions times width")));
    }
    Ok(())
}

/// Checks that the machine can train the model that a run is to have.
///
/// # Errors
/// One that is too large.
pub(crate) fn check_training(config: &RunConfig) -> Result {
    let size = of_run(config);
    let bytes = sum(&[size.parameters.saturating_mul(BYTES_TRAINED), size.sinusoids.saturating_mul(4)]);
    memory::check(
        &format!("training the {} parameters (or more) of this model", size.parameters),
        bytes,
        "choose a smaller --preset or --size, --hidden-size, --layers or --vocab-size",
    )?;
    // What the backward pass needs of each layer is at least the layer's input.
    let kept = [config.training.batch_tokens, config.model.hidden_size, config.model.num_layers];
    let kept = kept.iter().fold(4, |product: u128, &factor| product.saturating_mul(factor as u128));
    let what = format!("a batch of {} tokens in this model", config.training.batch_tokens);
    memory::check(&what, sum(&[bytes, kept]), "choose a smaller --batch-tokens, and --accumulate more of them")
}

/// Of a model whose vocabulary is not known yet: as large as it may become.
fn of_run(config: &RunConfig) -> Size {
    let (model, vocab_size) = (&config.model, config.tokenizer.vocab_size);
    let (hidden_size, num_layers) = (model.hidden_size, model.num_layers);
    let half = hidden_size / 2;
    let inner = model.intermediate_size.unwrap_or_else(|| hidden_size.saturating_mul(4));
    match model.architecture {
        ArchitectureKind::Transformer => of_transformer(&TransformerConfig {
            vocab_size,
            hidden_size,
            num_encoder_layers: num_layers,
            num_decoder_layers: num_layers,
            encoder_intermediate_size: inner,
            decoder_intermediate_size: inner,
            max_positions: model.max_positions.unwrap_or(config.data.max_length),
            ..TransformerConfig::default()
        }),
        ArchitectureKind::RnnEncoderDecoder => {
            let defaults = RnnEncoderDecoderConfig::default();
            of_rnn_encoder_decoder(&RnnEncoderDecoderConfig {
                cell: model.cell.unwrap_or(defaults.cell),
                attention: model.attention.unwrap_or(defaults.attention),
                vocab_size,
                decoder_vocab_size: vocab_size,
                embedding_size: model.embedding_size.unwrap_or(half),
                hidden_size,
                encoder_hidden_size: model.encoder_hidden_size.unwrap_or(half),
                attention_size: model.attention_size.unwrap_or(half),
                maxout_size: model.maxout_size.unwrap_or(half),
                num_encoder_layers: num_layers,
                num_decoder_layers: num_layers,
                ..defaults
            })
        }
        ArchitectureKind::Gpt => of_gpt(&GptConfig {
            vocab_size,
            max_positions: model.max_positions.unwrap_or(0),
            hidden_size,
            num_layers,
            intermediate_size: Some(inner),
            ..GptConfig::default()
        }),
        ArchitectureKind::Llama => of_llama(&LlamaConfig {
            vocab_size,
            hidden_size,
            intermediate_size: inner,
            num_layers,
            num_heads: model.num_heads.unwrap_or(1),
            num_kv_heads: model.num_kv_heads.unwrap_or(1),
            ..LlamaConfig::default()
        }),
        ArchitectureKind::Mamba => of_mamba(&MambaConfig {
            vocab_size,
            hidden_size,
            num_layers,
            intermediate_size: model.intermediate_size,
            state_size: model.state_size.unwrap_or(0),
            ..MambaConfig::default()
        }),
        ArchitectureKind::Rwkv7 => of_rwkv7(&Rwkv7Config {
            vocab_size,
            hidden_size,
            num_layers,
            intermediate_size: Some(inner),
            ..Rwkv7Config::default()
        }),
        ArchitectureKind::Rwkv4 => of_rwkv4(&Rwkv4Config {
            vocab_size,
            hidden_size,
            num_layers,
            intermediate_size: Some(inner),
            ..Rwkv4Config::default()
        }),
        ArchitectureKind::Mamba2 => of_mamba2(&Mamba2Config {
            vocab_size,
            hidden_size,
            num_layers,
            num_groups: 1,
            state_size: model.state_size.unwrap_or(0),
            ..Mamba2Config::default()
        }),
        ArchitectureKind::RecurrentLm => of_recurrent_lm(&RecurrentLmConfig {
            cell: model.cell.unwrap_or(CellKind::Lstm),
            vocab_size,
            embedding_size: model.embedding_size.unwrap_or(hidden_size),
            hidden_size,
            num_layers,
            ..RecurrentLmConfig::default()
        }),
    }
}

/// Matrices in which a cell multiplies its state.
fn gates(cell: CellKind) -> usize {
    match cell {
        CellKind::Rnn => 1,
        CellKind::Gru => 3,
        CellKind::Lstm => 4,
    }
}

/// A product that stays at the largest number instead of starting over.
fn product(factors: &[usize]) -> u128 {
    factors.iter().fold(1, |product: u128, &factor| product.saturating_mul(factor as u128))
}

fn sum(products: &[u128]) -> u128 {
    products.iter().fold(0, |sum: u128, &product| sum.saturating_add(product))
}

pub(super) fn of_transformer(config: &TransformerConfig) -> Size {
    let width = config.hidden_size;
    let parameters = sum(&[
        product(&[config.vocab_size, width]),
        product(&[config.num_encoder_layers, 4, width, width]),
        product(&[config.num_encoder_layers, 2, width, config.encoder_intermediate_size]),
        product(&[config.num_decoder_layers, 8, width, width]),
        product(&[config.num_decoder_layers, 2, width, config.decoder_intermediate_size]),
    ]);
    Size { parameters, sinusoids: product(&[config.max_positions, width]) }
}

pub(super) fn of_rnn_encoder_decoder(config: &RnnEncoderDecoderConfig) -> Size {
    let gates = gates(config.cell);
    let parameters = sum(&[
        product(&[config.vocab_size, config.embedding_size]),
        product(&[config.decoder_vocab_size, config.embedding_size.saturating_add(config.maxout_size)]),
        product(&[config.num_encoder_layers, gates, config.encoder_hidden_size, config.encoder_hidden_size]),
        product(&[config.num_decoder_layers, gates, config.hidden_size, config.hidden_size]),
        product(&[config.maxout_size, config.hidden_size]),
    ]);
    // The attention's width is in the file only where there is attention.
    let attention = match config.attention {
        weft_models::rnn_encoder_decoder::AttentionKind::Additive => {
            product(&[config.attention_size, config.hidden_size])
        }
        weft_models::rnn_encoder_decoder::AttentionKind::None => 0,
    };
    Size { parameters: parameters.saturating_add(attention), sinusoids: 0 }
}

pub(super) fn of_gpt(config: &GptConfig) -> Size {
    let width = config.hidden_size;
    // The inner width may be too large to multiply.
    let inner = config.intermediate_size.unwrap_or_else(|| width.saturating_mul(4));
    let parameters = sum(&[
        product(&[config.vocab_size, width]),
        product(&[config.max_positions, width]),
        product(&[config.num_layers, 4, width, width]),
        product(&[config.num_layers, 2, width, inner]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_llama(config: &LlamaConfig) -> Size {
    let (width, head) = (config.hidden_size, config.head_size());
    let parameters = sum(&[
        product(&[config.vocab_size, width]),
        product(&[config.num_layers, 2, width, config.num_heads, head]),
        product(&[config.num_layers, 2, width, config.num_kv_heads, head]),
        product(&[config.num_layers, 3, width, config.intermediate_size]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_mamba(config: &MambaConfig) -> Size {
    // The inner width may be too large to multiply.
    let inner = config.intermediate_size.unwrap_or_else(|| config.hidden_size.saturating_mul(2));
    let parameters = sum(&[
        product(&[config.vocab_size, config.hidden_size]),
        product(&[config.num_layers, 3, config.hidden_size, inner]),
        product(&[config.num_layers, 3, config.state_size, inner]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_rwkv4(config: &Rwkv4Config) -> Size {
    // The inner width may be too large to multiply.
    let width = config.hidden_size;
    let inner = config.intermediate_size.unwrap_or_else(|| width.saturating_mul(4));
    let parameters = sum(&[
        product(&[config.vocab_size, width]),
        product(&[config.num_layers, 4, width, config.attention_size()]),
        product(&[config.num_layers, 2, width, inner]),
        product(&[config.num_layers, width, width]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_mamba2(config: &Mamba2Config) -> Size {
    let hidden = config.hidden_size;
    let parameters = sum(&[
        product(&[config.vocab_size, hidden]),
        product(&[config.num_layers, 3, config.expand, hidden, hidden]),
        product(&[config.num_layers, 2, config.num_groups, config.state_size, hidden]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_rwkv7(config: &Rwkv7Config) -> Size {
    let parameters = sum(&[
        product(&[2, config.vocab_size, config.hidden_size]),
        product(&[config.num_layers, 4, config.hidden_size, config.hidden_size]),
        product(&[config.num_layers, 2, config.hidden_size, config.inner_size()]),
    ]);
    Size { parameters, sinusoids: 0 }
}

pub(super) fn of_recurrent_lm(config: &RecurrentLmConfig) -> Size {
    let parameters = sum(&[
        product(&[config.vocab_size, config.embedding_size]),
        product(&[config.num_layers, gates(config.cell), config.hidden_size, config.hidden_size]),
    ]);
    Size { parameters, sinusoids: 0 }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use weft_models::gpt::Gpt;
    use weft_models::llama::Llama;
    use weft_models::mamba::Mamba;
    use weft_models::mamba2::Mamba2;
    use weft_models::recurrent_lm::RecurrentLm;
    use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
    use weft_models::rwkv4::Rwkv4;
    use weft_models::rwkv7::Rwkv7;
    use weft_models::transformer::Transformer;
    use weft_models::{Architecture, named_parameters};

    use super::*;

    fn parameters<M: Architecture>(config: &M::Config) -> u128 {
        let model = M::new(config, 0, &Device::flex());
        named_parameters(&model).iter().map(|parameter| parameter.values.len() as u128).sum()
    }

    #[test]
    fn sizes_are_lower_bounds_and_near() {
        let transformer = TransformerConfig::preset("tiny", 500).unwrap();
        let rnn = RnnEncoderDecoderConfig { vocab_size: 300, decoder_vocab_size: 200, ..Default::default() };
        let gpt = GptConfig {
            vocab_size: 300,
            hidden_size: 64,
            num_layers: 2,
            num_heads: 2,
            max_positions: 32,
            ..Default::default()
        };
        let llama = LlamaConfig {
            vocab_size: 300,
            hidden_size: 64,
            intermediate_size: 160,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            ..Default::default()
        };
        let recurrent = RecurrentLmConfig { hidden_size: 64, embedding_size: 64, ..Default::default() };
        let mamba2 =
            Mamba2Config { vocab_size: 300, hidden_size: 64, num_layers: 2, num_heads: 2, ..Default::default() };
        let mamba = MambaConfig { vocab_size: 300, hidden_size: 64, num_layers: 2, ..Default::default() };
        let rwkv4 = Rwkv4Config { vocab_size: 300, hidden_size: 64, num_layers: 2, ..Default::default() };
        let rwkv7 = Rwkv7Config { vocab_size: 300, hidden_size: 64, num_layers: 2, ..Default::default() };
        for (size, real) in [
            (of_transformer(&transformer), parameters::<Transformer>(&transformer)),
            (of_rnn_encoder_decoder(&rnn), parameters::<RnnEncoderDecoder>(&rnn)),
            (of_gpt(&gpt), parameters::<Gpt>(&gpt)),
            (of_llama(&llama), parameters::<Llama>(&llama)),
            (of_mamba(&mamba), parameters::<Mamba>(&mamba)),
            (of_rwkv4(&rwkv4), parameters::<Rwkv4>(&rwkv4)),
            (of_mamba2(&mamba2), parameters::<Mamba2>(&mamba2)),
            (of_rwkv7(&rwkv7), parameters::<Rwkv7>(&rwkv7)),
            (of_recurrent_lm(&recurrent), parameters::<RecurrentLm>(&recurrent)),
        ] {
            assert!(size.parameters <= real && 4 * size.parameters > real, "{size:?} of {real}");
        }
    }

    #[test]
    fn absurd_sizes_do_not_wrap_around() {
        let config = TransformerConfig { hidden_size: usize::MAX, ..TransformerConfig::default() };
        assert_eq!(of_transformer(&config).parameters, u128::MAX);
    }
}
