//! BLEU. Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation", as sacrebleu 2.6
//! computes it (Post 2018, arXiv 1804.08771).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::check_lines;
use crate::ngrams::{Words, count_matches, sorted_ngrams};
use crate::text::{fold_case, words};
use crate::{BleuTokenizer, MetricError, VERSION};

/// The longest n-gram that counts.
const MAX_ORDER: usize = 4;
/// Bits for a word's number: four of them fit into an n-gram of 128.
const WORD_BITS: u32 = 32;
/// What sacrebleu takes for the logarithm of 0, so that a precision of 0 makes a score of 0.
const LOG_OF_ZERO: f64 = -9_999_999_999.0;

/// What is done about n-grams without any match, whose precision of 0 would make the whole score 0. The methods are
/// those of Chen and Cherry 2014, "A systematic comparison of smoothing techniques for sentence-level BLEU".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Smoothing {
    /// Nothing.
    None,
    /// Method 1: the value stands in for the count of 0; 0.1 by default.
    Floor {
        /// The stand-in, above 0.
        value: f64,
    },
    /// Method 2: the value is added to matches and n-grams of every order above 1; 1 by default.
    AddK {
        /// The addition, above 0.
        value: f64,
    },
    /// Method 3, NIST's: the first order without matches counts 1/2, the next 1/4 and so on.
    #[default]
    Exp,
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Floor { value } => write!(f, "floor:{value}"),
            Self::AddK { value } => write!(f, "add-k:{value}"),
            Self::Exp => f.write_str("exp"),
        }
    }
}

impl FromStr for Smoothing {
    type Err = MetricError;

    /// Reads `exp`, `none`, `floor`, `floor:VALUE`, `add-k` or `add-k:VALUE`.
    fn from_str(text: &str) -> Result<Self, MetricError> {
        let unknown = || MetricError::setting("smoothing", text, "one of exp, none, floor[:VALUE], add-k[:VALUE]");
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.parse::<f64>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let smoothing = match (name, value) {
            ("exp", None) => Self::Exp,
            ("none", None) => Self::None,
            ("floor", value) => Self::Floor { value: value.unwrap_or(0.1) },
            ("add-k", value) => Self::AddK { value: value.unwrap_or(1.0) },
            _ => return Err(unknown()),
        };
        smoothing.validate()?;
        Ok(smoothing)
    }
}

impl TryFrom<String> for Smoothing {
    type Error = MetricError;

    fn try_from(text: String) -> Result<Self, MetricError> {
        text.parse()
    }
}

impl From<Smoothing> for String {
    fn from(smoothing: Smoothing) -> Self {
        smoothing.to_string()
    }
}

impl Smoothing {
    fn validate(self) -> Result<(), MetricError> {
        match self {
            Self::Floor { value } | Self::AddK { value } if !(value.is_finite() && value > 0.0) => {
                Err(MetricError::setting("smoothing", value, "a finite value above 0"))
            }
            _ => Ok(()),
        }
    }

    fn signature(self) -> Cow<'static, str> {
        match self {
            Self::None => "none".into(),
            Self::Floor { value } => format!("floor[{value:.2}]").into(),
            Self::AddK { value } => format!("add-k[{value:.2}]").into(),
            Self::Exp => "exp".into(),
        }
    }
}

/// The settings of BLEU. The default is sacrebleu's: `13a`, cased, `exp` smoothing, all four orders.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bleu {
    /// How lines become words.
    pub tokenizer: BleuTokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// What is done about n-grams without a match.
    pub smoothing: Smoothing,
    /// Whether orders longer than the hypotheses are left out, as single sentences need it.
    pub effective_order: bool,
}

/// A BLEU score and what it was computed from. Displays as sacrebleu prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BleuScore {
    /// Between 0 and 100.
    pub score: f64,
    /// For each order 1 to 4, the percentage of n-grams that matched, smoothed.
    pub precisions: [f64; MAX_ORDER],
    /// For each order, how many n-grams matched.
    pub matches: [u64; MAX_ORDER],
    /// For each order, how many n-grams the hypotheses have.
    pub totals: [u64; MAX_ORDER],
    /// At most 1; less if the hypotheses are shorter than the references.
    pub brevity_penalty: f64,
    /// The number of words in the hypotheses.
    pub hypothesis_length: u64,
    /// The number of words in the references; of several, for each sentence the one closest in length.
    pub reference_length: u64,
    /// The settings in sacrebleu's notation, which makes scores comparable.
    pub signature: String,
}

