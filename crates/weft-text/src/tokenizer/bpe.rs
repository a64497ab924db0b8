//! Byte pair encoding: which pairs to merge. Sennrich, Haddow & Birch, arXiv 1508.07909.
//!
//! Our own trainer, because a run has to repeat to the bit: that of the `tokenizers` crate may keep several queue
//! entries for a pair and takes them in the order of its hash maps. Here the most frequent pair wins, of equally
//! frequent ones the one with the lower ids, and nothing depends on the order of a map.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A pair seen once is chance, not structure: a small corpus gets a smaller vocabulary than asked for.
const MIN_COUNT: i64 = 2;

type Pair = (u32, u32);

/// A word as token ids, and how often it occurs.
pub(super) struct Word {
    pub(super) tokens: Vec<u32>,
    pub(super) count: u64,
}

/// Learns merges until there are `vocabulary_size` pieces; appends the new pieces and returns the merges in order.
///
/// The first `fixed` pieces are never made by a merge: special and byte tokens.
pub(super) fn learn_merges(
    words: &mut [Word],
    pieces: &mut Vec<String>,
    fixed: usize,
    vocabulary_size: usize,
) -> Vec<Pair> {
    let mut ids: HashMap<String, u32> = pieces.iter().cloned().zip(0..).collect();
    let mut counts: HashMap<Pair, i64> = HashMap::new();
    let mut positions: HashMap<Pair, Vec<u32>> = HashMap::new();
    for (index, word) in words.iter().enumerate() {
        for pair in word.tokens.windows(2).map(|pair| (pair[0], pair[1])) {
            *counts.entry(pair).or_insert(0) += word.count as i64;
            note(&mut positions, pair, index as u32);
        }
    }
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> =
        counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();

    let mut merges = Vec::new();
    let mut merged: HashMap<Pair, u32> = HashMap::new();
    while pieces.len() < vocabulary_size {
        let Some((count, Reverse(pair))) = queue.pop() else {
            break;
        };
        let current = counts.get(&pair).copied().unwrap_or(0);
        if current != count {
            if current >= MIN_COUNT {
                queue.push((current, Reverse(pair)));
            }
            continue;
        }
        if count < MIN_COUNT {
            break;
        }
        // A pair comes back after its merge where another merge makes one of its parts anew ("a" + "bc", "ab" + "c").
        let new = match merged.get(&pair) {
            Some(&new) => new,
            None => {
                let text = format!("{}{}", pieces[pair.0 as usize], pieces[pair.1 as usize]);
                let new = *ids.entry(text.clone()).or_insert_with(|| {
                    pieces.push(text);
                    pieces.len() as u32 - 1
                });
                if (new as usize) < fixed {
                    counts.remove(&pair);
                    continue;
                }
                merges.push(pair);
                merged.insert(pair, new);
                new
            }
        };
        let mut changed = Vec::new();
        for index in positions.remove(&pair).unwrap_or_default() {
            let word = &mut words[index as usize];
            merge_in_word(word, pair, new, |other, change| {
                let count = counts.entry(other).or_insert(0);
                *count += change;
                if change > 0 {
                    note(&mut positions, other, index);
                    changed.push(other);
                }
            });
        }
        counts.remove(&pair);
        changed.sort_unstable();
        changed.dedup();
        queue.extend(changed.into_iter().filter_map(|pair| counts.get(&pair).map(|&count| (count, Reverse(pair)))));
    }
    merges
}

fn note(positions: &mut HashMap<Pair, Vec<u32>>, pair: Pair, word: u32) {
    let words = positions.entry(pair).or_default();
    if words.last() != Some(&word) {
        words.push(word);
    }
}

/// Replaces a pair in a word from left to right and tells how the counts of the pairs around it change.
fn merge_in_word(word: &mut Word, pair: Pair, new: u32, mut change: impl FnMut(Pair, i64)) {
    let count = word.count as i64;
    let old = std::mem::take(&mut word.tokens);
    let mut tokens: Vec<u32> = Vec::with_capacity(old.len());
    let mut index = 0;
    while index < old.len() {
        if index + 1 < old.len() && (old[index], old[index + 1]) == pair {
            if let Some(&before) = tokens.last() {
                change((before, pair.0), -count);
                change((before, new), count);
            }
            if let Some(&after) = old.get(index + 2) {
                change((pair.1, after), -count);
                change((new, after), count);
            }
            tokens.push(new);
            index += 2;
        } else {
            tokens.push(old[index]);
            index += 1;
        }
    }
    word.tokens = tokens;
}
