//! The layers that architectures share.

use burn::Tensor;
use burn::module::{Module, Param};
use serde::{Deserialize, Serialize};
use weft_kernels::causal_convolution::causal_convolution;
use weft_kernels::dropout::Dropout;
use weft_kernels::linear::{Epilogue, WeightLayout, linear};
use weft_kernels::recurrent::{Cell, RecurrentState, recurrent};
use weft_kernels::rms_norm::gated::gated_rms_norm;
use weft_kernels::rms_norm::rms_norm;

use crate::initialise::Initialiser;

/// Where the random numbers of a training step come from; none when evaluating.
///
/// Every dropout of a step has its own seed, a function of the step's seed and of how many came before it.
#[derive(Debug, Clone)]
pub struct Noise {
    seed: Option<u64>,
    drawn: u64,
}

impl Noise {
    /// No dropout: evaluation.
    pub fn none() -> Self {
        Self { seed: None, drawn: 0 }
    }

    /// The noise of one training step.
    pub fn new(seed: u64) -> Self {
        Self { seed: Some(seed), drawn: 0 }
    }

    /// The next dropout.
    pub(crate) fn dropout(&mut self, probability: f64) -> Dropout {
        let Some(seed) = self.seed.filter(|_| probability > 0.0) else { return Dropout::NONE };
        self.drawn += 1;
        let mut z = seed.wrapping_add(self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Dropout::new(probability as f32, z ^ (z >> 31))
    }
}

/// `y = x W^T + b` with `weight` `[out, in]`, as torch stores it.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Glorot-uniform weights, zero bias.
    pub(crate) fn glorot(inputs: usize, outputs: usize, bias: bool, init: &mut Initialiser) -> Self {
        Self { weight: init.glorot([outputs, inputs]), bias: bias.then(|| init.constant([outputs], 0.0)) }
    }

    /// Weights uniform within `limit`, no bias.
    pub(crate) fn uniform(inputs: usize, outputs: usize, limit: f64, init: &mut Initialiser) -> Self {
        Self { weight: init.uniform([outputs, inputs], limit), bias: None }
    }

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Epilogue::default())
    }

    /// With what follows the product, done while it is warm.
    pub(crate) fn forward_with<const D: usize>(&self, x: Tensor<D>, epilogue: Epilogue<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        linear(x, self.weight.val(), WeightLayout::OutIn, bias, epilogue)
    }

    /// The result without bias in parts of these widths. A whole sequence takes them as products of their own, with
    /// parts of the weight, since parts of a result are copied; one position is too little to be multiplied more than
    /// once.
    pub(crate) fn in_parts<const PARTS: usize>(&self, x: Tensor<3>, widths: [usize; PARTS]) -> [Tensor<3>; PARTS] {
        let weight = self.weight.val();
        let [batch, time, _] = x.dims();
        let plain = |weight| linear(x.clone(), weight, WeightLayout::OutIn, None, Epilogue::default());
        let whole = (time == 1).then(|| plain(weight.clone()));
        let mut end = 0;
        widths.map(|width| {
            let columns = end..end + width;
            end = columns.end;
            match &whole {
                Some(whole) => whole.clone().slice([0..batch, 0..time, columns]),
                None => plain(weight.clone().slice(columns)),
            }
        })
    }
}

/// Layer normalisation with its gain (`weight`) and shift (`bias`), `[hidden]` both.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Gain 1, shift 0.
    pub(crate) fn new(hidden: usize, epsilon: f64, init: &mut Initialiser) -> Self {
        Self { weight: init.constant([hidden], 1.0), bias: init.constant([hidden], 0.0), epsilon }
    }

    /// Over the last axis.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        weft_kernels::layer_norm(x, self.weight.val(), self.bias.val(), self.epsilon)
    }
}

/// Root mean square normalisation with its gain (`weight`), `[hidden]`.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// Gain 1.
    pub(crate) fn new(hidden: usize, epsilon: f64, init: &mut Initialiser) -> Self {
        Self { weight: init.constant([hidden], 1.0), epsilon }
    }

    /// Over the last axis.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        rms_norm(x, self.weight.val(), self.epsilon)
    }

    /// Of `x` times SiLU of the gate.
    pub(crate) fn gated<const D: usize>(&self, x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
        gated_rms_norm(x, gate, self.weight.val(), self.epsilon)
    }
}

/// A depthwise convolution over time that looks back only, and SiLU. `weight` is `[channels, 1, width]`, as torch
/// stores it.
#[derive(Module, Debug)]
pub(crate) struct Convolution {
    pub(crate) weight: Param<Tensor<3>>,
    pub(crate) bias: Param<Tensor<1>>,
}

