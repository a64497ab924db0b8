use std::path::PathBuf;

use clap::Args;
use weft_decode::LengthPenalty;

use super::DeviceArgs;

/// Translate standard input, line by line, to standard output
///
/// One line in, one line out, in the same order; an empty line stays empty. Lines are translated together as they
/// become available, sorted by length; the result of a line is the same alone and in any company.
#[derive(Debug, Args)]
pub(crate) struct TranslateArgs {
    /// The model: its folder, or the run that trained it
    pub(crate) model: PathBuf,

    /// Read from this file instead of standard input
    #[arg(long, short, value_name = "FILE", help_heading = "Input and output")]
    pub(crate) input: Option<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE", help_heading = "Input and output")]
    pub(crate) output: Option<PathBuf>,
    /// Give an empty line for a line that is longer than the model's positions, and report how many there were;
    /// without this such a line is an error
    #[arg(long, help_heading = "Input and output")]
    pub(crate) skip_long: bool,

    #[command(flatten)]
    pub(crate) beam: BeamArgs,
    /// Print the N best translations of each line, N of at most the beam: each after the number of its line and a tab
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Search")]
    pub(crate) n_best: usize,
    /// Print the score that translations are ranked by before each one, and a tab: the log-probability in nats under
    /// the length penalty
    #[arg(long, help_heading = "Search")]
    pub(crate) scores: bool,

    /// Draw which source tokens the model looked at for each target token; of several lines, each into a file with
    /// the line's number in its name (map-1.svg, map-2.svg, ...)
    #[arg(long, value_name = "FILE.svg|FILE.png", help_heading = "Attention")]
    pub(crate) attention: Option<PathBuf>,
    /// Draw the same in the terminal (on standard error, below each translation)
    #[arg(long, help_heading = "Attention")]
    pub(crate) show_attention: bool,

    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How translations are searched for.
#[derive(Debug, Clone, Args)]
pub(crate) struct BeamArgs {
    /// Hypotheses that are continued side by side; 1 is greedy search. The search for a line ends when this many
    /// hypotheses have ended (the rule of CTranslate2 and fairseq)
    #[arg(long, value_name = "WIDTH", default_value_t = 4, help_heading = "Search")]
    pub(crate) beam: usize,
    /// How translations of different lengths compare
    ///
    /// By their log-probability logP and their number of tokens n, the end token counted:
    ///
    ///   wu:A      logP / ((5 + n) / 6)^A  arXiv 1609.08144; the Transformer's paper has A = 0.6
    ///   length:A  logP / n^A              CTranslate2 and fairseq, by default with A = 1
    ///   avg       logP / n                the same as length:1
    ///   none      logP                    favours short translations
    #[arg(long, value_name = "PENALTY", default_value = "wu:0.6", verbatim_doc_comment, help_heading = "Search")]
    pub(crate) length_penalty: LengthPenalty,
    /// The longest translation in tokens, the end token counted [default: twice the source's tokens, these rounded up
    /// to a multiple of 16, plus 10]
    #[arg(long, value_name = "TOKENS", help_heading = "Search")]
    pub(crate) max_length: Option<usize>,
}