impl fmt::Display for BleuScore {
    /// `BLEU = 38.04 69.1/45.0/31.2/21.6 (BP = 1.000 ratio = 1.012 hyp_len = 81 ref_len = 80)`, with more digits of the
    /// score if a precision is given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p1, p2, p3, p4] = self.precisions;
        let ratio = match self.reference_length {
            0 => 0.0,
            length => self.hypothesis_length as f64 / length as f64,
        };
        write!(
            f,
            "BLEU = {:.*} {p1:.1}/{p2:.1}/{p3:.1}/{p4:.1} (BP = {:.3} ratio = {ratio:.3} hyp_len = {} ref_len = {})",
            f.precision().unwrap_or(2),
            self.score,
            self.brevity_penalty,
            self.hypothesis_length,
            self.reference_length,
        )
    }
}

/// What a corpus adds up to.
#[derive(Debug, Clone, Copy, Default)]
struct Statistics {
    hypothesis_length: u64,
    reference_length: u64,
    matches: [u64; MAX_ORDER],
    totals: [u64; MAX_ORDER],
}

impl Bleu {
    /// The score of a whole corpus: n-grams are counted over all lines, then compared.
    ///
    /// `references` holds one list of lines per reference; each has one line per hypothesis.
    ///
    /// # Errors
    /// No hypotheses, no references, a reference with another number of lines, or a smoothing value that cannot be.
    pub fn corpus<H, L, R>(&self, hypotheses: &[H], references: &[L]) -> Result<BleuScore, MetricError>
    where
        H: AsRef<str>,
        L: AsRef<[R]>,
        R: AsRef<str>,
    {
        check_lines(hypotheses, references)?;
        self.smoothing.validate()?;
        let prepare = |line: &str| self.tokenizer.tokenize(&fold_case(line, self.lowercase)).into_owned();
        let hypotheses: Vec<String> = hypotheses.iter().map(|line| prepare(line.as_ref())).collect();
        let references: Vec<Vec<String>> =
            references.iter().map(|lines| lines.as_ref().iter().map(|line| prepare(line.as_ref())).collect()).collect();
        let mut numbers = Words::default();
        let mut statistics = Statistics::default();
        for (index, hypothesis) in hypotheses.iter().enumerate() {
            let mut number = |line| words(line).map(|word| numbers.number(word)).collect::<Vec<u32>>();
            let hypothesis = number(hypothesis);
            let references: Vec<Vec<u32>> = references.iter().map(|lines| number(&lines[index])).collect();
            statistics.add(&hypothesis, &references);
        }
        Ok(self.score(&statistics, references.len()))
    }

    /// The score of one sentence, with the effective order whatever the setting: an order that the hypothesis is too
    /// short for does not count.
    ///
    /// # Errors
    /// No references, or a smoothing value that cannot be.
    pub fn sentence<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Result<BleuScore, MetricError> {
        let references: Vec<[&str; 1]> = references.iter().map(|reference| [reference.as_ref()]).collect();
        Self { effective_order: true, ..*self }.corpus(&[hypothesis], &references)
    }

    /// The settings in sacrebleu's notation, for scores against `num_references` references.
    pub fn signature(&self, num_references: usize) -> String {
        format!(
            "nrefs:{num_references}|case:{}|eff:{}|tok:{}|smooth:{}|version:{VERSION}",
            if self.lowercase { "lc" } else { "mixed" },
            if self.effective_order { "yes" } else { "no" },
            self.tokenizer,
            self.smoothing.signature(),
        )
    }

    fn score(&self, statistics: &Statistics, num_references: usize) -> BleuScore {
        let Statistics { hypothesis_length, reference_length, matches, totals } = *statistics;
        let brevity_penalty = match hypothesis_length {
            0 if reference_length > 0 => 0.0,
            length if length < reference_length => (1.0 - reference_length as f64 / length as f64).exp(),
            _ => 1.0,
        };
        let (precisions, score) = if matches == [0; MAX_ORDER] {
            ([0.0; MAX_ORDER], 0.0)
        } else {
            let (precisions, order) = self.precisions(matches, totals);
            let log = |&precision: &f64| if precision == 0.0 { LOG_OF_ZERO } else { precision.ln() };
            let mean = precisions[..order].iter().map(log).sum::<f64>() / order as f64;
            (precisions, brevity_penalty * mean.exp())
        };
        BleuScore {
            score,
            precisions,
            matches,
            totals,
            brevity_penalty,
            hypothesis_length,
            reference_length,
            signature: self.signature(num_references),
        }
    }

