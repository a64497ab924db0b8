//! `weft quickstart`: two models learn a task side by side, and are then looked at.

mod plan;
mod task;
mod view;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use weft_decode::BeamConfig;
use weft_metrics::exact_match;
use weft_plot::{alignment, alignment_text, sparkline};
use weft_train::{Event, Observer, Outcome, Run, TrainError};

use crate::cli::{DeviceName, QuickstartArgs};
use crate::error::{Error, Result};
use crate::files::shell;
use crate::model::open_translator;
use crate::output::say;
use crate::{attention, device, interrupt, terminal};
use plan::{Contestant, Data, config};
use task::{TaskKind, TaskPair};
use view::View;

/// Trains both models, shows how they do, and says what to do with them.
pub(crate) fn run(args: &QuickstartArgs) -> Result {
    let output = &args.output;
    if Contestant::BOTH.iter().any(|contestant| contestant.folder(output).exists()) {
        let shown = output.display();
        return Err(Error::new(format!("{shown} holds a quickstart already")).hint(format!(
            "remove it, or choose another folder with --output; its models work: weft translate {}",
            shell(&Contestant::BOTH[0].folder(output))
        )));
    }
    let stop = interrupt::listen()?;
    let data = Data::write(output, args.seed)?;
    say!(
        "Two tasks in one: dates as people write them, to ISO 8601, and numbers to English words.\n\
         No value in the held-out questions was in the training pairs.\n"
    );
    data.held_out_pairs.iter().take(3).for_each(|pair| say!("    {} → {}", pair.source, pair.target));
    say!();
    let mut view = View::new(&data.held_out_pairs);
    train(args, &data, &stop, &mut view)?;
    for contestant in Contestant::BOTH {
        say!("{:18} loss {}", contestant.name(), sparkline(view.losses(contestant), 48));
        if let (Some((done, all)), Some(minutes)) = (view.cut_short(contestant), args.minutes) {
            let folder = shell(&contestant.folder(output));
            say!(
                "its {minutes} minutes ended after step {done} of {all}; to go on: weft train --resume {folder} --minutes {}",
                2.0 * minutes
            );
        }
    }
    for contestant in Contestant::BOTH {
        examine(contestant, output, &data.held_out_pairs)?;
    }
    say!("{}", farewell(output));
    Ok(())
}

/// Trains both models, each in a thread of its own; the events come together here.
fn train(args: &QuickstartArgs, data: &Data, stop: &AtomicBool, view: &mut View) -> Result {
    let (sender, events) = mpsc::channel::<(Contestant, Event)>();
    let outcomes = std::thread::scope(|scope| {
        let threads = Contestant::BOTH.map(|contestant| {
            let sender = sender.clone();
            scope.spawn(move || -> Result<Outcome> {
                let result = train_one(contestant, args, data, stop, &mut |event| {
                    // The view outlives the threads.
                    let _ = sender.send((contestant, event.clone()));
                });
                if result.is_err() {
                    // The other model need not go on.
                    stop.store(true, Ordering::SeqCst);
                }
                result
            })
        });
        drop(sender);
        events.iter().for_each(|(contestant, event)| view.see(contestant, &event));
        view.finish();
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("a training thread broke down"))))
    });
    let mut interrupted = false;
    for outcome in outcomes {
        interrupted |= outcome? == Outcome::Interrupted;
    }
    if interrupted {
        let folders = Contestant::BOTH.map(|contestant| shell(&contestant.folder(&args.output)));
        say!("stopped; go on with one of:\n  weft train --resume {}\n  weft train --resume {}", folders[0], folders[1]);
        return Err(Error::Interrupted);
    }
    Ok(())
}

fn train_one(
    contestant: Contestant,
    args: &QuickstartArgs,
    data: &Data,
    stop: &AtomicBool,
    observer: Observer<'_>,
) -> Result<Outcome> {
    let config = config(contestant, data, args)?;
    let device = device::open(DeviceName::Cpu)?;
    let train = || -> std::result::Result<Outcome, TrainError> {
        let mut run = Run::start(config, &contestant.folder(&args.output), &device)?;
        loop {
            if let Some(outcome) = run.advance(stop, observer)? {
                return Ok(outcome);
            }
        }
    };
    Ok(train()?)
}

/// Answers every held-out question with the finished model, and draws where it looked.
fn examine(contestant: Contestant, output: &Path, held_out: &[TaskPair]) -> Result {
    let folder = contestant.folder(output);
    let model = open_translator(&folder, &device::open(DeviceName::Cpu)?)?;
    let sources: Vec<Vec<u32>> = held_out.iter().map(|pair| model.encode(&pair.source)).collect::<Result<_>>()?;
    let config = BeamConfig::new(1, 1, model.target.eos_id());
    let mut answers = Vec::with_capacity(held_out.len());
    let mut best = Vec::with_capacity(held_out.len());
    for hypotheses in model.search(&sources, &config, None)? {
        let tokens = hypotheses.into_iter().next().map(|hypothesis| hypothesis.tokens).unwrap_or_default();
        answers.push(model.decode(&tokens)?);
        best.push(tokens);
    }
    let wanted: Vec<&str> = held_out.iter().map(|pair| pair.target.as_str()).collect();
    say!("\n{}: {}", contestant.name(), exact_match(&answers, &wanted)?);
    // A short question of each kind that was answered rightly, if there is one.
    for kind in [TaskKind::Date, TaskKind::Number] {
        let right = |index: &usize| held_out[*index].kind == kind && answers[*index] == wanted[*index];
        let length = |index: &usize| sources[*index].len().abs_diff(12);
        let Some(index) = (0..held_out.len()).filter(right).min_by_key(length) else { continue };
        let title = format!("{} → {}", held_out[index].source, answers[index]);
        let map = attention::align(&model, &sources[index], &best[index])?.titled(title.as_str());
        let name = if kind == TaskKind::Date { "date" } else { "number" };
        let svg = alignment(&map);
        for extension in ["svg", "png"] {
            weft_plot::write(folder.join(format!("attention-{name}.{extension}")), &svg)?;
        }
        if kind == TaskKind::Date {
            say!("{title}\n{}", alignment_text(&map, &terminal::drawing()));
        }
    }
    Ok(())
}

/// What to type next.
fn farewell(output: &Path) -> String {
    let typed = |path: &str| shell(&output.join(path));
    let (transformer, rnn) = (typed("transformer"), typed("rnn"));
    let (source, target) = (typed("data/held-out.source"), typed("data/held-out.target"));
    let output = output.display();
    format!(
        "Where each model looked for each word is drawn in {output}/*/attention-*.svg and .png,\n\
         the losses in {output}/*/curve.svg.\n\n\
         next:\n  \
         echo \"14 juillet 1789\" | weft translate {transformer} --show-attention\n  \
         weft evaluate {rnn} --source {source} --reference {target}\n  \
         weft inspect {transformer}\n  \
         weft train --train YOUR.source YOUR.target --output run"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_next_can_be_typed() {
        let text = farewell(Path::new("my models"));
        assert!(text.contains("weft inspect 'my models/transformer'\n"), "{text}");
        assert!(text.contains("--reference 'my models/data/held-out.target'\n"), "{text}");
    }
}
