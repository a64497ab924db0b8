//! The command line: parses, calls, prints. The only part of Weft that prints or ends the process.

mod attention;
mod cli;
mod commands;
mod device;
mod error;
mod files;
mod interrupt;
mod memory;
mod model;
mod output;
mod quickstart;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    weft_allocator::keep_freed_memory();
    match commands::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if standard error is closed.
            let _ = write!(std::io::stderr(), "{error}");
            error.exit_code()
        }
    }
}
