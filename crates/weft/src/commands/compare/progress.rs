//! One display over the whole plan: what is done, what runs, and the time left over all.

use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use weft_train::Event;

use crate::commands::train::Watch;
use crate::output::say;
use crate::terminal;

/// The bar has so many parts.
const PARTS: u64 = 1000;

/// The plan's progress: a bar for the whole, and below it one for what runs.
pub(super) struct Overview {
    bars: MultiProgress,
    total: ProgressBar,
    tasks: Vec<Task>,
    clock: Clock,
}

/// One part of the plan.
struct Task {
    name: String,
    /// How much work it is, by the measure of the others.
    weight: f64,
    done: f64,
}

/// From work done to the time that the rest takes.
struct Clock {
    start: Instant,
    /// The work that was done before this session.
    before: f64,
}

impl Overview {
    /// Of parts by name and weight; `done` are those that need not be done again.
    pub(super) fn new(parts: Vec<(String, f64)>, done: &[bool]) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(PARTS));
        let template = if terminal::colours() { "{bar:24.green/dim} {msg}" } else { "{bar:24} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            total.set_style(style.progress_chars("━╸─"));
        }
        let task = |((name, weight), &done)| Task { name, weight, done: if done { 1.0 } else { 0.0 } };
        let tasks: Vec<Task> = parts.into_iter().zip(done).map(task).collect();
        let clock = Clock { start: Instant::now(), before: work(&tasks) };
        Self { bars, total, tasks, clock }
    }

    /// Begins a part, with a line that stays, and returns what shows it.
    pub(super) fn begin(&mut self, index: usize) -> Watch {
        let left = self.left().map_or_else(String::new, |left| format!(", about {} left in all", HumanDuration(left)));
        let line = format!("{}/{} {}{left}", index + 1, self.tasks.len(), self.tasks[index].name);
        self.line(&line);
        self.show(index);
        Watch::among(&self.bars, &self.tasks[index].name)
    }

    /// Shows an event of a run.
    pub(super) fn see(&mut self, index: usize, event: &Event) {
        if let Event::Stepped(progress) = event {
            self.tasks[index].done = progress.share;
            self.show(index);
        }
    }

    /// Notes that a part is done, or given up.
    pub(super) fn end(&mut self, index: usize) {
        self.tasks[index].done = 1.0;
        self.show(index);
    }

    /// A line that stays, above the bars.
    pub(super) fn line(&self, line: &str) {
        self.bars.suspend(|| say!("{line}"));
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        self.total.finish_and_clear();
    }

    fn show(&self, index: usize) {
        let done = self.tasks.iter().filter(|task| task.done >= 1.0).count();
        let left = self.left().map_or_else(String::new, |left| format!("  {} left in all", HumanDuration(left)));
        let share = work(&self.tasks) / self.tasks.iter().map(|task| task.weight).sum::<f64>().max(1e-9);
        self.total.set_position((share * PARTS as f64) as u64);
        self.total.set_message(format!("{done} of {} done, now {}{left}", self.tasks.len(), self.tasks[index].name));
    }

    fn left(&self) -> Option<Duration> {
        let all = self.tasks.iter().map(|task| task.weight).sum();
        self.clock.left(work(&self.tasks), all, self.clock.start.elapsed())
    }
}

impl Clock {
    /// The time that the rest takes if it goes on as it went; None as long as nothing is done.
    fn left(&self, done: f64, all: f64, spent: Duration) -> Option<Duration> {
        let share = (all - done) / (done - self.before);
        (done > self.before && share.is_finite()).then(|| spent.mul_f64(share.clamp(0.0, 1e6)))
    }
}

/// The work that is done.
fn work(tasks: &[Task]) -> f64 {
    tasks.iter().map(|task| task.weight * task.done).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_reckoned_from_what_this_session_did() {
        let clock = Clock { start: Instant::now(), before: 4.0 };
        let minute = Duration::from_secs(60);
        assert_eq!(clock.left(4.0, 10.0, minute), None);
        assert_eq!(clock.left(6.0, 10.0, minute), Some(2 * minute));
        assert_eq!(clock.left(10.0, 10.0, minute), Some(Duration::ZERO));
    }

    #[test]
    fn parts_that_were_done_count_as_work() {
        let parts = [("rnn", 1.0), ("gpt", 1.0), ("measuring", 2.0)].map(|(name, weight)| (name.to_owned(), weight));
        let mut overview = Overview::new(parts.into(), &[true, false, false]);
        assert_eq!((work(&overview.tasks), overview.clock.before, overview.left()), (1.0, 1.0, None));
        overview.begin(1).finish();
        overview.end(1);
        assert_eq!(work(&overview.tasks), 2.0);
        assert!(overview.left().is_some());
    }
}
