//! Training steps of a GPT.

use std::path::Path;

use anyhow::ensure;
use burn::Tensor;
use burn::tensor::{Device, TensorData};
use weft_models::gpt::Gpt;
use weft_models::{Architecture, LanguageModel, Sequences};

use crate::batches::Batch;
use crate::options::TrainingOptions;
use crate::protocol::Steps;
use crate::{checkpoint, training};

pub(crate) fn load(folder: &Path, batches: &[Batch], options: &TrainingOptions) -> anyhow::Result<Steps> {
    ensure!(options.label_smoothing == 0.0, "language models are trained without label smoothing");
    let device = Device::flex().autodiff();
    let model: Gpt = checkpoint::load(folder, &device, |config: &mut <Gpt as Architecture>::Config| {
        config.dropout = options.dropout;
        config.embedding_dropout = options.dropout;
    })?;
    let batches = batches.iter().map(|batch| on_device(batch, &model, &device)).collect::<anyhow::Result<_>>()?;
    Ok(training::steps(model, batches, options))
}

fn on_device(batch: &Batch, model: &Gpt, device: &Device) -> anyhow::Result<training::Batch<Gpt>> {
    let inputs = batch.rows("input_ids", "target_lengths")?;
    let outputs = batch.rows("target_out", "target_lengths")?;
    let config = model.config();
    for rows in [&inputs, &outputs] {
        batch.check(rows, config.vocab_size, config.max_positions)?;
    }
    let tokens = outputs.iter().map(Vec::len).sum();
    let ids = Sequences::new(&inputs, 0, device).ids;
    let [rows, time] = ids.dims();
    // A target of -1 counts nothing.
    let mut targets = vec![-1; rows * time];
    for (to, row) in targets.chunks_mut(time).zip(&outputs) {
        to.iter_mut().zip(row).for_each(|(to, &token)| *to = token as i32);
    }
    let targets = Tensor::from_data(TensorData::new(targets, [rows, time]), device);
    let loss = move |model: &Gpt, noise: &mut weft_models::Noise| model.loss(ids.clone(), targets.clone(), noise);
    Ok(training::Batch { loss: Box::new(loss), tokens })
}
