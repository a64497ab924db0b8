//! The decoder-only Transformer as it is built today: rotary positions (Su et al., arXiv 2104.09864), RMSNorm before each
//! sub-layer (Zhang & Sennrich, arXiv 1910.07467), grouped-query attention (Ainslie et al., arXiv 2305.13245), SwiGLU
//! (Shazeer, arXiv 2002.05202); LLaMA's composition (Touvron et al., arXiv 2302.13971, section 2.2), Mistral's sliding
//! window (Jiang et al., arXiv 2310.06825, section 2). No layer has a bias.
//!
//! ```text
//! LLaMA                 here                          shape
//! tok_embeddings        model.embed_tokens.weight     [vocab, hidden]   also the output matrix when tied
//! wq                    self_attn.q_proj              [heads * head_dim, hidden]
//! wk, wv                self_attn.kv_proj             [2 * kv_heads * head_dim, hidden]   stored as k_proj, v_proj
//! wo                    self_attn.o_proj              [hidden, heads * head_dim]
//! w1, w3                mlp.gate_up_proj              [2 * inner, hidden]   stored as gate_proj, up_proj
//! w2                    mlp.down_proj                 [hidden, inner]
//! cache                 State::caches                 [batch, capacity, 2 * kv_heads * head_dim] for each layer
//! ```
//!
//! `config.json` and the tensors' names and layouts are those of Hugging Face's `MistralForCausalLM`, which without a
//! window computes what its `LlamaForCausalLM` does. `attention_pattern` is ours.

use std::sync::Arc;

use burn::Tensor;
use burn::module::Module;
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::attention::{AttentionOptions, BlockMask, attention_weights, cross_attention};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};
use weft_kernels::rotary::{Rotation, rotary};
use weft_kernels::swiglu::swiglu;

use crate::config::{ConfigError, divides, one_of, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Embedding, Linear, Noise, RmsNorm};
use crate::search::{KeyValueCache, StateError, StateFile, by_columns, stored_by_columns};
pub use crate::sparse_pattern::SparsePattern;
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of Hugging Face's `MistralConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// The longest sequence.
    #[serde(rename = "max_position_embeddings")]
    pub max_positions: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Heads that ask.
    #[serde(rename = "num_attention_heads")]
    pub num_heads: usize,
    /// Heads that answer; they divide those that ask.
    #[serde(rename = "num_key_value_heads")]
    pub num_kv_heads: usize,
    /// Columns of a head; the width divided by the heads where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// `silu`, the only one that we compute.
    pub hidden_act: String,
    /// Added to the mean square in normalisation.
    pub rms_norm_eps: f64,
    /// The base of rotary positions: the longest wavelength is 2 pi times as long.
    pub rope_theta: f64,
    /// How far a position sees, its own included; all that came before where absent.
    pub sliding_window: Option<usize>,
    /// Which blocks of positions see which, besides; not part of Hugging Face's configuration, and what is trained with
    /// it is another model there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_pattern: Option<SparsePattern>,
    /// Dropout on each sub-layer's result; not part of Hugging Face's configuration.
    pub dropout: f64,
    /// Dropout on attention probabilities.
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

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            max_positions: 131_072,
            hidden_size: 4096,
            intermediate_size: 14_336,
            num_layers: 32,
            num_heads: 32,
            num_kv_heads: 8,
            head_dim: None,
            hidden_act: "silu".into(),
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            sliding_window: None,
            attention_pattern: None,
            dropout: 0.0,
            attention_dropout: 0.0,
            initializer_range: 0.02,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_id: Some(2),
        }
    }
}

impl LlamaConfig {
    /// Columns of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_heads.max(1))
    }
}

/// The model: the blocks and, where it is not tied, an output matrix.
#[derive(Module, Debug)]
pub struct Llama {
    model: Decoder,
    lm_head: Option<Linear>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    blocks: Option<Arc<BlockMask>>,
    #[module(skip)]
    config: LlamaConfig,
}

#[derive(Module, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    kv_proj: Linear,
    o_proj: Linear,
}

