//! Mamba-2, a language model of state spaces whose heads each decay alike.  Dao & Gu, arXiv 2405.21060, section 7 and
//! figure 6 (right).
//!
//! ```text
//! paper                 here                          shape
//! embedding             backbone.embeddings.weight    [vocab, hidden]   also the output matrix when tied
//! input projections     mixer.in_proj                 [2 * inner + 2 * groups * states + heads, hidden]
//!                                                     gate | X | B | C | delta
//! convolution           mixer.conv1d                  [inner + 2 * groups * states, 1, width]   over X | B | C
//! log(-A), D            mixer.A_log, mixer.D          [heads] each
//! delta's bias          mixer.dt_bias                 [heads]
//! normalisation         mixer.norm                    [inner]   after the gate
//! h, earlier inputs     State::layers                 [batch, heads, states, inner / heads],
//!                                                     [batch, width - 1, inner + 2 * groups * states] for each layer
//! ```
//!
//! `config.json` and the tensors' names and layouts are those of Hugging Face's `Mamba2ForCausalLM`. A state is as large
//! after a million tokens as after one.

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};
use weft_kernels::state_space_dual::{DualInputs, DualParameters, state_space_dual};

use crate::config::{ConfigError, divides, initial_steps, one_of, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Convolution, Embedding, Linear, Noise, RmsNorm};
use crate::search::{StateError, StateFile, by_columns, stored_by_columns};
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of Hugging Face's `Mamba2Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mamba2Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Channels of a block for each of the hidden size; heads share them.
    pub expand: usize,
    /// Heads of a block.
    pub num_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// How many B and C there are; each serves as many heads.
    #[serde(rename = "n_groups")]
    pub num_groups: usize,
    /// States of each channel.
    pub state_size: usize,
    /// Positions that the convolution sees.
    pub conv_kernel: usize,
    /// The shortest step at the start.
    pub time_step_min: f64,
    /// The longest step at the start.
    pub time_step_max: f64,
    /// `silu`, the only one that we compute.
    pub hidden_act: String,
    /// Added to the mean square in normalisation.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of initial embeddings.
    pub initializer_range: f64,
    /// Dropout on each block's result; not part of Hugging Face's configuration.
    pub dropout: f64,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
    /// Start of text.
    pub bos_token_id: Option<u32>,
    /// End of text.
    pub eos_token_id: Option<u32>,
}

