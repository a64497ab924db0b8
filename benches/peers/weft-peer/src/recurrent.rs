//! Forward and backward through one recurrent layer, to its inputs and its weights.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use burn::Tensor;
use burn::tensor::{Device, Gradients, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use weft_kernels::linear::{Epilogue, WeightLayout, linear};
use weft_kernels::recurrent::{Cell, recurrent};
use weft_kernels::squared_norm;
use weft_models::CellKind;
use weft_models::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};

use crate::batches::Batch;
use crate::options;
use crate::protocol::{Step, Steps};
use crate::training::scalar;

const MODEL_TYPE: &str = "weft_recurrent_layer";

/// `config.json` of a bare layer.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    cell: CellKind,
    input_size: usize,
    hidden_size: usize,
}

/// In torch's layout, as the models keep them.
struct Layer {
    cell: Cell,
    /// `[gates * hidden, in]`.
    weight_ih: Tensor<2>,
    /// `[gates * hidden, hidden]`.
    weight_hh: Tensor<2>,
    bias_ih: Tensor<1>,
    bias_hh: Tensor<1>,
}

pub(crate) fn load(folder: &Path, batches: &[Batch]) -> anyhow::Result<Steps> {
    let device = Device::flex().autodiff();
    let config: Config = options::read(&folder.join(CONFIG_FILE))?;
    ensure!(config.model_type == MODEL_TYPE, "`model_type` is {}, not {MODEL_TYPE}", config.model_type);
    let layer = Layer::read(&config, &folder.join(WEIGHTS_FILE), &device)?;
    let mut on_device = Vec::with_capacity(batches.len());
    for batch in batches {
        let inputs = batch.floats("inputs", config.input_size, &device)?.require_grad();
        let upstream = batch.floats("upstream", config.hidden_size, &device)?;
        let ([rows, time, _], [upstream_rows, upstream_time, _]) = (inputs.dims(), upstream.dims());
        let fits = [rows, time] == [upstream_rows, upstream_time];
        ensure!(fits, "inputs are [{rows}, {time}], their gradients [{upstream_rows}, {upstream_time}]");
        on_device.push((inputs, upstream));
    }
    let mut done = 0;
    Ok(Box::new(move || {
        let (inputs, upstream) = &on_device[done % on_device.len()];
        done += 1;
        Ok(layer.step(inputs, upstream))
    }))
}

impl Layer {
    fn read(config: &Config, path: &Path, device: &Device) -> anyhow::Result<Self> {
        let of_file = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let file = SafeTensors::deserialize(&bytes).with_context(of_file)?;
        let cell = match config.cell {
            CellKind::Rnn => Cell::Rnn,
            CellKind::Lstm => Cell::Lstm,
            CellKind::Gru => Cell::Gru { reset_before: false },
        };
        let rows = cell.gates() * config.hidden_size;
        Ok(Self {
            cell,
            weight_ih: tensor(&file, "rnn.weight_ih_l0", [rows, config.input_size], device).with_context(of_file)?,
            weight_hh: tensor(&file, "rnn.weight_hh_l0", [rows, config.hidden_size], device).with_context(of_file)?,
            bias_ih: tensor(&file, "rnn.bias_ih_l0", [rows], device).with_context(of_file)?,
            bias_hh: tensor(&file, "rnn.bias_hh_l0", [rows], device).with_context(of_file)?,
        })
    }

    /// From a zero state: `inputs` `[batch, time, in]`, `upstream` `[batch, time, hidden]`.
    fn step(&self, inputs: &Tensor<3>, upstream: &Tensor<3>) -> Step {
        let [batch, time, _] = inputs.dims();
        let bias = Some(self.bias_ih.clone());
        let gates = linear(inputs.clone(), self.weight_ih.clone(), WeightLayout::OutIn, bias, Epilogue::default());
        let weight_hh = self.weight_hh.clone().transpose();
        let (outputs, _) = recurrent(self.cell, gates, weight_hh, Some(self.bias_hh.clone()), None, None, false);
        let loss = (outputs * upstream.clone()).sum().div_scalar((batch * time) as f64);
        let value = scalar(&loss);
        let mut gradients = loss.backward();
        let squares = [
            take(inputs, &mut gradients),
            take(&self.weight_ih, &mut gradients),
            take(&self.weight_hh, &mut gradients),
            take(&self.bias_ih, &mut gradients),
            take(&self.bias_hh, &mut gradients),
        ];
        Step { loss: value, gradient_norm: squares.iter().sum::<f64>().sqrt() }
    }
}

/// The squared length of a tensor's gradient; NaN if it has none.
fn take<const D: usize>(tensor: &Tensor<D>, gradients: &mut Gradients) -> f64 {
    tensor.grad_remove(gradients).map_or(f64::NAN, |gradient| squared_norm(&gradient))
}

fn tensor<const D: usize>(
    file: &SafeTensors<'_>,
    name: &str,
    shape: [usize; D],
    device: &Device,
) -> anyhow::Result<Tensor<D>> {
    let view = file.tensor(name).with_context(|| format!("`{name}`"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        bail!("`{name}` is {:?} {:?}, not F32 {shape:?}", view.dtype(), view.shape());
    }
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok(Tensor::from_data(TensorData::new(values, shape), device).require_grad())
}
