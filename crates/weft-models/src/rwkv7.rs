//! RWKV-7 "Goose", a recurrent language model whose state is a matrix that learns in context.  Peng et al.,
//! arXiv 2503.14456, section 4 and appendix on initialisation.
//!
//! ```text
//! paper                     here                         shape
//! embedding, head           emb, head                    [vocab, hidden]
//! mu_r, mu_d, mu_k, ...     att.x_r, x_w, x_k, ...       [1, 1, hidden]      token shift: x_t + (x_(t-1) - x_t) mu
//! W_r, W_k, W_v, W_o        att.receptance, key, value, output    [hidden, hidden]
//! loramlp of d              att.w0, w1, w2               [1, 1, hidden], [hidden, rank], [rank, hidden]
//! of a, the learning rate   att.a0, a1, a2               the same
//! of nu, the value residual att.v0, v1, v2               the same; none in the first layer
//! of g, the gate            att.g1, g2                   the same without the first
//! xi, alpha                 att.k_k, k_a                 [1, 1, hidden]
//! rho, the bonus            att.r_k                      [heads, size]
//! W_k', W_v'                ffn.key, ffn.value           [inner, hidden], [hidden, inner]
//! x_(t-1), wkv              State::layers                [batch, hidden] twice, [batch, heads, size, size]
//! ```
//!
//! Tensors have the names and layouts of the authors' checkpoints; `config.json` the words of the `rwkv7` models on
//! Hugging Face. A state is as large after a million tokens as after one.

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
use weft_kernels::wkv7::keys::{removal_key, replacement_key};
use weft_kernels::wkv7::output::{Wkv7Output, Wkv7OutputParameters, wkv7_output};
use weft_kernels::wkv7::{Wkv7Inputs, wkv7};

use crate::config::{ConfigError, divides, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Embedding, LayerNorm, Linear, Noise};
use crate::search::{StateError, StateFile};
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of the `rwkv7` models on Hugging Face.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rwkv7Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Keys and values of a head.
    pub head_dim: usize,
    /// Width of the channel mix; four times the hidden size where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Rank of the decay's projection; like the next three, what the authors suggest for the width where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_low_rank_dim: Option<usize>,
    /// Rank of the in-context learning rate's projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a_low_rank_dim: Option<usize>,
    /// Rank of the value residual's projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v_low_rank_dim: Option<usize>,
    /// Rank of the gate's projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_low_rank_dim: Option<usize>,
    /// Added to the variance in layer normalisation.
    pub norm_eps: f64,
    /// Dropout on the result of each mix; not part of the format.
    pub dropout: f64,
    /// Start of text.
    pub bos_token_id: Option<u32>,
    /// End of text.
    pub eos_token_id: Option<u32>,
}

