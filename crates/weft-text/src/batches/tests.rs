use proptest::prelude::*;

use super::*;
use crate::TextError;
use crate::corpus::SkipReport;
use crate::dataset::{ParallelDataset, TokenSequences};
use crate::tokenizer::SpecialTokens;

fn lengths(count: usize) -> Vec<(u32, u32)> {
    let random = CounterRng::new(1, &[9]);
    (0..count as u64).map(|i| (1 + random.below(2 * i, 40) as u32, 1 + random.below(2 * i + 1, 40) as u32)).collect()
}

fn sorted(batches: &[Vec<u32>]) -> Vec<u32> {
    let mut all: Vec<u32> = batches.iter().flatten().copied().collect();
    all.sort_unstable();
    all
}

fn tokens(batch: &[u32], lengths: &[(u32, u32)]) -> usize {
    let longest = batch.iter().map(|&i| lengths[i as usize].0.max(lengths[i as usize].1)).max();
    batch.len() * longest.unwrap_or(0) as usize
}

proptest! {
    #[test]
    fn every_index_is_in_one_batch_and_no_batch_is_too_large(
        lengths in prop::collection::vec((0u32..60, 0u32..60), 0..300),
        max_tokens in 0usize..500,
        max_sentences in 0usize..20,
        pool_sentences in 0usize..200,
        seed: u64,
        epoch: u64,
    ) {
        let config = BatchConfig { max_tokens, max_sentences, pool_sentences };
        for batches in [epoch_batches(&lengths, config, seed, epoch), sorted_batches(&lengths, config)] {
            prop_assert_eq!(sorted(&batches), (0..lengths.len() as u32).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(!batch.is_empty());
                prop_assert!(batch.len() == 1 || tokens(batch, &lengths) <= max_tokens);
                prop_assert!(batch.len() == 1 || batch.len() <= max_sentences);
            }
        }
    }

    #[test]
    fn every_prediction_counts_once(length in 2usize..400, window in 1usize..50, stride in 1usize..50) {
        let stride = stride.min(window);
        let mut counts = vec![0; length];
        let windows = sequential_windows(length, window, stride).unwrap();
        for (index, one) in windows.iter().enumerate() {
            prop_assert_eq!(one.length, window.min(length - 1));
            prop_assert!(one.start + one.length < length);
            prop_assert!(index == 0 || one.scored_from >= window - stride);
            (one.scored_from..one.length).for_each(|place| counts[one.start + place + 1] += 1);
        }
        prop_assert_eq!(counts[0], 0);
        prop_assert!(counts[1..].iter().all(|&count| count == 1));
    }
}

#[test]
fn batches_repeat_under_a_seed_and_change_with_seed_and_epoch() {
    let lengths = lengths(5000);
    let config = BatchConfig { max_tokens: 512, pool_sentences: 1000, ..BatchConfig::default() };
    let first = epoch_batches(&lengths, config, 5, 3);
    assert_eq!(first, epoch_batches(&lengths, config, 5, 3));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(first, pool.install(|| epoch_batches(&lengths, config, 5, 3)));
    }
    assert_ne!(first, epoch_batches(&lengths, config, 6, 3));
    assert_ne!(first, epoch_batches(&lengths, config, 5, 4));
    // A resumed run on another machine or version must draw the same batches: these were recorded.
    assert_eq!(epoch_batches(&lengths[..8], BatchConfig { max_tokens: 60, ..config }, 5, 3), RECORDED);
    assert_eq!(random_windows(1000, 10, 4, 5, 3).unwrap(), RECORDED_WINDOWS);
}

const RECORDED: [&[u32]; 6] = [&[2, 3], &[6, 1], &[0], &[4], &[7], &[5]];
const RECORDED_WINDOWS: [usize; 4] = [522, 282, 126, 682];

#[test]
fn bucketing_wastes_little() {
    let lengths = lengths(20_000);
    let config = BatchConfig { max_tokens: 2048, ..BatchConfig::default() };
    let batches = epoch_batches(&lengths, config, 1, 0);
    let real: usize = lengths.iter().map(|&(source, target)| source.max(target) as usize).sum();
    let padded: usize = batches.iter().map(|batch| tokens(batch, &lengths)).sum();
    assert!((padded as f64) < 1.02 * real as f64, "{padded} tokens for {real}");
    // Lengths do not come in order.
    let first_lengths: Vec<usize> = batches.iter().map(|batch| tokens(batch, &lengths) / batch.len()).collect();
    assert!(!first_lengths.is_sorted());
}

#[test]
fn rows_are_padded_behind_their_ends() {
    let dataset = ParallelDataset {
        source: [&[10, 11, 12][..], &[13]].into_iter().collect::<TokenSequences>(),
        target: [&[20][..], &[21, 22]].into_iter().collect(),
        lines: vec![1, 2],
        skipped: SkipReport::default(),
        hash: String::new(),
    };
    assert_eq!(dataset.lengths(), [(3, 2), (1, 3)]);
    let special = SpecialTokens { pad: 0, unk: 1, bos: 2, eos: 3 };
    let batch = ParallelBatch::collate(&dataset, &[1, 0], special, SpecialTokens { pad: 9, ..special });
    assert_eq!(batch.source, [13, 0, 0, 10, 11, 12]);
    assert_eq!((batch.source_time, batch.target_time), (3, 3));
    assert_eq!(batch.source_lengths, [1, 3]);
    assert_eq!(batch.target_in, [2, 21, 22, 2, 20, 9]);
    assert_eq!(batch.target_out, [21, 22, 3, 20, 3, 9]);
    assert_eq!(batch.target_lengths, [3, 2]);
    assert_eq!(batch.num_target_tokens(), 5);
    let empty = ParallelBatch::collate(&dataset, &[], special, special);
    assert!(empty.is_empty() && empty.target_time == 0);
}

#[test]
fn windows_predict_the_next_token() {
    let stream: Vec<u32> = (100..110).collect();
    let batch = WindowBatch::collate(&stream, &[0, 6], 3).unwrap();
    assert_eq!(batch.inputs, [100, 101, 102, 106, 107, 108]);
    assert_eq!(batch.targets, [101, 102, 103, 107, 108, 109]);
    assert!(matches!(WindowBatch::collate(&stream, &[7], 3), Err(TextError::TextTooShort { found: 10, wanted: 11 })));
    assert!(WindowBatch::collate(&stream, &[usize::MAX], 3).is_err());
}

#[test]
fn random_windows_reach_every_place_and_fit() {
    let mut seen = [false; 7];
    for step in 0..100 {
        for start in random_windows(10, 3, 4, 0, step).unwrap() {
            seen[start] = true;
        }
    }
    assert_eq!(seen, [true; 7]);
    assert!(matches!(random_windows(3, 3, 1, 0, 0), Err(TextError::TextTooShort { found: 3, wanted: 4 })));
    assert!(random_windows(10, 0, 1, 0, 0).is_err());
    assert!(sequential_windows(1, 5, 5).is_err());
    assert!(sequential_windows(10, 5, 6).is_err());
    assert!(sequential_windows(10, 0, 0).is_err());
}
