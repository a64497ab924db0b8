//! Decoder-only Transformer language model.  Radford et al. 2019 (GPT-2); the block is Vaswani et al.,
//! arXiv 1706.03762, section 3, with layer normalisation moved before each sub-layer.
//!
//! ```text
//! paper / GPT-2        here                       shape
//! wte                  transformer.wte.weight     [vocab, hidden]   also the output matrix when tied
//! wpe                  transformer.wpe.weight     [positions, hidden]
//! c_attn               attn.c_attn.weight         [hidden, 3 * hidden]   queries | keys | values
//! c_proj               attn.c_proj.weight         [hidden, hidden]
//! c_fc, c_proj         mlp.c_fc, mlp.c_proj       [hidden, inner], [inner, hidden]
//! past                 State::caches              [batch, capacity, 2 * hidden] for each layer
//! ```
//!
//! `config.json` and the tensors' names and layouts are those of Hugging Face's `GPT2LMHeadModel`.

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::attention::{AttentionOptions, attention_weights, self_attention};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};

use crate::config::{ConfigError, divides, one_of, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Embedding, LayerNorm, Linear, Noise};
use crate::search::{KeyValueCache, StateError, StateFile, by_columns, stored_by_columns};
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of Hugging Face's `GPT2Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GptConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// The longest sequence.
    #[serde(rename = "n_positions")]
    pub max_positions: usize,
    /// Width of the residual stream.
    #[serde(rename = "n_embd")]
    pub hidden_size: usize,
    /// Blocks.
    #[serde(rename = "n_layer")]
    pub num_layers: usize,
    /// Attention heads; they divide the width.
    #[serde(rename = "n_head")]
    pub num_heads: usize,
    /// Width of the feed-forward layer; four times the hidden size where absent.
    #[serde(rename = "n_inner")]
    pub intermediate_size: Option<usize>,
    /// `gelu_new`, the only one that we compute.
    pub activation_function: String,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// Dropout on each sub-layer's result.
    #[serde(rename = "resid_pdrop")]
    pub dropout: f64,
    /// Dropout on the embeddings.
    #[serde(rename = "embd_pdrop")]
    pub embedding_dropout: f64,
    /// Dropout on attention probabilities.
    #[serde(rename = "attn_pdrop")]
    pub attention_dropout: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
    /// Start of text.
    pub bos_token_id: Option<u32>,
    /// End of text.
    pub eos_token_id: Option<u32>,
}

impl Default for GptConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50_257,
            max_positions: 1024,
            hidden_size: 768,
            num_layers: 12,
            num_heads: 12,
            intermediate_size: None,
            activation_function: "gelu_new".into(),
            layer_norm_epsilon: 1e-5,
            dropout: 0.1,
            embedding_dropout: 0.1,
            attention_dropout: 0.1,
            initializer_range: 0.02,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

impl GptConfig {
    /// Width of the feed-forward layer.
    pub fn inner_size(&self) -> usize {
        self.intermediate_size.unwrap_or(4 * self.hidden_size)
    }
}

/// The model: the blocks and, where it is not tied, an output matrix.
#[derive(Module, Debug)]
pub struct Gpt {
    transformer: Decoder,
    lm_head: Option<Linear>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    config: GptConfig,
}

#[derive(Module, Debug)]
struct Decoder {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: FeedForward,
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Conv1d,
    c_proj: Conv1d,
}

#[derive(Module, Debug)]
struct FeedForward {
    c_fc: Conv1d,
    c_proj: Conv1d,
}

/// GPT-2's name for `x W + b` with `weight` `[in, out]`.
#[derive(Module, Debug)]
struct Conv1d {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Conv1d {
    fn new(inputs: usize, outputs: usize, deviation: f64, init: &mut Initialiser) -> Self {
        Self { weight: init.normal([inputs, outputs], deviation), bias: init.constant([outputs], 0.0) }
    }

