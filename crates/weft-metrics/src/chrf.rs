//! chrF and chrF++. Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", and Popović 2017,
//! "chrF++: words helping character n-grams", as sacrebleu 2.6 computes them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::check_lines;
use crate::ngrams::{Words, count_matches, sorted_ngrams};
use crate::text::{fold_case, is_space, words};
use crate::{MetricError, VERSION};

/// Bits for a character's code point: six of them fit into an n-gram of 128.
const CHARACTER_BITS: u32 = 21;
/// Bits for a word's number: four of them fit.
const WORD_BITS: u32 = 32;
const MAX_CHARACTER_ORDER: usize = 6;
const MAX_WORD_ORDER: usize = 4;
/// What smoothing puts in the place of an order's precision or recall that does not exist.
const EPSILON: f64 = 1e-16;

/// The settings of chrF. The default is sacrebleu's chrF2; [`Chrf::plus_plus`] is its chrF2++.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chrf {
    /// The longest character n-gram, 1 to 6.
    pub character_order: usize,
    /// The longest word n-gram, 0 to 4; 0 leaves words out, 2 makes chrF++.
    pub word_order: usize,
    /// How many times as much recall counts as precision.
    pub beta: u32,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether whitespace is part of the character n-grams.
    pub whitespace: bool,
    /// Whether orders that one side is too short for count with a tiny value, as in the authors' script, instead of
    /// being left out.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        Self { character_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false, eps_smoothing: false }
    }
}

/// A chrF score. Displays as sacrebleu prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChrfScore {
    /// Between 0 and 100.
    pub score: f64,
    /// `chrF2`, `chrF2++`: the metric with its beta and a plus for each order of words.
    pub name: String,
    /// The settings in sacrebleu's notation, which makes scores comparable.
    pub signature: String,
}

impl fmt::Display for ChrfScore {
    /// `chrF2 = 58.31`, with more digits if a precision is given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:.*}", self.name, f.precision().unwrap_or(2), self.score)
    }
}

/// The n-grams of one order in the hypothesis, in the reference and in both.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    hypothesis: u64,
    reference: u64,
    matched: u64,
}

/// A line as items: its characters, and its words if they count.
#[derive(Debug)]
struct Line {
    characters: Vec<u32>,
    words: Vec<u32>,
}

impl Chrf {
    /// chrF++: words and pairs of words besides characters.
    pub fn plus_plus() -> Self {
        Self { word_order: 2, ..Self::default() }
    }

    /// The score of a whole corpus: n-grams are counted over all lines, then compared. Of several references each line
    /// counts against the one that it scores best with.
    ///
    /// `references` holds one list of lines per reference; each has one line per hypothesis.
    ///
    /// # Errors
    /// No hypotheses, no references, a reference with another number of lines, or an order that cannot be.
    pub fn corpus<H, L, R>(&self, hypotheses: &[H], references: &[L]) -> Result<ChrfScore, MetricError>
    where
        H: AsRef<str>,
        L: AsRef<[R]>,
        R: AsRef<str>,
    {
        check_lines(hypotheses, references)?;
        self.validate()?;
        let hypotheses: Vec<_> = hypotheses.iter().map(|line| fold_case(line.as_ref(), self.lowercase)).collect();
        let references: Vec<Vec<_>> = references
            .iter()
            .map(|lines| lines.as_ref().iter().map(|line| fold_case(line.as_ref(), self.lowercase)).collect())
            .collect();
        let mut numbers = Words::default();
        let mut sum = vec![Counts::default(); self.character_order + self.word_order];
        for (index, hypothesis) in hypotheses.iter().enumerate() {
            let hypothesis = self.ngrams(&self.items(hypothesis, &mut numbers));
            let mut best: Option<(f64, Vec<Counts>)> = None;
            for lines in &references {
                let counts = compare(&hypothesis, &self.ngrams(&self.items(&lines[index], &mut numbers)));
                let score = self.f_score(&counts);
                if best.as_ref().is_none_or(|(best_score, _)| score > *best_score) {
                    best = Some((score, counts));
                }
            }
            for (sum, counts) in sum.iter_mut().zip(best.iter().flat_map(|(_, counts)| counts)) {
                sum.hypothesis += counts.hypothesis;
                sum.reference += counts.reference;
                sum.matched += counts.matched;
            }
        }
        let name = format!("chrF{}{}", self.beta, "+".repeat(self.word_order));
        Ok(ChrfScore { score: self.f_score(&sum), name, signature: self.signature(references.len()) })
    }

    /// The score of one sentence.
    ///
    /// # Errors
    /// No references, or an order that cannot be.
    pub fn sentence<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Result<ChrfScore, MetricError> {
        let references: Vec<[&str; 1]> = references.iter().map(|reference| [reference.as_ref()]).collect();
        self.corpus(&[hypothesis], &references)
    }

    /// The settings in sacrebleu's notation, for scores against `num_references` references.
    pub fn signature(&self, num_references: usize) -> String {
        format!(
            "nrefs:{num_references}|case:{}|eff:{}|nc:{}|nw:{}|space:{}|version:{VERSION}",
            if self.lowercase { "lc" } else { "mixed" },
            if self.eps_smoothing { "no" } else { "yes" },
            self.character_order,
            self.word_order,
            if self.whitespace { "yes" } else { "no" },
        )
    }

