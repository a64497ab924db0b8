//! A unigram language model over pieces of words. Kudo, arXiv 1804.10959, section 3.2.
//!
//! Seed pieces are the substrings that occur at least twice; then, in turn, expectation maximisation of the pieces'
//! probabilities, and removal of the quarter whose loss harms the likelihood least, until the wanted size is reached.
//!
//! Our own trainer, because a run has to repeat to the bit whatever the number of threads: that of the `tokenizers`
//! crate takes the order of its hash maps into the scores and cuts its sums by the number of threads.

use std::collections::HashMap;

use rayon::prelude::*;

/// Longest piece in characters, as in SentencePiece.
const MAX_PIECE_CHARS: usize = 16;
/// Most seed pieces that enter the first round, as in SentencePiece.
const MAX_SEEDS: usize = 1_000_000;
/// Rounds of expectation maximisation between two removals.
const ROUNDS: usize = 2;
/// Share of the pieces that a removal keeps.
const KEEP: f64 = 0.75;
/// Pieces expected less often than this are dropped at once.
const MIN_EXPECTED: f64 = 0.5;
/// Sums over words are cut into this many parts and added in order: the same result for any number of threads.
const PARTS: usize = 8;

/// Learns up to `count` pieces with their log-probabilities, the most probable first; every character of the words is
/// a piece.
pub(super) fn learn_pieces(words: &[(Vec<char>, u64)], count: usize) -> Vec<(String, f64)> {
    let mut model = Model::new(seed_pieces(words));
    loop {
        for _ in 0..ROUNDS {
            let expected = model.expected_counts(words);
            model.maximise(&expected);
        }
        // SentencePiece's rule: EM runs on a tenth more than is wanted, and the last cut goes by probability.
        let wanted = count + count / 10;
        let alive = model.alive();
        if alive <= wanted {
            break;
        }
        model.prune(words, wanted.max((alive as f64 * KEEP) as usize));
        if model.alive() == alive {
            break;
        }
    }
    model.into_pieces(count)
}

/// A piece as characters, and how often it occurs.
type Seed = (Vec<char>, u64);

/// Every character, and the best substrings of 2 characters and more, by their count times their length.
fn seed_pieces(words: &[(Vec<char>, u64)]) -> Vec<Seed> {
    let text: Vec<char> = words.iter().flat_map(|(word, _)| word.iter().copied()).collect();
    let mut suffixes: Vec<Suffix> = Vec::with_capacity(text.len());
    let mut start = 0usize;
    for (word, count) in words {
        let end = start + word.len();
        suffixes.extend((start..end).map(|from| Suffix {
            start: from as u32,
            length: (end - from).min(MAX_PIECE_CHARS) as u32,
            count: *count,
        }));
        start = end;
    }
    let slice = |suffix: &Suffix| &text[suffix.start as usize..(suffix.start + suffix.length) as usize];
    suffixes.par_sort_unstable_by(|a, b| slice(a).cmp(slice(b)).then(a.start.cmp(&b.start)));
    let shared: Vec<usize> = (0..suffixes.len())
        .map(|index| match index {
            0 => 0,
            _ => slice(&suffixes[index - 1]).iter().zip(slice(&suffixes[index])).take_while(|(a, b)| a == b).count(),
        })
        .collect();

    let mut characters = Vec::new();
    let mut longer: Vec<(u64, usize, usize, u64)> = Vec::new();
    for length in 1..=MAX_PIECE_CHARS {
        let mut first = 0;
        while first < suffixes.len() {
            if (suffixes[first].length as usize) < length {
                first += 1;
                continue;
            }
            let mut last = first + 1;
            let mut common = suffixes[first].length as usize;
            let mut total = suffixes[first].count;
            while last < suffixes.len() && shared[last] >= length {
                common = common.min(shared[last]).min(suffixes[last].length as usize);
                total += suffixes[last].count;
                last += 1;
            }
            let start = suffixes[first].start as usize;
            if length == 1 {
                characters.push((vec![text[start]], total));
            } else if total >= 2 && common == length {
                // Where all occurrences go on alike, only the longest of them is a piece.
                longer.push((total.saturating_mul(length as u64), start, length, total));
            }
            first = last;
        }
    }
    let piece = |start: usize, length: usize| &text[start..start + length];
    longer.par_sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| piece(a.1, a.2).cmp(piece(b.1, b.2))));
    longer.truncate(MAX_SEEDS);
    characters.extend(longer.into_iter().map(|(_, start, length, total)| (piece(start, length).to_vec(), total)));
    characters
}

struct Suffix {
    start: u32,
    length: u32,
    count: u64,
}

/// The pieces, their scores, and a tree in which all pieces that begin at a place are found in one walk.
struct Model {
    pieces: Vec<Vec<char>>,
    /// Log-probabilities; minus infinity for pieces that were removed.
    scores: Vec<f64>,
    children: HashMap<(u32, char), u32>,
    /// The piece that ends at a node.
    ends: Vec<Option<u32>>,
}

