use std::path::PathBuf;

use clap::Args;

/// Watch a Transformer and a recurrent network learn a task in about two minutes
///
/// The task is generated: dates as people write them to ISO 8601, and numbers to English words. Needs no network and no
/// files, and leaves two models that `weft translate` uses.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// Where to put the models and the pictures
    #[arg(long, short, value_name = "FOLDER", default_value = "weft-quickstart")]
    pub(crate) output: PathBuf,
    /// End training after so many minutes, finished or not; on two idle cores it takes one and a half
    #[arg(long, allow_negative_numbers = true, value_name = "MINUTES")]
    pub(crate) minutes: Option<f64>,
    /// Another seed, another set of questions and other initial weights
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
}