    fn forward(&self, x: Tensor<3>, epilogue: Epilogue<3>) -> Tensor<3> {
        linear(x, self.weight.val(), WeightLayout::InOut, Some(self.bias.val()), epilogue)
    }
}

impl Block {
    /// Shared by training and decoding: they differ in `attend`, which is given queries, keys and values
    /// `[batch, time, 3 * hidden]`.
    fn forward(&self, x: Tensor<3>, drop: [Dropout; 2], attend: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        let [drop_attention, drop_feed_forward] = drop;
        let packed = self.attn.c_attn.forward(self.ln_1.forward(x.clone()), Epilogue::default());
        let x = self.attn.c_proj.forward(attend(packed), add_to(x, drop_attention));
        let activation = Epilogue { activation: Activation::Gelu, ..Epilogue::default() };
        let inner = self.mlp.c_fc.forward(self.ln_2.forward(x.clone()), activation);
        self.mlp.c_proj.forward(inner, add_to(x, drop_feed_forward))
    }
}

fn add_to(residual: Tensor<3>, dropout: Dropout) -> Epilogue<3> {
    Epilogue { activation: Activation::None, dropout, residual: Some(residual) }
}

impl Gpt {
    fn attention(&self, dropout: Dropout) -> AttentionOptions {
        AttentionOptions { dropout, ..AttentionOptions::causal(self.config.num_heads) }
    }

    /// The vectors of tokens of which `offset` came before.
    fn embed_from(&self, offset: usize, ids: Tensor<2, Int>, dropout: Dropout) -> Tensor<3> {
        let positions = Some(self.transformer.wpe.weight.val());
        embedding(self.transformer.wte.weight.val(), ids, EmbeddingOptions { scale: 1.0, positions, offset, dropout })
    }

    /// The output matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or(&self.transformer.wte.weight, |head| &head.weight).val()
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.decoding_head.clone().unwrap_or_else(|| self.head());
        linear(x, weight, WeightLayout::OutIn, None, Epilogue::default())
    }

    /// What the output matrix reads, `[batch, time, hidden]`.
    fn hidden(&self, ids: Tensor<2, Int>, noise: &mut Noise) -> Tensor<3> {
        let mut x = self.embed_from(0, ids, noise.dropout(self.config.embedding_dropout));
        for block in &self.transformer.h {
            let options = self.attention(noise.dropout(self.config.attention_dropout));
            let drop = [noise.dropout(self.config.dropout), noise.dropout(self.config.dropout)];
            x = block.forward(x, drop, |packed| self_attention(packed, None, &options));
        }
        self.transformer.ln_f.forward(x)
    }
}

