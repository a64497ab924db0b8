//! RWKV-4, a language model that trains like a Transformer and runs like a recurrent network.  Peng et al.,
//! arXiv 2305.13048, section 3 and figure 2.
//!
//! ```text
//! paper                  here                                 shape
//! embedding, its norm    rwkv.embeddings.weight, pre_ln       [vocab, hidden], [hidden]    the norm in the first block
//! time mixing            attention
//!   W_r, W_k, W_v, W_o     receptance, key, value, output     [attention, hidden], W_o the other way round
//!   μ_r, μ_k, μ_v          time_mix_receptance, _key, _value  [1, 1, hidden]
//!   log w, u               time_decay, time_first             [attention]
//! channel mixing         feed_forward
//!   W'_r, W'_k, W'_v       receptance, key, value             [hidden, hidden], [inner, hidden], [hidden, inner]
//!   μ'_r, μ'_k             time_mix_receptance, _key          [1, 1, hidden]
//! x_(t-1)                BlockState::attention, feed_forward  [batch, hidden]
//! a', b', p              BlockState::wkv                      [batch, 3, attention]
//! ```
//!
//! `config.json` and the tensors' names and layouts are those of Hugging Face's `RwkvForCausalLM`. A state is as large
//! after a million tokens as after one.

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::gated_residual::gated_residual;
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};
use weft_kernels::token_shift::token_shift;
use weft_kernels::wkv4::{WkvInputs, wkv4};

use crate::config::{ConfigError, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Embedding, LayerNorm, Linear, Noise};
use crate::search::{StateError, StateFile, by_columns, stored_by_columns};
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of Hugging Face's `RwkvConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rwkv4Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Tokens that training reads at once; a state has no such limit.
    pub context_length: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Channels of time mixing; the hidden size where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_hidden_size: Option<usize>,
    /// Channels of channel mixing; four times the hidden size where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Added to the variance in normalisation.
    pub layer_norm_epsilon: f64,
    /// After how many blocks transformers halves the residual stream when it does not train, so that `f16` holds it; at
    /// most 0 for never. What follows is normalised, so that this changes nothing but what the epsilon weighs. We
    /// compute what training computes, and keep the number.
    pub rescale_every: i64,
    /// Dropout on each mixing's result; not part of Hugging Face's configuration.
    pub dropout: f64,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
    /// Start of text.
    pub bos_token_id: Option<u32>,
    /// End of text.
    pub eos_token_id: Option<u32>,
}

