//! The recurrent encoder-decoder's configuration.

use serde::{Deserialize, Serialize};
use weft_kernels::recurrent::Cell;

use crate::config::{ConfigError, positive, probability, special_tokens};
use crate::layers::CellKind;

/// Whether the decoder attends to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// arXiv 1409.0473.
    Additive,
    /// The last states alone carry the source.
    None,
}

/// Where a GRU's reset gate acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GruReset {
    /// On the state before the product, as in the papers.
    Before,
    /// On the product, as in torch; one product fewer for each step.
    After,
}

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RnnEncoderDecoderConfig {
    /// `rnn`, `lstm` or `gru`.
    pub cell: CellKind,
    /// `before` or `after`; for GRU alone.
    pub gru_reset: GruReset,
    /// `additive` or `none`.
    pub attention: AttentionKind,
    /// Whether the encoder reads in both directions.
    pub bidirectional: bool,
    /// Entries of the source vocabulary.
    pub vocab_size: usize,
    /// Entries of the target vocabulary.
    pub decoder_vocab_size: usize,
    /// Width of the token embeddings (m).
    pub embedding_size: usize,
    /// Units of each decoder layer (n).
    pub hidden_size: usize,
    /// Units of each encoder layer in each direction.
    pub encoder_hidden_size: usize,
    /// Width in which states and annotations are compared (n').
    pub attention_size: usize,
    /// Width of the maxout readout (l).
    pub maxout_size: usize,
    /// Encoder layers.
    pub num_encoder_layers: usize,
    /// Decoder layers.
    pub num_decoder_layers: usize,
    /// On the embeddings, between layers and before the output.
    pub dropout: f64,
    /// Fills batches.
    pub pad_token_id: u32,
    /// Ends every sentence.
    pub eos_token_id: u32,
    /// Starts every target.
    pub decoder_start_token_id: u32,
}

impl Default for RnnEncoderDecoderConfig {
    fn default() -> Self {
        Self {
            cell: CellKind::Gru,
            gru_reset: GruReset::Before,
            attention: AttentionKind::Additive,
            bidirectional: true,
            vocab_size: 8000,
            decoder_vocab_size: 8000,
            embedding_size: 256,
            hidden_size: 512,
            encoder_hidden_size: 256,
            attention_size: 256,
            maxout_size: 256,
            num_encoder_layers: 1,
            num_decoder_layers: 1,
            dropout: 0.2,
            pad_token_id: 0,
            eos_token_id: 3,
            decoder_start_token_id: 2,
        }
    }
}

impl RnnEncoderDecoderConfig {
    /// Width of the encoder's annotations h_j.
    pub fn annotation_size(&self) -> usize {
        self.encoder_hidden_size * if self.bidirectional { 2 } else { 1 }
    }

    pub(super) fn cell(&self) -> Cell {
        match self.cell {
            CellKind::Gru => Cell::Gru { reset_before: self.gru_reset == GruReset::Before },
            other => other.cell(),
        }
    }

    pub(super) fn attends(&self) -> bool {
        self.attention == AttentionKind::Additive
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        positive("vocab_size", self.vocab_size)?;
        positive("decoder_vocab_size", self.decoder_vocab_size)?;
        positive("embedding_size", self.embedding_size)?;
        positive("hidden_size", self.hidden_size)?;
        positive("encoder_hidden_size", self.encoder_hidden_size)?;
        positive("attention_size", self.attention_size)?;
        positive("maxout_size", self.maxout_size)?;
        positive("num_encoder_layers", self.num_encoder_layers)?;
        positive("num_decoder_layers", self.num_decoder_layers)?;
        let special = [self.pad_token_id, self.eos_token_id, self.decoder_start_token_id];
        special_tokens(special, self.decoder_vocab_size)?;
        probability("dropout", self.dropout)?;
        if !self.attends() && self.num_encoder_layers != self.num_decoder_layers {
            let found = self.num_decoder_layers.to_string();
            let wanted = "equal to `num_encoder_layers` without attention: each layer hands its last state to its peer";
            return Err(ConfigError::Range { field: "num_decoder_layers", found, wanted });
        }
        Ok(())
    }
}
