//! Recurrent layers over a whole ragged sequence: plain RNN, LSTM and GRU, forward and backward.
//!
//! (1) Elman 1990; (2) Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000;
//! (3) Cho et al., arXiv 1406.1078 (the GRU), whose second form, with the reset after the product, is cuDNN's and
//! PyTorch's. `x` is the input's projection with its bias, `W` the recurrent weights, `b` their bias:
//!
//!   RNN          h' = tanh(x + h W + b)
//!   LSTM         i, f, o = sigmoid(x + h W + b), g = tanh(x + h W + b); c' = f c + i g; h' = o tanh(c')
//!   GRU          r, z = sigmoid(x + h W + b); h' = (1 - z) n + z h
//!     after        n = tanh(x_n + r (h W_n + b_n))
//!     before       n = tanh(x_n + (r h) W_n + b_n)
//!
//! | here          | shape                                      |
//! |---------------|--------------------------------------------|
//! | `gates_x`     | `[batch, time, gates * hidden]`            |
//! | `weight_hh`   | `[hidden, gates * hidden]`                 |
//! | `bias_hh`     | `[gates * hidden]`                         |
//! | states        | `[batch, hidden]`                          |

mod backward;
pub(crate) mod cell;
pub(crate) mod cpu;
pub(crate) mod panels;
pub(crate) mod portable;
pub(crate) mod product;
#[cfg(test)]
pub(crate) mod reference;
pub(crate) mod schedule;
pub(crate) mod team;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Device;

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// The kind of recurrent cell. Gate orders along the last axis of gates, weights and biases are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// One gate: the new state itself, through tanh.
    Rnn,
    /// Four gates: input, forget, cell, output.
    Lstm,
    /// Three gates: reset, update, new.
    Gru {
        /// Whether the reset gate multiplies the state before its product with the weights, as the paper has it,
        /// or the product with its bias after, as PyTorch does.
        reset_before: bool,
    },
}

impl Cell {
    /// Gates, and so columns of the weights for each hidden unit.
    pub fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
        }
    }

    /// State vectors: an LSTM has a cell state beside the hidden one.
    pub fn states(self) -> usize {
        if self == Self::Lstm { 2 } else { 1 }
    }
}

/// The state of a recurrent layer between two positions.
#[derive(Debug, Clone)]
pub struct RecurrentState {
    /// `[batch, hidden]`.
    pub hidden: Tensor<2>,
    /// `[batch, hidden]`, an LSTM's cell state; the other cells have none.
    pub cell: Option<Tensor<2>>,
}

impl RecurrentState {
    /// `[states * batch, hidden]`: the hidden states, then the cell states; zeros if there is no state.
    pub(crate) fn stacked_or_zeros(
        state: Option<Self>,
        kind: Cell,
        [batch, hidden]: [usize; 2],
        operation: &str,
        device: &Device,
    ) -> Tensor<2> {
        let Some(Self { hidden: first, cell }) = state else {
            return Tensor::zeros([kind.states() * batch, hidden], device);
        };
        assert_eq!(cell.is_some(), kind.states() == 2, "{operation}: {kind:?} and the initial state's cell");
        for part in std::iter::once(&first).chain(&cell) {
            assert_eq!(part.dims(), [batch, hidden], "{operation}: initial states are [batch, hidden]");
        }
        match cell {
            Some(cell) => Tensor::cat(vec![first, cell], 0),
            None => first,
        }
    }

    /// Back from [`stacked_or_zeros`](Self::stacked_or_zeros).
    pub(crate) fn split(cell: Cell, stacked: Tensor<2>) -> Self {
        if cell.states() == 1 {
            return Self { hidden: stacked, cell: None };
        }
        let rows = stacked.dims()[0];
        let hidden = stacked.clone().slice(0..rows / 2);
        Self { hidden, cell: Some(stacked.slice(rows / 2..rows)) }
    }
}

/// Runs a recurrent layer over a ragged batch.
///
/// `gates_x` `[batch, time, gates * hidden]` are the inputs' projections with their bias, for all positions (one
/// product outside); `weight_hh` is `[hidden, gates * hidden]`, `bias_hh` `[gates * hidden]`. `initial` is the
/// state before each sentence's first step, zero if absent. `lengths` are the sentences' (all of `time` if absent).
///
/// Returns the outputs `[batch, time, hidden]`, zero past a sentence's length, and each sentence's own last state;
/// a sentence of length 0 keeps its initial one. With `reverse` a sentence runs from its own end to its start and
/// outputs stay at their positions. What stands in `gates_x` past a length is never read. A sentence's results
/// are the same, bit for bit, in whatever batch it is.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn recurrent(
    cell: Cell,
    gates_x: Tensor<3>,
    weight_hh: Tensor<2>,
    bias_hh: Option<Tensor<1>>,
    initial: Option<RecurrentState>,
    lengths: Option<&[usize]>,
    reverse: bool,
) -> (Tensor<3>, RecurrentState) {
    let ([batch, time, width], [hidden, columns]) = (gates_x.dims(), weight_hh.dims());
    let device = gates_x.device();
    assert!(
        width == columns && columns == cell.gates() * hidden,
        "recurrent: gates_x is [{batch}, {time}, {width}] and weight_hh [{hidden}, {columns}], but {cell:?} has {} gates",
        cell.gates()
    );
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "recurrent: lengths {lengths:?} for gates_x [{batch}, {time}, {width}]"
    );
    let bias_hh = bias_hh.unwrap_or_else(|| Tensor::zeros([columns], &device));
    assert_eq!(bias_hh.dims(), [columns], "recurrent: bias_hh needs one value for each column of weight_hh");
    let initial = RecurrentState::stacked_or_zeros(initial, cell, [batch, hidden], "recurrent", &device);
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::recurrent_forward(
        gates_x.into_dispatch(),
        weight_hh.into_dispatch(),
        bias_hh.into_dispatch(),
        initial.into_dispatch(),
        Recurrence { cell, lengths, reverse },
    ));
    let rows = packed.dims()[0];
    let outputs = packed.clone().slice(0..batch * time).reshape([batch, time, hidden]);
    (outputs, RecurrentState::split(cell, packed.slice(batch * time..rows)))
}