impl Default for Rwkv4Config {
    fn default() -> Self {
        Self {
            vocab_size: 50_277,
            context_length: 1024,
            hidden_size: 4096,
            num_layers: 32,
            attention_hidden_size: None,
            intermediate_size: None,
            layer_norm_epsilon: 1e-5,
            rescale_every: 6,
            dropout: 0.0,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

impl Rwkv4Config {
    /// Channels of time mixing.
    pub fn attention_size(&self) -> usize {
        self.attention_hidden_size.unwrap_or(self.hidden_size)
    }

    /// Channels of channel mixing.
    pub fn inner_size(&self) -> usize {
        self.intermediate_size.unwrap_or(4 * self.hidden_size)
    }
}

/// The model: the blocks and, where it is not tied, an output matrix.
#[derive(Module, Debug)]
pub struct Rwkv4 {
    rwkv: Backbone,
    head: Option<Linear>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    config: Rwkv4Config,
}

#[derive(Module, Debug)]
struct Backbone {
    embeddings: Embedding,
    blocks: Vec<Block>,
    ln_out: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    /// Of the embeddings: in the first block only.
    pre_ln: Option<LayerNorm>,
    ln1: LayerNorm,
    attention: TimeMixing,
    ln2: LayerNorm,
    feed_forward: ChannelMixing,
}

#[derive(Module, Debug)]
struct TimeMixing {
    time_decay: Param<Tensor<1>>,
    time_first: Param<Tensor<1>>,
    time_mix_key: Param<Tensor<3>>,
    time_mix_value: Param<Tensor<3>>,
    time_mix_receptance: Param<Tensor<3>>,
    key: Linear,
    value: Linear,
    receptance: Linear,
    output: Linear,
}

#[derive(Module, Debug)]
struct ChannelMixing {
    time_mix_key: Param<Tensor<3>>,
    time_mix_receptance: Param<Tensor<3>>,
    key: Linear,
    receptance: Linear,
    value: Linear,
}

/// What a block remembers of the text before; nothing of none.
#[derive(Debug, Clone, Default)]
struct BlockState {
    /// The last rows that its two mixings read, `[batch, hidden]`.
    attention: Option<Tensor<2>>,
    feed_forward: Option<Tensor<2>>,
    /// `[batch, 3, attention]`.
    wkv: Option<Tensor<3>>,
}

/// The state of every block, of one size however long the text.
#[derive(Debug, Clone)]
pub struct Rwkv4State {
    layers: Vec<BlockState>,
}

impl Block {
    fn forward(&self, x: Tensor<3>, state: &mut BlockState, drop: [Dropout; 2]) -> Tensor<3> {
        let [drop_attention, drop_feed_forward] = drop;
        let BlockState { attention, feed_forward, wkv } = std::mem::take(state);
        let x = match &self.pre_ln {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let read = self.ln1.forward(x.clone());
        let last_read = last_row(&read);
        let epilogue = Epilogue { activation: Activation::None, dropout: drop_attention, residual: Some(x) };
        let (x, wkv) = self.attention.forward(read, attention, wkv, epilogue);
        let read = self.ln2.forward(x.clone());
        *state = BlockState { attention: Some(last_read), feed_forward: Some(last_row(&read)), wkv: Some(wkv) };
        self.feed_forward.forward(read, feed_forward, x, drop_feed_forward)
    }
}

/// `[batch, time, hidden]` at the last position.
fn last_row(x: &Tensor<3>) -> Tensor<2> {
    let [batch, time, hidden] = x.dims();
    x.clone().slice([0..batch, time - 1..time]).reshape([batch, hidden])
}

/// Equations 11 to 15, and what follows at once: `layer` of each position mixed with the one before.
fn of_shifted(
    layer: &Linear,
    mix: &Param<Tensor<3>>,
    (x, earlier): (&Tensor<3>, &Option<Tensor<2>>),
    activation: Activation,
) -> Tensor<3> {
    let shifted = token_shift(x.clone(), mix.val().flatten(0, 2), earlier.clone(), None);
    layer.forward_with(shifted, Epilogue { activation, ..Epilogue::default() })
}

impl TimeMixing {
    /// Equations 16 and 17: `[batch, time, hidden]` to the same shape, and the state after it.
    fn forward(
        &self,
        x: Tensor<3>,
        earlier: Option<Tensor<2>>,
        state: Option<Tensor<3>>,
        epilogue: Epilogue<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let input = (&x, &earlier);
        let inputs = WkvInputs {
            receptance: of_shifted(&self.receptance, &self.time_mix_receptance, input, Activation::None),
            key: of_shifted(&self.key, &self.time_mix_key, input, Activation::None),
            value: of_shifted(&self.value, &self.time_mix_value, input, Activation::None),
        };
        let (y, state) = wkv4(inputs, self.time_decay.val().exp(), self.time_first.val(), state, None);
        (self.output.forward_with(y, epilogue), state)
    }
}

impl ChannelMixing {
    /// Equation 18: `[batch, time, hidden]` to the same shape, added to the residual stream.
    fn forward(&self, x: Tensor<3>, earlier: Option<Tensor<2>>, residual: Tensor<3>, drop: Dropout) -> Tensor<3> {
        let input = (&x, &earlier);
        let key = of_shifted(&self.key, &self.time_mix_key, input, Activation::SquaredRelu);
        let receptance = of_shifted(&self.receptance, &self.time_mix_receptance, input, Activation::None);
        gated_residual(self.value.forward(key), receptance, residual, drop)
    }
}

impl Rwkv4 {
    /// The vectors of tokens, `[batch, time]`, to what the output matrix reads, both `[batch, time, hidden]`.
    fn hidden(&self, mut x: Tensor<3>, state: &mut Rwkv4State, noise: &mut Noise) -> Tensor<3> {
        for (block, state) in self.rwkv.blocks.iter().zip(&mut state.layers) {
            let drop = [noise.dropout(self.config.dropout), noise.dropout(self.config.dropout)];
            x = block.forward(x, state, drop);
        }
        self.rwkv.ln_out.forward(x)
    }

    /// The output matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<2> {
        self.head.as_ref().map_or(&self.rwkv.embeddings.weight, |head| &head.weight).val()
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.decoding_head.clone().unwrap_or_else(|| self.head());
        linear(x, weight, WeightLayout::OutIn, None, Epilogue::default())
    }

    fn zero_state(&self) -> Rwkv4State {
        Rwkv4State { layers: vec![BlockState::default(); self.config.num_layers] }
    }
}

/// The authors' initial values, appendix E and their code: what ends in the residual stream, and keys and receptances of
/// time mixing, start at zero, so that every block does nothing and every average is an even one. Where they take
/// orthogonal matrices, these are normal with an orthogonal one's variance, 1 / inputs.
struct BlockInit<'a> {
    config: &'a Rwkv4Config,
    /// Counted from 0.
    layer: usize,
    init: &'a mut Initialiser,
}

impl BlockInit<'_> {
    fn block(&mut self) -> Block {
        let is_first = self.layer == 0;
        Block {
            pre_ln: is_first.then(|| self.norm()),
            ln1: self.norm(),
            attention: self.time_mixing(),
            ln2: self.norm(),
            feed_forward: self.channel_mixing(),
        }
    }

    fn norm(&mut self) -> LayerNorm {
        LayerNorm::new(self.config.hidden_size, self.config.layer_norm_epsilon, self.init)
    }

    /// From 0 in the first block to 1 in the last.
    fn depth(&self) -> f64 {
        self.layer as f64 / (self.config.num_layers - 1).max(1) as f64
    }

    /// A ramp over the channels, from 0 to almost 1, that deeper blocks bend upwards: they look back less.
    fn mix(&mut self, bend: f64, more: f64) -> Param<Tensor<3>> {
        let (hidden, layers) = (self.config.hidden_size, self.config.num_layers as f64);
        let power = bend * (1.0 - self.layer as f64 / layers);
        self.init.with_columns([1, 1, hidden], |channel| (channel as f64 / hidden as f64).powf(power) + more)
    }

    fn linear(&mut self, outputs: usize, inputs: usize, scale: f64) -> Linear {
        let deviation = scale * (inputs as f64).powf(-0.5);
        let shape = [outputs, inputs];
        let weight = if scale == 0.0 { self.init.constant(shape, 0.0) } else { self.init.normal(shape, deviation) };
        Linear { weight, bias: None }
    }

    fn time_mixing(&mut self) -> TimeMixing {
        let (hidden, channels, depth) = (self.config.hidden_size, self.config.attention_size(), self.depth());
        let along = |channel: usize| channel as f64 / (channels - 1).max(1) as f64;
        TimeMixing {
            // Half-lives from a hundred positions to none; deeper blocks have more of the long ones.
            time_decay: self.init.with_rows([channels], |i| 8.0 * along(i).powf(0.7 + 1.3 * depth) - 5.0),
            // The newest value counts a third of an earlier one; up and down, so that neighbours differ.
            time_first: self.init.with_rows([channels], |i| 0.3f64.ln() + 0.5 * (((i + 1) % 3) as f64 - 1.0)),
            time_mix_key: self.mix(1.0, 0.0),
            time_mix_value: self.mix(1.0, 0.3 * depth),
            time_mix_receptance: self.mix(0.5, 0.0),
            key: self.linear(channels, hidden, 0.0),
            value: self.linear(channels, hidden, 1.0),
            receptance: self.linear(channels, hidden, 0.0),
            output: self.linear(hidden, channels, 0.0),
        }
    }

    fn channel_mixing(&mut self) -> ChannelMixing {
        let (hidden, inner) = (self.config.hidden_size, self.config.inner_size());
        ChannelMixing {
            time_mix_key: self.mix(1.0, 0.0),
            time_mix_receptance: self.mix(1.0, 0.0),
            key: self.linear(inner, hidden, 1.0),
            receptance: self.linear(hidden, hidden, 0.0),
            value: self.linear(hidden, inner, 0.0),
        }
    }
}

impl Architecture for Rwkv4 {
    type Config = Rwkv4Config;
    const MODEL_TYPE: &'static str = "rwkv";
    const EXTRA: &'static [(&'static str, &'static str)] = &[("architectures", "[\"RwkvForCausalLM\"]")];

