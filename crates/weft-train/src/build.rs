//! From a run's configuration to a model's.

use weft_models::gpt::{Gpt, GptConfig};
use weft_models::llama::{Llama, LlamaConfig};
use weft_models::mamba::{Mamba, MambaConfig};
use weft_models::mamba2::{Mamba2, Mamba2Config};
use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
use weft_models::rnn_encoder_decoder::{RnnEncoderDecoder, RnnEncoderDecoderConfig};
use weft_models::rwkv4::{Rwkv4, Rwkv4Config};
use weft_models::rwkv7::{Rwkv7, Rwkv7Config};
use weft_models::transformer::{Transformer, TransformerConfig};
use weft_models::{Architecture, CellKind};
use weft_text::Tokenizer;

use crate::config::{ModelConfig, RunConfig};
use crate::error::TrainError;

/// An architecture whose shape a [`RunConfig`] can say.
pub trait Buildable: Architecture {
    /// The model's configuration, with vocabularies and special tokens as the tokenizers have them.
    fn model_config(config: &RunConfig, target: &Tokenizer, source: &Tokenizer) -> Self::Config;

    /// The same, checked.
    ///
    /// # Errors
    /// A model that cannot be built.
    fn checked_config(
        config: &RunConfig,
        target: &Tokenizer,
        source: Option<&Tokenizer>,
    ) -> Result<Self::Config, TrainError> {
        let model = Self::model_config(config, target, source.unwrap_or(target));
        Self::check(&model).map_err(TrainError::Model)?;
        Ok(model)
    }
}

impl Buildable for Transformer {
    fn model_config(config: &RunConfig, target: &Tokenizer, source: &Tokenizer) -> TransformerConfig {
        let model = &config.model;
        let shared = source == target;
        let heads = model.num_heads.unwrap_or(1);
        let inner = model.intermediate_size.unwrap_or(4 * model.hidden_size);
        TransformerConfig {
            vocab_size: source.vocab_size(),
            decoder_vocab_size: (!shared).then(|| target.vocab_size()),
            hidden_size: model.hidden_size,
            num_encoder_layers: model.num_layers,
            num_decoder_layers: model.num_layers,
            num_encoder_heads: heads,
            num_decoder_heads: heads,
            encoder_intermediate_size: inner,
            decoder_intermediate_size: inner,
            dropout: model.dropout,
            attention_dropout: model.attention_dropout.unwrap_or(0.0),
            activation_dropout: model.activation_dropout.unwrap_or(0.0),
            max_positions: model.max_positions.unwrap_or(config.data.max_length + 1),
            share_encoder_decoder_embeddings: shared,
            tie_word_embeddings: model.tie_embeddings.unwrap_or(true),
            normalize_before: model.normalize_before.unwrap_or(false),
            pad_token_id: target.pad_id(),
            eos_token_id: target.eos_id(),
            decoder_start_token_id: target.bos_id(),
            ..TransformerConfig::default()
        }
    }
}

impl Buildable for RnnEncoderDecoder {
    fn model_config(config: &RunConfig, target: &Tokenizer, source: &Tokenizer) -> RnnEncoderDecoderConfig {
        let model = &config.model;
        let defaults = RnnEncoderDecoderConfig::default();
        let half = (model.hidden_size / 2).max(1);
        RnnEncoderDecoderConfig {
            cell: model.cell.unwrap_or(defaults.cell),
            gru_reset: model.gru_reset.unwrap_or(defaults.gru_reset),
            attention: model.attention.unwrap_or(defaults.attention),
            bidirectional: model.bidirectional.unwrap_or(defaults.bidirectional),
            vocab_size: source.vocab_size(),
            decoder_vocab_size: target.vocab_size(),
            embedding_size: model.embedding_size.unwrap_or(half),
            hidden_size: model.hidden_size,
            encoder_hidden_size: model.encoder_hidden_size.unwrap_or(half),
            attention_size: model.attention_size.unwrap_or(half),
            maxout_size: model.maxout_size.unwrap_or(half),
            num_encoder_layers: model.num_layers,
            num_decoder_layers: model.num_layers,
            dropout: model.dropout,
            pad_token_id: target.pad_id(),
            eos_token_id: target.eos_id(),
            decoder_start_token_id: target.bos_id(),
        }
    }
}

