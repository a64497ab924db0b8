//! Sequence model architectures, one file each, readable beside their papers, and their checkpoints.
//!
//! | file                     | architecture |
//! |--------------------------|--------------|
//! | [`gpt`]                  | decoder-only Transformer in GPT-2's layout |
//! | [`llama`]                | the decoder-only Transformer of today: rotary positions, grouped queries, a sliding window |
//! | [`mamba`]                | Mamba, selective state spaces, arXiv 2312.00752 |
//! | [`mamba2`]               | Mamba-2, state spaces with scalar decay, arXiv 2405.21060 |
//! | [`recurrent_lm`]         | RNN, LSTM or GRU language model |
//! | [`rwkv4`]                | RWKV-4, arXiv 2305.13048 |
//! | [`rwkv7`]                | RWKV-7, the generalised delta rule, arXiv 2503.14456 |
//! | [`transformer`]          | encoder-decoder Transformer, arXiv 1706.03762 |
//! | [`rnn_encoder_decoder`]  | recurrent encoder-decoder with additive attention, arXiv 1409.0473 |
//!
//! Each file owns its configuration, its initialisation and its parameter groups. Two small traits say how a
//! model is used: [`Translator`] and [`LanguageModel`]; both are [`Architecture`]s, which is all that
//! training and checkpoints need.

pub mod checkpoint;
pub mod config;
pub mod gpt;
mod initialise;
mod layers;
pub mod llama;
pub mod mamba;
pub mod mamba2;
mod parameters;
pub mod recurrent_lm;
pub mod rnn_encoder_decoder;
pub mod rwkv4;
pub mod rwkv7;
pub mod search;
mod sparse_pattern;
pub mod transformer;

use burn::Tensor;
use burn::module::Module;
use burn::tensor::{Device, Int};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use checkpoint::CheckpointError;
pub use config::ConfigError;
pub use layers::{CellKind, Noise};
pub use parameters::{NamedParameter, named_gradients, named_parameters};
use search::{StateError, StateFile, token_column};

/// What training and checkpoints need of a model.
pub trait Architecture: Module + std::fmt::Debug + Sync {
    /// The contents of `config.json`.
    type Config: Clone + std::fmt::Debug + Serialize + DeserializeOwned;

    /// `model_type` in `config.json`.
    const MODEL_TYPE: &'static str;

    /// Keys of `config.json`, with values in JSON, that the format has and our configuration does not.
    const EXTRA: &'static [(&'static str, &'static str)] = &[];

    /// Keys that imported configurations may have, each with the only value, in JSON, that we compute.
    const HONOURED: &'static [(&'static str, &'static str)] = &[];

    /// A prefix of tensor names that some files of the format leave out.
    const OPTIONAL_PREFIX: &'static str = "";

    /// Tensors that files of the format may hold and that are no parameters.
    fn ignores_stored(_: &str) -> bool {
        false
    }

    /// Checks that a configuration can be built.
    ///
    /// # Errors
    /// Names the field, what was found and what was wanted.
    fn check(config: &Self::Config) -> Result<(), ConfigError>;

    /// A new model, initialised as its paper says. The configuration must have passed [`Architecture::check`].
    fn new(config: &Self::Config, seed: u64, device: &Device) -> Self;

    /// The configuration.
    fn config(&self) -> &Self::Config;

    /// The same model with its weights laid out for decoding: the same results, bit for bit, and faster steps. It is
    /// neither to be trained nor to be saved.
    fn for_decoding(self) -> Self {
        search::by_columns(self)
    }

    /// Whether weight decay applies to the parameter of this name and rank.
    fn decays(name: &str, rank: usize) -> bool;

    /// How many times the learning rate of the others the parameter of this name has.
    fn learning_rate_factor(_name: &str) -> f64 {
        1.0
    }

    /// The names under which a checkpoint stores a parameter: one, or several for a fused projection, which are its
    /// equal parts along the first axis.
    fn stored_names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }
}

/// A batch of ragged token sequences on a device: `ids` is `[batch, time]`, padded past each length.
#[derive(Debug, Clone)]
pub struct Sequences {
    /// Token ids, `[batch, time]`.
    pub ids: Tensor<2, Int>,
    /// Tokens in each row.
    pub lengths: Vec<usize>,
}

