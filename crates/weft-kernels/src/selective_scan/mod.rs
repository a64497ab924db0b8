//! The selective scan: a diagonal state space whose step and whose input and output vectors depend on the input.
//! Gu & Dao, arXiv 2312.00752, section 3.2, algorithm 2; discretisation as in equation 4 for `A` and Euler's for `B`,
//! as the authors' code has it; the gate is figure 3's.
//!
//!   step_t = softplus(delta_t + bias)
//!   h_t    = exp(step_t A) h_(t-1) + step_t B_t x_t        A = -exp(a_log), elementwise
//!   y_t    = (C_t h_t + D x_t) silu(gate_t)
//!
//! | here                 | paper      | shape                                         |
//! |----------------------|------------|-----------------------------------------------|
//! | `x`, `delta`, `gate` | x, delta, z | `[batch, time, inner]`                       |
//! | `bc`                 | B, C       | `[batch, time, 2 * states]`: B, then C        |
//! | `a_log`              | log(-A)    | `[inner, states]`                             |
//! | `skip`, `bias`       | D, delta's bias | `[inner]`                                |
//! | states               | h          | `[batch, states, inner]`                      |
//!
//! One pass does all of it. The states of all positions are never stored: the backward pass makes them again, a few
//! positions at a time, from those that the forward pass keeps at every 32nd.

mod backward;
mod cpu;
mod gradient;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// What a selective scan reads at each position.
#[derive(Debug, Clone)]
pub struct ScanInputs {
    /// What enters the states, `[batch, time, inner]`.
    pub x: Tensor<3>,
    /// The step before bias and softplus, `[batch, time, inner]`.
    pub delta: Tensor<3>,
    /// How `x` enters the states and how they are read, `[batch, time, 2 * states]`: B, then C.
    pub bc: Tensor<3>,
    /// What the result is multiplied with, through SiLU, `[batch, time, inner]`.
    pub gate: Tensor<3>,
}

/// What a selective scan learns.
#[derive(Debug, Clone)]
pub struct ScanParameters {
    /// The logarithm of each state's rate of decay, `[inner, states]`.
    pub a_log: Tensor<2>,
    /// How `x` passes by the states, `[inner]`.
    pub skip: Tensor<1>,
    /// Added to `delta`, `[inner]`.
    pub bias: Tensor<1>,
}

/// Runs a selective scan over a ragged batch: the outputs `[batch, time, inner]`, zero past a sentence's length, and
/// each sentence's own last state `[batch, states, inner]`.
///
/// `initial` is the state before each sentence's first position, zero if absent; a sentence of length 0 keeps it.
/// `lengths` are the sentences' (all of `time` if absent); what stands past a length is never read. A sentence's
/// results are the same, bit for bit, in whatever batch it is, and whether it is read at once or in pieces.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn selective_scan(
    inputs: ScanInputs,
    parameters: ScanParameters,
    initial: Option<Tensor<3>>,
    lengths: Option<&[usize]>,
) -> (Tensor<3>, Tensor<3>) {
    let ScanInputs { x, delta, bc, gate } = inputs;
    let ScanParameters { a_log, skip, bias } = parameters;
    let ([batch, time, inner], [rows, states]) = (x.dims(), a_log.dims());
    assert!(
        delta.dims() == x.dims() && gate.dims() == x.dims() && bc.dims() == [batch, time, 2 * states],
        "selective_scan: x {:?}, delta {:?}, gate {:?} and bc {:?} do not fit {states} states",
        x.dims(),
        delta.dims(),
        gate.dims(),
        bc.dims()
    );
    assert!(
        rows == inner && skip.dims() == [inner] && bias.dims() == [inner],
        "selective_scan: a_log {:?}, skip {:?} and bias {:?} for {inner} channels",
        a_log.dims(),
        skip.dims(),
        bias.dims()
    );
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "selective_scan: lengths {lengths:?} for x {:?}",
        x.dims()
    );
    let initial = initial.unwrap_or_else(|| Tensor::zeros([batch, states, inner], &x.device()));
    assert_eq!(initial.dims(), [batch, states, inner], "selective_scan: the initial state is [batch, states, inner]");
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::selective_scan_forward(
        x.into_dispatch(),
        delta.into_dispatch(),
        bc.into_dispatch(),
        gate.into_dispatch(),
        a_log.into_dispatch(),
        skip.into_dispatch(),
        bias.into_dispatch(),
        initial.into_dispatch(),
        lengths,
    ));
    let rows = packed.dims()[0];
    let outputs = match time {
        // To `reshape`, a 0 means the length that the axis has.
        0 => Tensor::zeros([batch, time, inner], &packed.device()),
        _ => packed.clone().slice(0..batch * time).reshape([batch, time, inner]),
    };
    (outputs, packed.slice(batch * time..rows).reshape([batch, states, inner]))
}

/// The operands of a scan, in the order of [`SelectiveScanOps::selective_scan_forward`].
pub type Operands<B> = [FloatTensor<B>; 8];

/// The selective scan, as each device runs it.
///
/// The result is the outputs and under them the last states, `[batch * time + batch * states, inner]`: one tensor,
/// since an operation has one node in the graph, and along its first axis, since parts of it then are views.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait SelectiveScanOps: Backend {
    /// See [`selective_scan`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
    fn selective_scan_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        bc: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([x, delta, bc, gate, a_log, skip, bias, initial], &lengths)
    }
}

/// The gradients of [`SelectiveScanOps`]; real devices only.
pub trait SelectiveScanGrad: Backend {
    /// The result as [`SelectiveScanOps`] gives it, and the states that the device keeps for the way back.
    fn selective_scan_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let initial = operands[7].clone();
        (portable::forward::<Self>(operands, lengths), initial)
    }

    /// The gradients of all operands, from that of the result.
    fn selective_scan_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> Operands<Self> {
        let _ = kept;
        portable::backward::<Self>(operands, gradient, lengths)
    }
}

#[cfg(feature = "gpu")]
impl SelectiveScanOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl SelectiveScanGrad for burn::backend::Cube {}

impl SelectiveScanOps for Flex {
    fn selective_scan_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        bc: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        on_cpu([x, delta, bc, gate, a_log, skip, bias, initial], &lengths, false).0
    }
}

impl SelectiveScanGrad for Flex {
    fn selective_scan_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_cpu(operands, lengths, true)
    }

    fn selective_scan_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> Operands<Self> {
        let operands = operands.map(Values::new);
        let scan = scan(&operands, lengths);
        let (kept, gradient) = (Values::new(kept), Values::new(gradient));
        let gradients = gradient::backward(Level::best(), &scan, kept.f32(), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn scan<'a>(operands: &'a [Values; 8], lengths: &'a [usize]) -> cpu::Scan<'a> {
    let [time, inner] = [operands[0].shape()[1], operands[0].shape()[2]];
    let states = operands[4].shape()[1];
    let [x, delta, bc, gate, a_log, skip, bias, initial] = operands.each_ref().map(Values::f32);
    cpu::Scan { time, inner, states, lengths, x, delta, bc, gate, a_log, skip, bias, initial }
}

fn on_cpu(operands: Operands<Flex>, lengths: &[usize], keep: bool) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let operands = operands.map(Values::new);
    let scan = scan(&operands, lengths);
    let (packed, kept) = cpu::forward(Level::best(), &scan, keep);
    let (rows, count) = (lengths.len() * (scan.time + scan.states), kept.len());
    (tensor(packed, [rows, scan.inner]), tensor(kept, [count]))
}
