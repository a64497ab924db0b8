//! Training steps of a language model.

use std::path::Path;

use anyhow::ensure;
use burn::Tensor;
use burn::tensor::{Device, TensorData};
use weft_models::{LanguageModel, Noise, Sequences};

use crate::batches::Batch;
use crate::options::TrainingOptions;
use crate::protocol::Steps;
use crate::{checkpoint, training};

/// `adjust` puts the dropout that the options ask for into the configuration, and says how large the vocabulary is and
/// how long a row may be.
pub(crate) fn load<M: LanguageModel + 'static>(
    folder: &Path,
    batches: &[Batch],
    options: &TrainingOptions,
    adjust: impl Fn(&mut M::Config, f64) -> [usize; 2],
) -> anyhow::Result<Steps> {
    ensure!(options.label_smoothing == 0.0, "language models are trained without label smoothing");
    let device = Device::flex().autodiff();
    let mut limits = [0, 0];
    let model: M = checkpoint::load(folder, &device, |config| limits = adjust(config, options.dropout))?;
    let batches = batches.iter().map(|batch| on_device(batch, limits, &device)).collect::<anyhow::Result<_>>()?;
    Ok(training::steps(model, batches, options))
}

fn on_device<M: LanguageModel>(
    batch: &Batch,
    [vocabulary, longest]: [usize; 2],
    device: &Device,
) -> anyhow::Result<training::Batch<M>> {
    let inputs = batch.rows("input_ids", "target_lengths")?;
    let outputs = batch.rows("target_out", "target_lengths")?;
    for rows in [&inputs, &outputs] {
        batch.check(rows, vocabulary, longest)?;
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
    let loss = move |model: &M, noise: &mut Noise| model.loss(ids.clone(), targets.clone(), noise);
    Ok(training::Batch { loss: Box::new(loss), tokens })
}