/// A piece that may cover `start..end` of a word.
struct Arc {
    start: usize,
    end: usize,
    piece: u32,
}

impl Model {
    fn new(seeds: Vec<Seed>) -> Self {
        let total: f64 = seeds.iter().map(|(piece, count)| *count as f64 * piece.len() as f64).sum();
        let mut model = Self {
            pieces: Vec::with_capacity(seeds.len()),
            scores: Vec::with_capacity(seeds.len()),
            children: HashMap::new(),
            ends: vec![None],
        };
        for (piece, count) in seeds {
            let mut node = 0;
            for &character in &piece {
                let next = model.ends.len() as u32;
                node = *model.children.entry((node, character)).or_insert(next);
                if node == next {
                    model.ends.push(None);
                }
            }
            model.ends[node as usize] = Some(model.pieces.len() as u32);
            model.scores.push((count as f64 * piece.len() as f64 / total).ln());
            model.pieces.push(piece);
        }
        model
    }

    fn alive(&self) -> usize {
        self.scores.iter().filter(|score| score.is_finite()).count()
    }

    fn is_character(&self, piece: usize) -> bool {
        self.pieces[piece].len() == 1
    }

    /// All pieces of a word but `without`, by their start.
    fn arcs(&self, word: &[char], without: Option<u32>, arcs: &mut Vec<Arc>) {
        arcs.clear();
        for start in 0..word.len() {
            let mut node = 0;
            for (offset, &character) in word[start..].iter().enumerate() {
                let Some(&next) = self.children.get(&(node, character)) else {
                    break;
                };
                node = next;
                if let Some(piece) = self.ends[node as usize]
                    && self.scores[piece as usize].is_finite()
                    && Some(piece) != without
                {
                    arcs.push(Arc { start, end: start + offset + 1, piece });
                }
            }
        }
    }

    /// How often each piece is expected to be used, over all segmentations of all words: forward-backward.
    fn expected_counts(&self, words: &[(Vec<char>, u64)]) -> Vec<f64> {
        self.sum_over_words(words, |word, count, arcs, expected| {
            self.arcs(word, None, arcs);
            let mut forward = vec![f64::NEG_INFINITY; word.len() + 1];
            forward[0] = 0.0;
            for arc in arcs.iter() {
                let score = forward[arc.start] + self.scores[arc.piece as usize];
                forward[arc.end] = log_add(forward[arc.end], score);
            }
            let mut backward = vec![f64::NEG_INFINITY; word.len() + 1];
            backward[word.len()] = 0.0;
            for arc in arcs.iter().rev() {
                let score = backward[arc.end] + self.scores[arc.piece as usize];
                backward[arc.start] = log_add(backward[arc.start], score);
            }
            for arc in arcs.iter() {
                let score = forward[arc.start] + self.scores[arc.piece as usize] + backward[arc.end];
                let share = (score - forward[word.len()]).exp();
                expected[arc.piece as usize] += share * count as f64;
            }
        })
    }

    /// Sets the scores from expected counts; the digamma function makes rare pieces rarer (a sparse prior).
    fn maximise(&mut self, expected: &[f64]) {
        let keep = |piece: usize| self.is_character(piece) || expected[piece] >= MIN_EXPECTED;
        let counts: Vec<Option<f64>> =
            (0..expected.len()).map(|piece| keep(piece).then(|| expected[piece].max(MIN_EXPECTED))).collect();
        let total = digamma(counts.iter().flatten().sum());
        for (score, count) in self.scores.iter_mut().zip(counts) {
            *score = count.map_or(f64::NEG_INFINITY, |count| digamma(count) - total);
        }
    }

    /// Removes the pieces whose removal lowers the likelihood least, until `keep` are left; characters stay.
    fn prune(&mut self, words: &[(Vec<char>, u64)], keep: usize) {
        let counts = self.sum_over_words(words, |word, count, arcs, counts| {
            self.arcs(word, None, arcs);
            for piece in best_path(word.len(), arcs, &self.scores) {
                counts[piece as usize] += count as f64;
            }
        });
        let total: f64 = counts.iter().sum();
        let losses: Vec<Option<f64>> = (0..self.pieces.len())
            .into_par_iter()
            .map_init(Vec::new, |arcs, piece| {
                if !self.scores[piece].is_finite() || self.is_character(piece) {
                    return None;
                }
                if counts[piece] == 0.0 {
                    return Some(0.0);
                }
                self.arcs(&self.pieces[piece], Some(piece as u32), arcs);
                let path = best_path(self.pieces[piece].len(), arcs, &self.scores);
                // Removed, the piece gives its count to each piece of the path, and the total grows by the difference.
                let new_total = (total + counts[piece] * (path.len() as f64 - 1.0)).ln();
                let before = counts[piece].ln() - total.ln();
                let after: f64 =
                    path.iter().map(|&other| (counts[other as usize] + counts[piece]).ln() - new_total).sum();
                Some(counts[piece] * (before - after))
            })
            .collect();
        let mut removable: Vec<(f64, usize)> =
            losses.into_iter().enumerate().filter_map(|(piece, loss)| loss.map(|loss| (loss, piece))).collect();
        removable.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let excess = self.alive().saturating_sub(keep);
        for &(_, piece) in removable.iter().take(excess) {
            self.scores[piece] = f64::NEG_INFINITY;
        }
    }

