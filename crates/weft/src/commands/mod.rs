//! What the commands do: read, call the libraries, print.

mod compare;
mod evaluate;
mod generate;
mod inspect;
mod train;
mod translate;

use crate::cli::{Cli, Command};
use crate::error::Result;

/// Does what the command line says.
///
/// # Errors
/// Whatever stops the command.
pub(crate) fn run(cli: Cli) -> Result {
    match cli.command {
        Command::Quickstart(args) => crate::quickstart::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Average(args) => train::run_average(&args),
        Command::Translate(args) => translate::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    }
}
