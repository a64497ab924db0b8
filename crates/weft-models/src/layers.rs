//! The layers that architectures share.

use burn::Tensor;
use burn::module::{Module, Param};
use serde::{Deserialize, Serialize};
use weft_kernels::dropout::Dropout;
use weft_kernels::linear::{Epilogue, WeightLayout, linear};
use weft_kernels::recurrent::{Cell, RecurrentState, recurrent};

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

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Epilogue::default())
    }

    /// With what follows the product, done while it is warm.
    pub(crate) fn forward_with<const D: usize>(&self, x: Tensor<D>, epilogue: Epilogue<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        linear(x, self.weight.val(), WeightLayout::OutIn, bias, epilogue)
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
