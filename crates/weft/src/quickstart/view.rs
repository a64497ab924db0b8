//! The live view: a bar for each model, and answers as they become right.

use std::collections::HashSet;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use weft_metrics::exact_match;
use weft_train::{Event, Translated};

use super::plan::Contestant;
use super::task::{TaskKind, TaskPair};
use crate::output::say;
use crate::terminal;

/// A bar has so many parts.
const PARTS: u64 = 1000;
/// Newly right answers that are shown at each validation.
const ANSWERS_SHOWN: usize = 2;
/// Columns that a model's name takes.
const NAME_WIDTH: usize = 18;

/// Both models' progress.
pub(super) struct View {
    bars: MultiProgress,
    lanes: [Lane; 2],
    dates: HashSet<String>,
}

/// What is known of one model.
struct Lane {
    contestant: Contestant,
    bar: ProgressBar,
    loss: Option<f64>,
    losses: Vec<f64>,
    /// Steps done, of how many.
    steps: (u64, u64),
    exact: Option<f64>,
    /// Questions whose right answer was shown.
    shown: HashSet<String>,
    /// Whether the next answer to show is a date's, so that both tasks have their turn.
    next_is_date: bool,
}

impl View {
    /// Empty bars; none where standard error is no terminal.
    pub(super) fn new(held_out: &[TaskPair]) -> Self {
        let bars = MultiProgress::new();
        let lanes = Contestant::BOTH.map(|contestant| {
            let bar = bars.add(ProgressBar::new(PARTS));
            let template = match terminal::colours() {
                true => "{prefix:18} {bar:20.cyan/dim} {msg}",
                false => "{prefix:18} {bar:20} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_prefix(contestant.name());
            Lane {
                contestant,
                bar,
                loss: None,
                losses: Vec::new(),
                steps: (0, 0),
                exact: None,
                shown: HashSet::new(),
                next_is_date: true,
            }
        });
        let dates = held_out.iter().filter(|pair| pair.kind == TaskKind::Date).map(|pair| pair.source.clone());
        Self { bars, lanes, dates: dates.collect() }
    }

    /// Shows an event of one of the models.
    pub(super) fn see(&mut self, contestant: Contestant, event: &Event) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.contestant == contestant) else { return };
        match event {
            Event::Stepped(progress) => {
                let loss = lane.loss.map_or(progress.loss, |old| 0.95 * old + 0.05 * progress.loss);
                lane.loss = Some(loss);
                lane.steps = (progress.step, progress.total_steps.unwrap_or(progress.step));
                lane.bar.set_position((progress.share * PARTS as f64) as u64);
            }
            Event::Trained(record) => lane.losses.push(record.loss),
            Event::Validated { record, translations: Some(translations) } => {
                let line = lane.validated(record.step, &translations.sentences, &self.dates);
                self.bars.suspend(|| say!("{line}"));
            }
            _ => {}
        }
        let loss = lane.loss.map_or_else(String::new, |loss| format!("loss {loss:.3}"));
        let exact = lane.exact.map_or_else(String::new, |rate| format!("  right {:.1} %", 100.0 * rate));
        let curve = weft_plot::sparkline(&lane.losses, 16);
        lane.bar.set_message(format!("{loss}{exact}  {curve}"));
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        self.lanes.iter().for_each(|lane| lane.bar.finish_and_clear());
    }

    /// The steps that a model has done, of how many, if time ended before they did.
    pub(super) fn cut_short(&self, contestant: Contestant) -> Option<(u64, u64)> {
        let lane = self.lanes.iter().find(|lane| lane.contestant == contestant)?;
        Some(lane.steps).filter(|(done, all)| done < all)
    }

    /// The losses of a model so far.
    pub(super) fn losses(&self, contestant: Contestant) -> &[f64] {
        self.lanes.iter().find(|lane| lane.contestant == contestant).map_or(&[], |lane| &lane.losses)
    }
}

impl Lane {
    /// A validation as text: how much is right, and answers that are right for the first time.
    fn validated(&mut self, step: u64, sentences: &[Translated], dates: &HashSet<String>) -> String {
        let (hypotheses, references): (Vec<&str>, Vec<&str>) =
            sentences.iter().map(|sentence| (sentence.hypothesis.as_str(), sentence.reference.as_str())).unzip();
        self.exact = exact_match(&hypotheses, &references).ok().map(weft_metrics::ExactMatch::rate);
        let rate = 100.0 * self.exact.unwrap_or(0.0);
        let mut text = format!("{:NAME_WIDTH$} step {step:>4}  {rate:5.1} % right", self.contestant.name());
        for _ in 0..ANSWERS_SHOWN {
            let wants_date = self.next_is_date;
            self.next_is_date = !wants_date;
            let is_new = |sentence: &&Translated| {
                sentence.hypothesis == sentence.reference
                    && !self.shown.contains(&sentence.source)
                    && dates.contains(&sentence.source) == wants_date
            };
            let Some(sentence) = sentences.iter().find(is_new) else { continue };
            self.shown.insert(sentence.source.clone());
            text += &format!("\n    ✓ {} → {}", sentence.source, sentence.hypothesis);
        }
        if self.shown.is_empty()
            && let Some(sentence) = sentences.first()
        {
            text += &format!("\n    ✗ {} → {}", sentence.source, sentence.hypothesis);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_are_shown_once() {
        let mut view = View::new(&[]);
        let sentence = |source: &str, hypothesis: &str| Translated {
            source: source.into(),
            hypothesis: hypothesis.into(),
            reference: "seven".into(),
        };
        let lane = &mut view.lanes[1];
        let wrong = [sentence("8", "eight"), sentence("7", "six")];
        let text = lane.validated(100, &wrong, &HashSet::new());
        assert_eq!(text, "RNN with attention step  100    0.0 % right\n    ✗ 8 → eight");
        let right = [sentence("8", "eight"), sentence("7", "seven")];
        let text = lane.validated(200, &right, &HashSet::new());
        assert_eq!(text, "RNN with attention step  200   50.0 % right\n    ✓ 7 → seven");
        let text = lane.validated(300, &right, &HashSet::new());
        assert_eq!(text, "RNN with attention step  300   50.0 % right");
    }
}
