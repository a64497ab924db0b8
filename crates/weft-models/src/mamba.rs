//! Mamba, a language model of selective state spaces.  Gu & Dao, arXiv 2312.00752, section 3.4 and figure 3.
//!
//! ```text
//! paper                 here                          shape
//! embedding             backbone.embeddings.weight    [vocab, hidden]   also the output matrix when tied
//! input projections     mixer.in_proj                 [2 * inner, hidden]       x | gate
//! convolution           mixer.conv1d                  [inner, 1, width]
//! s_B, s_C, s_delta     mixer.x_proj                  [rank + 2 * states, inner]    delta's low rank | B | C
//! delta's projection    mixer.dt_proj                 [inner, rank]
//! log(-A), D            mixer.A_log, mixer.D          [inner, states], [inner]
//! h, earlier inputs     State::layers                 [batch, states, inner], [batch, width - 1, inner] for each layer
//! ```
//!
//! `config.json` and the tensors' names and layouts are those of Hugging Face's `MambaForCausalLM`. A state is as large
//! after a million tokens as after one.

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use serde::{Deserialize, Serialize};
use weft_kernels::cross_entropy::linear_cross_entropy;
use weft_kernels::dropout::Dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};
use weft_kernels::selective_scan::{ScanInputs, ScanParameters, selective_scan};

use crate::config::{ConfigError, initial_steps, one_of, positive, probability};
use crate::initialise::Initialiser;
use crate::layers::{Convolution, Embedding, Linear, Noise, RmsNorm};
use crate::search::{StateError, StateFile, by_columns, stored_by_columns};
use crate::{Architecture, LanguageModel};

/// `config.json`, in the words of Hugging Face's `MambaConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MambaConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    #[serde(rename = "num_hidden_layers")]
    pub num_layers: usize,
    /// Channels of a block; twice the hidden size where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// States of each channel.
    pub state_size: usize,
    /// Positions that the convolution sees.
    pub conv_kernel: usize,
    /// Rank of delta's projection; a sixteenth of the hidden size, rounded up, where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_step_rank: Option<usize>,
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

impl Default for MambaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50_280,
            hidden_size: 768,
            num_layers: 24,
            intermediate_size: None,
            state_size: 16,
            conv_kernel: 4,
            time_step_rank: None,
            time_step_min: 0.001,
            time_step_max: 0.1,
            hidden_act: "silu".into(),
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            dropout: 0.0,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_id: None,
        }
    }
}

impl MambaConfig {
    /// Channels of a block.
    pub fn inner_size(&self) -> usize {
        self.intermediate_size.unwrap_or(2 * self.hidden_size)
    }

    /// Rank of delta's projection.
    pub fn rank(&self) -> usize {
        self.time_step_rank.unwrap_or(self.hidden_size.div_ceil(16))
    }
}

/// The model: the blocks and, where it is not tied, an output matrix.
#[derive(Module, Debug)]
pub struct Mamba {
    backbone: Backbone,
    lm_head: Option<Linear>,
    /// A tied output matrix as decoding reads it; see [`Architecture::for_decoding`].
    #[module(skip)]
    decoding_head: Option<Tensor<2>>,
    #[module(skip)]
    config: MambaConfig,
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
    x_proj: Linear,
    dt_proj: Linear,
    a_log: Param<Tensor<2>>,
    d: Param<Tensor<1>>,
    out_proj: Linear,
}

/// What a block remembers of the text before; nothing of none.
#[derive(Debug, Clone, Default)]
struct BlockState {
    /// The last inputs of the convolution, `[batch, width - 1, inner]`.
    inputs: Option<Tensor<3>>,
    /// `[batch, states, inner]`.
    scan: Option<Tensor<3>>,
}

/// The state of every block, of one size however long the text.
#[derive(Debug, Clone)]
pub struct MambaState {
    layers: Vec<BlockState>,
}

impl Mixer {
    /// `[batch, time, hidden]` to what is added to the residual stream, `[batch, time, inner]` through the output's
    /// projection with `epilogue`.
    fn forward(&self, x: Tensor<3>, state: &mut BlockState, epilogue: Epilogue<3>) -> Tensor<3> {
        let ([inner, states], [_, rank]) = (self.a_log.val().dims(), self.dt_proj.weight.val().dims());
        let [input, gate] = self.in_proj.in_parts(x, [inner, inner]);
        let BlockState { inputs, scan } = std::mem::take(state);
        let (x, inputs) = self.conv1d.forward(input, inputs);
        let [low, bc] = self.x_proj.in_parts(x.clone(), [rank, 2 * states]);
        let delta = linear(low, self.dt_proj.weight.val(), WeightLayout::OutIn, None, Epilogue::default());
        let bias = self.dt_proj.bias.as_ref().expect("made with a bias").val();
        let parameters = ScanParameters { a_log: self.a_log.val(), skip: self.d.val(), bias };
        let (y, scan) = selective_scan(ScanInputs { x, delta, bc, gate }, parameters, scan, None);
        *state = BlockState { inputs: Some(inputs), scan: Some(scan) };
        self.out_proj.forward_with(y, epilogue)
    }
}

