use std::path::PathBuf;

use clap::Args;

/// Show what a model holds: parameters, configuration, tokenizer, history, where it came from
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A model's folder, a run, or a checkpoint of a run
    pub(crate) model: PathBuf,
    /// List every tensor instead of modules
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