/// What a recurrent layer does, apart from its tensors.
#[derive(Debug, Clone)]
pub struct Recurrence {
    /// The cell.
    pub cell: Cell,
    /// Each sentence's length.
    pub lengths: Vec<usize>,
    /// Whether sentences run from their ends to their starts.
    pub reverse: bool,
}

/// Recurrent layers, as each device runs them.
///
/// Initial states are stacked, `[states * batch, hidden]`; the result is the outputs and under them the last
/// states, `[batch * time + states * batch, hidden]`: one tensor, since an operation has one node in the graph, and
/// along its first axis, since parts of it then are views and not copies.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait RecurrentOps: Backend {
    /// See [`recurrent`].
    fn recurrent_forward(
        gates_x: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: Recurrence,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>(gates_x, weight_hh, bias_hh, initial, &recurrence).0
    }
}

/// The gradients of [`RecurrentOps`]; real devices only.
pub trait RecurrentGrad: Backend {
    /// The result as [`RecurrentOps`] gives it, and what the device keeps for the way back.
    fn recurrent_forward_keeping(
        gates_x: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: &Recurrence,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::forward::<Self>(gates_x, weight_hh, bias_hh, initial, recurrence)
    }

    /// The gradients of `gates_x`, `weight_hh`, `bias_hh` and `initial`, from that of the result.
    fn recurrent_grad(
        kept: Kept<Self>,
        gradient: FloatTensor<Self>,
        recurrence: &Recurrence,
    ) -> [FloatTensor<Self>; 4] {
        portable::backward::<Self>(kept, gradient, recurrence)
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
pub struct Kept<B: Backend> {
    /// The recurrent weights.
    pub weight_hh: FloatTensor<B>,
    /// The stacked initial states.
    pub initial: FloatTensor<B>,
    /// The stacked result.
    pub packed: FloatTensor<B>,
    /// What the device keeps.
    pub activations: FloatTensor<B>,
}

#[cfg(feature = "gpu")]
impl RecurrentOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl RecurrentGrad for burn::backend::Cube {}

impl RecurrentOps for Flex {
    fn recurrent_forward(
        gates_x: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: Recurrence,
    ) -> FloatTensor<Self> {
        on_cpu(gates_x, weight_hh, bias_hh, initial, &recurrence, false).0
    }
}

impl RecurrentGrad for Flex {
    fn recurrent_forward_keeping(
        gates_x: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: &Recurrence,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_cpu(gates_x, weight_hh, bias_hh, initial, recurrence, true)
    }

    fn recurrent_grad(
        kept: Kept<Self>,
        gradient: FloatTensor<Self>,
        recurrence: &Recurrence,
    ) -> [FloatTensor<Self>; 4] {
        let (weight, initial) = (Values::new(kept.weight_hh), Values::new(kept.initial));
        let (packed, activations) = (Values::new(kept.packed), Values::new(kept.activations));
        let gradient = Values::new(gradient);
        let [hidden, columns] = weight.shape().dims();
        let batch = recurrence.lengths.len();
        let time = (packed.shape()[0] - initial.shape()[0]).checked_div(batch).unwrap_or(0);
        let results = cpu::Results { packed: packed.f32(), activations: activations.f32() };
        let gradients = cpu::backward(
            Level::best(),
            recurrence,
            [time, hidden],
            weight.f32(),
            initial.f32(),
            results,
            gradient.f32(),
            cpu::NoContext,
        );
        let [gates_x, weight_hh, bias_hh, first] = gradients;
        [
            tensor(gates_x, [batch, time, columns]),
            tensor(weight_hh, [hidden, columns]),
            tensor(bias_hh, [columns]),
            tensor(first, initial.shape()),
        ]
    }
}

fn on_cpu(
    gates_x: FloatTensor<Flex>,
    weight_hh: FloatTensor<Flex>,
    bias_hh: FloatTensor<Flex>,
    initial: FloatTensor<Flex>,
    recurrence: &Recurrence,
    keep: bool,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let (gates_x, weight, bias) = (Values::new(gates_x), Values::new(weight_hh), Values::new(bias_hh));
    let initial = Values::new(initial);
    let [batch, time, _] = gates_x.shape().dims();
    let [states, hidden] = initial.shape().dims();
    let inputs = cpu::Inputs { gates_x: gates_x.f32(), weight: weight.f32(), bias: bias.f32(), initial: initial.f32() };
    let (packed, activations) = cpu::forward(Level::best(), recurrence, [time, hidden], inputs, cpu::NoContext, keep);
    let count = activations.len();
    (tensor(packed, [batch * time + states, hidden]), tensor(activations, [count]))
}