impl Mamba {
    /// The vectors of tokens, `[batch, time]`, to what the output matrix reads, both `[batch, time, hidden]`.
    fn hidden(&self, mut x: Tensor<3>, state: &mut MambaState, noise: &mut Noise) -> Tensor<3> {
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

    fn zero_state(&self) -> MambaState {
        MambaState { layers: vec![BlockState::default(); self.config.num_layers] }
    }
}

impl Architecture for Mamba {
    type Config = MambaConfig;
    const MODEL_TYPE: &'static str = "mamba";
    const EXTRA: &'static [(&'static str, &'static str)] = &[("architectures", "[\"MambaForCausalLM\"]")];
    const HONOURED: &'static [(&'static str, &'static str)] =
        &[("use_bias", "false"), ("use_conv_bias", "true"), ("time_step_scale", "1.0")];

    /// A second copy of the tied output matrix.
    fn ignores_stored(name: &str) -> bool {
        name == "lm_head.weight"
    }

    fn check(config: &MambaConfig) -> Result<(), ConfigError> {
        positive("vocab_size", config.vocab_size)?;
        positive("hidden_size", config.hidden_size)?;
        positive("num_hidden_layers", config.num_layers)?;
        positive("intermediate_size", config.inner_size())?;
        positive("state_size", config.state_size)?;
        positive("conv_kernel", config.conv_kernel)?;
        positive("time_step_rank", config.rank())?;
        initial_steps(config.time_step_min, config.time_step_max)?;
        one_of("hidden_act", &config.hidden_act, &["silu"], "\"silu\"")?;
        probability("dropout", config.dropout)
    }

    /// The authors': projections uniform as torch's, those that end in the residual stream scaled by 1 / sqrt(layers);
    /// rates 1 to `states`, steps spread evenly over their magnitudes.
    fn new(config: &MambaConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let (hidden, inner, rank) = (config.hidden_size, config.inner_size(), config.rank());
        let root = |count: usize| (count as f64).powf(-0.5);
        let embeddings = Embedding { weight: init.normal([config.vocab_size, hidden], config.initializer_range) };
        let layers = (0..config.num_layers)
            .map(|_| Block {
                norm: RmsNorm::new(hidden, config.layer_norm_epsilon, init),
                mixer: Mixer {
                    in_proj: Linear::uniform(hidden, 2 * inner, root(hidden), init),
                    conv1d: Convolution::new(inner, config.conv_kernel, init),
                    x_proj: Linear::uniform(inner, rank + 2 * config.state_size, root(inner), init),
                    dt_proj: Linear {
                        weight: init.uniform([inner, rank], root(rank)),
                        bias: Some(init.steps(inner, config.time_step_min, config.time_step_max)),
                    },
                    a_log: init.with_columns([inner, config.state_size], |state| ((state + 1) as f64).ln()),
                    d: init.constant([inner], 1.0),
                    out_proj: Linear::uniform(inner, hidden, root(inner) * root(config.num_layers), init),
                },
            })
            .collect();
        let norm_f = RmsNorm::new(hidden, config.layer_norm_epsilon, init);
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Linear { weight: init.normal([config.vocab_size, hidden], config.initializer_range), bias: None });
        let backbone = Backbone { embeddings, layers, norm_f };
        Self { backbone, lm_head, decoding_head: None, config: config.clone() }
    }

    fn config(&self) -> &MambaConfig {
        &self.config
    }

    fn for_decoding(self) -> Self {
        let decoding_head = self.lm_head.is_none().then(|| stored_by_columns(self.head()));
        Self { decoding_head, ..by_columns(self) }
    }

    /// Projections, filters and embeddings decay; rates, as the authors have it, biases and gains do not.
    fn decays(name: &str, rank: usize) -> bool {
        rank >= 2 && !name.ends_with("a_log")
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

impl LanguageModel for Mamba {
    type State = MambaState;

    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1> {
        let mut state = self.zero_state();
        let x = self.hidden(self.embed(ids, &state), &mut state, noise);
        let [batch, time, hidden] = x.dims();
        let (x, targets) = (x.reshape([batch * time, hidden]), targets.reshape([batch * time]));
        linear_cross_entropy(x, self.head(), WeightLayout::OutIn, None, targets, 0.0, Some(-1))
    }

    fn start(&self, _: usize) -> MambaState {
        self.zero_state()
    }

    fn embed(&self, ids: Tensor<2, Int>, _: &MambaState) -> Tensor<3> {
        let options = EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE };
        embedding(self.backbone.embeddings.weight.val(), ids, options)
    }

    fn read_embedded(&self, x: Tensor<3>, state: &mut MambaState) -> Tensor<3> {
        self.logits(self.hidden(x, state, &mut Noise::none()))
    }

    fn visit_state(&self, state: &mut MambaState, file: &mut StateFile) -> Result<(), StateError> {
        let (inner, config) = (self.config.inner_size(), &self.config);
        for (i, layer) in state.layers.iter_mut().enumerate() {
            file.tensor(&format!("layers.{i}.inputs"), &mut layer.inputs, [1, config.conv_kernel - 1, inner])?;
            file.tensor(&format!("layers.{i}.scan"), &mut layer.scan, [1, config.state_size, inner])?;
        }
        Ok(())
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}
