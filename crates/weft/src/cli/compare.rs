use std::path::PathBuf;

use clap::{Arg, Args, ValueEnum};
use weft_text::RecallKind;

use super::DeviceArgs;
use super::train::{DataFlags, TrainingFlags};

/// Train several architectures on the same text and report what each one buys and costs
///
///   weft compare --train book.txt --size 3M --minutes 10 --output comparison
///   weft compare --quick --output comparison    ten minutes, without any data
///   weft compare --resume comparison            go on where it stopped
///
/// Trains them in turn, each with the same budget, then measures them and
/// writes one page, comparison/report.html, and its numbers as CSV beside it:
/// what each learns, how far back it reaches, what a longer text costs.
/// Ctrl-C saves and stops. If one fails, the others go on.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, mut_args(not_with_resume))]
pub(crate) struct CompareArgs {
    /// Where to put the runs and the report
    #[arg(long, short, value_name = "FOLDER", required_unless_present = "resume")]
    pub(crate) output: Option<PathBuf>,
    /// Go on with this comparison as it was planned: only --device may be named beside it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) resume: Option<PathBuf>,
    /// Generate a text and choose sizes and budgets with which all is done in about ten minutes on two cores; flags win
    #[arg(long, conflicts_with_all = ["train", "validation"])]
    pub(crate) quick: bool,
    /// What to compare, by name [default: all that fit the data]: rnn, lstm and gru, which are recurrent-lm with one cell
    /// each, and every other --architecture of `weft train`
    #[arg(long, short, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) architectures: Vec<String>,
    /// Parameters of each model, such as 3M
    #[arg(long, value_name = "COUNT")]
    pub(crate) size: Option<String>,
    /// How far back does each remember? Tasks that language models learn besides, in runs of their own [default: both].
    /// --steps, --minutes and --seed are theirs too, --epochs is not; without steps or minutes they end after 1000 steps,
    /// with --quick after a quarter of a minute
    #[arg(long, value_enum, value_name = "TASK", num_args = 1.., value_delimiter = ',')]
    pub(crate) probes: Vec<ProbeName>,
    /// Train each so many times, with other initial weights and another order of the data: what differs is luck
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Read settings from a TOML file; flags win over it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Set any value by its name in config.toml, e.g. `--set model.dropout=0`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    #[command(flatten)]
    pub(crate) data: DataFlags,
    #[command(flatten)]
    pub(crate) training: TrainingFlags,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// The plan of a comparison has all but the device: what else is named beside --resume would be passed over.
fn not_with_resume(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "resume" | "device" => arg,
        _ => arg.conflicts_with("resume"),
    }
}

/// A task that asks for what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeName {
    /// Pairs of letters, then each key again
    Recall,
    /// One pair hidden among digits
    Needle,
    /// Neither of them
    None,
}

impl ProbeName {
    /// The task, if it is one.
    pub(crate) fn kind(self) -> Option<RecallKind> {
        match self {
            Self::Recall => Some(RecallKind::Recall),
            Self::Needle => Some(RecallKind::Needle),
            Self::None => None,
        }
    }
}
