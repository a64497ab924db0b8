//! What a run is: data, tokenizer, model and training, each value known. A user writes only what they care about
//! ([`Overrides`]); [`derive`](crate::derive()) fills in the rest.

mod overrides;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_models::CellKind;
use weft_models::llama::SparsePattern;
use weft_models::rnn_encoder_decoder::{AttentionKind, GruReset};
use weft_text::{RecallKind, RecallTask, TokenizerKind};

pub(crate) use overrides::example_value;
pub use overrides::{Origin, Overrides};

use crate::schedule::ScheduleKind;

/// Everything that decides what a run computes: written as `config.toml` into its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What is read.
    pub data: DataConfig,
    /// How text becomes tokens.
    pub tokenizer: TokenizerConfig,
    /// What is trained.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
}

/// Corpora.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A parallel corpus (two line-aligned files, a TSV, JSON lines or TMX), or text (files or folders); empty where a
    /// task makes the text.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// The same for validation. For text it may be empty: then the end of the training text is set aside.
    #[serde(default)]
    pub validation: Vec<PathBuf>,
    /// The task that makes the texts to learn from, instead of a corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<RecallKind>,
    /// Pairs of a key and a value in a text of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// Source and target language, as JSON lines and TMX name them; empty elsewhere.
    #[serde(default)]
    pub languages: Vec<String>,
    /// The field of a JSON record that holds its text, for language models.
    pub field: String,
    /// Pairs with more tokens than this on a side are left out and counted.
    pub max_length: usize,
    /// The share of the text's end that is set aside for validation where no validation text is given.
    pub validation_ratio: f64,
}

/// The tokenizer that is trained on the training corpus, or read from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// How text is cut.
    pub kind: TokenizerKind,
    /// At most so many tokens.
    pub vocab_size: usize,
    /// One vocabulary for source and target.
    pub shared: bool,
}

/// The architectures by their names in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchitectureKind {
    /// Encoder-decoder Transformer.
    Transformer,
    /// Recurrent encoder-decoder.
    RnnEncoderDecoder,
    /// Decoder-only Transformer.
    Gpt,
    /// Decoder-only Transformer as it is built today.
    Llama,
    /// Recurrent language model.
    RecurrentLm,
    /// Selective state spaces.
    Mamba,
    /// RWKV-4.
    Rwkv4,
    /// State spaces whose heads each decay alike.
    Mamba2,
    /// The generalised delta rule.
    Rwkv7,
}

impl ArchitectureKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Transformer,
        Self::RnnEncoderDecoder,
        Self::Gpt,
        Self::Llama,
        Self::RecurrentLm,
        Self::Mamba,
        Self::Rwkv4,
        Self::Mamba2,
        Self::Rwkv7,
    ];

    /// The name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transformer => "transformer",
            Self::RnnEncoderDecoder => "rnn_encoder_decoder",
            Self::Gpt => "gpt",
            Self::Llama => "llama",
            Self::RecurrentLm => "recurrent_lm",
            Self::Mamba => "mamba",
            Self::Rwkv4 => "rwkv4",
            Self::Mamba2 => "mamba2",
            Self::Rwkv7 => "rwkv7",
        }
    }

    /// Whether it turns sources into targets; the others model text.
    pub fn is_translator(self) -> bool {
        matches!(self, Self::Transformer | Self::RnnEncoderDecoder)
    }

    /// Whether it is a language model of attention; the others keep a state of one size, whatever the text's length.
    pub fn attends(self) -> bool {
        matches!(self, Self::Gpt | Self::Llama)
    }
}

/// The model's shape. Fields that an architecture does not have are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Which architecture.
    pub architecture: ArchitectureKind,
    /// The one dial: `tiny`, `small`, `base` or `big`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The dial as a number of parameters, such as `3M`; takes the place of a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Width of the residual stream, or units of a (decoder) layer.
    pub hidden_size: usize,
    /// Layers, in each stack.
    pub num_layers: usize,
    /// Dropout on each sub-layer's result, or between recurrent layers.
    pub dropout: f64,
    /// Whether the output matrix is the (target) embedding table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_embeddings: Option<bool>,
    /// Attention heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
    /// Width of the feed-forward layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Dropout on attention probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_dropout: Option<f64>,
    /// Dropout inside the feed-forward layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_dropout: Option<f64>,
    /// Pre-norm instead of the paper's post-norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize_before: Option<bool>,
    /// The longest sequence that the model has positions for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_positions: Option<usize>,
    /// Standard deviation of a GPT's initial weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// The recurrent cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellKind>,
    /// Width of the token embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// How the decoder attends to the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<AttentionKind>,
    /// Whether the encoder reads in both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidirectional: Option<bool>,
    /// Where a GRU's reset gate acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gru_reset: Option<GruReset>,
    /// Units of an encoder layer in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder_hidden_size: Option<usize>,
    /// Width in which states and annotations are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_size: Option<usize>,
    /// Width of the maxout readout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxout_size: Option<usize>,
    /// Attention heads that answer; each serves several that ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_kv_heads: Option<usize>,
    /// How far attention sees, the own position included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Which blocks of positions see which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_pattern: Option<SparsePattern>,
    /// The base of rotary positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// States of each channel of a state space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_size: Option<usize>,
}

impl ModelConfig {
    /// Whether each token of a text looks at all before it: attention without a window or a pattern.
    pub fn attends_to_all(&self) -> bool {
        self.architecture.attends() && self.sliding_window.is_none() && self.attention_pattern.is_none()
    }
}

