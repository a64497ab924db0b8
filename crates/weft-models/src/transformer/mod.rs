//! The Transformer, encoder-decoder.  Vaswani et al., arXiv 1706.03762.
//!
//! ```text
//! paper                      here                                  shape
//! d_model, N, h, d_ff        hidden_size, num_*_layers, num_*_heads, *_intermediate_size
//! P_drop, eps_ls             dropout, label_smoothing (of the loss)
//! embeddings (3.4)           model.shared.weight                   [vocab, hidden]   scaled by sqrt(hidden)
//! PE (3.5)                   positions                             [max_positions, hidden]
//! W^Q, W^K, W^V (3.2.2)      self_attn.qkv_proj                    [3 * hidden, hidden]
//! W_1, W_2 (3.3)             fc1, fc2                              [inner, hidden], [hidden, inner]
//! ```
//!
//! `config.json` and the tensors' names are those of Hugging Face's `MarianMTModel`, which differs from the paper
//! in one place: position encodings hold the sines in their first half and the cosines in their second instead of
//! alternating, a permutation of the axis. Our own key `normalize_before` moves layer normalisation before each
//! sub-layer (pre-norm), with one more at the end of each stack; Marian's layout does not know it.

mod config;

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, TensorData};
use weft_kernels::attention::{AttentionOptions, attention_weights, cross_attention, self_attention};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};

use crate::config::ConfigError;
use crate::initialise::Initialiser;
use crate::layers::{Embedding, LayerNorm, Linear, Noise};
use crate::search::{KeyValueCache, by_columns, select_rows, stored_by_columns, token_column};
use crate::{Architecture, Sequences, Translator};
pub use config::TransformerConfig;

/// The model.
#[derive(Module, Debug)]
pub struct Transformer {
    model: Stacks,
    /// Absent when tied.
    lm_head: Option<Linear>,
    final_logits_bias: Param<Tensor<2>>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    /// `[max_positions, hidden]`; a function of its shape, not a parameter.
    #[module(skip)]
    positions: Positions,
    #[module(skip)]
    config: TransformerConfig,
}

#[derive(Module, Debug)]
struct Stacks {
    /// One table for both languages, or one in each stack.
    shared: Option<Embedding>,
    encoder: Encoder,
    decoder: Decoder,
}

#[derive(Module, Debug)]
struct Encoder {
    embed_tokens: Option<Embedding>,
    layers: Vec<EncoderLayer>,
    /// With `normalize_before` only.
    layer_norm: Option<LayerNorm>,
}

#[derive(Module, Debug)]
struct Decoder {
    embed_tokens: Option<Embedding>,
    layers: Vec<DecoderLayer>,
    layer_norm: Option<LayerNorm>,
}

#[derive(Module, Debug)]
struct SelfAttention {
    /// Queries, keys and values in one product; stored as `q_proj`, `k_proj` and `v_proj`.
    qkv_proj: Linear,
    out_proj: Linear,
}

#[derive(Module, Debug)]
struct CrossAttention {
    q_proj: Linear,
    /// Keys and values in one product; stored as `k_proj` and `v_proj`.
    kv_proj: Linear,
    out_proj: Linear,
}

