//! What a run shows while it goes on: a bar that moves and lines that stay.

use std::time::Instant;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use weft_train::{Event, Progress};

use crate::output::say;
use crate::terminal;

/// The bar has so many parts.
const PARTS: u64 = 1000;
/// How much of the shown loss and speed the newest step makes up.
const NEWEST_SHARE: f64 = 0.05;

/// Follows a run's events.
pub(crate) struct Watch {
    bar: ProgressBar,
    /// What the run is called, where there are several.
    name: String,
    loss: Option<f64>,
    tokens_per_second: Option<f64>,
    /// The last step's time, and the share and time at the first step seen, from which the rest is reckoned.
    last: Option<Instant>,
    first: Option<(f64, Instant)>,
}

impl Watch {
    /// Nothing seen yet; the bar is there only on a terminal.
    pub(crate) fn new() -> Self {
        Self::of(ProgressBar::new(PARTS), "")
    }

    /// The same for one run of several, below the bars that are there.
    pub(crate) fn among(bars: &MultiProgress, name: &str) -> Self {
        Self::of(bars.add(ProgressBar::new(PARTS)), name)
    }

    fn of(bar: ProgressBar, name: &str) -> Self {
        let template = if terminal::colours() { "{bar:24.cyan/dim} {msg}" } else { "{bar:24} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let name = if name.is_empty() { String::new() } else { format!("{name}  ") };
        Self { bar, name, loss: None, tokens_per_second: None, last: None, first: None }
    }

    /// Shows an event.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Stepped(progress) => self.step(progress),
            Event::Validated { record, translations } => {
                let mut line = format!("step {:>6}  validation loss {:.4}", record.step, record.loss);
                if let Some(bleu) = record.bleu {
                    line += &format!("  BLEU {bleu:.2}");
                }
                if let Some(accuracy) = record.accuracy {
                    line += &format!("  right answers {:.1} %", 100.0 * accuracy);
                }
                line += if record.best { "  best so far" } else { "" };
                self.line(&line);
                let shown = translations.as_ref().and_then(|translations| translations.sentences.first());
                if let Some(sentence) = shown {
                    let text = format!("             {} → {}", sentence.source, sentence.hypothesis);
                    self.line(&console::truncate_str(&text, terminal::width(), "…"));
                }
            }
            Event::PassedOver(checkpoint) => self.line(&format!("warning: passed over {checkpoint}")),
            Event::Resumed { path, step } => self.line(&format!("going on from step {step}, {}", path.display())),
            Event::Averaged { steps, score, best, chosen } => {
                let verdict = if *chosen { "the average is the model" } else { "the best one is the model" };
                self.line(&format!(
                    "averaged {} checkpoints: {score:.4}, the best alone {best:.4}; {verdict}",
                    steps.len()
                ));
            }
            _ => {}
        }
    }

    fn step(&mut self, progress: &Progress) {
        let now = Instant::now();
        let blend = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + NEWEST_SHARE * (new - old)));
        self.loss = blend(self.loss, progress.loss);
        if let Some(last) = self.last {
            let seconds = (now - last).as_secs_f64().max(1e-9);
            self.tokens_per_second = blend(self.tokens_per_second, progress.tokens as f64 / seconds);
        }
        self.last = Some(now);
        let (share, since) = *self.first.get_or_insert((progress.share, now));
        let done = progress.share - share;
        let left = match done > 0.0 {
            true => {
                let left = (now - since).mul_f64(((1.0 - progress.share) / done).clamp(0.0, 1e6));
                format!("  {} left", HumanDuration(left))
            }
            false => String::new(),
        };
        let steps = progress.total_steps.map_or_else(String::new, |total| format!("/{total}"));
        self.bar.set_position((progress.share * PARTS as f64) as u64);
        self.bar.set_message(format!(
            "{}step {}{steps}  loss {:.3}  {} tokens/s{left}",
            self.name,
            progress.step,
            self.loss.unwrap_or(progress.loss),
            self.tokens_per_second.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}")),
        ));
    }

    /// A line that stays, above the bar.
    fn line(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
