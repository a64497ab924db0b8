use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_metrics::BleuTokenizer;

use super::train::TaskName;
use super::{BeamArgs, DeviceArgs};

/// Measure a model on held-out text or a task, or score translations: BLEU, chrF, perplexity, bits per byte
///
///   weft evaluate MODEL --source test.en --reference test.de
///   weft evaluate MODEL --text held-out.txt
///   weft evaluate MODEL --task recall --distances 16,64,256
///   weft evaluate --hypotheses mine.de --reference test.de
///
/// BLEU and chrF are sacrebleu's, to the last printed digit, with the signature that makes them comparable.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EvaluateArgs {
    /// The model: its folder, or the run that trained it
    #[arg(required_unless_present = "hypotheses", conflicts_with = "hypotheses")]
    pub(crate) model: Option<PathBuf>,

    /// The sentences to translate, one a line; plain, .gz or .zst
    #[arg(long, value_name = "FILE", requires = "reference", conflicts_with_all = ["hypotheses", "text"], help_heading = "Translation")]
    pub(crate) source: Option<PathBuf>,
    /// The right translations, line by line; several files are several right answers for each line
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Translation")]
    pub(crate) reference: Vec<PathBuf>,
    /// Translations to score, one a line
    #[arg(long, value_name = "FILE", requires = "reference", conflicts_with = "text", help_heading = "Translation")]
    pub(crate) hypotheses: Option<PathBuf>,
    /// Keep the model's translations in this file
    #[arg(long, short, value_name = "FILE", requires = "source", help_heading = "Translation")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) beam: BeamArgs,

    /// How BLEU cuts lines into words
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Words::Mteval13a, help_heading = "Scores")]
    pub(crate) tokenize: Words,
    /// Take upper and lower case for the same, in BLEU and chrF
    #[arg(long, help_heading = "Scores")]
    pub(crate) lowercase: bool,
    /// Words in a row that chrF counts besides characters: 0 is chrF, 2 is chrF++
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Scores")]
    pub(crate) chrf_word_order: usize,
    /// Print JSON
    #[arg(long, help_heading = "Scores")]
    pub(crate) json: bool,

    /// Text to measure a language model on: perplexity and bits per byte. A .jsonl file has it in the field that the
    /// model was trained on
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "reference", help_heading = "Language models")]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens that the model sees at once [default: its positions; 256 for recurrent models]
    #[arg(long, value_name = "TOKENS", requires = "text", help_heading = "Language models")]
    pub(crate) window: Option<usize>,
    /// Tokens from one window to the next; each token has at least WINDOW - STRIDE tokens of context [default: half
    /// the window]
    #[arg(long, value_name = "TOKENS", requires = "text", help_heading = "Language models")]
    pub(crate) stride: Option<usize>,
    /// Read the text once, from beginning to end, each token after all before it; for models without positions, which
    /// carry their state through a text of any length
    #[arg(long, requires = "text", conflicts_with_all = ["window", "stride"], help_heading = "Language models")]
    pub(crate) streaming: bool,

    /// A task to measure a language model on: what does it find again of what it has read, and over which distance?
    #[arg(long, value_enum, value_name = "TASK", conflicts_with_all = ["source", "reference", "text"], help_heading = "Tasks")]
    pub(crate) task: Option<TaskName>,
    /// Tokens between a pair and its question [default: 4, 8, 16 and so on, as far as the model has positions, or to four
    /// times the length it was trained on]
    #[arg(long, value_name = "TOKENS", num_args = 1.., value_delimiter = ',', requires = "task", help_heading = "Tasks")]
    pub(crate) distances: Vec<usize>,
    /// Questions at each distance
    #[arg(long, value_name = "COUNT", default_value_t = 256, requires = "task", help_heading = "Tasks")]
    pub(crate) questions: usize,
    /// Pairs of a key and a value in a text [default: as in training; else 4]
    #[arg(long, value_name = "COUNT", requires = "task", help_heading = "Tasks")]
    pub(crate) pairs: Option<usize>,

    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How BLEU cuts lines into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Words {
    /// WMT's standard, mteval-v13a: ASCII punctuation apart
    #[value(name = "13a")]
    Mteval13a,
    /// mteval-v14 with international tokenization: all punctuation and symbols apart
    Intl,
    /// Every character is a word
    Char,
    /// Every Chinese character is a word, the rest as in 13a
    Zh,
    /// Lines are tokenized already
    None,
}

impl From<Words> for BleuTokenizer {
    fn from(words: Words) -> Self {
        match words {
            Words::Mteval13a => Self::Mteval13a,
            Words::Intl => Self::International,
            Words::Char => Self::Character,
            Words::Zh => Self::Chinese,
            Words::None => Self::None,
        }
    }
}