impl Sequences {
    /// From rows of any lengths; `padding` fills the rest.
    pub fn new(rows: &[impl AsRef<[u32]>], padding: u32, device: &Device) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
        let time = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = vec![padding as i32; rows.len() * time];
        for (to, row) in ids.chunks_mut(time.max(1)).zip(rows) {
            to.iter_mut().zip(row.as_ref()).for_each(|(to, &id)| *to = id as i32);
        }
        let ids = Tensor::from_data(burn::tensor::TensorData::new(ids, [rows.len(), time]), device);
        Self { ids, lengths }
    }

    /// Rows in the batch.
    pub fn batch(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens that are not padding.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// A model that turns a source sequence into a target sequence, token by token.
pub trait Translator: Architecture {
    /// What decoding keeps between steps: the encoded source and, for each row, caches or recurrent states.
    type State: Clone;

    /// The sum over the batch of label-smoothed token losses, `[1]`. `target_in` starts with the start token and
    /// `target_out` ends with the end token; positions whose target is the padding token count nothing.
    fn loss(
        &self,
        source: &Sequences,
        target_in: &Sequences,
        target_out: &Sequences,
        label_smoothing: f32,
        noise: &mut Noise,
    ) -> Tensor<1>;

    /// Logits of every position, `[batch, target_time, vocab]`, and the source-target alignment
    /// `[batch, target_time, source_time]` where the model has one.
    fn forward(&self, source: &Sequences, target_in: &Sequences) -> (Tensor<3>, Option<Tensor<3>>);

    /// Encodes sources; `width` hypotheses of each will be decoded side by side.
    fn encode(&self, source: &Sequences, width: usize) -> Self::State;

    /// One step: `tokens` is `[sentences * width]`, the last token of every hypothesis. Returns logits
    /// `[sentences * width, vocab]`.
    fn step(&self, tokens: &[u32], state: &mut Self::State) -> Tensor<2>;

    /// Keeps and reorders: sentence `i` of the new state is sentence `sentences[i]` of the old one, and its
    /// hypothesis `j` continues `parents[i * width + j]`, a hypothesis (0..width) of that sentence.
    fn reorder(&self, state: &mut Self::State, sentences: &[usize], parents: &[usize]);

    /// The token that starts every target.
    fn start_token(&self) -> u32;

    /// The longest target that positions allow, if there is a limit.
    fn max_target_length(&self) -> Option<usize>;

    /// The longest source that positions allow, if there is a limit.
    fn max_source_length(&self) -> Option<usize>;
}

/// A model that predicts each token from those before it.
pub trait LanguageModel: Architecture {
    /// What generation keeps between steps: cached keys and values, or recurrent states.
    type State: Clone + Send;

    /// The sum of token losses, `[1]`; `ids` and `targets` are `[batch, time]`, the targets one token ahead. A target of
    /// -1 counts nothing.
    fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, noise: &mut Noise) -> Tensor<1>;

    /// The state before the first token of `batch` sequences.
    fn start(&self, batch: usize) -> Self::State;

    /// The vectors of the next tokens, `[batch, time]`, as the first layer reads them: `[batch, time, hidden]`.
    fn embed(&self, ids: Tensor<2, Int>, state: &Self::State) -> Tensor<3>;

    /// Feeds the next tokens' vectors, as [`LanguageModel::embed`] makes them, and returns the logits that follow each,
    /// `[batch, time, vocab]`.
    fn read_embedded(&self, x: Tensor<3>, state: &mut Self::State) -> Tensor<3>;

    /// Feeds the next tokens of each sequence, `[batch, time]`, and returns their logits, `[batch, time, vocab]`.
    fn read(&self, ids: Tensor<2, Int>, state: &mut Self::State) -> Tensor<3> {
        let x = self.embed(ids, state);
        self.read_embedded(x, state)
    }

    /// How much each position of whole sequences attends to each before it: probabilities `[batch, heads, time, time]`
    /// of every layer. None where the architecture does not attend.
    fn attention_maps(&self, _ids: Tensor<2, Int>) -> Vec<Tensor<4>> {
        Vec::new()
    }

    /// Hands each tensor of the state of one sequence to `file`, which takes note of it or replaces it.
    ///
    /// # Errors
    /// What the file says.
    fn visit_state(&self, state: &mut Self::State, file: &mut StateFile) -> Result<(), StateError>;

    /// Logits of whole sequences, `[batch, time, vocab]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let mut state = self.start(ids.dims()[0]);
        self.read(ids, &mut state)
    }

    /// Feeds one more token of each sequence and returns logits `[batch, vocab]`.
    fn step(&self, tokens: &[u32], state: &mut Self::State) -> Tensor<2> {
        let ids = token_column(tokens, &self.devices()[0]);
        self.read(ids, state).squeeze_dim(1)
    }

    /// The longest sequence that positions allow, if there is a limit.
    fn max_length(&self) -> Option<usize>;
}
