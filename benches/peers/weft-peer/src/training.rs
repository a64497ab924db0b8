//! Training steps, done as the trainer does them.

use anyhow::Context;
use burn::Tensor;
use weft_models::{Architecture, Noise};
use weft_train::{GradientSum, Optimizer};

use crate::options::TrainingOptions;
use crate::protocol::{Step, Steps};

/// The sum of a batch's token losses.
type Loss<M> = Box<dyn Fn(&M, &mut Noise) -> Tensor<1> + Send>;

/// A batch that is on the device.
pub(crate) struct Batch<M> {
    /// How the loss is computed from it.
    pub(crate) loss: Loss<M>,
    /// Target tokens.
    pub(crate) tokens: usize,
}

/// Steps over `batches`, from the first again after the last.
pub(crate) fn steps<M: Architecture + 'static>(model: M, batches: Vec<Batch<M>>, options: &TrainingOptions) -> Steps {
    let mut optimizer = Optimizer::new(options.optimizer());
    let learning_rate = options.learning_rate;
    // Absent only while the optimizer has it.
    let mut model = Some(model);
    let mut done = 0;
    Box::new(move || {
        let current = model.take().context("a step before this one failed")?;
        let Batch { loss, tokens } = &batches[done % batches.len()];
        done += 1;
        let mut noise = Noise::new(done as u64);
        let loss = loss(&current, &mut noise);
        let sum = scalar(&loss);
        let mut gradients = GradientSum::new();
        gradients.add(&current, loss.backward());
        let count = (*tokens).max(1) as f64;
        let step = Step { loss: sum / count, gradient_norm: gradients.norm() / count };
        model = Some(optimizer.step(current, gradients, *tokens, learning_rate));
        Ok(step)
    })
}

/// The value of a loss.
pub(crate) fn scalar(loss: &Tensor<1>) -> f64 {
    loss.to_data().iter::<f64>().next().unwrap_or(f64::NAN)
}
