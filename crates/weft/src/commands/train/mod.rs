//! `weft train` and `weft average`.

pub(crate) mod settings;
mod watch;

use std::path::{Path, PathBuf};

use weft_train::{Event, Outcome, Run, RunConfig, RunFolder, average, check_average_output, derive, survey};

use crate::cli::{AverageArgs, TrainArgs};
use crate::error::{Error, Result};
use crate::files::shell;
use crate::model::check_training;
use crate::output::say;
use crate::{device, interrupt};
pub(crate) use watch::Watch;

use super::inspect::grouped;

/// Begins or resumes a run and follows it to its end.
pub(crate) fn run(args: &TrainArgs) -> Result {
    let mut overrides = settings::overrides(args)?;
    let device = device::open(args.device.device)?;
    let mut watch = Watch::new();
    let mut run = match (&args.resume, &args.output) {
        (Some(folder), _) => Run::resume(folder, &overrides, &device, &mut |event| watch.see(event))?,
        (None, Some(folder)) => {
            let guessed = settings::choose_architecture(&mut overrides)?;
            let facts = survey(&overrides)?;
            let (config, derived) = derive(&overrides, &facts)?;
            if let Some(name) = guessed {
                say!("{:30} {name:<22} the training data are text, not pairs", "model.architecture");
            }
            for value in derived {
                say!("{:30} {:<22} {}", value.name, value.value, value.because);
            }
            check_training(&config)?;
            Run::start(config, folder, &device)?
        }
        (None, None) => return Err(Error::new("--output is missing: where shall the run go?")),
    };
    for (what, skipped) in ["training", "validation"].iter().zip(run.skipped()) {
        if !skipped.is_empty() {
            say!("{what} data: {skipped}");
        }
    }
    let [source, target] = run.vocab_sizes();
    let vocabulary = match source == target {
        true => grouped(target),
        false => format!("{} and {}", grouped(source), grouped(target)),
    };
    say!("{} parameters, vocabulary of {vocabulary}", grouped(run.num_parameters()));
    let stop = interrupt::listen()?;
    let outcome = run.run(&stop, &mut |event: &Event| watch.see(event));
    watch.finish();
    let folder = run.folder().path();
    match outcome? {
        Outcome::Interrupted => {
            say!("stopped after step {}; go on with:\n  weft train --resume {}", run.state().step, shell(folder));
            return Err(Error::Interrupted);
        }
        Outcome::EarlyStopped => say!("ended after step {}: validation no longer improves", run.state().step),
        Outcome::Finished => say!("done after step {}", run.state().step),
    }
    say!(
        "the model is in {}, its curve in {}",
        run.folder().model_path().display(),
        folder.join("curve.svg").display()
    );
    say!("next:\n{}", next(folder, run.config()));
    Ok(())
}

/// What to type after a run.
fn next(folder: &Path, config: &RunConfig) -> String {
    let folder = shell(folder);
    if let Some(task) = config.data.task {
        return format!("  weft evaluate {folder} --task {}\n  weft inspect {folder}", task.name());
    }
    match config.model.architecture.is_translator() {
        true => format!(
            "  weft translate {folder} < sentences.txt\n  \
             weft evaluate {folder} --source test.source --reference test.target\n  \
             weft inspect {folder}"
        ),
        false => format!(
            "  weft generate {folder} --prompt \"Once\"\n  \
             weft evaluate {folder} --text held-out.txt\n  \
             weft inspect {folder}"
        ),
    }
}

/// Averages checkpoints into a model.
pub(crate) fn run_average(args: &AverageArgs) -> Result {
    // A run stands for its checkpoints, but all of it is kept.
    check_average_output(&args.checkpoints, &args.output)?;
    let mut models = Vec::new();
    for path in &args.checkpoints {
        models.extend(checkpoints_of(path)?);
    }
    average(&models, &args.output)?;
    say!("the average of {} checkpoints is in {}", models.len(), args.output.display());
    Ok(())
}

/// A run's checkpoints, or the path itself.
fn checkpoints_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.join("checkpoints").is_dir() {
        let mut found: Vec<PathBuf> =
            RunFolder::open(path)?.checkpoints()?.into_iter().map(|(_, checkpoint)| checkpoint).collect();
        found.reverse();
        return Ok(found);
    }
    std::fs::metadata(path).map_err(|error| Error::file("open the checkpoint", path, &error))?;
    Ok(vec![path.to_owned()])
}