    /// A second copy of the tied output matrix.
    fn ignores_stored(name: &str) -> bool {
        name == "head.weight"
    }

    fn check(config: &Rwkv4Config) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("hidden_size", config.hidden_size)?;
        positive("num_hidden_layers", config.num_layers)?;
        positive("attention_hidden_size", config.attention_size())?;
        positive("intermediate_size", config.inner_size())?;
        probability("dropout", config.dropout)
    }

    /// See appendices E and F: small embeddings, which the first norm makes large, learn faster.
    fn new(config: &Rwkv4Config, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let shape = [config.vocab_size, config.hidden_size];
        let embeddings = Embedding { weight: init.uniform(shape, 1e-4) };
        let blocks =
            (0..config.num_layers).map(|layer| BlockInit { config, layer, init: &mut *init }.block()).collect();
        let ln_out = LayerNorm::new(config.hidden_size, config.layer_norm_epsilon, init);
        let head = (!config.tie_word_embeddings).then(|| {
            let deviation = 0.5 * (config.hidden_size as f64).powf(-0.5);
            Linear { weight: init.normal(shape, deviation), bias: None }
        });
        let rwkv = Backbone { embeddings, blocks, ln_out };
        Self { rwkv, head, decoding_head: None, config: config.clone() }
    }

    fn config(&self) -> &Rwkv4Config {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.head.is_none().then(|| stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Matrices; the authors decay nothing.
    fn decays(_: &str, rank: usize) -> bool {
        rank == 2
    }

    /// The authors': decays learn twice as fast, bonuses three times.
    fn learning_rate_factor(name: &str) -> f64 {
        match name.rsplit('.').next() {
            Some("time_decay") => 2.0,
            Some("time_first") => 3.0,
            _ => 1.0,
        }
    }
}

impl LanguageModel for Rwkv4 {
    type State = Rwkv4State;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let mut state = self.zero_state();
        let x = self.hidden(self.embed(ids, &state), &mut state, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, _: usize) -> Rwkv4State {
        self.zero_state()
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &Rwkv4State) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE };
        embedding(self.rwkv.embeddings.weight.val(), ids, options)
    }

    fn read_embedded(&self, x: Tensor<3>, state: &mut Rwkv4State) -> Tensor<3> {
        self.logits(self.hidden(x, state, &mut Noise::none()))
    }

    fn visit_state(&self, state: &mut Rwkv4State, file: &mut StateFile) -> Result<(), StateError> {
        let (hidden, channels) = (self.config.hidden_size, self.config.attention_size());
        for (i, layer) in state.layers.iter_mut().enumerate() {
            file.tensor(&format!("layers.{i}.attention"), &mut layer.attention, [1, hidden])?;
            file.tensor(&format!("layers.{i}.feed_forward"), &mut layer.feed_forward, [1, hidden])?;
            file.tensor(&format!("layers.{i}.wkv"), &mut layer.wkv, [1, 3, channels])?;
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}