    /// The smoothed precisions in per cent, and the number of orders that count.
    fn precisions(&self, matches: [u64; MAX_ORDER], totals: [u64; MAX_ORDER]) -> ([f64; MAX_ORDER], usize) {
        let mut precisions = [0.0; MAX_ORDER];
        let mut order = MAX_ORDER;
        let mut halvings = 1.0;
        for index in 0..MAX_ORDER {
            let (mut matched, mut total) = (matches[index] as f64, totals[index] as f64);
            if let Smoothing::AddK { value } = self.smoothing
                && index > 0
            {
                matched += value;
                total += value;
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                order = index + 1;
            }
            precisions[index] = if matched > 0.0 {
                100.0 * matched / total
            } else {
                match self.smoothing {
                    Smoothing::Exp => {
                        halvings *= 2.0;
                        100.0 / (halvings * total)
                    }
                    Smoothing::Floor { value } => 100.0 * value / total,
                    Smoothing::AddK { .. } | Smoothing::None => 0.0,
                }
            };
        }
        (precisions, order)
    }
}

impl Statistics {
    fn add(&mut self, hypothesis: &[u32], references: &[Vec<u32>]) {
        let length = hypothesis.len();
        let closest = references.iter().map(Vec::len).min_by_key(|&other| (length.abs_diff(other), other));
        self.hypothesis_length += length as u64;
        self.reference_length += closest.unwrap_or(0) as u64;
        for order in 1..=MAX_ORDER.min(length) {
            let ngrams = sorted_ngrams::<WORD_BITS>(hypothesis, order);
            let references: Vec<Vec<u128>> =
                references.iter().map(|reference| sorted_ngrams::<WORD_BITS>(reference, order)).collect();
            self.totals[order - 1] += ngrams.len() as u64;
            self.matches[order - 1] += count_matches(&ngrams, &references);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unequal_lines_are_errors() {
        let bleu = Bleu::default();
        let none: [&str; 0] = [];
        assert_eq!(bleu.corpus(&none, &[none]), Err(MetricError::NoHypotheses));
        assert_eq!(bleu.corpus(&["a"], &[none; 0]), Err(MetricError::NoReferences));
        assert_eq!(bleu.sentence("a", &none), Err(MetricError::NoReferences));
        let error = bleu.corpus(&["a", "b"], &[vec!["a", "b"], vec!["a"]]).unwrap_err();
        assert_eq!(error, MetricError::Lengths { reference: 2, found: 1, wanted: 2 });
        assert!(error.hint().is_some());
    }

    #[test]
    fn smoothing_is_read_and_written() {
        for text in ["exp", "none", "floor:0.1", "add-k:1", "floor:0.25"] {
            assert_eq!(text.parse::<Smoothing>().unwrap().to_string(), text);
        }
        assert_eq!("floor".parse::<Smoothing>().unwrap(), Smoothing::Floor { value: 0.1 });
        assert_eq!("add-k".parse::<Smoothing>().unwrap(), Smoothing::AddK { value: 1.0 });
        for text in ["", "exp:1", "add-k:", "floor:0", "floor:-1", "add-k:NaN", "epsilon"] {
            assert!(
                matches!(text.parse::<Smoothing>(), Err(MetricError::Setting { field: "smoothing", .. })),
                "{text}"
            );
        }
        let wrong = Bleu { smoothing: Smoothing::Floor { value: f64::NAN }, ..Bleu::default() };
        assert!(wrong.corpus(&["a"], &[["a"]]).is_err());
    }

    fn corpus() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-d ]{0,24}|\\PC{0,12}", 1..6)
    }

    proptest! {
        #[test]
        fn a_corpus_equals_itself(lines in corpus()) {
            let score = Bleu { tokenizer: BleuTokenizer::Character, ..Bleu::default() }.corpus(&lines, &[&lines]).unwrap();
            prop_assert_eq!(score.matches, score.totals);
            if score.totals[3] > 0 {
                prop_assert!((score.score - 100.0).abs() < 1e-9);
            }
        }

        #[test]
        fn scores_lie_between_0_and_100_and_do_not_depend_on_the_order_of_lines(
            lines in corpus(), references in corpus(), effective_order in any::<bool>(),
        ) {
            let num = lines.len().min(references.len());
            let (mut lines, mut references) = (lines[..num].to_vec(), references[..num].to_vec());
            let bleu = Bleu { effective_order, ..Bleu::default() };
            let score = bleu.corpus(&lines, &[&references]).unwrap();
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score.score), "{}", score);
            lines.reverse();
            references.reverse();
            prop_assert_eq!(bleu.corpus(&lines, &[&references]).unwrap(), score);
        }

        #[test]
        fn another_reference_never_costs_matches(lines in corpus(), first in corpus(), second in corpus()) {
            let num = lines.len().min(first.len()).min(second.len());
            let bleu = Bleu::default();
            let one = bleu.corpus(&lines[..num], &[&first[..num]]).unwrap();
            let two = bleu.corpus(&lines[..num], &[&first[..num], &second[..num]]).unwrap();
            prop_assert!(one.matches.iter().zip(&two.matches).all(|(one, two)| one <= two));
        }
    }
}
