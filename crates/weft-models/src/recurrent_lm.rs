//! Recurrent language model: an embedding, a stack of RNN, LSTM or GRU layers, an output matrix.
//! Elman 1990; Hochreiter & Schmidhuber 1997; Cho et al., arXiv 1406.1078. The layout is torch's.
//!
//! ```text
//! torch                   here                     shape
//! nn.Embedding            embed_tokens.weight      [vocab, embedding]   also the output matrix when tied
//! weight_ih_lN            rnn.N.weight_ih          [gates * hidden, in]
//! weight_hh_lN            rnn.N.weight_hh          [gates * hidden, hidden]
//! h_n, c_n                State::layers            [batch, hidden] each
//! nn.Linear               lm_head                  [vocab, hidden]
//! ```

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::{Dropout, dropout};
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Epilogue, WeightLayout, linear};
use weft_kernels::recurrent::RecurrentState;

use crate::config::{ConfigError, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{CellKind, Embedding, Noise, RecurrentLayer, recurrent_name};
use crate::search::{StateError, StateFile, by_columns, stored_by_columns};
use crate::{Architecture, LanguageModel};

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecurrentLmConfig {
    /// `rnn`, `lstm` or `gru`.
    pub cell: CellKind,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the token embeddings; the hidden size when tied.
    pub embedding_size: usize,
    /// Units of each layer.
    pub hidden_size: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
    /// On the embeddings, between layers and before the output.
    pub dropout: f64,
}

impl Default for RecurrentLmConfig {
    fn default() -> Self {
        Self {
            cell: CellKind::Lstm,
            vocab_size: 256,
            embedding_size: 512,
            hidden_size: 512,
            num_layers: 2,
            tie_word_embeddings: true,
            dropout: 0.1,
        }
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct RecurrentLm {
    embed_tokens: Embedding,
    rnn: Vec<RecurrentLayer>,
    lm_head: Head,
    /// The output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    config: RecurrentLmConfig,
}

#[derive(Module, Debug)]
struct Head {
    /// Absent when tied.
    weight: Option<Param<Tensor<2>>>,
    bias: Param<Tensor<1>>,
}

/// The recurrent state of every layer, a few kilobytes however long the text.
#[derive(Debug, Clone)]
pub struct RecurrentLmState {
    layers: Vec<Option<RecurrentState>>,
}

impl RecurrentLm {
    fn embed_with(&self, ids: Tensor<2, Int>, dropout: Dropout) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout };
        embedding(self.embed_tokens.weight.val(), ids, options)
    }

    /// The vectors of tokens, `[batch, time, embedding]`, to what the output matrix reads, `[batch, time, hidden]`.
    fn hidden(&self, mut x: Tensor<3>, state: &mut RecurrentLmState, noise: &mut Noise) -> Tensor<3> {
        let probability = self.config.dropout;
        for (layer, state) in self.rnn.iter().zip(&mut state.layers) {
            let (outputs, last) = layer.forward(self.config.cell.cell(), x, state.take(), None, false);
            *state = Some(last);
            x = match noise.dropout(probability) {
                none if none.is_none() => outputs,
                some => dropout(outputs, some),
            };
        }
        x
    }

    /// The output matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<2> {
        self.lm_head.weight.as_ref().unwrap_or(&self.embed_tokens.weight).val()
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.decoding_head.clone().unwrap_or_else(|| self.head());
        linear(x, weight, WeightLayout::OutIn, Some(self.lm_head.bias.val()), Epilogue::default())
    }

    fn zero_state(&self) -> RecurrentLmState {
        RecurrentLmState { layers: vec![None; self.config.num_layers] }
    }
}

impl Architecture for RecurrentLm {
    type Config = RecurrentLmConfig;
    const MODEL_TYPE: &'static str = "weft_recurrent_lm";

    fn check(config: &RecurrentLmConfig) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("embedding_size", config.embedding_size)?;
        positive("hidden_size", config.hidden_size)?;
        positive("num_hidden_layers", config.num_layers)?;
        if config.tie_word_embeddings && config.embedding_size != config.hidden_size {
            let found = config.embedding_size.to_string();
            let wanted = "equal to `hidden_size` when the embeddings are tied";
            return Err(ConfigError::Range { field: "embedding_size", found, wanted });
        }
        probability("dropout", config.dropout)
    }

    /// torch's: uniform within 1 / sqrt(hidden) in the layers; embeddings normal, of deviation 1 / sqrt(hidden) so
    /// that tied logits start out of order 1. An LSTM's forget gate starts open (bias 1, Jozefowicz et al. 2015).
    fn new(config: &RecurrentLmConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let deviation = (config.hidden_size as f64).powf(-0.5);
        let weight = init.normal([config.vocab_size, config.embedding_size], deviation);
        let rnn = (0..config.num_layers)
            .map(|layer| {
                let inputs = if layer == 0 { config.embedding_size } else { config.hidden_size };
                RecurrentLayer::new(config.cell.cell(), inputs, config.hidden_size, init)
            })
            .collect();
        let lm_head = Head {
            weight: (!config.tie_word_embeddings)
                .then(|| init.uniform([config.vocab_size, config.hidden_size], deviation)),
            bias: init.constant([config.vocab_size], 0.0),
        };
        Self { embed_tokens: Embedding { weight }, rnn, lm_head, decoding_head: None, config: config.clone() }
    }

    fn config(&self) -> &RecurrentLmConfig {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = Some(stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Matrices decay, biases do not.
    fn decays(_: &str, rank: usize) -> bool {
        rank >= 2
    }

    fn stored_names(name: &str) -> Vec<String> {
        vec![recurrent_name(name)]
    }
}

impl LanguageModel for RecurrentLm {
    type State = RecurrentLmState;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let x = self.embed_with(ids, noise.dropout(self.config.dropout));
        let x = self.hidden(x, &mut self.zero_state(), noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        let bias = Some(self.lm_head.bias.val());
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, bias, targets, 0.0, Some(-1))
    }

    fn start(&self, _: usize) -> RecurrentLmState {
        self.zero_state()
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &RecurrentLmState) -> Tensor<3> {
        self.embed_with(ids, Dropout::NONE)
    }

    fn read_embedded(&self, x: Tensor<3>, state: &mut RecurrentLmState) -> Tensor<3> {
        self.logits(self.hidden(x, state, &mut Noise::none()))
    }

    fn visit_state(&self, state: &mut RecurrentLmState, file: &mut StateFile) -> Result<(), StateError> {
        let shape = [1, self.config.hidden_size];
        for (i, layer) in state.layers.iter_mut().enumerate() {
            let (mut hidden, mut cell) = layer.take().map_or((None, None), |layer| (Some(layer.hidden), layer.cell));
            file.tensor(&format!("layers.{i}.hidden"), &mut hidden, shape)?;
            if self.config.cell == CellKind::Lstm {
                file.tensor(&format!("layers.{i}.cell"), &mut cell, shape)?;
            }
            *layer = hidden.map(|hidden| RecurrentState { hidden, cell });
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}
