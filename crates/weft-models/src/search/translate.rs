//! Beam search over many sentences side by side.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::Tensor;
use rayon::prelude::*;
use weft_decode::{BeamConfig, BeamSearch, DecodeError, Hypothesis};

use crate::{Sequences, Translator};

/// Sentences decoded together hold about this many source tokens: enough rows for the products to be matrix by
/// matrix, little enough for the caches to stay in the second-level cache.
pub const SOURCE_TOKENS_PER_BATCH: usize = 1024;

/// Translates token sequences; the hypotheses of each source, best first, in the order given.
///
/// Sources are batched by length. A sentence's result is the same alone and in any batch: rows of a product do not
/// depend on each other, attention leaves padding out, and every search is its own. The model is a plain one: of one
/// in training, `model.valid()`.
///
/// # Errors
/// A configuration that cannot be, or scores that are NaN.
pub fn translate<M: Translator>(
    model: &M,
    sources: &[Vec<u32>],
    config: &BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    config.validate()?;
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sources[i].len()));
    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let count = (SOURCE_TOKENS_PER_BATCH / sources[longest].len().max(1)).clamp(1, rest.len());
        let (batch, later) = rest.split_at(count);
        rest = later;
        batches.push(batch);
    }
    let translated = |batch: &[usize]| {
        let texts: Vec<&[u32]> = batch.iter().map(|&i| sources[i].as_slice()).collect();
        translate_batch(model, &texts, config)
    };
    let done = side_by_side(&batches, |batch| translated(batch));
    let mut results = vec![Vec::new(); sources.len()];
    for (batch, hypotheses) in batches.iter().zip(done) {
        for (&i, hypotheses) in batch.iter().zip(hypotheses?) {
            results[i] = hypotheses;
        }
    }
    Ok(results)
}

/// A step is a row of small operations, too small to share among cores: where there are batches enough, each core takes
/// one after the other for itself alone.
fn side_by_side<T: Sync, R: Send>(batches: &[T], work: impl Fn(&T) -> R + Send + Sync) -> Vec<R> {
    let cores = rayon::current_num_threads();
    if cores == 1 || batches.len() < cores {
        return batches.par_iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let of_one_core = || {
        let take = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            Some((index, batches.get(index)?))
        };
        let all = || std::iter::from_fn(take).map(|(index, batch)| (index, work(batch))).collect::<Vec<_>>();
        // Of this thread alone: operations are then not cut for others. Without it they are, which is slower.
        match rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
            Ok(pool) => pool.install(all),
            Err(_) => all(),
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(of_one_core)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Translates one batch.
///
/// # Errors
/// As [`translate`].
pub fn translate_batch<M: Translator>(
    model: &M,
    sources: &[&[u32]],
    config: &BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    let width = config.beam_size;
    let mut config = config.clone();
    if let Some(limit) = model.max_target_length() {
        config.max_length = config.max_length.min(limit);
    }
    let device = model.devices().first().cloned().unwrap_or_default();
    let mut state = model.encode(&Sequences::new(sources, 0, &device), width);
    let mut active: Vec<(usize, BeamSearch)> = Vec::with_capacity(sources.len());
    for i in 0..sources.len() {
        active.push((i, BeamSearch::new(config.clone(), model.start_token())?));
    }
    let mut results = vec![Vec::new(); sources.len()];
    while !active.is_empty() {
        let tokens: Vec<u32> = active.iter().flat_map(|(_, search)| padded(search.live(), width)).collect();
        let logits = values(model.step(&tokens, &mut state));
        let vocabulary = logits.len() / tokens.len();
        let (mut kept, mut parents) = (Vec::new(), Vec::new());
        for (slot, ((_, search), rows)) in active.iter_mut().zip(logits.chunks(vocabulary * width)).enumerate() {
            let live = search.live().len();
            let from = search.advance_logits(&rows[..live * vocabulary])?;
            if !from.is_empty() {
                parents.extend(padded(from, width));
                kept.push(slot);
            }
        }
        let (going_on, done): (Vec<_>, Vec<_>) = active.into_iter().partition(|(_, search)| !search.is_done());
        for (i, search) in done {
            results[i] = search.into_hypotheses();
        }
        active = going_on;
        if !active.is_empty() {
            model.reorder(&mut state, &kept, &parents);
        }
    }
    Ok(results)
}

/// `width` entries: those of `row`, the last one repeated.
fn padded<T: Copy>(row: &[T], width: usize) -> impl Iterator<Item = T> {
    (0..width).map(move |i| row[i.min(row.len() - 1)])
}

/// The values on the host.
pub(super) fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_to_vec().expect("logits are f32")
}
