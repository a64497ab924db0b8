//! Weft's side of the benchmarks against its peers: answers requests by line of JSON. The README beside this folder is
//! the specification.

mod attention;
mod batches;
mod checkpoint;
mod language_model;
mod options;
mod protocol;
mod recurrent;
mod training;
mod transformer;
mod translate;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use weft_kernels::Level;
use weft_models::gpt::Gpt;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::rwkv7::Rwkv7;

use protocol::{Answer, Request, Work};

/// Weft's side of the benchmarks against its peers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to do with the batches.
    kind: Kind,
    /// The folder with config.json and model.safetensors.
    #[arg(long, value_name = "FOLDER")]
    checkpoint: PathBuf,
    /// The tensors of all batches, safetensors.
    #[arg(long, value_name = "FILE")]
    batches: PathBuf,
    /// How to train or to search, a JSON object.
    #[arg(long, value_name = "FILE")]
    options: PathBuf,
    /// Threads to use.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Training steps of a GPT.
    Gpt,
    /// Training steps of Mamba.
    Mamba,
    /// Training steps of Mamba-2.
    Mamba2,
    /// Training steps of RWKV-7.
    Rwkv7,
    /// Training steps of an encoder-decoder Transformer.
    Transformer,
    /// Forward and backward through one recurrent layer.
    Recurrent,
    /// Forward and backward through causal self-attention.
    Attention,
    /// Beam search with an encoder-decoder Transformer.
    Translate,
}

fn main() -> ExitCode {
    weft_allocator::keep_freed_memory();
    let result = run(&Arguments::parse());
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Nobody is left to be told if standard output is closed.
    let _ = answer(&Answer::Error { error: format!("{error:#}") });
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads.into())
        .build_global()
        .context("the threads cannot be started")?;
    let mut work = load(arguments.kind, &arguments.checkpoint, &arguments.batches, &arguments.options)?;
    answer(&Answer::Ready {
        ready: true,
        simd: Level::best().name(),
        version: concat!("weft ", env!("CARGO_PKG_VERSION")),
    })?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input cannot be read")?;
        let request: Request =
            serde_json::from_str(&line).with_context(|| format!("the request {line:?} is not understood"))?;
        if request.quit {
            break;
        }
        answer(&work.answer(&request)?)?;
    }
    Ok(())
}

fn load(kind: Kind, checkpoint: &Path, batches: &Path, options: &Path) -> anyhow::Result<Work> {
    let batches = batches::read(batches)?;
    match kind {
        Kind::Gpt | Kind::Mamba | Kind::Mamba2 | Kind::Rwkv7 => {
            let options = options::read(options)?;
            Ok(Work::Steps(match kind {
                Kind::Mamba => language_model::load::<Mamba>(checkpoint, &batches, &options, |config, dropout| {
                    config.dropout = dropout;
                    [config.vocab_size, usize::MAX]
                }),
                Kind::Mamba2 => language_model::load::<Mamba2>(checkpoint, &batches, &options, |config, dropout| {
                    config.dropout = dropout;
                    [config.vocab_size, usize::MAX]
                }),
                Kind::Rwkv7 => language_model::load::<Rwkv7>(checkpoint, &batches, &options, |config, dropout| {
                    config.dropout = dropout;
                    [config.vocab_size, usize::MAX]
                }),
                _ => language_model::load::<Gpt>(checkpoint, &batches, &options, |config, dropout| {
                    (config.dropout, config.embedding_dropout) = (dropout, dropout);
                    [config.vocab_size, config.max_positions]
                }),
            }?))
        }
        Kind::Transformer => Ok(Work::Steps(transformer::load(checkpoint, &batches, &options::read(options)?)?)),
        Kind::Recurrent => Ok(Work::Steps(recurrent::load(checkpoint, &batches)?)),
        Kind::Attention => Ok(Work::Steps(attention::load(checkpoint, &batches)?)),
        Kind::Translate => Ok(Work::Translate(translate::load(checkpoint, &batches, &options::read(options)?)?)),
    }
}

fn answer(answer: &Answer) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let line = serde_json::to_string(answer)?;
    writeln!(output, "{line}").and_then(|()| output.flush()).context("standard output cannot be written")
}
