//! The task that the quickstart learns: dates as people write them to ISO 8601, and numbers to English words.
//!
//! Both are mixed, without a mark that tells them apart: the model sees that from the text. A date or a number is
//! on one side of the split for good, whatever the seed, so that a held-out pair asks for a value (not only a way of
//! writing it) that no training pair has shown.

mod calendar;
mod dates;
mod numbers;
mod random;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use calendar::Date;
use random::Draws;

/// What a pair asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TaskKind {
    /// A date in one of eight languages, to be written as `2026-11-25`.
    Date,
    /// A whole number below a million in digits, to be written in English words.
    Number,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskPair {
    /// The question: `Mittwoch, den 25. November 2026`, or `23,105`.
    pub(crate) source: String,
    /// The only right answer: `2026-11-25`, or `twenty-three thousand one hundred and five`.
    pub(crate) target: String,
    /// Which of the two tasks it is.
    pub(crate) kind: TaskKind,
}

/// `count` pairs of any value. Pair number `i` depends on the seed and on `i` only.
#[cfg_attr(not(test), expect(dead_code, reason = "the quickstart trains on the split; this is the task as a whole"))]
pub(crate) fn pairs(seed: u64, count: usize) -> Vec<TaskPair> {
    (0..count).map(|index| pair(Draws::new(seed, index as u64), None)).collect()
}

/// Training pairs and held-out pairs without a value, and so without a source text, in common. Training pairs may
/// repeat; held-out pairs are all different, as long as 100 draws in a row find a new one (some 100,000 exist).
pub(crate) fn train_and_held_out(seed: u64, train: usize, held_out: usize) -> (Vec<TaskPair>, Vec<TaskPair>) {
    /// Sets the draws of the two sides apart.
    const HELD_OUT_STREAM: u64 = 0x6865_6c64_5f6f_7574;
    const PATIENCE: u64 = 100;
    let training = (0..train).map(|index| pair(Draws::new(seed, index as u64), Some(Side::Training))).collect();
    let mut seen = HashSet::new();
    let held_out = (0..held_out as u64).map(|index| {
        let drawn =
            |attempt: u64| pair(Draws::new(seed ^ HELD_OUT_STREAM, index * PATIENCE + attempt), Some(Side::HeldOut));
        let new = (0..PATIENCE).map(drawn).find(|pair| !seen.contains(&pair.source));
        let pair = new.unwrap_or_else(|| drawn(0));
        seen.insert(pair.source.clone());
        pair
    });
    let held_out = held_out.collect();
    (training, held_out)
}

/// Which pairs a value may appear in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Training,
    HeldOut,
}

/// Draws values until one is on the wanted side, then a way to write it.
fn pair(mut draws: Draws, wanted: Option<Side>) -> TaskPair {
    let fits = |side: Side| wanted.is_none_or(|wanted| wanted == side);
    if draws.below(2) == 0 {
        let date =
            draws.until(|draws| Date::from_day(draws.below(calendar::NUM_DAYS)), |date| fits(side_of_date(*date)));
        return TaskPair { source: dates::written(date, &mut draws), target: date.iso(), kind: TaskKind::Date };
    }
    let number = draws.until(numbers::draw, |number| fits(side_of_number(*number)));
    let source = numbers::digits(number, draws.below(2) == 0);
    TaskPair { source, target: numbers::words(number), kind: TaskKind::Number }
}

fn side_of_date(date: Date) -> Side {
    side(date.day_index(), 1)
}

/// The numbers below a hundred are words that must have been seen; all others are put together from them.
fn side_of_number(number: u32) -> Side {
    if number < 100 { Side::Training } else { side(number, 2) }
}

/// One value in ten is held out.
fn side(value: u32, task: u64) -> Side {
    if Draws::new(task, value.into()).below(10) == 0 { Side::HeldOut } else { Side::Training }
}