impl Default for Rwkv7Config {
    fn default() -> Self {
        Self {
            vocab_size: 65_536,
            hidden_size: 768,
            num_layers: 12,
            head_dim: 64,
            intermediate_size: None,
            decay_low_rank_dim: None,
            a_low_rank_dim: None,
            v_low_rank_dim: None,
            gate_low_rank_dim: None,
            norm_eps: 1e-5,
            dropout: 0.0,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

impl Rwkv7Config {
    /// Width of the channel mix.
    pub fn inner_size(&self) -> usize {
        self.intermediate_size.unwrap_or_else(|| self.hidden_size.saturating_mul(4))
    }

    /// The ranks of decay, learning rate, value residual and gate: multiples of 32 near a multiple of the width's root.
    pub fn ranks(&self) -> [usize; 4] {
        let near = |factor: f64| ((factor * (self.hidden_size as f64).sqrt() / 32.0).round() as usize * 32).max(32);
        [
            self.decay_low_rank_dim.unwrap_or_else(|| near(2.5)),
            self.a_low_rank_dim.unwrap_or_else(|| near(2.5)),
            self.v_low_rank_dim.unwrap_or_else(|| near(1.7)),
            self.gate_low_rank_dim.unwrap_or_else(|| near(5.0)),
        ]
    }
}

/// Added to the variance of a head, the authors': the states' scale is that of sums over keys.
const HEAD_EPSILON: f64 = 64e-5;

/// The model.
#[derive(Module, Debug)]
pub struct Rwkv7 {
    emb: Embedding,
    blocks: Vec<Block>,
    ln_out: LayerNorm,
    head: Linear,
    #[module(skip)]
    config: Rwkv7Config,
}

#[derive(Module, Debug)]
struct Block {
    /// Of the embeddings; the first block's alone.
    ln0: Option<LayerNorm>,
    ln1: LayerNorm,
    ln2: LayerNorm,
    att: TimeMix,
    ffn: ChannelMix,
}

/// A vector as the authors store it, `[1, 1, hidden]`.
type Channels = Param<Tensor<3>>;

#[derive(Module, Debug)]
struct TimeMix {
    x_r: Channels,
    x_w: Channels,
    x_k: Channels,
    x_v: Channels,
    x_a: Channels,
    x_g: Channels,
    w0: Channels,
    w1: Param<Tensor<2>>,
    w2: Param<Tensor<2>>,
    a0: Channels,
    a1: Param<Tensor<2>>,
    a2: Param<Tensor<2>>,
    v0: Option<Channels>,
    v1: Option<Param<Tensor<2>>>,
    v2: Option<Param<Tensor<2>>>,
    g1: Param<Tensor<2>>,
    g2: Param<Tensor<2>>,
    k_k: Channels,
    k_a: Channels,
    r_k: Param<Tensor<2>>,
    receptance: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    ln_x: HeadNorm,
}

/// Normalisation of each head by itself, with a gain and a shift for each channel, `[hidden]`.
#[derive(Module, Debug)]
struct HeadNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct ChannelMix {
    x_k: Channels,
    key: Linear,
    value: Linear,
}

/// What a block remembers of the text before; nothing of none.
#[derive(Debug, Clone, Default)]
struct BlockState {
    /// The last inputs of the two mixes, `[batch, hidden]`.
    time_input: Option<Tensor<2>>,
    channel_input: Option<Tensor<2>>,
    /// `[batch, heads, size, size]`.
    wkv: Option<Tensor<4>>,
}

/// The state of every block, of one size however long the text.
#[derive(Debug, Clone)]
pub struct Rwkv7State {
    layers: Vec<BlockState>,
}

/// What a mix sees: its input and the row before the first position, zeros if absent.
struct Shifted {
    /// `[batch, time, hidden]`
    x: Tensor<3>,
    /// `[batch, hidden]`
    before: Option<Tensor<2>>,
}

impl Shifted {
    /// `x_t + (x_(t-1) - x_t) mu`
    fn mix(&self, mu: &Channels) -> Tensor<3> {
        let share = flat(mu).neg() + 1.0;
        token_shift(self.x.clone(), share, self.before.clone(), None)
    }

    /// The last position.
    fn last(&self) -> Tensor<2> {
        let [batch, time, hidden] = self.x.dims();
        self.x.clone().slice([0..batch, time - 1..time]).reshape([batch, hidden])
    }
}

/// `outer(inner(x down) up + first)`
fn low_rank(
    x: Tensor<3>,
    [down, up]: [&Param<Tensor<2>>; 2],
    first: Option<&Channels>,
    [inner, outer]: [Activation; 2],
) -> Tensor<3> {
    let then = |activation| Epilogue { activation, ..Epilogue::default() };
    let x = linear(x, down.val(), WeightLayout::InOut, None, then(inner));
    linear(x, up.val(), WeightLayout::InOut, first.map(flat), then(outer))
}

/// `[hidden]`
fn flat(channels: &Channels) -> Tensor<1> {
    channels.val().flatten(0, 2)
}

impl TimeMix {
    /// Section 4.1: `[batch, time, hidden]` to the output's projection with `epilogue`, and the last states. The first
    /// layer leaves its values in `first_values` for the others.
    fn forward(
        &self,
        shifted: &Shifted,
        first_values: &mut Option<Tensor<3>>,
        wkv: Option<Tensor<4>>,
        epilogue: Epilogue<3>,
    ) -> (Tensor<3>, Tensor<4>) {
        use Activation::{None as Linear, Sigmoid, Tanh};
        let [heads, _] = self.r_k.val().dims();
        let r = self.receptance.forward(shifted.mix(&self.x_r));
        let d = low_rank(shifted.mix(&self.x_w), [&self.w1, &self.w2], Some(&self.w0), [Tanh, Linear]);
        let k = self.key.forward(shifted.mix(&self.x_k));
        let x_v = shifted.mix(&self.x_v);
        let mut v = self.value.forward(x_v.clone());
        if let (Some(first), Some(v1), Some(v2)) = (first_values.as_ref(), &self.v1, &self.v2) {
            let gate = low_rank(x_v, [v1, v2], self.v0.as_ref(), [Linear, Linear]);
            v = gated_residual(first.clone() - v.clone(), gate, v, Dropout::NONE);
        } else {
            *first_values = Some(v.clone());
        }
        let rate = low_rank(shifted.mix(&self.x_a), [&self.a1, &self.a2], Some(&self.a0), [Linear, Sigmoid]);
        let g = low_rank(shifted.mix(&self.x_g), [&self.g1, &self.g2], None, [Sigmoid, Linear]);

        let a = removal_key(k.clone(), flat(&self.k_k), heads);
        let k = replacement_key(k, rate.clone(), flat(&self.k_a));
        let inputs = Wkv7Inputs { r: r.clone(), d, k: k.clone(), v: v.clone(), a, rate };
        let (o, wkv) = wkv7(inputs, heads, wkv, None);

        let parameters =
            Wkv7OutputParameters { rho: self.r_k.val(), gain: self.ln_x.weight.val(), bias: self.ln_x.bias.val() };
        let y = wkv7_output(Wkv7Output { o, r, k, v, gate: g }, parameters, HEAD_EPSILON);
        (self.output.forward_with(y, epilogue), wkv)
    }
}

impl ChannelMix {
    /// Section 4.2.
    fn forward(&self, shifted: &Shifted, epilogue: Epilogue<3>) -> Tensor<3> {
        let squared = Epilogue { activation: Activation::SquaredRelu, ..Epilogue::default() };
        self.value.forward_with(self.key.forward_with(shifted.mix(&self.x_k), squared), epilogue)
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor<3>,
        first_values: &mut Option<Tensor<3>>,
        state: &mut BlockState,
        dropout: [Dropout; 2],
    ) -> Tensor<3> {
        let x = self.ln0.as_ref().map_or_else(|| x.clone(), |ln0| ln0.forward(x.clone()));
        let BlockState { time_input, channel_input, wkv } = std::mem::take(state);
        let with = |dropout, residual: &Tensor<3>| Epilogue {
            activation: Activation::None,
            dropout,
            residual: Some(residual.clone()),
        };
        let time = Shifted { x: self.ln1.forward(x.clone()), before: time_input };
        let (x, wkv) = self.att.forward(&time, first_values, wkv, with(dropout[0], &x));
        let channels = Shifted { x: self.ln2.forward(x.clone()), before: channel_input };
        *state = BlockState { time_input: Some(time.last()), channel_input: Some(channels.last()), wkv: Some(wkv) };
        self.ffn.forward(&channels, with(dropout[1], &x))
    }
}

impl Rwkv7 {
    /// The vectors of tokens, `[batch, time]`, to what the output matrix reads, both `[batch, time, hidden]`.
    fn hidden(&self, mut x: Tensor<3>, state: &mut Rwkv7State, noise: &mut Noise) -> Tensor<3> {
        let mut first_values = None;
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            let dropout = [noise.dropout(self.config.dropout), noise.dropout(self.config.dropout)];
            x = block.forward(x, &mut first_values, state, dropout);
        }
        self.ln_out.forward(x)
    }

    fn zero_state(&self) -> Rwkv7State {
        Rwkv7State { layers: vec![BlockState::default(); self.config.num_layers] }
    }
}

impl Architecture for Rwkv7 {
    type Config = Rwkv7Config;
    const MODEL_TYPE: &'static str = "rwkv7";

    /// The authors' files have a value residual of the first layer too, which nothing reads.
    fn ignores_stored(name: &str) -> bool {
        ["v0", "v1", "v2"].iter().any(|unread| name.strip_prefix("blocks.0.att.") == Some(unread))
    }

    fn check(config: &Rwkv7Config) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("num_hidden_layers", config.num_layers)?;
        divides("head_dim", config.head_dim, "hidden_size", config.hidden_size)?;
        positive("intermediate_size", config.inner_size())?;
        let [decay, rate, value, gate] = config.ranks();
        positive("decay_low_rank_dim", decay)?;
        positive("a_low_rank_dim", rate)?;
        positive("v_low_rank_dim", value)?;
        positive("gate_low_rank_dim", gate)?;
        probability("dropout", config.dropout)
    }

    /// The authors', but for the head: theirs is an orthogonal matrix, ours has normal values of the same size.
    fn new(config: &Rwkv7Config, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let hidden = config.hidden_size;
        let emb = Embedding { weight: init.uniform([config.vocab_size, hidden], 1e-4) };
        let blocks = (0..config.num_layers)
            .map(|layer| Block {
                ln0: (layer == 0).then(|| LayerNorm::new(hidden, config.norm_eps, init)),
                ln1: LayerNorm::new(hidden, config.norm_eps, init),
                ln2: LayerNorm::new(hidden, config.norm_eps, init),
                att: TimeMix::new(config, layer, init),
                ffn: ChannelMix::new(config, layer, init),
            })
            .collect();
        let ln_out = LayerNorm::new(hidden, config.norm_eps, init);
        let head =
            Linear { weight: init.normal([config.vocab_size, hidden], 0.5 / (hidden as f64).sqrt()), bias: None };
        Self { emb, blocks, ln_out, head, config: config.clone() }
    }

    fn config(&self) -> &Rwkv7Config {
        &self.config
    }

    /// The authors': large matrices decay; what is low in rank, and vectors, do not.
    fn decays(name: &str, rank: usize) -> bool {
        rank >= 2 && name.ends_with(".weight")
    }

    /// The authors': the decays' offsets learn twice as fast.
    fn learning_rate_factor(name: &str) -> f64 {
        if name.ends_with(".att.w0") { 2.0 } else { 1.0 }
    }
}

/// How far up in the model a layer is, 0 to 1.
fn height(config: &Rwkv7Config, layer: usize) -> f64 {
    layer as f64 / (config.num_layers as f64 - 1.0).max(1.0)
}

/// `1 - (channel / hidden)^exponent`: how much of the position before a channel sees at first. Upper layers, and so
/// smaller exponents, see less.
fn mix(config: &Rwkv7Config, exponent: f64, init: &mut Initialiser) -> Channels {
    let hidden = config.hidden_size;
    init.with_rows([1, 1, hidden], |channel| 1.0 - (channel as f64 / hidden as f64).powf(exponent))
}

/// A projection that starts uniform within `limit / sqrt(in)`.
fn projection(outputs: usize, inputs: usize, limit: f64, init: &mut Initialiser) -> Linear {
    Linear { weight: init.uniform([outputs, inputs], limit / (inputs as f64).sqrt()), bias: None }
}

impl TimeMix {
    fn new(config: &Rwkv7Config, layer: usize, init: &mut Initialiser) -> Self {
        let Rwkv7Config { hidden_size: hidden, head_dim: size, num_layers, .. } = *config;
        let [decay_rank, rate_rank, value_rank, gate_rank] = config.ranks();
        let (height, left) = (height(config, layer), 1.0 - layer as f64 / num_layers as f64);
        // From 0 to 1 over the channels, and from -1 to 1 within a head, flat in its middle.
        let along = |channel: usize| channel as f64 / (hidden as f64 - 1.0).max(1.0);
        let bent = |channel: usize| {
            let middle = (size as f64 - 1.0) / 2.0;
            let offset = if size > 1 { ((channel % size) as f64 - middle) / middle } else { 0.0 };
            offset * offset.abs()
        };
        let down = |rank: usize, init: &mut Initialiser| init.constant([hidden, rank], 0.0);
        let up = |rank: usize, init: &mut Initialiser| {
            init.orthogonal([rank, hidden], 0.1 * (rank as f64 / hidden as f64).sqrt().max(1.0))
        };
        let has_residual = layer > 0;
        Self {
            x_r: mix(config, 0.2 * left, init),
            x_w: mix(config, 0.9 * left, init),
            x_k: mix(config, 0.7 * left, init),
            x_v: mix(config, 0.7 * left, init),
            x_a: mix(config, 0.9 * left, init),
            x_g: mix(config, 0.2 * left, init),
            // Slow and fast channels, more of them slow the higher the layer.
            w0: init.with_rows([1, 1, hidden], |channel| {
                -5.5 + 6.0 * along(channel).powf(1.0 + height.powf(0.3)) + 2.5 * bent(channel)
            }),
            w1: down(decay_rank, init),
            w2: up(decay_rank, init),
            a0: init.with_rows([1, 1, hidden], |channel| -0.39 + 0.4 * along(channel) + 0.3 * bent(channel)),
            a1: down(rate_rank, init),
            a2: up(rate_rank, init),
            v0: has_residual.then(|| init.with_rows([1, 1, hidden], |channel| 0.93 - 0.4 * along(channel))),
            v1: has_residual.then(|| down(value_rank, init)),
            v2: has_residual.then(|| up(value_rank, init)),
            g1: down(gate_rank, init),
            g2: up(gate_rank, init),
            k_k: init.with_rows([1, 1, hidden], |channel| 0.76 - 0.1 * along(channel)),
            k_a: init.constant([1, 1, hidden], 1.02),
            r_k: init.constant([hidden / size, size], -0.04),
            receptance: projection(hidden, hidden, 0.5, init),
            key: projection(hidden, hidden, 0.05, init),
            value: projection(hidden, hidden, 0.5, init),
            output: projection(hidden, hidden, 0.0, init),
            ln_x: HeadNorm {
                weight: init.constant([hidden], ((layer + 1) as f64 / num_layers as f64).powf(0.7)),
                bias: init.constant([hidden], 0.0),
            },
        }
    }
}

impl ChannelMix {
    fn new(config: &Rwkv7Config, layer: usize, init: &mut Initialiser) -> Self {
        let (hidden, inner) = (config.hidden_size, config.inner_size());
        let left = 1.0 - layer as f64 / config.num_layers as f64;
        Self {
            x_k: mix(config, left.powi(4), init),
            key: projection(inner, hidden, 0.5, init),
            value: projection(hidden, inner, 0.0, init),
        }
    }
}

impl LanguageModel for Rwkv7 {
    type State = Rwkv7State;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let mut state = self.zero_state();
        let x = self.hidden(self.embed(ids, &state), &mut state, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head.weight.val(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, _: usize) -> Rwkv7State {
        self.zero_state()
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &Rwkv7State) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE };
        embedding(self.emb.weight.val(), ids, options)
    }

    fn read_embedded(&self, x: Tensor<3>, state: &mut Rwkv7State) -> Tensor<3> {
        self.head.forward(self.hidden(x, state, &mut Noise::none()))
    }

    fn visit_state(&self, state: &mut Rwkv7State, file: &mut StateFile) -> Result<(), StateError> {
        let (hidden, size) = (self.config.hidden_size, self.config.head_dim);
        for (i, layer) in state.layers.iter_mut().enumerate() {
            file.tensor(&format!("layers.{i}.time_input"), &mut layer.time_input, [1, hidden])?;
            file.tensor(&format!("layers.{i}.channel_input"), &mut layer.channel_input, [1, hidden])?;
            file.tensor(&format!("layers.{i}.wkv"), &mut layer.wkv, [1, hidden / size, size, size])?;
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}
