//! Counting n-grams: each is packed into one number, so that a sorted list of numbers is a multiset of n-grams.

use std::collections::HashMap;

/// Numbers for words, the same number for the same word.
#[derive(Debug, Default)]
pub(crate) struct Words<'a> {
    numbers: HashMap<&'a str, u32>,
}

impl<'a> Words<'a> {
    pub(crate) fn number(&mut self, word: &'a str) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(word).or_insert(next)
    }
}

/// The n-grams of `items`, packed and sorted. Each item has `BITS` bits, so that `order * BITS` is at most 128.
pub(crate) fn sorted_ngrams<const BITS: u32>(items: &[u32], order: usize) -> Vec<u128> {
    debug_assert!(order as u32 * BITS <= 128 && items.iter().all(|&item| u64::from(item) < 1 << BITS));
    let pack = |ngram: &[u32]| ngram.iter().fold(0, |packed, &item| packed << BITS | u128::from(item));
    let mut ngrams: Vec<u128> = items.windows(order).map(pack).collect();
    ngrams.sort_unstable();
    ngrams
}

/// How many of the sorted `ngrams` are matched, each as often as it occurs in the one of the sorted `references` that
/// has it most often.
pub(crate) fn count_matches(ngrams: &[u128], references: &[Vec<u128>]) -> u64 {
    let mut rests: Vec<&[u128]> = references.iter().map(Vec::as_slice).collect();
    let equal = |run: &[u128]| {
        let mut matched = 0;
        for rest in &mut rests {
            let skipped = rest.iter().take_while(|&&ngram| ngram < run[0]).count();
            let count = rest[skipped..].iter().take_while(|&&ngram| ngram == run[0]).count();
            *rest = &rest[skipped + count..];
            matched = run.len().min(count).max(matched);
        }
        matched as u64
    };
    ngrams.chunk_by(u128::eq).map(equal).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn matches_are_those_of_hash_maps(
            hypothesis in prop::collection::vec(0u32..5, 0..30),
            references in prop::collection::vec(prop::collection::vec(0u32..5, 0..30), 1..4),
            order in 1usize..5,
        ) {
            let counts = |items: &[u32]| {
                let mut counts = HashMap::<Vec<u32>, usize>::new();
                items.windows(order).for_each(|ngram| *counts.entry(ngram.to_vec()).or_default() += 1);
                counts
            };
            let reference_counts: Vec<_> = references.iter().map(|reference| counts(reference)).collect();
            let wanted: usize = counts(&hypothesis).iter().map(|(ngram, &count)| {
                let most = reference_counts.iter().filter_map(|counts| counts.get(ngram)).copied().max().unwrap_or(0);
                count.min(most)
            }).sum();
            let sorted: Vec<_> = references.iter().map(|reference| sorted_ngrams::<32>(reference, order)).collect();
            prop_assert_eq!(count_matches(&sorted_ngrams::<32>(&hypothesis, order), &sorted), wanted as u64);
        }
    }
}
