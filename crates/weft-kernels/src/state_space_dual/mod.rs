//! State space duality: a state space whose states of a head all decay alike, so that a chunk of positions is a few
//! matrix products. Dao & Gu, arXiv 2405.21060, sections 6 and 7, listing 1.
//!
//!   step_t = softplus(dt_t + bias)                                    for each head
//!   S_t    = exp(step_t A) S_(t-1) + step_t B_t x_t^T                 A = -exp(a_log)
//!   y_t    = C_t S_t + D x_t
//!
//! | here             | paper        | shape                                                                 |
//! |------------------|--------------|-----------------------------------------------------------------------|
//! | `xbc`            | X, B, C      | `[batch, time, heads * width + 2 * groups * states]`: x, then B, then C |
//! | `dt`             | delta        | `[batch, time, heads]`                                                |
//! | `a_log`          | log(-A)      | `[heads]`                                                             |
//! | `skip`, `bias`   | D, delta's bias | `[heads]`                                                          |
//! | the states       | S            | `[batch, heads, states, width]`                                       |
//!
//! The heads of a group share B and C. x, B and C are one tensor because one convolution makes them: as three they
//! would be copied on the way here, and their gradients on the way back.
//!
//! Within a chunk position i reads position j through the matrix of the paper's equation 6,
//!
//!   M_ij = C_i B_j exp(a_(j+1) + .. + a_i) step_j       a_t = step_t A, j <= i
//!
//! and everything before the chunk through the state at its start. How much of j is left at i is made as a running
//! product of decays, each at most 1: it may vanish, but never overflows, and no small number is the difference of
//! large ones. Memory is linear in time: kept are the states at the starts of chunks, from which the backward pass
//! makes the rest again.

mod backward;
mod cpu;
mod gradient;
mod mix;
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

/// What a state space reads at each position.
#[derive(Debug, Clone)]
pub struct DualInputs {
    /// What enters the states, how it enters, and how they are read:
    /// `[batch, time, heads * width + 2 * groups * states]`, x, then B, then C.
    pub xbc: Tensor<3>,
    /// The step before bias and softplus, `[batch, time, heads]`.
    pub dt: Tensor<3>,
    /// How many B and C there are; each serves as many heads.
    pub groups: usize,
    /// States of each channel.
    pub states: usize,
}

/// What a state space learns, `[heads]` each.
#[derive(Debug, Clone)]
pub struct DualParameters {
    /// The logarithm of each head's rate of decay.
    pub a_log: Tensor<1>,
    /// How x passes by the states.
    pub skip: Tensor<1>,
    /// Added to `dt`.
    pub bias: Tensor<1>,
}

/// Runs a state space over a ragged batch: the outputs `[batch, time, heads * width]`, zero past a sentence's length,
/// and each sentence's own last state `[batch, heads, states, width]`.
///
/// `initial` is the state before each sentence's first position, zero if absent; a sentence of length 0 keeps it.
/// `lengths` are the sentences' (all of `time` if absent); what stands past a length is never read. A sentence's
/// results are the same, bit for bit, in whatever batch it is; read in pieces they are the same up to rounding.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn state_space_dual(
    inputs: DualInputs,
    parameters: DualParameters,
    initial: Option<Tensor<4>>,
    lengths: Option<&[usize]>,
) -> (Tensor<3>, Tensor<4>) {
    let DualInputs { xbc, dt, groups, states } = inputs;
    let DualParameters { a_log, skip, bias } = parameters;
    let ([batch, time, columns], [dt_batch, dt_time, heads]) = (xbc.dims(), dt.dims());
    let inner = columns.saturating_sub(2 * groups * states);
    assert!(
        [dt_batch, dt_time] == [batch, time] && heads > 0 && states > 0 && inner > 0 && inner.is_multiple_of(heads),
        "state_space_dual: xbc {:?} and dt {:?} do not fit {states} states in {groups} groups",
        xbc.dims(),
        dt.dims()
    );
    assert!(groups > 0 && heads.is_multiple_of(groups), "state_space_dual: {heads} heads in {groups} groups");
    assert!(
        a_log.dims() == [heads] && skip.dims() == [heads] && bias.dims() == [heads],
        "state_space_dual: a_log {:?}, skip {:?} and bias {:?} for {heads} heads",
        a_log.dims(),
        skip.dims(),
        bias.dims()
    );
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "state_space_dual: lengths {lengths:?} for xbc {:?}",
        xbc.dims()
    );
    let shape = [batch, heads, states, inner / heads];
    let initial = initial.unwrap_or_else(|| Tensor::zeros(shape, &xbc.device()));
    assert_eq!(initial.dims(), shape, "state_space_dual: the initial state is [batch, heads, states, width]");
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::state_space_dual_forward(
        xbc.into_dispatch(),
        dt.into_dispatch(),
        a_log.into_dispatch(),
        skip.into_dispatch(),
        bias.into_dispatch(),
        initial.into_dispatch(),
        groups,
        lengths,
    ));
    let rows = packed.dims()[0];
    let device = packed.device();
    // To `reshape`, a 0 means the length that the axis has.
    let outputs = match batch * time {
        0 => Tensor::zeros([batch, time, inner], &device),
        _ => packed.clone().slice(0..batch * time).reshape([batch, time, inner]),
    };
    let last = match batch {
        0 => Tensor::zeros(shape, &device),
        _ => packed.slice(batch * time..rows).reshape(shape),
    };
    (outputs, last)
}

