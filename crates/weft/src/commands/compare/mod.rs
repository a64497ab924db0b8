//! `weft compare`: several architectures, one budget, one report.

mod page;
mod plan;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use weft_train::{Event, Outcome, Overrides, Run, RunFolder};

use crate::cli::CompareArgs;
use crate::commands::train::Watch;
use crate::error::{Error, Result};
use crate::files::shell;
use crate::output::say;
use crate::{device, interrupt};
use plan::{Plan, Planned};

/// Trains what the plan holds and is not done yet, and writes the report.
pub(crate) fn run(args: &CompareArgs) -> Result {
    let device = device::open(args.device.device)?;
    let (folder, plan) = match (&args.resume, &args.output) {
        (Some(folder), _) => (folder, Plan::read(folder)?),
        (None, Some(folder)) => (folder, Plan::make(args)?),
        (None, None) => return Err(Error::new("--output is missing: where shall the comparison go?")),
    };
    if args.resume.is_none() {
        plan.write(folder)?;
    }
    let stop = interrupt::listen()?;
    let mut failed = Vec::new();
    for (index, planned) in plan.runs.iter().enumerate() {
        let path = run_path(folder, planned);
        if path.join("model").exists() {
            continue;
        }
        let title = format!("{}/{} {}", index + 1, plan.runs.len(), planned.name);
        say!("{title}");
        match train(planned, &path, &title, &device, &stop) {
            Ok(Outcome::Interrupted) => {
                say!("stopped; go on with:\n  weft compare --resume {}", shell(folder));
                return Err(Error::Interrupted);
            }
            Ok(_) => {}
            // The others are worth as much as before.
            Err(error) => {
                say!("{}: {error}", planned.name);
                failed.push(planned.name.clone());
            }
        }
    }
    let written = report::write(&plan, folder, &device)?;
    say!("the report is {}, its numbers lie beside it as CSV", written.display());
    match &failed[..] {
        [] => Ok(()),
        names => Err(Error::new(format!("{} of {} failed: {}", names.len(), plan.runs.len(), names.join(", ")))
            .hint(format!("mend what was wrong and go on with `weft compare --resume {}`", shell(folder)))),
    }
}

/// Where a run of the plan goes.
fn run_path(folder: &Path, planned: &Planned) -> PathBuf {
    folder.join("runs").join(&planned.name)
}

/// Begins a run, or goes on with it.
fn train(planned: &Planned, path: &Path, title: &str, device: &Device, stop: &AtomicBool) -> Result<Outcome> {
    let mut watch = Watch::named(title);
    let begun = RunFolder::open(path).is_ok_and(|folder| folder.newest_whole().is_ok());
    let mut run = match begun {
        true => Run::resume(path, &Overrides::new(), device, &mut |event| watch.see(event))?,
        false => Run::start(planned.config.clone(), path, device)?,
    };
    let outcome = run.run(stop, &mut |event: &Event| watch.see(event));
    watch.finish();
    Ok(outcome?)
}
