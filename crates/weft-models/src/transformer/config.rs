//! The Transformer's configuration, its presets and what can be wrong with it.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, divides, one_of, positive, probability, special_tokens};

/// `config.json`, in the words of Hugging Face's `MarianConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransformerConfig {
    /// Entries of the source vocabulary.
    pub vocab_size: usize,
    /// Entries of the target vocabulary; the same as `vocab_size` when the embeddings are shared.
    pub decoder_vocab_size: Option<usize>,
    /// Width of the residual stream.
    #[serde(rename = "d_model")]
    pub hidden_size: usize,
    /// Blocks of the encoder.
    #[serde(rename = "encoder_layers")]
    pub num_encoder_layers: usize,
    /// Blocks of the decoder.
    #[serde(rename = "decoder_layers")]
    pub num_decoder_layers: usize,
    /// Attention heads of the encoder.
    #[serde(rename = "encoder_attention_heads")]
    pub num_encoder_heads: usize,
    /// Attention heads of the decoder.
    #[serde(rename = "decoder_attention_heads")]
    pub num_decoder_heads: usize,
    /// Feed-forward width of the encoder.
    #[serde(rename = "encoder_ffn_dim")]
    pub encoder_intermediate_size: usize,
    /// Feed-forward width of the decoder.
    #[serde(rename = "decoder_ffn_dim")]
    pub decoder_intermediate_size: usize,
    /// `relu`, the paper's.
    pub activation_function: String,
    /// On each sub-layer's result and on the embeddings.
    pub dropout: f64,
    /// On attention probabilities.
    pub attention_dropout: f64,
    /// Inside the feed-forward layer.
    pub activation_dropout: f64,
    /// The longest sentence, end token included.
    #[serde(rename = "max_position_embeddings")]
    pub max_positions: usize,
    /// Whether embeddings are multiplied by the square root of the width.
    pub scale_embedding: bool,
    /// One table for source and target (with `tie_word_embeddings`: three-way tying).
    pub share_encoder_decoder_embeddings: bool,
    /// Whether the output matrix is the target's embedding table (two-way tying).
    pub tie_word_embeddings: bool,
    /// Layer normalisation before each sub-layer instead of after it.
    pub normalize_before: bool,
    /// Fills batches.
    pub pad_token_id: u32,
    /// Ends every sentence.
    pub eos_token_id: u32,
    /// Starts every target.
    pub decoder_start_token_id: u32,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self::preset("base", 37_000).expect("a preset")
    }
}

impl TransformerConfig {
    /// The names of the presets.
    pub const PRESETS: [&'static str; 4] = ["tiny", "small", "base", "big"];

    /// A model of a well-known size: `tiny` and `small` for corpora of some ten thousand sentences, `base` and `big`
    /// as in the paper's table 3. Vocabulary shared by both languages, embeddings tied three ways.
    pub fn preset(name: &str, vocab_size: usize) -> Option<Self> {
        let (hidden_size, layers, heads, inner, dropout) = match name {
            "tiny" => (128, 3, 4, 512, 0.1),
            "small" => (256, 3, 4, 1024, 0.1),
            "base" => (512, 6, 8, 2048, 0.1),
            "big" => (1024, 6, 16, 4096, 0.3),
            _ => return None,
        };
        Some(Self {
            vocab_size,
            decoder_vocab_size: None,
            hidden_size,
            num_encoder_layers: layers,
            num_decoder_layers: layers,
            num_encoder_heads: heads,
            num_decoder_heads: heads,
            encoder_intermediate_size: inner,
            decoder_intermediate_size: inner,
            activation_function: "relu".into(),
            dropout,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            max_positions: 512,
            scale_embedding: true,
            share_encoder_decoder_embeddings: true,
            tie_word_embeddings: true,
            normalize_before: false,
            pad_token_id: 0,
            eos_token_id: 3,
            decoder_start_token_id: 2,
        })
    }

    /// Entries of the target vocabulary.
    pub fn target_vocab_size(&self) -> usize {
        self.decoder_vocab_size.unwrap_or(self.vocab_size)
    }

    /// Checks that a model can be built from this.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        positive("vocab_size", self.vocab_size)?;
        positive("decoder_vocab_size", self.target_vocab_size())?;
        positive("encoder_layers", self.num_encoder_layers)?;
        positive("decoder_layers", self.num_decoder_layers)?;
        positive("encoder_ffn_dim", self.encoder_intermediate_size)?;
        positive("decoder_ffn_dim", self.decoder_intermediate_size)?;
        positive("max_position_embeddings", self.max_positions)?;
        divides("encoder_attention_heads", self.num_encoder_heads, "d_model", self.hidden_size)?;
        divides("decoder_attention_heads", self.num_decoder_heads, "d_model", self.hidden_size)?;
        one_of("activation_function", &self.activation_function, &["relu"], "\"relu\"")?;
        if self.share_encoder_decoder_embeddings && self.target_vocab_size() != self.vocab_size {
            let found = self.target_vocab_size().to_string();
            let wanted = "equal to `vocab_size` when the embeddings are shared";
            return Err(ConfigError::Range { field: "decoder_vocab_size", found, wanted });
        }
        let special = [self.pad_token_id, self.eos_token_id, self.decoder_start_token_id];
        special_tokens(special, self.target_vocab_size())?;
        probability("dropout", self.dropout)?;
        probability("attention_dropout", self.attention_dropout)?;
        probability("activation_dropout", self.activation_dropout)
    }
}