impl Convolution {
    /// torch's: uniform within width^-1/2.
    pub(crate) fn new(channels: usize, width: usize, init: &mut Initialiser) -> Self {
        let limit = (width as f64).powf(-0.5);
        Self { weight: init.uniform([channels, 1, width], limit), bias: init.uniform([channels], limit) }
    }

    /// `[batch, time, channels]` to the same, and what stands before the next call's inputs: the last `width - 1` of
    /// all inputs. `before` are those of the last call, zeros if absent.
    pub(crate) fn forward(&self, x: Tensor<3>, before: Option<Tensor<3>>) -> (Tensor<3>, Tensor<3>) {
        let [channels, _, width] = self.weight.val().dims();
        let last = last_rows(before.clone(), x.clone(), width - 1);
        let filter = self.weight.val().reshape([channels, width]);
        (causal_convolution(x, filter, self.bias.val(), before, None), last)
    }
}

/// The last `count` of the rows before, zeros if absent, and the new ones.
fn last_rows(before: Option<Tensor<3>>, new: Tensor<3>, count: usize) -> Tensor<3> {
    let [batch, time, width] = new.dims();
    if time >= count {
        return new.slice([0..batch, time - count..time]);
    }
    let before = before.unwrap_or_else(|| Tensor::zeros([batch, count, width], &new.device()));
    Tensor::cat(vec![before.slice([0..batch, time..count]), new], 1)
}

/// A lookup table, `[vocab, hidden]`.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    pub(crate) weight: Param<Tensor<2>>,
}

/// The recurrent cells, as configurations name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellKind {
    /// Elman's, with tanh.
    Rnn,
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit, with the reset gate applied after the product, as torch has it.
    Gru,
}

impl CellKind {
    /// The kernels' cell.
    pub(crate) fn cell(self) -> Cell {
        match self {
            Self::Rnn => Cell::Rnn,
            Self::Lstm => Cell::Lstm,
            Self::Gru => Cell::Gru { reset_before: false },
        }
    }
}

/// One layer in one direction, in torch's layout and gate order.
#[derive(Module, Debug)]
pub(crate) struct RecurrentLayer {
    /// `[gates * hidden, in]`.
    pub(crate) weight_ih: Param<Tensor<2>>,
    /// `[gates * hidden, hidden]`.
    pub(crate) weight_hh: Param<Tensor<2>>,
    pub(crate) bias_ih: Param<Tensor<1>>,
    pub(crate) bias_hh: Param<Tensor<1>>,
}

impl RecurrentLayer {
    /// Uniform within 1 / sqrt(hidden); an LSTM's forget gate starts open.
    pub(crate) fn new(cell: Cell, inputs: usize, hidden: usize, init: &mut Initialiser) -> Self {
        let rows = cell.gates() * hidden;
        let limit = (hidden as f64).powf(-0.5);
        let bias_ih = match cell {
            Cell::Lstm => init.with_rows([rows], |row| if (hidden..2 * hidden).contains(&row) { 1.0 } else { 0.0 }),
            Cell::Rnn | Cell::Gru { .. } => init.constant([rows], 0.0),
        };
        Self {
            weight_ih: init.uniform([rows, inputs], limit),
            weight_hh: init.uniform([rows, hidden], limit),
            bias_ih,
            bias_hh: init.constant([rows], 0.0),
        }
    }

    /// `[batch, time, in]` to `[batch, time, hidden]` and each row's last state.
    pub(crate) fn forward(
        &self,
        cell: Cell,
        x: Tensor<3>,
        initial: Option<RecurrentState>,
        lengths: Option<&[usize]>,
        reverse: bool,
    ) -> (Tensor<3>, RecurrentState) {
        let gates = linear(x, self.weight_ih.val(), WeightLayout::OutIn, Some(self.bias_ih.val()), Epilogue::default());
        recurrent(cell, gates, self.weight_hh.val().transpose(), Some(self.bias_hh.val()), initial, lengths, reverse)
    }
}

/// torch's name of a recurrent parameter: `rnn.1.weight_ih` is stored as `rnn.weight_ih_l1`, and
/// `rnn.1.reverse.weight_ih` as `rnn.weight_ih_l1_reverse`. Other names stay.
pub(crate) fn recurrent_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let (stack, layer, suffix, field) = match parts[..] {
        [.., stack, layer, "reverse", field] => (stack, layer, "_reverse", field),
        [.., stack, layer, "forward", field] | [.., stack, layer, field] => (stack, layer, "", field),
        _ => return name.to_owned(),
    };
    let is_recurrent = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].contains(&field);
    if stack != "rnn" || !is_recurrent {
        return name.to_owned();
    }
    let at = name.find("rnn.").expect("the stack is named rnn");
    format!("{}rnn.{field}_l{layer}{suffix}", &name[..at])
}
