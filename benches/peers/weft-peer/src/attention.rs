//! Forward and backward through causal self-attention alone, to its queries, keys and values.

use std::path::Path;

use anyhow::ensure;
use burn::Tensor;
use burn::tensor::Device;
use serde::Deserialize;
use weft_kernels::attention::{AttentionOptions, self_attention};
use weft_kernels::squared_norm;
use weft_models::checkpoint::CONFIG_FILE;

use crate::batches::Batch;
use crate::options;
use crate::protocol::{Step, Steps};
use crate::training::scalar;

const MODEL_TYPE: &str = "weft_attention";

/// `config.json` of attention without weights.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    num_heads: usize,
}

pub(crate) fn load(folder: &Path, batches: &[Batch]) -> anyhow::Result<Steps> {
    let device = Device::flex().autodiff();
    let config: Config = options::read(&folder.join(CONFIG_FILE))?;
    ensure!(config.model_type == MODEL_TYPE, "`model_type` is {}, not {MODEL_TYPE}", config.model_type);
    let (hidden, num_heads) = (config.hidden_size, config.num_heads);
    ensure!(num_heads > 0 && hidden.is_multiple_of(num_heads), "{num_heads} heads do not divide {hidden} columns");
    let options = AttentionOptions::causal(num_heads);
    let mut on_device = Vec::with_capacity(batches.len());
    for batch in batches {
        let inputs = batch.floats("inputs", 3 * hidden, &device)?.require_grad();
        on_device.push((inputs, batch.floats("upstream", hidden, &device)?));
    }
    let mut done = 0;
    Ok(Box::new(move || {
        let (inputs, upstream) = &on_device[done % on_device.len()];
        done += 1;
        Ok(step(inputs, upstream, &options))
    }))
}

/// `inputs` is q | k | v, `[batch, time, 3 * hidden]`, `upstream` the gradient of the result.
fn step(inputs: &Tensor<3>, upstream: &Tensor<3>, options: &AttentionOptions) -> Step {
    let [batch, time, _] = inputs.dims();
    let outputs = self_attention(inputs.clone(), None, options);
    let loss = (outputs * upstream.clone()).sum().div_scalar((batch * time) as f64);
    let value = scalar(&loss);
    let gradient = inputs.grad_remove(&mut loss.backward());
    let squares = gradient.map_or(f64::NAN, |gradient| squared_norm(&gradient));
    Step { loss: value, gradient_norm: squares.sqrt() }
}
