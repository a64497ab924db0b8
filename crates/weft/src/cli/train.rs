use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_text::RecallKind;

use super::DeviceArgs;

/// Train a translator or a language model on text
///
/// The model is left in RUN/model, ready for `weft translate` or `weft generate`.
///
///   weft train --train a.en a.de --validation b.en b.de --output run    a translator
///   weft train --train book.txt --output run                            a language model
///   weft train --task recall --architecture mamba --output run          one that learns to find things again
///   weft train --resume run                                             go on where it stopped
///
/// One dial, --preset or --size, sets every other value; each derived value is printed with its
/// reason and can be set by its flag, by --set, or in a TOML file. RUN/config.toml has the full
/// configuration. Ctrl-C saves and stops; a second one stops at once.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TrainArgs {
    /// Where to put the run: its configuration, checkpoints, metrics, curve and model
    #[arg(long, short, value_name = "RUN", required_unless_present = "resume")]
    pub(crate) output: Option<PathBuf>,
    /// Go on with this run from its newest whole checkpoint; --steps, --epochs and --minutes may then be raised, and
    /// --train and --validation say where the same data have moved to
    #[arg(long, value_name = "RUN", conflicts_with = "output")]
    pub(crate) resume: Option<PathBuf>,
    /// Read settings from a TOML file; flags win over it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Set any value by its name in config.toml, e.g. `--set training.clip_norm=0.5`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    #[command(flatten)]
    pub(crate) data: DataFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) training: TrainingFlags,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What is learned from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataFlags {
    /// Pairs of sentences: two line-aligned files, or one .tsv, .jsonl or .tmx file. Or text: one file, three or more, or
    /// folders; a .jsonl file has it in the field `text`, or in the one that --set data.field=NAME names. Plain, .gz or
    /// .zst
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) train: Vec<PathBuf>,
    /// A task that makes its own texts, instead of files: what does a model find again of what it has read? Texts are
    /// as long as --window
    #[arg(long, value_enum, value_name = "TASK")]
    pub(crate) task: Option<TaskName>,
    /// Pairs of a key and a value in a text of the task [default: 4]
    #[arg(long, value_name = "COUNT")]
    pub(crate) pairs: Option<usize>,
    /// The same for validation. Text may do without: then its end is set aside
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) validation: Vec<PathBuf>,
    /// The share of the text that is set aside where there is no --validation
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE")]
    pub(crate) validation_ratio: Option<f64>,
    /// Source and target language as JSON lines and TMX name them; the data are then pairs
    #[arg(long, value_name = "LANGUAGE", num_args = 2)]
    pub(crate) languages: Vec<String>,
    /// The longest sentence in tokens; pairs with a longer one are left out and counted
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_sentence: Option<usize>,
    /// How text is cut into tokens
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) tokenizer: Option<TokenizerName>,
    /// Tokens in the vocabulary
    #[arg(long, value_name = "TOKENS")]
    pub(crate) vocab_size: Option<usize>,
    /// One vocabulary for source and target (true), or one for each (false)
    #[arg(long, value_name = "BOOL")]
    pub(crate) shared_vocabulary: Option<bool>,
}

/// What is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelFlags {
    /// What is trained [default: transformer for pairs, gpt for text]
    #[arg(long, short, value_enum, value_name = "NAME")]
    pub(crate) architecture: Option<ArchitectureName>,
    /// The dial by name: tiny, small, base or big [default: by the amount of data]
    #[arg(long, value_name = "NAME", conflicts_with = "size")]
    pub(crate) preset: Option<String>,
    /// The dial by the number of parameters, such as 3M
    #[arg(long, value_name = "COUNT")]
    pub(crate) size: Option<String>,
    /// Width of the model, or units of a recurrent layer
    #[arg(long, value_name = "UNITS")]
    pub(crate) hidden_size: Option<usize>,
    /// Layers of each stack
    #[arg(long, value_name = "COUNT")]
    pub(crate) layers: Option<usize>,
    /// Attention heads; they divide the width
    #[arg(long, value_name = "COUNT")]
    pub(crate) heads: Option<usize>,
    /// Width of the feed-forward layers
    #[arg(long, value_name = "UNITS")]
    pub(crate) intermediate_size: Option<usize>,
    /// The recurrent cell: rnn, lstm or gru
    #[arg(long, value_name = "NAME")]
    pub(crate) cell: Option<String>,
    /// How a recurrent decoder attends to the source: additive (arXiv 1409.0473) or none
    #[arg(long, value_name = "NAME")]
    pub(crate) attention: Option<String>,
    /// Share of values that dropout sets to zero while training
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE")]
    pub(crate) dropout: Option<f64>,
}