#[derive(Module, Debug)]
struct FeedForward {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Block {
    /// Shared by training and decoding: they differ in `attend`, which is given queries `[batch, time, heads * head_dim]`
    /// and keys and values `[batch, time, 2 * kv_heads * head_dim]`, positions in them.
    fn forward(
        &self,
        x: Tensor<3>,
        rotation: &Rotation,
        drop: [Dropout; 2],
        attend: impl FnOnce(Tensor<3>, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let [drop_attention, drop_feed_forward] = drop;
        let normal = self.input_layernorm.forward(x.clone());
        let (query, keys_values) =
            (self.self_attn.q_proj.forward(normal.clone()), self.self_attn.kv_proj.forward(normal));
        let ([.., hidden], [.., kv_hidden]) = (query.dims(), keys_values.dims());
        let (query, keys_values) = (rotary(query, hidden, rotation), rotary(keys_values, kv_hidden / 2, rotation));
        let x = self.self_attn.o_proj.forward_with(attend(query, keys_values), add_to(x, drop_attention));
        let inner = swiglu(self.mlp.gate_up_proj.forward(self.post_attention_layernorm.forward(x.clone())));
        self.mlp.down_proj.forward_with(inner, add_to(x, drop_feed_forward))
    }
}

fn add_to(residual: Tensor<3>, dropout: Dropout) -> Epilogue<3> {
    Epilogue { activation: Activation::None, dropout, residual: Some(residual) }
}

impl Llama {
    fn attention(&self, dropout: Dropout) -> AttentionOptions {
        AttentionOptions {
            num_kv_heads: self.config.num_kv_heads,
            window: self.config.sliding_window,
            blocks: self.blocks.clone(),
            dropout,
            ..AttentionOptions::causal(self.config.num_heads)
        }
    }

    fn rotation(&self, first: usize, count: usize) -> Rotation {
        Rotation::new(first, count, self.config.head_size(), self.config.rope_theta)
    }

    fn embedded(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE };
        embedding(self.model.embed_tokens.weight.val(), ids, options)
    }

    /// The output matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or(&self.model.embed_tokens.weight, |head| &head.weight).val()
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.decoding_head.clone().unwrap_or_else(|| self.head());
        linear(x, weight, WeightLayout::OutIn, None, Epilogue::default())
    }

    /// What the output matrix reads, `[batch, time, hidden]`.
    fn hidden(&self, ids: Tensor<2, Int>, noise: &mut Noise) -> Tensor<3> {
        let rotation = self.rotation(0, ids.dims()[1]);
        let mut x = self.embedded(ids);
        for block in &self.model.layers {
            let options = self.attention(noise.dropout(self.config.attention_dropout));
            let drop = [noise.dropout(self.config.dropout), noise.dropout(self.config.dropout)];
            x = block.forward(x, &rotation, drop, |query, keys_values| {
                cross_attention(query, keys_values, None, None, &options)
            });
        }
        self.model.norm.forward(x)
    }

    /// How many of `position` positions later ones may still see. A block mask counts positions from the first on, so that
    /// all are needed.
    fn remembered(&self, position: usize) -> usize {
        match self.config.sliding_window {
            Some(window) if self.blocks.is_none() => position.min(window - 1),
            _ => position,
        }
    }
}

/// The blocks of a pattern's mask, which has a place for each pair of them.
const MOST_BLOCKS: usize = 16_384;

impl Architecture for Llama {
    type Config = LlamaConfig;
    const MODEL_TYPE: &'static str = "mistral";
    const EXTRA: &'static [(&'static str, &'static str)] = &[("architectures", "[\"MistralForCausalLM\"]")];
    const HONOURED: &'static [(&'static str, &'static str)] = &[("rope_scaling", "null")];

    /// A second copy of the tied output matrix, and angles that older files carry.
    fn ignores_stored(name: &str) -> bool {
        name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq")
    }