    fn sum_over_words(
        &self,
        words: &[(Vec<char>, u64)],
        add: impl Fn(&[char], u64, &mut Vec<Arc>, &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let part = words.len().div_ceil(PARTS).max(1);
        let sums: Vec<Vec<f64>> = words
            .par_chunks(part)
            .map(|words| {
                let mut sums = vec![0.0; self.pieces.len()];
                let mut arcs = Vec::new();
                words.iter().for_each(|(word, count)| add(word, *count, &mut arcs, &mut sums));
                sums
            })
            .collect();
        let mut total = vec![0.0; self.pieces.len()];
        for sums in sums {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        total
    }

    fn into_pieces(self, count: usize) -> Vec<(String, f64)> {
        let scored = self.pieces.into_iter().zip(self.scores).filter(|(_, score)| score.is_finite());
        let (mut kept, mut longer): (Vec<_>, Vec<_>) = scored.partition(|(piece, _)| piece.len() == 1);
        let by_score = |a: &(Vec<char>, f64), b: &(Vec<char>, f64)| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        longer.sort_unstable_by(by_score);
        longer.truncate(count.saturating_sub(kept.len()));
        kept.extend(longer);
        kept.sort_unstable_by(by_score);
        kept.into_iter().map(|(piece, score)| (piece.into_iter().collect(), score)).collect()
    }
}

/// The pieces of the most probable segmentation, last piece first.
fn best_path(length: usize, arcs: &[Arc], scores: &[f64]) -> Vec<u32> {
    let mut best: Vec<(f64, Option<&Arc>)> = vec![(f64::NEG_INFINITY, None); length + 1];
    best[0].0 = 0.0;
    for arc in arcs {
        let score = best[arc.start].0 + scores[arc.piece as usize];
        if score > best[arc.end].0 {
            best[arc.end] = (score, Some(arc));
        }
    }
    let mut path = Vec::new();
    let mut end = length;
    while let Some(arc) = best[end].1 {
        path.push(arc.piece);
        end = arc.start;
    }
    path
}

fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of ln Γ for positive arguments: the recurrence ψ(x) = ψ(x + 1) - 1/x up to 7, then the asymptotic
/// series in 1/x.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    result + x.ln()
        - 0.5 / x
        - inverse * (1.0 / 12.0 - inverse * (1.0 / 120.0 - inverse * (1.0 / 252.0 - inverse / 240.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digamma_is_right() {
        // ψ(1) = -γ, ψ(1/2) = -γ - 2 ln 2, ψ(10) = H(9) - γ.
        let gamma = 0.577_215_664_901_532_9;
        assert!((digamma(1.0) + gamma).abs() < 1e-9);
        assert!((digamma(0.5) + gamma + 2.0 * 2f64.ln()).abs() < 1e-9);
        let harmonic: f64 = (1..10).map(|n| 1.0 / f64::from(n)).sum();
        assert!((digamma(10.0) - harmonic + gamma).abs() < 1e-9);
    }

    fn words(words: &[(&str, u64)]) -> Vec<(Vec<char>, u64)> {
        words.iter().map(|(word, count)| (word.chars().collect(), *count)).collect()
    }

    #[test]
    fn seeds_are_the_repeated_substrings_that_end_differently() {
        let mut found: Vec<(String, u64)> = seed_pieces(&words(&[("abcd", 1), ("abce", 1), ("xbc", 3)]))
            .into_iter()
            .map(|(piece, count)| (piece.into_iter().collect(), count))
            .filter(|(piece, _): &(String, u64)| piece.len() > 1)
            .collect();
        found.sort();
        // "ab" is always followed by c; "abcd" occurs once only.
        let wanted = [("abc", 2), ("bc", 5), ("xbc", 3)].map(|(piece, count)| (piece.to_owned(), count));
        assert_eq!(found, wanted);
    }

    #[test]
    fn expected_counts_are_those_of_all_segmentations() {
        let model = Model::new(vec![(vec!['a'], 3), (vec!['b'], 2), (vec!['a', 'b'], 1)]);
        // P(a) = 3/7, P(b) = 2/7, P(ab) = 2/7: "ab" is a|b with 6/49, and ab with 14/49.
        let expected = model.expected_counts(&words(&[("ab", 10)]));
        for (found, wanted) in expected.iter().zip([3.0, 3.0, 7.0]) {
            assert!((found - wanted).abs() < 1e-12, "{expected:?}");
        }
    }
}