    fn validate(&self) -> Result<(), MetricError> {
        if !(1..=MAX_CHARACTER_ORDER).contains(&self.character_order) {
            return Err(MetricError::setting("character_order", self.character_order, "1 to 6"));
        }
        if self.word_order > MAX_WORD_ORDER {
            return Err(MetricError::setting("word_order", self.word_order, "0 to 4"));
        }
        if self.beta == 0 {
            return Err(MetricError::setting("beta", self.beta, "at least 1"));
        }
        Ok(())
    }

    fn items<'a>(&self, line: &'a str, numbers: &mut Words<'a>) -> Line {
        let characters = line.chars().filter(|&character| self.whitespace || !is_space(character));
        let words = if self.word_order > 0 { split_words(line, numbers) } else { Vec::new() };
        Line { characters: characters.map(u32::from).collect(), words }
    }

    /// For each order of characters, then of words, the sorted n-grams.
    fn ngrams(&self, line: &Line) -> Vec<Vec<u128>> {
        let characters =
            (1..=self.character_order).map(|order| sorted_ngrams::<CHARACTER_BITS>(&line.characters, order));
        let words = (1..=self.word_order).map(|order| sorted_ngrams::<WORD_BITS>(&line.words, order));
        characters.chain(words).collect()
    }

    /// The mean precision and the mean recall over all orders, combined: between 0 and 100.
    fn f_score(&self, counts: &[Counts]) -> f64 {
        let factor = f64::from(self.beta).powi(2);
        let f_score = |precision: f64, recall: f64| (1.0 + factor) * precision * recall / (factor * precision + recall);
        let ratio = |matched: u64, total: u64| if total > 0 { matched as f64 / total as f64 } else { EPSILON };
        let ratios = counts.iter().map(|c| (ratio(c.matched, c.hypothesis), ratio(c.matched, c.reference)));
        if self.eps_smoothing {
            let smoothed = |(precision, recall)| match f_score(precision, recall) {
                score if score.is_nan() => EPSILON, // nothing matched: 0 / 0
                score => score,
            };
            return 100.0 * ratios.map(smoothed).sum::<f64>() / counts.len() as f64;
        }
        let (mut precision, mut recall, mut order) = (0.0, 0.0, 0.0);
        for (counts, ratios) in counts.iter().zip(ratios) {
            if counts.hypothesis > 0 && counts.reference > 0 {
                precision += ratios.0;
                recall += ratios.1;
                order += 1.0;
            }
        }
        match order {
            0.0 => 0.0,
            _ if precision + recall == 0.0 => 0.0,
            order => 100.0 * f_score(precision / order, recall / order),
        }
    }
}

/// The words of a line with one ASCII punctuation mark taken off the end, or else the beginning, of each.
fn split_words<'a>(line: &'a str, numbers: &mut Words<'a>) -> Vec<u32> {
    let mut parts = Vec::new();
    for word in words(line) {
        let bytes = word.as_bytes();
        let middle = match (bytes.first(), bytes.last()) {
            _ if word.chars().nth(1).is_none() => 0,
            (_, Some(last)) if last.is_ascii_punctuation() => word.len() - 1,
            (Some(first), _) if first.is_ascii_punctuation() => 1,
            _ => 0,
        };
        let (start, end) = word.split_at(middle);
        parts.extend([start, end].iter().filter(|part| !part.is_empty()).map(|part| numbers.number(part)));
    }
    parts
}

fn compare(hypothesis: &[Vec<u128>], reference: &[Vec<u128>]) -> Vec<Counts> {
    let count = |(hypothesis, reference): (&Vec<u128>, &Vec<u128>)| Counts {
        // An order that the reference is too short for is nobody's fault.
        hypothesis: if reference.is_empty() { 0 } else { hypothesis.len() as u64 },
        reference: reference.len() as u64,
        matched: count_matches(hypothesis, std::slice::from_ref(reference)),
    };
    hypothesis.iter().zip(reference).map(count).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn impossible_settings_are_errors() {
        let wrong = [
            ("character_order", Chrf { character_order: 0, ..Chrf::default() }),
            ("character_order", Chrf { character_order: 7, ..Chrf::default() }),
            ("word_order", Chrf { word_order: 5, ..Chrf::default() }),
            ("beta", Chrf { beta: 0, ..Chrf::default() }),
        ];
        for (wanted, chrf) in wrong {
            let error = chrf.sentence("a", &["a"]).unwrap_err();
            assert!(matches!(error, MetricError::Setting { field, .. } if field == wanted), "{error}");
        }
    }

    proptest! {
        #[test]
        fn scores_lie_between_0_and_100(hypothesis in "\\PC{0,20}|[ab ]{0,20}", reference in "\\PC{0,20}|[ab ]{0,20}", word_order in 0usize..3) {
            let chrf = Chrf { word_order, ..Chrf::default() };
            let score = chrf.sentence(&hypothesis, &[&reference]).unwrap().score;
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score));
            let same = chrf.sentence(&hypothesis, &[&hypothesis]).unwrap().score;
            let perfect = if hypothesis.chars().all(is_space) { 0.0 } else { 100.0 };
            prop_assert!((same - perfect).abs() < 1e-9);
            let both = chrf.sentence(&hypothesis, &[&reference, &hypothesis]).unwrap().score;
            prop_assert!((both - same).abs() < 1e-9);
        }
    }
}