#[derive(Module, Debug)]
struct EncoderLayer {
    self_attn: SelfAttention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct DecoderLayer {
    self_attn: SelfAttention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: CrossAttention,
    encoder_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

/// Section 3.1: LayerNorm(x + Dropout(Sublayer(x))); with `before`, x + Dropout(Sublayer(LayerNorm(x))).
/// `sublayer` is handed what to read, and the epilogue that ends its last product.
fn residual(
    x: Tensor<3>,
    norm: &LayerNorm,
    before: bool,
    dropout: Dropout,
    sublayer: impl FnOnce(Tensor<3>, Epilogue<3>) -> Tensor<3>,
) -> Tensor<3> {
    let epilogue = Epilogue { activation: Activation::None, dropout, residual: Some(x.clone()) };
    if before { sublayer(norm.forward(x), epilogue) } else { norm.forward(sublayer(x, epilogue)) }
}

/// Section 3.3: max(0, x W_1 + b_1) W_2 + b_2.
fn feed_forward(fc1: &Linear, fc2: &Linear, x: Tensor<3>, inside: Dropout, epilogue: Epilogue<3>) -> Tensor<3> {
    let relu = Epilogue { activation: Activation::Relu, dropout: inside, residual: None };
    fc2.forward_with(fc1.forward_with(x, relu), epilogue)
}

impl SelfAttention {
    fn new(hidden: usize, init: &mut Initialiser) -> Self {
        // Each of the three is a matrix of its own: drawn as hidden x hidden, not as one of 3 * hidden.
        let limit = (6.0 / (2 * hidden) as f64).sqrt();
        let qkv_proj =
            Linear { weight: init.uniform([3 * hidden, hidden], limit), bias: Some(init.constant([3 * hidden], 0.0)) };
        Self { qkv_proj, out_proj: Linear::glorot(hidden, hidden, true, init) }
    }
}

impl CrossAttention {
    fn new(hidden: usize, init: &mut Initialiser) -> Self {
        let q_proj = Linear::glorot(hidden, hidden, true, init);
        let limit = (6.0 / (2 * hidden) as f64).sqrt();
        let kv_proj =
            Linear { weight: init.uniform([2 * hidden, hidden], limit), bias: Some(init.constant([2 * hidden], 0.0)) };
        Self { q_proj, kv_proj, out_proj: Linear::glorot(hidden, hidden, true, init) }
    }
}

impl DecoderLayer {
    /// Shared by training and decoding: they differ in how the two attentions find their keys and values.
    fn forward(
        &self,
        x: Tensor<3>,
        before: bool,
        drop: [Dropout; 4],
        attend_self: impl FnOnce(Tensor<3>) -> Tensor<3>,
        attend_source: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let [drop_self, drop_source, drop_inside, drop_feed_forward] = drop;
        let x = residual(x, &self.self_attn_layer_norm, before, drop_self, |x, end| {
            self.self_attn.out_proj.forward_with(attend_self(self.self_attn.qkv_proj.forward(x)), end)
        });
        let x = residual(x, &self.encoder_attn_layer_norm, before, drop_source, |x, end| {
            self.encoder_attn.out_proj.forward_with(attend_source(self.encoder_attn.q_proj.forward(x)), end)
        });
        residual(x, &self.final_layer_norm, before, drop_feed_forward, |x, end| {
            feed_forward(&self.fc1, &self.fc2, x, drop_inside, end)
        })
    }
}

impl Transformer {
    fn source_table(&self) -> Tensor<2> {
        self.model.encoder.embed_tokens.as_ref().or(self.model.shared.as_ref()).expect("built with one").weight.val()
    }

    fn target_table(&self) -> Tensor<2> {
        self.model.decoder.embed_tokens.as_ref().or(self.model.shared.as_ref()).expect("built with one").weight.val()
    }

    fn embed(&self, table: Tensor<2>, ids: Tensor<2, Int>, offset: usize, dropout: Dropout) -> Tensor<3> {
        let scale = if self.config.scale_embedding { (self.config.hidden_size as f32).sqrt() } else { 1.0 };
        let positions = Some(self.positions.on(&table.device()));
        embedding(table, ids, EmbeddingOptions { scale, positions, offset, dropout })
    }

    fn encode_with(&self, source: &Sequences, noise: &mut Noise) -> Tensor<3> {
        let config = &self.config;
        let before = config.normalize_before;
        let mut x = self.embed(self.source_table(), source.ids.clone(), 0, noise.dropout(config.dropout));
        for layer in &self.model.encoder.layers {
            let dropout = noise.dropout(config.attention_dropout);
            let options = AttentionOptions { dropout, ..AttentionOptions::new(config.num_encoder_heads) };
            x = residual(x, &layer.self_attn_layer_norm, before, noise.dropout(config.dropout), |x, end| {
                let packed = layer.self_attn.qkv_proj.forward(x);
                layer.self_attn.out_proj.forward_with(self_attention(packed, Some(&source.lengths), &options), end)
            });
            let inside = noise.dropout(config.activation_dropout);
            x = residual(x, &layer.final_layer_norm, before, noise.dropout(config.dropout), |x, end| {
                feed_forward(&layer.fc1, &layer.fc2, x, inside, end)
            });
        }
        match &self.model.encoder.layer_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    fn heads(&self, causal: bool, noise: &mut Noise) -> AttentionOptions {
        let dropout = noise.dropout(self.config.attention_dropout);
        AttentionOptions { causal, dropout, ..AttentionOptions::new(self.config.num_decoder_heads) }
    }

    /// The decoder over whole targets: `[batch, target_time, hidden]`. `watch` sees what each layer's attention to the
    /// source is made of: its queries, and its keys and values.
    fn decode_with(
        &self,
        memory: &Tensor<3>,
        source: &Sequences,
        target: &Sequences,
        noise: &mut Noise,
        mut watch: impl FnMut(&Tensor<3>, &Tensor<3>),
    ) -> Tensor<3> {
        let config = &self.config;
        let mut x = self.embed(self.target_table(), target.ids.clone(), 0, noise.dropout(config.dropout));
        for layer in &self.model.decoder.layers {
            let (of_self, of_source) = (self.heads(true, noise), self.heads(false, noise));
            let drop = [config.dropout, config.dropout, config.activation_dropout, config.dropout];
            let drop = drop.map(|probability| noise.dropout(probability));
            x = layer.forward(
                x,
                config.normalize_before,
                drop,
                |packed| self_attention(packed, Some(&target.lengths), &of_self),
                |query| {
                    let keys_values = layer.encoder_attn.kv_proj.forward(memory.clone());
                    watch(&query, &keys_values);
                    let lengths = (Some(&target.lengths[..]), Some(&source.lengths[..]));
                    cross_attention(query, keys_values, lengths.0, lengths.1, &of_source)
                },
            );
        }
        self.finish(x)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.model.decoder.layer_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The output matrix, `[vocab, hidden]`, and the constant that Marian's format adds to the logits.
    fn head(&self) -> (Tensor<2>, Tensor<1>) {
        let weight = self.lm_head.as_ref().map_or_else(|| self.target_table(), |head| head.weight.val());
        (weight, self.final_logits_bias.val().squeeze_dim(0))
    }

    fn logits<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = self.head();
        let weight = self.decoding_head.clone().unwrap_or(weight);
        linear(x, weight, WeightLayout::OutIn, Some(bias), Epilogue::default())
    }
}

impl Architecture for Transformer {
    type Config = TransformerConfig;
    const MODEL_TYPE: &'static str = "marian";
    const EXTRA: &'static [(&'static str, &'static str)] = &[
        ("architectures", "[\"MarianMTModel\"]"),
        ("is_encoder_decoder", "true"),
        ("static_position_embeddings", "true"),
        ("forced_eos_token_id", "null"),
    ];
    const HONOURED: &'static [(&'static str, &'static str)] =
        &[("static_position_embeddings", "true"), ("normalize_embedding", "false"), ("add_final_layer_norm", "false")];

    /// Positions, which some files carry, and further copies of tied tables.
    fn ignores_stored(name: &str) -> bool {
        name.ends_with("embed_positions.weight") || name.ends_with("embed_tokens.weight") || name == "lm_head.weight"
    }

    fn check(config: &TransformerConfig) -> Result<(), ConfigError> {
        config.check()
    }

    /// Glorot-uniform matrices, as the paper's authors' code; embeddings normal with deviation 1 / sqrt(hidden), so
    /// that scaled they are of order 1.
    fn new(config: &TransformerConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let hidden = config.hidden_size;
        let deviation = (hidden as f64).powf(-0.5);
        let table =
            |vocab: usize, init: &mut Initialiser| Embedding { weight: init.normal([vocab, hidden], deviation) };
        let shared = config.share_encoder_decoder_embeddings.then(|| table(config.vocab_size, init));
        let own = shared.is_none();
        let norm = |init: &mut Initialiser| LayerNorm::new(hidden, 1e-5, init);
        let encoder = Encoder {
            embed_tokens: own.then(|| table(config.vocab_size, init)),
            layers: (0..config.num_encoder_layers)
                .map(|_| EncoderLayer {
                    self_attn: SelfAttention::new(hidden, init),
                    self_attn_layer_norm: norm(init),
                    fc1: Linear::glorot(hidden, config.encoder_intermediate_size, true, init),
                    fc2: Linear::glorot(config.encoder_intermediate_size, hidden, true, init),
                    final_layer_norm: norm(init),
                })
                .collect(),
            layer_norm: config.normalize_before.then(|| norm(init)),
        };
        let decoder = Decoder {
            embed_tokens: own.then(|| table(config.target_vocab_size(), init)),
            layers: (0..config.num_decoder_layers)
                .map(|_| DecoderLayer {
                    self_attn: SelfAttention::new(hidden, init),
                    self_attn_layer_norm: norm(init),
                    encoder_attn: CrossAttention::new(hidden, init),
                    encoder_attn_layer_norm: norm(init),
                    fc1: Linear::glorot(hidden, config.decoder_intermediate_size, true, init),
                    fc2: Linear::glorot(config.decoder_intermediate_size, hidden, true, init),
                    final_layer_norm: norm(init),
                })
                .collect(),
            layer_norm: config.normalize_before.then(|| norm(init)),
        };
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Linear { weight: table(config.target_vocab_size(), init).weight, bias: None });
        // Part of the format, a constant in Marian: it is never trained.
        let final_logits_bias = init.constant([1, config.target_vocab_size()], 0.0).set_require_grad(false);
        let positions = Positions::new(config.max_positions, hidden);
        let model = Stacks { shared, encoder, decoder };
        Self { model, lm_head, final_logits_bias, decoding_head: None, positions, config: config.clone() }
    }

    fn config(&self) -> &TransformerConfig {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.lm_head.is_none().then(|| stored_by_columns(self.target_table()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// The paper has no weight decay; where one is asked for, matrices decay, biases and layer norms do not.
    fn decays(name: &str, rank: usize) -> bool {
        rank >= 2 && name != "final_logits_bias"
    }

    /// Fused projections are stored as Marian's three (`q_proj`, `k_proj`, `v_proj`) or two.
    fn stored_names(name: &str) -> Vec<String> {
        let split = |fused: &str, parts: &[&str]| parts.iter().map(|part| name.replace(fused, part)).collect();
        if name.contains("qkv_proj") {
            split("qkv_proj", &["q_proj", "k_proj", "v_proj"])
        } else if name.contains("kv_proj") {
            split("kv_proj", &["k_proj", "v_proj"])
        } else {
            vec![name.to_owned()]
        }
    }
}

impl Translator for Transformer {
    type State = TransformerState;

    fn loss(
        &self,
        source: &Sequences,
        target_in: &Sequences,
        target_out: &Sequences,
        label_smoothing: f32,
        noise: &mut Noise,
    ) -> Tensor<1> {
        let memory = self.encode_with(source, noise);
        let x = self.decode_with(&memory, source, target_in, noise, |_, _| ());
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), target_out.ids.clone().reshape([batch * time]));
        let ((weight, bias), ignore) = (self.head(), Some(self.config.pad_token_id as i32));
        linear_cross_entropy(x, weight, WeightLayout::OutIn, Some(bias), targets, label_smoothing, ignore)
    }

    /// The alignment is the last layer's attention to the source, the mean over its heads.
    fn forward(&self, source: &Sequences, target_in: &Sequences) -> (Tensor<3>, Option<Tensor<3>>) {
        let memory = self.encode_with(source, &mut Noise::none());
        let mut last = None;
        let watch = |query: &Tensor<3>, keys_values: &Tensor<3>| last = Some((query.clone(), keys_values.clone()));
        let x = self.decode_with(&memory, source, target_in, &mut Noise::none(), watch);
        let alignment = last.map(|(query, keys_values)| {
            let keys = keys_values.narrow(2, 0, self.config.hidden_size);
            let heads = self.heads(false, &mut Noise::none());
            attention_weights(query, keys, Some(&source.lengths), &heads).mean_dim(1).squeeze_dim(1)
        });
        (self.logits(x), alignment)
    }

    fn encode(&self, source: &Sequences, width: usize) -> TransformerState {
        let memory = self.encode_with(source, &mut Noise::none());
        let layers = &self.model.decoder.layers;
        let sources = layers.iter().map(|layer| layer.encoder_attn.kv_proj.forward(memory.clone())).collect();
        let cache = KeyValueCache::new(source.batch() * width, self.config.hidden_size, &memory.device());
        let caches = vec![cache; layers.len()];
        TransformerState { sources, source_lengths: source.lengths.clone(), caches, width, position: 0 }
    }

    fn step(&self, tokens: &[u32], state: &mut TransformerState) -> Tensor<2> {
        let table = self.target_table();
        let ids = token_column(tokens, &table.device());
        let mut x = self.embed(table, ids, state.position, Dropout::NONE);
        let (of_self, of_source) = (self.heads(true, &mut Noise::none()), self.heads(false, &mut Noise::none()));
        let (rows, width) = (tokens.len(), state.width);
        let layers = self.model.decoder.layers.iter().zip(&mut state.caches).zip(&state.sources);
        for ((layer, cache), keys_values) in layers {
            x = layer.forward(
                x,
                self.config.normalize_before,
                [Dropout::NONE; 4],
                |packed| cache.attend(packed, &of_self),
                |query| {
                    // The hypotheses of a sentence are so many queries over one set of keys and values.
                    let hidden = self.config.hidden_size;
                    let query = query.reshape([rows / width, width, hidden]);
                    let lengths = Some(&state.source_lengths[..]);
                    cross_attention(query, keys_values.clone(), None, lengths, &of_source).reshape([rows, 1, hidden])
                },
            );
        }
        state.position += 1;
        self.logits(self.finish(x)).squeeze_dim(1)
    }

    fn reorder(&self, state: &mut TransformerState, sentences: &[usize], parents: &[usize]) {
        let width = state.width;
        let row = |(i, &parent): (usize, &usize)| sentences[i / width] * width + parent;
        let rows: Vec<usize> = parents.iter().enumerate().map(row).collect();
        state.caches.iter_mut().for_each(|cache| cache.select(&rows));
        for keys_values in &mut state.sources {
            *keys_values = select_rows(keys_values.clone(), sentences);
        }
        state.source_lengths = sentences.iter().map(|&sentence| state.source_lengths[sentence]).collect();
    }

    fn start_token(&self) -> u32 {
        self.config.decoder_start_token_id
    }

    fn max_target_length(&self) -> Option<usize> {
        Some(self.config.max_positions)
    }

    fn max_source_length(&self) -> Option<usize> {
        Some(self.config.max_positions)
    }
}

/// The encoded source and every layer's caches.
#[derive(Debug, Clone)]
pub struct TransformerState {
    /// Keys and values of the source for each layer, `[sentences, source_time, 2 * hidden]`.
    sources: Vec<Tensor<3>>,
    source_lengths: Vec<usize>,
    /// Of `sentences * width` rows.
    caches: Vec<KeyValueCache>,
    width: usize,
    position: usize,
}

/// Section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i / hidden)), PE(pos, 2i + 1) the cosine; sines first, cosines after.
#[derive(Debug, Clone)]
struct Positions {
    values: Vec<f32>,
    shape: [usize; 2],
    on_device: std::sync::OnceLock<Tensor<2>>,
}

impl Positions {
    fn new(positions: usize, hidden: usize) -> Self {
        let half = hidden.div_ceil(2);
        let mut values = vec![0.0; positions * hidden];
        for (position, row) in values.chunks_mut(hidden).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let pair = if j < half { j } else { j - half };
                let angle = position as f64 / 10_000f64.powf(2.0 * pair as f64 / hidden as f64);
                *value = if j < half { angle.sin() } else { angle.cos() } as f32;
            }
        }
        Self { values, shape: [positions, hidden], on_device: std::sync::OnceLock::new() }
    }

    fn on(&self, device: &Device) -> Tensor<2> {
        let make = || Tensor::from_data(TensorData::new(self.values.clone(), self.shape), &device.clone().inner());
        let tensor = self.on_device.get_or_init(make).clone();
        if device.is_autodiff() { Tensor::from_inner(tensor) } else { tensor }
    }
}