impl Architecture for Gpt {
    type Config = GptConfig;
    const MODEL_TYPE: &'static str = "gpt2";
    const EXTRA: &'static [(&'static str, &'static str)] = &[("architectures", "[\"GPT2LMHeadModel\"]")];
    const HONOURED: &'static [(&'static str, &'static str)] = &[
        ("scale_attn_weights", "true"),
        ("scale_attn_by_inverse_layer_idx", "false"),
        ("reorder_and_upcast_attn", "false"),
        ("add_cross_attention", "false"),
    ];
    const OPTIONAL_PREFIX: &'static str = "transformer.";

    /// Causal masks, which older files carry, and a second copy of the tied output matrix.
    fn ignores_stored(name: &str) -> bool {
        name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight"
    }

    fn check(config: &GptConfig) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("n_positions", config.max_positions)?;
        positive("n_layer", config.num_layers)?;
        divides("n_head", config.num_heads, "n_embd", config.hidden_size)?;
        positive("n_inner", config.inner_size())?;
        one_of("activation_function", &config.activation_function, &["gelu_new"], "\"gelu_new\"")?;
        probability("resid_pdrop", config.dropout)?;
        probability("embd_pdrop", config.embedding_dropout)?;
        probability("attn_pdrop", config.attention_dropout)
    }

    /// GPT-2's: normal with deviation 0.02, biases 0; the products that end in the residual stream are scaled
    /// by 1 / sqrt(2 * layers), one factor for each addition to it.
    fn new(config: &GptConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let (hidden, inner) = (config.hidden_size, config.inner_size());
        let deviation = config.initializer_range;
        let residual = deviation / (2.0 * config.num_layers as f64).sqrt();
        let wte = Embedding { weight: init.normal([config.vocab_size, hidden], deviation) };
        let wpe = Embedding { weight: init.normal([config.max_positions, hidden], deviation) };
        let h = (0..config.num_layers)
            .map(|_| Block {
                ln_1: LayerNorm::new(hidden, config.layer_norm_epsilon, init),
                attn: Attention {
                    c_attn: Conv1d::new(hidden, 3 * hidden, deviation, init),
                    c_proj: Conv1d::new(hidden, hidden, residual, init),
                },
                ln_2: LayerNorm::new(hidden, config.layer_norm_epsilon, init),
                mlp: FeedForward {
                    c_fc: Conv1d::new(hidden, inner, deviation, init),
                    c_proj: Conv1d::new(inner, hidden, residual, init),
                },
            })
            .collect();
        let ln_f = LayerNorm::new(hidden, config.layer_norm_epsilon, init);
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Linear { weight: init.normal([config.vocab_size, hidden], deviation), bias: None });
        Self { transformer: Decoder { wte, wpe, h, ln_f }, lm_head, decoding_head: None, config: config.clone() }
    }

    fn config(&self) -> &GptConfig {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.lm_head.is_none().then(|| stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Matrices decay, embeddings included; biases and layer norms do not.
    fn decays(_: &str, rank: usize) -> bool {
        rank >= 2
    }
}

impl LanguageModel for Gpt {
    type State = GptState;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let x = self.hidden(ids, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, batch: usize) -> GptState {
        let device = self.transformer.wte.weight.val().device();
        let cache = KeyValueCache::new(batch, self.config.hidden_size, &device);
        GptState { caches: vec![cache; self.config.num_layers], position: 0 }
    }

    fn embed(&self, ids: Tensor<2, Int>, state: &GptState) -> Tensor<3> {
        self.embed_from(state.position, ids, Dropout::NONE)
    }

    fn read_embedded(&self, mut x: Tensor<3>, state: &mut GptState) -> Tensor<3> {
        let [_, time, _] = x.dims();
        let options = self.attention(Dropout::NONE);
        for (block, cache) in self.transformer.h.iter().zip(&mut state.caches) {
            x = block.forward(x, [Dropout::NONE; 2], |packed| cache.attend(packed, &options));
        }
        state.position += time;
        self.logits(self.transformer.ln_f.forward(x))
    }

    fn attention_maps(&self, ids: Tensor<2, Int>) -> Vec<Tensor<4>> {
        let (hidden, options) = (self.config.hidden_size, self.attention(Dropout::NONE));
        let mut x = self.embed_from(0, ids, Dropout::NONE);
        let mut weights = Vec::with_capacity(self.transformer.h.len());
        for block in &self.transformer.h {
            x = block.forward(x, [Dropout::NONE; 2], |packed| {
                let [query, key] = [0, 1].map(|part| packed.clone().narrow(2, part * hidden, hidden));
                weights.push(attention_weights(query, key, None, &options));
                self_attention(packed, None, &options)
            });
        }
        weights
    }

    fn visit_state(&self, state: &mut GptState, file: &mut StateFile) -> Result<(), StateError> {
        state.position = file.position();
        for (i, cache) in state.caches.iter_mut().enumerate() {
            let mut filled = cache.filled();
            let shape = [1, state.position, 2 * self.config.hidden_size];
            file.tensor(&format!("layers.{i}.keys_values"), &mut filled, shape)?;
            if let Some(filled) = filled {
                *cache = KeyValueCache::of(filled);
            }
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.config.max_positions)
    }
}

/// Cached keys and values of every layer.
#[derive(Debug, Clone)]
pub struct GptState {
    caches: Vec<KeyValueCache>,
    position: usize,
}
