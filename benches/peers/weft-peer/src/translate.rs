//! Beam search with an encoder-decoder Transformer.

use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use weft_decode::{BeamConfig, LengthPenalty};
use weft_models::search::translate;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, checkpoint};

use crate::batches::Batch;
use crate::options::SearchOptions;
use crate::protocol::{Translation, Translations};

pub(crate) fn load(folder: &Path, batches: &[Batch], options: &SearchOptions) -> anyhow::Result<Translations> {
    let model: Transformer = checkpoint::load(folder, &Device::flex())?;
    let model = model.for_decoding();
    let config = model.config();
    let sources = batches[0].rows("source_ids", "source_lengths")?;
    batches[0].check(&sources, config.vocab_size, config.max_positions)?;
    ensure!(batches.len() == 1, "{} batches, but all sentences are to be in one", batches.len());
    let end = config.eos_token_id;
    // The peer's rule of when a search ends, for equal work.
    let beam = BeamConfig {
        min_length: 0,
        max_length: options.max_length,
        length_penalty: LengthPenalty::Length { alpha: options.length_penalty },
        ..BeamConfig::ctranslate2(options.beam, end)
    };
    beam.validate()?;
    Ok(Box::new(move || {
        let hypotheses = translate(&model, &sources, &beam)?;
        hypotheses
            .into_iter()
            .map(|mut best| {
                ensure!(!best.is_empty(), "a sentence without a translation");
                let best = best.swap_remove(0);
                let mut tokens = best.tokens;
                tokens.extend(best.finished.then_some(end));
                Ok(Translation { tokens, score: best.score })
            })
            .collect::<anyhow::Result<_>>()
            .context("the search")
    }))
}
