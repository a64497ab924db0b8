//! The equations in plain `f64`.

use super::{Activation, WeightLayout};
use crate::Dropout;

/// What [`forward`] reads: `x` `[rows, in]`, `weight` as `layout` says, `bias` `[out]`, `residual` `[rows, out]`.
#[derive(Clone)]
pub(super) struct Operands {
    pub x: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Option<Vec<f64>>,
    pub residual: Option<Vec<f64>>,
}

/// `[rows, out]`.
pub(super) fn forward(
    [rows, input, output]: [usize; 3],
    operands: &Operands,
    layout: WeightLayout,
    activation: Activation,
    dropout: Dropout,
) -> Vec<f64> {
    let Operands { x, weight, bias, residual } = operands;
    let weight = |i, j| match layout {
        WeightLayout::InOut => weight[i * output + j],
        WeightLayout::OutIn => weight[j * input + i],
    };
    let mut y = Vec::new();
    for row in 0..rows {
        for j in 0..output {
            let sum: f64 = (0..input).map(|i| x[row * input + i] * weight(i, j)).sum();
            let sum = sum + bias.as_ref().map_or(0.0, |bias| bias[j]);
            let active = match activation {
                Activation::None => sum,
                Activation::Relu => sum.max(0.0),
                Activation::SquaredRelu => sum.max(0.0).powi(2),
                Activation::Gelu => {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (sum + 0.044_715 * sum.powi(3));
                    0.5 * sum * (1.0 + inner.tanh())
                }
                Activation::Tanh => sum.tanh(),
                Activation::Sigmoid => 1.0 / (1.0 + (-sum).exp()),
            };
            let index = row * output + j;
            let kept = if dropout.keeps(index) { active * f64::from(dropout.scale()) } else { 0.0 };
            y.push(kept + residual.as_ref().map_or(0.0, |residual| residual[index]));
        }
    }
    y
}
