//! Which sentences and which windows go into a batch: pure functions of the lengths, a seed and a position.

mod collate;
mod windows;

#[cfg(test)]
mod tests;

pub use collate::{PaddedRows, ParallelBatch};
pub use windows::{EvaluationWindow, WindowBatch, random_windows, sequential_windows};

use crate::random::CounterRng;

/// Names of the random streams, so that no two uses share numbers.
const ORDER_STREAM: u64 = 1;
const BATCH_STREAM: u64 = 2;
const WINDOW_STREAM: u64 = 3;
pub(crate) const RECALL_STREAM: u64 = 5;

/// How sentences are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Most tokens in a batch, padding included, on its longer side: the number of sentences times the longest source
    /// or target. A sentence that is longer than that is a batch of its own.
    pub max_tokens: usize,
    /// Most sentences in a batch.
    pub max_sentences: usize,
    /// Sentences that are sorted by length together. Fewer mix lengths more from batch to batch; more pad less.
    pub pool_sentences: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_tokens: 4096, max_sentences: usize::MAX, pool_sentences: 65_536 }
    }
}

/// The batches of an epoch: every index into `lengths` exactly once.
///
/// `lengths` are the source's and the target's tokens of each pair as the model sees them
/// ([`crate::ParallelDataset::lengths`]). The order of the pairs is shuffled, cut into pools, each pool is sorted by
/// length and cut into batches, and the batches are shuffled. The result depends on the arguments only.
///
/// ```
/// use weft_text::{BatchConfig, epoch_batches};
///
/// let lengths = [(3, 4), (9, 7), (2, 3), (8, 8)];
/// let config = BatchConfig { max_tokens: 20, ..BatchConfig::default() };
/// let mut batches = epoch_batches(&lengths, config, 42, 0);
/// batches.iter_mut().for_each(|batch| batch.sort());
/// batches.sort();
/// assert_eq!(batches, [[0, 2], [1, 3]]);
/// ```
pub fn epoch_batches(lengths: &[(u32, u32)], config: BatchConfig, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    CounterRng::new(seed, &[ORDER_STREAM, epoch]).shuffle(&mut order);
    let mut batches = Vec::new();
    for pool in order.chunks_mut(config.pool_sentences.max(1)) {
        cut_by_length(pool, lengths, config, &mut batches);
    }
    CounterRng::new(seed, &[BATCH_STREAM, epoch]).shuffle(&mut batches);
    batches
}

/// All sentences in batches of similar length, the shortest first, nothing shuffled: for validation and translation.
pub fn sorted_batches(lengths: &[(u32, u32)], config: BatchConfig) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    let mut batches = Vec::new();
    cut_by_length(&mut order, lengths, config, &mut batches);
    batches
}

/// Sorts a pool by length (stable: the order given decides between equals) and cuts it into batches.
fn cut_by_length(pool: &mut [u32], lengths: &[(u32, u32)], config: BatchConfig, batches: &mut Vec<Vec<u32>>) {
    let longer_side = |index: u32| lengths[index as usize].0.max(lengths[index as usize].1);
    pool.sort_by_key(|&index| (longer_side(index), lengths[index as usize]));
    let mut batch: Vec<u32> = Vec::new();
    for &index in pool.iter() {
        // Lengths ascend, so the new sentence is the longest.
        let tokens = (batch.len() + 1).saturating_mul(longer_side(index) as usize);
        let full = tokens > config.max_tokens || batch.len() >= config.max_sentences;
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
        }
        batch.push(index);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
}