/// How it is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainingFlags {
    /// End after so many steps; of several limits the first that is reached ends the run
    #[arg(long, value_name = "COUNT")]
    pub(crate) steps: Option<u64>,
    /// End after so many passes over the data
    #[arg(long, value_name = "COUNT")]
    pub(crate) epochs: Option<u64>,
    /// End after so many minutes
    #[arg(long, allow_negative_numbers = true, value_name = "MINUTES")]
    pub(crate) minutes: Option<f64>,
    /// Tokens in a batch, padding included
    #[arg(long, value_name = "TOKENS")]
    pub(crate) batch_tokens: Option<usize>,
    /// Batches whose gradients are added up to one step
    #[arg(long, value_name = "COUNT")]
    pub(crate) accumulate: Option<usize>,
    /// Tokens that a language model reads at once
    #[arg(long, value_name = "TOKENS")]
    pub(crate) window: Option<usize>,
    /// The highest learning rate of Adam
    #[arg(long, allow_negative_numbers = true, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// How the learning rate falls: inverse_square_root (arXiv 1706.03762, equation 3), cosine, linear or constant
    #[arg(long, value_name = "NAME")]
    pub(crate) schedule: Option<String>,
    /// Steps in which the learning rate rises from zero
    #[arg(long, value_name = "STEPS")]
    pub(crate) warmup: Option<u64>,
    /// AdamW's decay of weight matrices; 0 is Adam
    #[arg(long, allow_negative_numbers = true, value_name = "RATE")]
    pub(crate) weight_decay: Option<f64>,
    /// Probability that the loss spreads over all tokens; arXiv 1706.03762, section 5.4
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f64>,
    /// What makes a checkpoint the best: loss or bleu, on the validation data
    #[arg(long, value_name = "NAME")]
    pub(crate) metric: Option<String>,
    /// End after so many validations without a better one; 0 for never
    #[arg(long, value_name = "COUNT")]
    pub(crate) patience: Option<u64>,
    /// Steps between validations
    #[arg(long, value_name = "STEPS")]
    pub(crate) validate_every: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, value_name = "STEPS")]
    pub(crate) save_every: Option<u64>,
    /// Decides initial weights, the order of the data, and dropout
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

/// A task that makes its own texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskName {
    /// Pairs of letters, then each key again: which letter came after it? Arora et al., arXiv 2312.04927
    Recall,
    /// One pair, hidden among digits and asked at the end
    Needle,
}

impl From<TaskName> for RecallKind {
    fn from(name: TaskName) -> Self {
        match name {
            TaskName::Recall => Self::Recall,
            TaskName::Needle => Self::Needle,
        }
    }
}

/// How text is cut into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenizerName {
    /// Byte pair encoding over characters, for translation
    Bpe,
    /// Pieces of words under a unigram language model, for translation
    Unigram,
    /// Byte pair encoding over bytes, for language models and code
    ByteBpe,
    /// One token for each character
    Characters,
}

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchitectureName {
    /// Encoder-decoder Transformer, arXiv 1706.03762
    Transformer,
    /// Recurrent encoder-decoder with additive attention, arXiv 1409.0473
    RnnEncoderDecoder,
    /// Decoder-only Transformer in GPT-2's layout
    Gpt,
    /// Decoder-only Transformer of today: rotary positions, RMSNorm, grouped queries, SwiGLU; a window or a sparse pattern
    Llama,
    /// Recurrent language model
    RecurrentLm,
    /// Selective state spaces, arXiv 2312.00752
    Mamba,
    /// RWKV-4, arXiv 2305.13048
    Rwkv4,
    /// State spaces whose heads each decay alike, arXiv 2405.21060
    Mamba2,
    /// The generalised delta rule, arXiv 2503.14456
    Rwkv7,
}

/// Average the weights of checkpoints into one model
///
/// The mean often translates better than the best of them: the last few of a run, or any models of one shape.
#[derive(Debug, Args)]
pub(crate) struct AverageArgs {
    /// Checkpoints or models; a run stands for all its checkpoints
    #[arg(required = true, value_name = "RUN|CHECKPOINT")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// Where to put the averaged model
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) output: PathBuf,
}