    fn check(config: &LlamaConfig) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("max_position_embeddings", config.max_positions)?;
        positive("num_hidden_layers", config.num_layers)?;
        positive("intermediate_size", config.intermediate_size)?;
        positive("num_attention_heads", config.num_heads)?;
        if config.head_dim.is_none() {
            divides("num_attention_heads", config.num_heads, "hidden_size", config.hidden_size)?;
        }
        divides("num_key_value_heads", config.num_kv_heads, "num_attention_heads", config.num_heads)?;
        if !config.head_size().is_multiple_of(2) || config.head_size() == 0 {
            let found = config.head_size().to_string();
            return Err(ConfigError::Range { field: "head_dim", found, wanted: "an even number of columns" });
        }
        if let Some(window) = config.sliding_window.filter(|&window| window < 2) {
            let (found, wanted) = (window.to_string(), "2 or more: a position sees itself and what is before it");
            return Err(ConfigError::Range { field: "sliding_window", found, wanted });
        }
        let blocks = config.attention_pattern.map_or(0, |pattern| config.max_positions.div_ceil(pattern.block()));
        if blocks > MOST_BLOCKS {
            let (found, wanted) = (format!("{blocks} blocks long"), "at most 16384 blocks long: take larger blocks");
            return Err(ConfigError::Range { field: "attention_pattern", found, wanted });
        }
        one_of("hidden_act", &config.hidden_act, &["silu"], "\"silu\"")?;
        probability("dropout", config.dropout)?;
        probability("attention_dropout", config.attention_dropout)
    }

    /// Hugging Face's: normal with deviation 0.02.
    fn new(config: &LlamaConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let (hidden, size, deviation) = (config.hidden_size, config.head_size(), config.initializer_range);
        let product = |inputs, outputs, init: &mut Initialiser| Linear {
            weight: init.normal([outputs, inputs], deviation),
            bias: None,
        };
        let embed_tokens = Embedding { weight: init.normal([config.vocab_size, hidden], deviation) };
        let layers = (0..config.num_layers)
            .map(|_| Block {
                input_layernorm: RmsNorm::new(hidden, config.rms_norm_eps, init),
                self_attn: Attention {
                    q_proj: product(hidden, config.num_heads * size, init),
                    kv_proj: product(hidden, 2 * config.num_kv_heads * size, init),
                    o_proj: product(config.num_heads * size, hidden, init),
                },
                post_attention_layernorm: RmsNorm::new(hidden, config.rms_norm_eps, init),
                mlp: FeedForward {
                    gate_up_proj: product(hidden, 2 * config.intermediate_size, init),
                    down_proj: product(config.intermediate_size, hidden, init),
                },
            })
            .collect();
        let norm = RmsNorm::new(hidden, config.rms_norm_eps, init);
        let lm_head = (!config.tie_word_embeddings).then(|| product(hidden, config.vocab_size, init));
        let blocks = config.attention_pattern.map(|pattern| Arc::new(pattern.mask(config.max_positions)));
        let model = Decoder { embed_tokens, layers, norm };
        Self { model, lm_head, decoding_head: None, blocks, config: config.clone() }
    }

    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.lm_head.is_none().then(|| stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Matrices decay, embeddings included; gains do not.
    fn decays(_: &str, rank: usize) -> bool {
        rank >= 2
    }

    fn stored_names(name: &str) -> Vec<String> {
        for (fused, parts) in [("kv_proj", ["k_proj", "v_proj"]), ("gate_up_proj", ["gate_proj", "up_proj"])] {
            if name.contains(fused) {
                return parts.map(|part| name.replace(fused, part)).into();
            }
        }
        vec![name.to_owned()]
    }
}

impl LanguageModel for Llama {
    type State = LlamaState;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let x = self.hidden(ids, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, batch: usize) -> LlamaState {
        let device = self.model.embed_tokens.weight.val().device();
        let cache = KeyValueCache::new(batch, self.config.num_kv_heads * self.config.head_size(), &device);
        LlamaState { caches: vec![cache; self.config.num_layers], position: 0 }
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &LlamaState) -> Tensor<3> {
        self.embedded(ids)
    }

    fn read_embedded(&self, mut x: Tensor<3>, state: &mut LlamaState) -> Tensor<3> {
        let [_, time, _] = x.dims();
        let rotation = self.rotation(state.position, time);
        state.position += time;
        let remembered = self.remembered(state.position);
        let options = self.attention(Dropout::NONE);
        for (block, cache) in self.model.layers.iter().zip(&mut state.caches) {
            x = block.forward(x, &rotation, [Dropout::NONE; 2], |query, keys_values| {
                let seen = cache.attend_with(query, keys_values, &options);
                cache.forget_all_but(remembered);
                seen
            });
        }
        self.logits(self.model.norm.forward(x))
    }

    fn attention_maps(&self, ids: Tensor<2, Int>) -> Vec<Tensor<4>> {
        let (rotation, options) = (self.rotation(0, ids.dims()[1]), self.attention(Dropout::NONE));
        let mut x = self.embedded(ids);
        let mut weights = Vec::with_capacity(self.model.layers.len());
        for block in &self.model.layers {
            x = block.forward(x, &rotation, [Dropout::NONE; 2], |query, keys_values| {
                let keys = keys_values.clone().narrow(2, 0, keys_values.dims()[2] / 2);
                weights.push(attention_weights(query.clone(), keys, None, &options));
                cross_attention(query, keys_values, None, None, &options)
            });
        }
        weights
    }

    fn visit_state(&self, state: &mut LlamaState, file: &mut StateFile) -> Result<(), StateError> {
        state.position = file.position();
        let remembered = self.remembered(state.position);
        let shape = [1, remembered, 2 * self.config.num_kv_heads * self.config.head_size()];
        for (i, cache) in state.caches.iter_mut().enumerate() {
            let mut last = cache.last(remembered);
            file.tensor(&format!("layers.{i}.keys_values"), &mut last, shape)?;
            if let Some(last) = last {
                *cache = KeyValueCache::of(last);
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
pub struct LlamaState {
    caches: Vec<KeyValueCache>,
    position: usize,
}