impl Default for Mamba2Config {
    /// Hugging Face's, which stand for what a file leaves out.
    fn default() -> Self {
        Self {
            vocab_size: 32_768,
            hidden_size: 4096,
            num_layers: 64,
            expand: 2,
            num_heads: 128,
            head_dim: 64,
            num_groups: 8,
            state_size: 128,
            conv_kernel: 4,
            time_step_min: 0.001,
            time_step_max: 0.1,
            hidden_act: "silu".into(),
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            dropout: 0.0,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

impl Mamba2Config {
    /// Channels of a block.
    pub fn inner_size(&self) -> usize {
        self.num_heads.saturating_mul(self.head_dim)
    }

    /// Channels that the convolution passes over: X, B and C.
    fn convolved(&self) -> usize {
        self.inner_size() + 2 * self.num_groups * self.state_size
    }
}

/// The model: the blocks and, where it is not tied, an output matrix.
#[derive(Module, Debug)]
pub struct Mamba2 {
    backbone: Backbone,
    lm_head: Option<Linear>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    config: Mamba2Config,
}

#[derive(Module, Debug)]
struct Backbone {
    embeddings: Embedding,
    layers: Vec<Block>,
    norm_f: RmsNorm,
}

#[derive(Module, Debug)]
struct Block {
    norm: RmsNorm,
    mixer: Mixer,
}

#[derive(Module, Debug)]
struct Mixer {
    in_proj: Linear,
    conv1d: Convolution,
    dt_bias: Param<Tensor<1>>,
    a_log: Param<Tensor<1>>,
    d: Param<Tensor<1>>,
    norm: RmsNorm,
    out_proj: Linear,
    groups: usize,
    states: usize,
}

/// What a block remembers of the text before; nothing of none.
#[derive(Debug, Clone, Default)]
struct BlockState {
    /// The last inputs of the convolution, `[batch, width - 1, inner + 2 * groups * states]`.
    inputs: Option<Tensor<3>>,
    /// `[batch, heads, states, inner / heads]`.
    scan: Option<Tensor<4>>,
}

/// The state of every block, of one size however long the text.
#[derive(Debug, Clone)]
pub struct Mamba2State {
    layers: Vec<BlockState>,
}

impl Mixer {
    /// `[batch, time, hidden]` to what is added to the residual stream, `[batch, time, inner]` through the output's
    /// projection with `epilogue`.
    fn forward(&self, x: Tensor<3>, state: &mut BlockState, epilogue: Epilogue<3>) -> Tensor<3> {
        let ([inner], [heads], [convolved, _, _]) =
            (self.norm.weight.val().dims(), self.a_log.val().dims(), self.conv1d.weight.val().dims());
        let [gate, xbc, dt] = self.in_proj.in_parts(x, [inner, convolved, heads]);
        let BlockState { inputs, scan } = std::mem::take(state);
        let (xbc, inputs) = self.conv1d.forward(xbc, inputs);
        let inputs_of_scan = DualInputs { xbc, dt, groups: self.groups, states: self.states };
        let parameters = DualParameters { a_log: self.a_log.val(), skip: self.d.val(), bias: self.dt_bias.val() };
        let (y, scan) = state_space_dual(inputs_of_scan, parameters, scan, None);
        *state = BlockState { inputs: Some(inputs), scan: Some(scan) };
        self.out_proj.forward_with(self.norm.gated(y, gate), epilogue)
    }
}

impl Mamba2 {
    /// The vectors of tokens, `[batch, time]`, to what the output matrix reads, both `[batch, time, hidden]`.
    fn hidden(&self, mut x: Tensor<3>, state: &mut Mamba2State, noise: &mut Noise) -> Tensor<3> {
        for (block, state) in self.backbone.layers.iter().zip(&mut state.layers) {
            let dropout = noise.dropout(self.config.dropout);
            let epilogue = Epilogue { activation: Activation::None, dropout, residual: Some(x.clone()) };
            x = block.mixer.forward(block.norm.forward(x), state, epilogue);
        }
        self.backbone.norm_f.forward(x)
    }

    /// The output matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or(&self.backbone.embeddings.weight, |head| &head.weight).val()
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.decoding_head.clone().unwrap_or_else(|| self.head());
        linear(x, weight, WeightLayout::OutIn, None, Epilogue::default())
    }

    fn zero_state(&self) -> Mamba2State {
        Mamba2State { layers: vec![BlockState::default(); self.config.num_layers] }
    }
}

impl Architecture for Mamba2 {
    type Config = Mamba2Config;
    const MODEL_TYPE: &'static str = "mamba2";
    const EXTRA: &'static [(&'static str, &'static str)] = &[("architectures", "[\"Mamba2ForCausalLM\"]")];
    /// Chunks may have any size: they change only the order of sums.
    const HONOURED: &'static [(&'static str, &'static str)] = &[
        ("use_bias", "false"),
        ("use_conv_bias", "true"),
        ("rms_norm", "true"),
        // Python's infinity, which JSON does not have.
        ("time_step_limit", "[0.0, null]"),
    ];

    /// A second copy of the tied output matrix.
    fn ignores_stored(name: &str) -> bool {
        name == "lm_head.weight"
    }

    fn check(config: &Mamba2Config) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("hidden_size", config.hidden_size)?;
        positive("num_hidden_layers", config.num_layers)?;
        positive("head_dim", config.head_dim)?;
        positive("state_size", config.state_size)?;
        positive("conv_kernel", config.conv_kernel)?;
        divides("n_groups", config.num_groups, "num_heads", config.num_heads)?;
        if config.expand.saturating_mul(config.hidden_size) != config.inner_size() {
            let (found, wanted) = (config.expand.to_string(), "`num_heads` times `head_dim` over `hidden_size`");
            return Err(ConfigError::Range { field: "expand", found, wanted });
        }
        initial_steps(config.time_step_min, config.time_step_max)?;
        one_of("hidden_act", &config.hidden_act, &["silu"], "\"silu\"")?;
        probability("dropout", config.dropout)
    }

