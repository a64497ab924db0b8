//! The arguments: their names, their meanings, their defaults. What they do stands in `commands`.

mod compare;
mod evaluate;
mod generate;
mod inspect;
mod quickstart;
mod train;
mod translate;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use compare::CompareArgs;
pub(crate) use evaluate::EvaluateArgs;
pub(crate) use generate::GenerateArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use quickstart::QuickstartArgs;
pub(crate) use train::{ArchitectureName, AverageArgs, DataFlags, ModelFlags, TokenizerName, TrainArgs, TrainingFlags};
pub(crate) use translate::{BeamArgs, TranslateArgs};

/// Train and use sequence models on your own text:
/// translators and language models, recurrent networks with attention and Transformers.
///
/// The journey:
///
///   weft quickstart                                     watch two models learn, in about two minutes
///   weft train --train a.en a.de --output run           text in, model out
///   weft evaluate run --source t.en --reference t.de    how good is it?
///   weft translate run < new.en > new.de                use it
///
/// A language model instead: `weft train --train book.txt --output run`, then `weft generate run`.
#[derive(Debug, Parser)]
#[command(name = "weft", version, verbatim_doc_comment, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do. The first paragraph of each command's arguments is what the list says of it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(QuickstartArgs),
    Train(Box<TrainArgs>),
    Average(AverageArgs),
    Compare(Box<CompareArgs>),
    Evaluate(EvaluateArgs),
    Translate(TranslateArgs),
    Generate(GenerateArgs),
    Inspect(InspectArgs),
}

/// Where the work is done.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DeviceArgs {
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub(crate) device: DeviceName,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceName {
    /// This machine's processor, all cores
    Cpu,
    /// The graphics card; needs a weft built with `--features gpu` or `--features cuda`
    Gpu,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
