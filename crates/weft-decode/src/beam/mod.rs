//! Beam search for one sentence, as plain data.
//!
//! One step, with `k` the beam size and `V` the vocabulary: each of at most `k` live hypotheses has a row of `V`
//! scores. The best `2k` of all extensions, by summed log-probability, are the candidates.
//!
//! - A candidate among the first `k` that ends in eos is finished. One that ends in eos further down is dropped.
//! - The best `k` candidates that do not end in eos live on. No row has more than one eos, so there are `k` of them
//!   wherever the vocabulary allows it: finished hypotheses never narrow the beam.
//! - In the step that reaches the maximum length all of the first `k` candidates end, finished or not.
//!
//! That is the search of CTranslate2 and fairseq. Equal sums are ordered by the lower token id, then the lower row.

mod config;
#[cfg(test)]
mod tests;

pub use config::{BeamConfig, StopRule};

use crate::DecodeError;
use crate::scan::{BLOCK, block_maxima, log_sum_exp};

/// Log-probabilities computed in f32 may exceed 0 by rounding; what exceeds it by more was never normalised.
const ROUNDING: f32 = 1e-3;

/// A translation, or whatever else the tokens stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The token ids, without bos and eos.
    pub tokens: Vec<u32>,
    /// What hypotheses are ranked by: `log_prob` under the length penalty.
    pub score: f64,
    /// The summed log-probability in nats, that of eos included if the hypothesis is finished.
    pub log_prob: f64,
    /// Whether it ended with eos; if not, it was cut at the maximum length or the search was cut short.
    pub finished: bool,
}

/// Beam search for one sentence, driven by a caller that runs the model.
///
/// The caller loops until [`is_done`](Self::is_done): it gives the model the last token of each [`live`](Self::live)
/// row, hands the scores to [`advance`](Self::advance) or [`advance_logits`](Self::advance_logits), and reorders the
/// model's caches by the rows that come back. Many sentences share a batch by laying their rows one after another; what
/// one search does never depends on another.
#[derive(Debug, Clone)]
pub struct BeamSearch {
    config: BeamConfig,
    /// The number of tokens that each live hypothesis has.
    step: usize,
    vocabulary: Option<usize>,
    done: bool,
    /// One entry per live hypothesis, best first, in this and in `live_nodes`, `live_log_probs` and `parents`.
    live: Vec<u32>,
    live_nodes: Vec<u32>,
    /// The live nodes before this step; like the buffers at the end, kept to allocate once.
    old_nodes: Vec<u32>,
    live_log_probs: Vec<f64>,
    parents: Vec<usize>,
    /// All tokens chosen so far, each with the node before it: hypotheses share their beginnings.
    nodes: Vec<Node>,
    /// The best `num_best` ended hypotheses, best first; among equals the one that ended first.
    ended: Vec<Ended>,
    num_ended: usize,
    /// Whether the best candidate of some step has ended.
    best_has_ended: bool,
    candidates: Vec<Candidate>,
    maxima: Vec<f32>,
    masked: Vec<f32>,
    #[cfg(test)]
    never_stops: bool,
}

/// The node before the first token.
const ROOT: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    token: u32,
    before: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    node: u32,
    num_tokens: usize,
    log_prob: f64,
    score: f64,
    finished: bool,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    log_prob: f64,
    token: u32,
    row: usize,
}