impl Buildable for Gpt {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> GptConfig {
        let model = &config.model;
        GptConfig {
            vocab_size: target.vocab_size(),
            max_positions: model.max_positions.or(config.training.window).unwrap_or(256),
            hidden_size: model.hidden_size,
            num_layers: model.num_layers,
            num_heads: model.num_heads.unwrap_or(1),
            intermediate_size: model.intermediate_size.filter(|&inner| inner != 4 * model.hidden_size),
            dropout: model.dropout,
            embedding_dropout: model.dropout,
            attention_dropout: model.attention_dropout.unwrap_or(model.dropout),
            initializer_range: model.initializer_range.unwrap_or(GptConfig::default().initializer_range),
            tie_word_embeddings: model.tie_embeddings.unwrap_or(true),
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..GptConfig::default()
        }
    }
}

impl Buildable for Llama {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> LlamaConfig {
        let model = &config.model;
        let defaults = LlamaConfig::default();
        let heads = model.num_heads.unwrap_or(1);
        LlamaConfig {
            vocab_size: target.vocab_size(),
            max_positions: model.max_positions.or(config.training.window).unwrap_or(256),
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size.unwrap_or(4 * model.hidden_size),
            num_layers: model.num_layers,
            num_heads: heads,
            num_kv_heads: model.num_kv_heads.unwrap_or(heads),
            rope_theta: model.rope_theta.unwrap_or(defaults.rope_theta),
            sliding_window: model.sliding_window,
            attention_pattern: model.attention_pattern,
            dropout: model.dropout,
            attention_dropout: model.attention_dropout.unwrap_or(model.dropout),
            initializer_range: model.initializer_range.unwrap_or(defaults.initializer_range),
            tie_word_embeddings: model.tie_embeddings.unwrap_or(true),
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..defaults
        }
    }
}

impl Buildable for RecurrentLm {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> RecurrentLmConfig {
        let ModelConfig { cell, hidden_size, embedding_size, num_layers, tie_embeddings, dropout, .. } = config.model;
        RecurrentLmConfig {
            cell: cell.unwrap_or(CellKind::Lstm),
            vocab_size: target.vocab_size(),
            embedding_size: embedding_size.unwrap_or(hidden_size),
            hidden_size,
            num_layers,
            tie_word_embeddings: tie_embeddings.unwrap_or(true),
            dropout,
        }
    }
}

impl Buildable for Mamba {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> MambaConfig {
        let model = &config.model;
        MambaConfig {
            vocab_size: target.vocab_size(),
            hidden_size: model.hidden_size,
            num_layers: model.num_layers,
            intermediate_size: model.intermediate_size,
            state_size: model.state_size.unwrap_or(16),
            dropout: model.dropout,
            tie_word_embeddings: model.tie_embeddings.unwrap_or(true),
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..MambaConfig::default()
        }
    }
}

impl Buildable for Rwkv4 {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> Rwkv4Config {
        let model = &config.model;
        Rwkv4Config {
            vocab_size: target.vocab_size(),
            context_length: config.training.window.unwrap_or(256),
            hidden_size: model.hidden_size,
            num_layers: model.num_layers,
            intermediate_size: model.intermediate_size,
            // Transformers then computes what was trained.
            rescale_every: 0,
            dropout: model.dropout,
            tie_word_embeddings: model.tie_embeddings.unwrap_or(false),
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..Rwkv4Config::default()
        }
    }
}

impl Buildable for Mamba2 {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> Mamba2Config {
        let model = &config.model;
        let (expand, heads) = (2, model.num_heads.unwrap_or(1).max(1));
        Mamba2Config {
            vocab_size: target.vocab_size(),
            hidden_size: model.hidden_size,
            num_layers: model.num_layers,
            expand,
            num_heads: heads,
            head_dim: expand * model.hidden_size / heads,
            num_groups: 1,
            state_size: model.state_size.unwrap_or(64),
            dropout: model.dropout,
            tie_word_embeddings: model.tie_embeddings.unwrap_or(true),
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..Mamba2Config::default()
        }
    }
}

impl Buildable for Rwkv7 {
    fn model_config(config: &RunConfig, target: &Tokenizer, _: &Tokenizer) -> Rwkv7Config {
        let model = &config.model;
        Rwkv7Config {
            vocab_size: target.vocab_size(),
            hidden_size: model.hidden_size,
            num_layers: model.num_layers,
            head_dim: model.hidden_size / model.num_heads.unwrap_or(1).max(1),
            intermediate_size: model.intermediate_size,
            dropout: model.dropout,
            bos_token_id: Some(target.bos_id()),
            eos_token_id: Some(target.eos_id()),
            ..Rwkv7Config::default()
        }
    }
}