/// The tensors that a state space reads, in the order of [`StateSpaceDualOps::state_space_dual_forward`].
pub type Operands<B> = [FloatTensor<B>; 6];

/// The state space, as each device runs it.
///
/// The result is the outputs and under them the last states, `[batch * time + batch * states, heads * width]`: one
/// tensor, since an operation has one node in the graph, and along its first axis, since parts of it then are views.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait StateSpaceDualOps: Backend {
    /// See [`state_space_dual`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
    fn state_space_dual_forward(
        xbc: FloatTensor<Self>,
        dt: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        groups: usize,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([xbc, dt, a_log, skip, bias, initial], groups, &lengths)
    }
}

/// The gradients of [`StateSpaceDualOps`]; real devices only.
pub trait StateSpaceDualGrad: Backend {
    /// The result as [`StateSpaceDualOps`] gives it, and the states that the device keeps for the way back.
    fn state_space_dual_keeping(
        operands: Operands<Self>,
        groups: usize,
        lengths: &[usize],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let initial = operands[5].clone();
        (portable::forward::<Self>(operands, groups, lengths), initial)
    }

    /// The gradients of all operands, from that of the result.
    fn state_space_dual_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        groups: usize,
        lengths: &[usize],
    ) -> Operands<Self> {
        let _ = kept;
        portable::backward::<Self>(operands, gradient, groups, lengths)
    }
}

#[cfg(feature = "gpu")]
impl StateSpaceDualOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl StateSpaceDualGrad for burn::backend::Cube {}

impl StateSpaceDualOps for Flex {
    fn state_space_dual_forward(
        xbc: FloatTensor<Self>,
        dt: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        groups: usize,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        on_cpu([xbc, dt, a_log, skip, bias, initial], groups, &lengths, false).0
    }
}

impl StateSpaceDualGrad for Flex {
    fn state_space_dual_keeping(
        operands: Operands<Self>,
        groups: usize,
        lengths: &[usize],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_cpu(operands, groups, lengths, true)
    }

    fn state_space_dual_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        groups: usize,
        lengths: &[usize],
    ) -> Operands<Self> {
        let operands = operands.map(Values::new);
        let scan = scan(&operands, groups, lengths);
        let (kept, gradient) = (Values::new(kept), Values::new(gradient));
        let gradients = gradient::backward(Level::best(), &scan, kept.f32(), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn scan<'a>(operands: &'a [Values; 6], groups: usize, lengths: &'a [usize]) -> cpu::Scan<'a> {
    let [_, time, _] = operands[0].shape().dims();
    let [_, heads, states, width] = operands[5].shape().dims();
    let [xbc, dt, a_log, skip, bias, initial] = operands.each_ref().map(Values::f32);
    cpu::Scan { time, heads, width, groups, states, lengths, xbc, dt, a_log, skip, bias, initial }
}

fn on_cpu(
    operands: Operands<Flex>,
    groups: usize,
    lengths: &[usize],
    keep: bool,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let operands = operands.map(Values::new);
    let scan = scan(&operands, groups, lengths);
    let (packed, kept) = cpu::forward(Level::best(), &scan, keep);
    let (rows, count) = (lengths.len() * (scan.time + scan.states), kept.len());
    (tensor(packed, [rows, scan.inner()]), tensor(kept, [count]))
}