/// What makes one checkpoint better than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The loss over the validation set; lower is better.
    Loss,
    /// BLEU of translations of the validation set's first sentences; higher is better.
    Bleu,
}

/// The training itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Ends the run after so many steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Ends the run after so many passes over the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Ends the run after so many minutes, those before an interruption included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Tokens of a micro-batch: of the longer side with padding, or of all windows of a language model.
    pub batch_tokens: usize,
    /// Most sentences of a micro-batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_sentences: Option<usize>,
    /// Micro-batches whose gradients are added before a step.
    pub accumulate: usize,
    /// Tokens that a language model reads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How the learning rate changes.
    pub schedule: ScheduleKind,
    /// Steps over which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// Where the cosine and the linear schedule end, as a share of the highest learning rate.
    pub floor_ratio: f64,
    /// Adam's decay rates.
    pub betas: [f64; 2],
    /// Added to the root of Adam's second moment.
    pub epsilon: f64,
    /// AdamW's decay, on the parameters that the architecture names; 0 is Adam.
    pub weight_decay: f64,
    /// The longest gradient; longer ones are shortened to it. 0 for no limit.
    pub clip_norm: f64,
    /// Probability spread over the whole vocabulary in the training loss of a translator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Decides initial weights, order of the data and dropout.
    pub seed: u64,
    /// Steps between two lines of metrics.
    pub log_interval: u64,
    /// Steps between two validations.
    pub validation_interval: u64,
    /// Steps between two checkpoints.
    pub checkpoint_interval: u64,
    /// Ends the run after so many validations without a better one; 0 for never.
    pub patience: u64,
    /// Which checkpoints are the best.
    pub metric: Metric,
    /// The best checkpoints that are kept, besides the newest.
    pub keep_best: usize,
    /// Kept checkpoints that are averaged at the end; the average is taken if it validates better than the best.
    pub average: usize,
    /// Beam of the translations that BLEU is computed from; 1 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beam: Option<usize>,
    /// Validation sentences that are translated at each validation; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bleu_sentences: Option<usize>,
}

impl RunConfig {
    /// The file's name in a run folder.
    pub const FILE: &'static str = "config.toml";

    /// The task that makes the texts to learn from, if there is one: its texts are as long as a window.
    pub fn recall_task(&self) -> Option<RecallTask> {
        let default = RecallTask::new(self.data.task?);
        let (pairs, length) = (self.data.pairs, self.training.window);
        Some(RecallTask { pairs: pairs.unwrap_or(default.pairs), length: length.unwrap_or(default.length), ..default })
    }

    /// As TOML, every value written out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is made of plain values")
    }

    /// The keys whose values differ, or that only one of the two has.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let tables = [self, other].map(|config| toml::Table::try_from(config).expect("plain values"));
        let value = |table: &toml::Table, key: &str| {
            let (section, name) = key.split_once('.')?;
            table.get(section)?.get(name).cloned()
        };
        overrides::known_keys().into_iter().filter(|key| value(&tables[0], key) != value(&tables[1], key)).collect()
    }

    /// One with every field present, for the list of known keys.
    pub(crate) fn full_example() -> Self {
        Self {
            data: DataConfig {
                train: vec!["train.tsv".into()],
                validation: vec!["validation.tsv".into()],
                task: Some(RecallKind::Recall),
                pairs: Some(8),
                languages: vec!["en".into(), "de".into()],
                field: "text".into(),
                max_length: 100,
                validation_ratio: 0.1,
            },
            tokenizer: TokenizerConfig { kind: TokenizerKind::Bpe, vocab_size: 8000, shared: true },
            model: ModelConfig {
                architecture: ArchitectureKind::Transformer,
                preset: Some("small".into()),
                size: Some("3M".into()),
                hidden_size: 256,
                num_layers: 3,
                dropout: 0.1,
                tie_embeddings: Some(true),
                num_heads: Some(4),
                intermediate_size: Some(1024),
                attention_dropout: Some(0.0),
                activation_dropout: Some(0.0),
                normalize_before: Some(false),
                max_positions: Some(512),
                initializer_range: Some(0.02),
                cell: Some(CellKind::Gru),
                embedding_size: Some(256),
                attention: Some(AttentionKind::Additive),
                bidirectional: Some(true),
                gru_reset: Some(GruReset::After),
                encoder_hidden_size: Some(256),
                attention_size: Some(256),
                maxout_size: Some(256),
                num_kv_heads: Some(2),
                sliding_window: Some(256),
                attention_pattern: Some(SparsePattern::Strided { block: 64, stride: 8 }),
                rope_theta: Some(10_000.0),
                state_size: Some(16),
            },
            training: TrainingConfig {
                steps: Some(1000),
                epochs: Some(10),
                minutes: Some(10.0),
                batch_tokens: 4096,
                batch_sentences: Some(128),
                accumulate: 1,
                window: Some(256),
                learning_rate: 1e-3,
                schedule: ScheduleKind::Cosine,
                warmup_steps: 100,
                floor_ratio: 0.1,
                betas: [0.9, 0.98],
                epsilon: 1e-9,
                weight_decay: 0.0,
                clip_norm: 1.0,
                label_smoothing: Some(0.1),
                seed: 42,
                log_interval: 10,
                validation_interval: 100,
                checkpoint_interval: 100,
                patience: 0,
                metric: Metric::Loss,
                keep_best: 3,
                average: 3,
                beam: Some(1),
                bleu_sentences: Some(200),
            },
        }
    }
}
