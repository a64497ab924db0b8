//! Beam search over many sentences side by side.

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
    // A step is a row of small operations, too small to share among cores: each core takes a batch of its own.
    let done: Vec<_> = batches
        .par_iter()
        .map(|batch| {
            let texts: Vec<&[u32]> = batch.iter().map(|&i| sources[i].as_slice()).collect();
            translate_batch(model, &texts, config)
        })
        .collect::<Result<_, _>>()?;
    let mut results = vec![Vec::new(); sources.len()];
    for (batch, hypotheses) in batches.iter().zip(done) {
        for (&i, hypotheses) in batch.iter().zip(hypotheses) {
            results[i] = hypotheses;
        }
    }
    Ok(results)
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
