//! Training steps of an encoder-decoder Transformer.

use std::path::Path;

use anyhow::ensure;
use burn::tensor::Device;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, Noise, Sequences, Translator};

use crate::batches::Batch;
use crate::options::TrainingOptions;
use crate::protocol::Steps;
use crate::{checkpoint, training};

pub(crate) fn load(folder: &Path, batches: &[Batch], options: &TrainingOptions) -> anyhow::Result<Steps> {
    ensure!((0.0..1.0).contains(&options.label_smoothing), "label_smoothing is {}", options.label_smoothing);
    let device = Device::flex().autodiff();
    let model: Transformer =
        checkpoint::load(folder, &device, |config: &mut <Transformer as Architecture>::Config| {
            config.dropout = options.dropout;
        })?;
    let smoothing = options.label_smoothing;
    let batches =
        batches.iter().map(|batch| on_device(batch, &model, smoothing, &device)).collect::<anyhow::Result<_>>()?;
    Ok(training::steps(model, batches, options))
}

fn on_device(
    batch: &Batch,
    model: &Transformer,
    label_smoothing: f32,
    device: &Device,
) -> anyhow::Result<training::Batch<Transformer>> {
    let config = model.config();
    let sequences = |ids: &str, lengths: &str, vocabulary: usize| {
        let rows = batch.rows(ids, lengths)?;
        batch.check(&rows, vocabulary, config.max_positions)?;
        anyhow::Ok(Sequences::new(&rows, config.pad_token_id, device))
    };
    let source = sequences("source_ids", "source_lengths", config.vocab_size)?;
    let target_in = sequences("target_in", "target_lengths", config.target_vocab_size())?;
    let target_out = sequences("target_out", "target_lengths", config.target_vocab_size())?;
    ensure!(source.batch() == target_in.batch(), "{} sources, {} targets", source.batch(), target_in.batch());
    let tokens = target_out.tokens();
    let loss = move |model: &Transformer, noise: &mut Noise| {
        model.loss(&source, &target_in, &target_out, label_smoothing, noise)
    };
    Ok(training::Batch { loss: Box::new(loss), tokens })
}
