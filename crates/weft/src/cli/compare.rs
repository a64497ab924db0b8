use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;
use super::train::{DataFlags, TrainingFlags};

/// Train several architectures on the same text and report what each one buys and costs
///
///   weft compare --train book.txt --size 3M --minutes 10 --output comparison
///   weft compare --resume comparison                                          go on where it stopped
///
/// Trains them in turn, each with the same budget, then writes one page, comparison/report.html, and its
/// numbers as CSV beside it. Ctrl-C saves and stops. If one fails, the others go on.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CompareArgs {
    /// Where to put the runs and the report
    #[arg(long, short, value_name = "FOLDER", required_unless_present = "resume")]
    pub(crate) output: Option<PathBuf>,
    /// Go on with this comparison
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    pub(crate) resume: Option<PathBuf>,
    /// What to compare, by name [default: all that fit the data]: rnn, lstm, gru and every --architecture of `weft train`
    #[arg(long, short, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) architectures: Vec<String>,
    /// Parameters of each model, such as 3M
    #[arg(long, value_name = "COUNT")]
    pub(crate) size: Option<String>,
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