impl Candidate {
    fn is_better_than(&self, other: &Self) -> bool {
        self.log_prob > other.log_prob
            || (self.log_prob == other.log_prob && (self.token, self.row) < (other.token, other.row))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scores {
    LogProbabilities,
    Logits,
}

impl BeamSearch {
    /// A search that starts from one live row whose last token is `bos`.
    ///
    /// # Errors
    /// [`DecodeError::Config`] names the setting that cannot be.
    pub fn new(config: BeamConfig, bos: u32) -> Result<Self, DecodeError> {
        config.validate()?;
        let mut parents = Vec::with_capacity(config.beam_size);
        parents.push(0);
        Ok(Self {
            step: 0,
            vocabulary: None,
            done: false,
            live: vec![bos],
            live_nodes: vec![ROOT],
            old_nodes: Vec::with_capacity(config.beam_size),
            live_log_probs: vec![0.0],
            parents,
            nodes: Vec::new(),
            ended: Vec::with_capacity(config.num_best + 1),
            num_ended: 0,
            best_has_ended: false,
            candidates: Vec::with_capacity(2 * config.beam_size + 1),
            maxima: Vec::new(),
            masked: Vec::new(),
            #[cfg(test)]
            never_stops: false,
            config,
        })
    }

    /// The last token of each live hypothesis, best first: what the model reads next. Empty when the search is done.
    pub fn live(&self) -> &[u32] {
        &self.live
    }

    /// The tokens of the live hypothesis in `row`, without bos; `None` if there is no such row.
    pub fn live_tokens(&self, row: usize) -> Option<Vec<u32>> {
        self.live_nodes.get(row).map(|&node| self.tokens(node, self.step))
    }

    /// The number of tokens that each live hypothesis has, bos not counted.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Whether the search is over.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Goes one token further with `log_probs`, `[live, vocabulary]` in nats, minus infinity for an impossible token.
    ///
    /// Returns which old row each new live row continues, for the caller to reorder its caches; empty when the search
    /// is done. After an error the search is as it was.
    ///
    /// # Errors
    /// A number of scores that is not a multiple of the live rows, rows of another length than before, a vocabulary
    /// without eos, NaN, a row that is all minus infinity, values above 0, no way on, or a search that is done.
    pub fn advance(&mut self, log_probs: &[f32]) -> Result<&[usize], DecodeError> {
        self.advance_by(log_probs, Scores::LogProbabilities)
    }

    /// [`advance`](Self::advance) with `logits`, `[live, vocabulary]`: each row's log-normaliser is computed here.
    ///
    /// # Errors
    /// As [`advance`](Self::advance); values above 0 are possible, plus infinity is not.
    pub fn advance_logits(&mut self, logits: &[f32]) -> Result<&[usize], DecodeError> {
        self.advance_by(logits, Scores::Logits)
    }

    fn advance_by(&mut self, scores: &[f32], kind: Scores) -> Result<&[usize], DecodeError> {
        let vocabulary = self.check_shape(scores)?;
        self.candidates.clear();
        for (row, row_scores) in scores.chunks_exact(vocabulary).enumerate() {
            self.gather(row_scores, row, kind)?;
        }
        if self.candidates.is_empty() && self.num_ended == 0 {
            return Err(DecodeError::DeadEnd { step: self.step });
        }
        self.vocabulary = Some(vocabulary);
        self.choose();
        self.step += 1;
        self.done = self.live.is_empty() || self.may_stop();
        if self.done {
            // Those that would live on cannot win, or come too late for the stop rule.
            self.clear_live();
        }
        Ok(&self.parents)
    }

    /// Sorts the candidates into those that end and those that live on.
    fn choose(&mut self) {
        let last_step = self.step + 1 == self.config.max_length;
        let candidates = std::mem::take(&mut self.candidates);
        std::mem::swap(&mut self.live_nodes, &mut self.old_nodes);
        self.clear_live();
        for (rank, candidate) in candidates.iter().enumerate() {
            let before = self.old_nodes[candidate.row];
            if last_step || candidate.token == self.config.eos {
                if rank < self.config.beam_size {
                    self.best_has_ended |= rank == 0;
                    self.end(before, candidate);
                }
            } else if self.live.len() < self.config.beam_size {
                self.live_nodes.push(self.nodes.len() as u32);
                self.nodes.push(Node { token: candidate.token, before });
                self.live.push(candidate.token);
                self.live_log_probs.push(candidate.log_prob);
                self.parents.push(candidate.row);
            }
        }
        self.candidates = candidates;
    }

    fn clear_live(&mut self) {
        self.live.clear();
        self.live_nodes.clear();
        self.live_log_probs.clear();
        self.parents.clear();
    }

    /// The hypotheses, best first, at most `num_best`. Before the search is done, live ones are among them as
    /// unfinished.
    pub fn into_hypotheses(mut self) -> Vec<Hypothesis> {
        for row in 0..self.live.len() {
            let (log_prob, num_tokens) = (self.live_log_probs[row], self.step);
            let score = self.config.length_penalty.score(log_prob, num_tokens, false);
            self.keep(Ended { node: self.live_nodes[row], num_tokens, log_prob, score, finished: false });
        }
        let hypothesis = |ended: &Ended| Hypothesis {
            tokens: self.tokens(ended.node, ended.num_tokens),
            score: ended.score,
            log_prob: ended.log_prob,
            finished: ended.finished,
        };
        self.ended.iter().map(hypothesis).collect()
    }

    fn check_shape(&self, scores: &[f32]) -> Result<usize, DecodeError> {
        if self.done {
            return Err(DecodeError::Done);
        }
        let rows = self.live.len();
        if scores.is_empty() {
            return Err(DecodeError::EmptyVocabulary);
        }
        if !scores.len().is_multiple_of(rows) {
            return Err(DecodeError::Shape { found: scores.len(), rows });
        }
        let found = scores.len() / rows;
        match self.vocabulary {
            Some(wanted) if wanted != found => {
                return Err(DecodeError::VocabularyChanged { found, wanted });
            }
            _ => {}
        }
        if self.config.eos as usize >= found {
            return Err(DecodeError::TokenOutOfRange { what: "eos", token: self.config.eos, vocabulary: found });
        }
        Ok(found)
    }

    /// Merges the extensions of one row into the candidates.
    fn gather(&mut self, scores: &[f32], row: usize, kind: Scores) -> Result<(), DecodeError> {
        let mut max = block_maxima(scores, row, &mut self.maxima)?;
        if kind == Scores::LogProbabilities && max > ROUNDING {
            let token = scores.iter().position(|&score| score == max).unwrap_or(0);
            return Err(DecodeError::NotALogProbability { row, token, found: max });
        }
        let masks_eos = self.step < self.config.min_length;
        let mut masked = std::mem::take(&mut self.masked);
        let scores = if masks_eos {
            masked.clear();
            masked.extend_from_slice(scores);
            masked[self.config.eos as usize] = f32::NEG_INFINITY;
            masked.as_slice()
        } else {
            scores
        };
        let mut is_possible = true;
        if masks_eos {
            match block_maxima(scores, row, &mut self.maxima) {
                Ok(masked_max) => max = masked_max,
                Err(_) => is_possible = false, // eos was the row's only possible token
            }
        }
        if is_possible {
            let normaliser = if masks_eos || kind == Scores::Logits { log_sum_exp(scores, max) } else { 0.0 };
            self.merge(scores, row, normaliser);
        }
        self.masked = masked;
        Ok(())
    }

    /// Inserts what is among the best into the sorted candidates. Rounding keeps order, so that a block whose maximum
    /// stays below the worst candidate holds nothing better, and is skipped unread.
    fn merge(&mut self, scores: &[f32], row: usize, normaliser: f64) {
        let capacity = 2 * self.config.beam_size;
        let before = self.live_log_probs[row];
        let summed = |score: f32| before + (f64::from(score) - normaliser).min(0.0);
        let candidates = &mut self.candidates;
        for (block, &block_max) in self.maxima.iter().enumerate() {
            let threshold = |candidates: &Vec<Candidate>| match candidates.last() {
                Some(worst) if candidates.len() == capacity => worst.log_prob,
                _ => f64::NEG_INFINITY,
            };
            let mut least = threshold(candidates);
            if block_max == f32::NEG_INFINITY || summed(block_max) < least {
                continue;
            }
            let start = block * BLOCK;
            let end = (start + BLOCK).min(scores.len());
            for (token, &score) in (start..end).zip(&scores[start..end]) {
                let log_prob = summed(score);
                if log_prob < least || score == f32::NEG_INFINITY {
                    continue;
                }
                let candidate = Candidate { log_prob, token: token as u32, row };
                let place = candidates.partition_point(|other| other.is_better_than(&candidate));
                if place < capacity {
                    if candidates.len() == capacity {
                        candidates.pop();
                    }
                    candidates.insert(place, candidate);
                    least = threshold(candidates);
                }
            }
        }
    }

    /// Books a candidate that goes no further: by eos, or at the maximum length.
    fn end(&mut self, before: u32, candidate: &Candidate) {
        let finished = candidate.token == self.config.eos;
        let (node, num_tokens) = if finished {
            (before, self.step)
        } else {
            self.nodes.push(Node { token: candidate.token, before });
            (self.nodes.len() as u32 - 1, self.step + 1)
        };
        let score = self.config.length_penalty.score(candidate.log_prob, num_tokens, finished);
        self.num_ended += 1;
        self.keep(Ended { node, num_tokens, log_prob: candidate.log_prob, score, finished });
    }

    fn keep(&mut self, ended: Ended) {
        let place = self.ended.partition_point(|other| other.score >= ended.score);
        if place < self.config.num_best {
            self.ended.insert(place, ended);
            self.ended.truncate(self.config.num_best);
        }
    }

    fn may_stop(&self) -> bool {
        #[cfg(test)]
        if self.never_stops {
            return false;
        }
        let has_enough = self.num_ended >= self.config.num_best;
        match self.config.stop {
            StopRule::EnoughFinished if self.config.length_penalty.is_neutral() => self.best_has_ended && has_enough,
            StopRule::EnoughFinished => self.num_ended >= self.config.beam_size,
            StopRule::Exact => match (self.ended.last(), self.live_log_probs.first()) {
                (Some(worst_kept), Some(&best_live)) if has_enough => {
                    let penalty = self.config.length_penalty;
                    penalty.best_reachable(best_live, self.step, self.config.max_length) <= worst_kept.score
                }
                _ => false,
            },
        }
    }

    fn tokens(&self, mut node: u32, num_tokens: usize) -> Vec<u32> {
        let mut tokens = vec![0; num_tokens];
        for token in tokens.iter_mut().rev() {
            let Node { token: found, before } = self.nodes[node as usize];
            *token = found;
            node = before;
        }
        tokens
    }
}