    /// The authors': projections uniform as torch's, those that end in the residual stream scaled by 1 / sqrt(layers);
    /// rates uniform from 1 to 16, steps spread evenly over their magnitudes.
    fn new(config: &Mamba2Config, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let (hidden, inner, heads, epsilon) =
            (config.hidden_size, config.inner_size(), config.num_heads, config.layer_norm_epsilon);
        let root = |count: usize| (count as f64).powf(-0.5);
        let embeddings = Embedding { weight: init.normal([config.vocab_size, hidden], config.initializer_range) };
        let layers = (0..config.num_layers)
            .map(|_| Block {
                norm: RmsNorm::new(hidden, epsilon, init),
                mixer: Mixer {
                    in_proj: Linear::uniform(hidden, inner + config.convolved() + heads, root(hidden), init),
                    conv1d: Convolution::new(config.convolved(), config.conv_kernel, init),
                    dt_bias: init.steps(heads, config.time_step_min, config.time_step_max),
                    a_log: init.by_uniform([heads], |uniform| (1.0 + 15.0 * uniform).ln()),
                    d: init.constant([heads], 1.0),
                    norm: RmsNorm::new(inner, epsilon, init),
                    out_proj: Linear::uniform(inner, hidden, root(inner) * root(config.num_layers), init),
                    groups: config.num_groups,
                    states: config.state_size,
                },
            })
            .collect();
        let norm_f = RmsNorm::new(hidden, epsilon, init);
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Linear { weight: init.normal([config.vocab_size, hidden], config.initializer_range), bias: None });
        let backbone = Backbone { embeddings, layers, norm_f };
        Self { backbone, lm_head, decoding_head: None, config: config.clone() }
    }

    fn config(&self) -> &Mamba2Config {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.lm_head.is_none().then(|| stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Projections, filters and embeddings decay; rates, as the authors have it, biases and gains do not.
    fn decays(_: &str, rank: usize) -> bool {
        rank >= 2
    }

    fn stored_names(name: &str) -> Vec<String> {
        let stored = match name.rsplit_once('.') {
            Some((mixer, "a_log")) => format!("{mixer}.A_log"),
            Some((mixer, "d")) => format!("{mixer}.D"),
            _ => name.to_owned(),
        };
        vec![stored]
    }
}

impl LanguageModel for Mamba2 {
    type State = Mamba2State;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let mut state = self.zero_state();
        let x = self.hidden(self.embed(ids, &state), &mut state, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, _: usize) -> Mamba2State {
        self.zero_state()
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &Mamba2State) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE };
        embedding(self.backbone.embeddings.weight.val(), ids, options)
    }

    fn read_embedded(&self, x: Tensor<3>, state: &mut Mamba2State) -> Tensor<3> {
        self.logits(self.hidden(x, state, &mut Noise::none()))
    }

    fn visit_state(&self, state: &mut Mamba2State, file: &mut StateFile) -> Result<(), StateError> {
        let config = &self.config;
        let inputs = [1, config.conv_kernel - 1, config.convolved()];
        let scan = [1, config.num_heads, config.state_size, config.head_dim];
        for (i, layer) in state.layers.iter_mut().enumerate() {
            file.tensor(&format!("layers.{i}.inputs"), &mut layer.inputs, inputs)?;
            file.tensor(&format!("layers.{i}.scan"), &mut layer.scan, scan)?;
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}
