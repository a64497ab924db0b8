//! What was left out of a corpus: counted, with the first places, never silent.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Places that are kept for each reason; the rest is counted only.
const MAX_PLACES: usize = 5;

/// Why an item was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SkipReason {
    /// The source or the target has no visible character.
    EmptySide,
    /// A side has more tokens than the limit.
    TooLong,
    /// A translation unit does not have both languages.
    MissingLanguage,
    /// A file in a folder has no content.
    EmptyFile,
    /// A name in a folder starts with a dot.
    HiddenFile,
    /// A folder is reached through a symbolic link, or a folder's entry is not a regular file.
    NotAFile,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EmptySide => "with an empty side",
            Self::TooLong => "over the length limit",
            Self::MissingLanguage => "without both languages",
            Self::EmptyFile => "empty",
            Self::HiddenFile => "hidden",
            Self::NotAFile => "not a regular file",
        })
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.line > 0 {
            write!(formatter, ":{}", self.line)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Skipped {
    count: usize,
    places: Vec<Place>,
}

/// How many items were left out and why, with the first few places for each reason.
///
/// It prints as `12 skipped: 10 with an empty side (a.en:3, a.en:9, ...), 2 over the length limit (a.en:40, a.en:51)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkipReport {
    reasons: BTreeMap<SkipReason, Skipped>,
}

impl SkipReport {
    /// Counts one item; line 0 means the whole file.
    pub fn add(&mut self, reason: SkipReason, path: &Path, line: usize) {
        let skipped = self.reasons.entry(reason).or_default();
        skipped.count += 1;
        if skipped.places.len() < MAX_PLACES {
            skipped.places.push(Place { path: path.to_owned(), line });
        }
    }

    /// Adds another report's counts, and its places as far as there is room.
    pub fn merge(&mut self, other: &Self) {
        for (&reason, theirs) in &other.reasons {
            let ours = self.reasons.entry(reason).or_default();
            ours.count += theirs.count;
            let room = MAX_PLACES - ours.places.len();
            ours.places.extend(theirs.places.iter().take(room).cloned());
        }
    }

    /// Items left out for a reason.
    pub fn count(&self, reason: SkipReason) -> usize {
        self.reasons.get(&reason).map_or(0, |skipped| skipped.count)
    }

    /// The first places for a reason.
    pub fn places(&self, reason: SkipReason) -> &[Place] {
        self.reasons.get(&reason).map_or(&[], |skipped| &skipped.places)
    }

    /// Items left out for any reason.
    pub fn total(&self) -> usize {
        self.reasons.values().map(|skipped| skipped.count).sum()
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for SkipReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} skipped", self.total())?;
        for (index, (reason, skipped)) in self.reasons.iter().enumerate() {
            let separator = if index == 0 { ": " } else { ", " };
            write!(formatter, "{separator}{} {reason} (", skipped.count)?;
            for (index, place) in skipped.places.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(formatter, "{comma}{place}")?;
            }
            let more = if skipped.count > skipped.places.len() { ", ...)" } else { ")" };
            formatter.write_str(more)?;
        }
        Ok(())
    }
}
