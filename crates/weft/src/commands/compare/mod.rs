//! `weft compare`: several architectures, one budget, one report.

mod check;
mod page;
mod plan;
mod progress;
mod quick;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use weft_models::checkpoint::write_whole;
use weft_train::{Event, Outcome, Overrides, Run, RunFolder};

use crate::cli::{CompareArgs, DeviceName};
use crate::error::{Error, Result};
use crate::files::shell;
use crate::output::say;
use crate::{device, interrupt};
use plan::{Base, Plan, Planned};
use progress::Overview;
use report::Measurer;

/// The generated text's seed where nobody names one.
const QUICK_SEED: u64 = 1;
/// What measuring a competitor takes, in minutes: a guess for the time left.
const MEASURING: f64 = 0.25;
/// Marks a run's folder once its budget is used up.
const ENDED: &str = "ended";

/// Trains what the plan holds and is not done yet, measures all, and writes the report.
pub(crate) fn run(args: &CompareArgs) -> Result {
    let device = device::open(args.device.device)?;
    let (folder, plan) = match (&args.resume, &args.output) {
        (Some(folder), _) => (folder, Plan::read(folder)?),
        (None, Some(folder)) => (folder, begin(args, folder)?),
        (None, None) => return Err(Error::new("--output is missing: where shall the comparison go?")),
    };
    let stop = interrupt::listen()?;
    let mut overview = overview(&plan, folder);
    let mut failed = train_all(&plan, folder, &device, &stop, &mut overview)?;
    let measurer =
        Measurer { plan: &plan, folder, device: &device, counts_memory: args.device.device == DeviceName::Cpu };
    let mut measured = Vec::new();
    for (index, competitor) in plan.competitors().into_iter().enumerate() {
        if stop.load(Ordering::SeqCst) {
            return Err(stopped(folder, &overview));
        }
        let index = plan.runs.len() + index;
        overview.begin(index).finish();
        match measurer.measure(competitor) {
            Ok(found) => measured.extend(found),
            // The others are worth as much as before.
            Err(error) => {
                let name = format!("measuring {competitor}");
                overview.line(&format!("{name}: {error}"));
                failed.push(name);
            }
        }
        overview.end(index);
    }
    overview.finish();
    let written = measurer.write(&measured, &failed)?;
    say!("the report is {}, its numbers lie beside it as CSV", written.display());
    match &failed[..] {
        [] => Ok(()),
        names => Err(Error::new(format!("{} of {} failed: {}", names.len(), plan.runs.len(), names.join(", ")))
            .hint(format!("mend what was wrong and go on with `weft compare --resume {}`", shell(folder)))),
    }
}

/// The plan of a new comparison, written into its folder.
fn begin(args: &CompareArgs, folder: &Path) -> Result<Plan> {
    Plan::check_free(folder)?;
    let base = match args.quick {
        true => quick::prepare(folder, args.training.seed.unwrap_or(QUICK_SEED))?,
        false => Base::default(),
    };
    let plan = Plan::make(args, base)?;
    plan.write(folder)?;
    let minutes: Option<f64> = plan.runs.iter().map(|run| run.config.training.minutes).sum();
    let minutes =
        minutes.map_or_else(String::new, |minutes| format!(", at most {minutes:.1} minutes of training in all"));
    say!("{} runs{minutes}", plan.runs.len());
    Ok(plan)
}

/// Every run, then the measurements of every competitor.
fn overview(plan: &Plan, folder: &Path) -> Overview {
    let weight = |planned: &Planned| planned.config.training.minutes.unwrap_or(1.0);
    let mut parts: Vec<(String, f64)> = plan.runs.iter().map(|run| (run.name.clone(), weight(run))).collect();
    let mut done: Vec<bool> = plan.runs.iter().map(|run| is_done(&run_path(folder, run))).collect();
    for competitor in plan.competitors() {
        parts.push((format!("measuring {competitor}"), MEASURING));
        done.push(false);
    }
    Overview::new(parts, &done)
}

/// Trains what is not done yet and returns the names of the runs that failed.
fn train_all(
    plan: &Plan,
    folder: &Path,
    device: &Device,
    stop: &AtomicBool,
    overview: &mut Overview,
) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for (index, planned) in plan.runs.iter().enumerate() {
        let path = run_path(folder, planned);
        if is_done(&path) {
            continue;
        }
        match train(planned, &path, index, device, stop, overview) {
            Ok(Outcome::Interrupted) => return Err(stopped(folder, overview)),
            // Its best model so far was there before: it is the mark that says that the run has ended.
            Ok(_) => write_whole(&path.join(ENDED), b"")?,
            // The others are worth as much as before.
            Err(error) => {
                overview.line(&format!("{}: {error}", planned.name));
                failed.push(planned.name.clone());
            }
        }
        overview.end(index);
    }
    Ok(failed)
}

/// Begins a run, or goes on with it.
fn train(
    planned: &Planned,
    path: &Path,
    index: usize,
    device: &Device,
    stop: &AtomicBool,
    overview: &mut Overview,
) -> Result<Outcome> {
    let mut watch = overview.begin(index);
    let begun = RunFolder::open(path).is_ok_and(|folder| folder.newest_whole().is_ok());
    let mut run = match begun {
        true => Run::resume(path, &Overrides::new(), device, &mut |event| watch.see(event))?,
        false => Run::start(planned.config.clone(), path, device)?,
    };
    let outcome = run.run(stop, &mut |event: &Event| {
        overview.see(index, event);
        watch.see(event);
    });
    watch.finish();
    Ok(outcome?)
}

fn stopped(folder: &Path, overview: &Overview) -> Error {
    overview.finish();
    say!("stopped; go on with:\n  weft compare --resume {}", shell(folder));
    Error::Interrupted
}

/// Where a run of the plan goes.
fn run_path(folder: &Path, planned: &Planned) -> PathBuf {
    folder.join("runs").join(&planned.name)
}

/// Whether a run has ended.
fn is_done(run: &Path) -> bool {
    run.join(ENDED).exists()
}
