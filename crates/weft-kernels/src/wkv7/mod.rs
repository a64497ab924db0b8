//! The recurrence of RWKV-7: a state for each head that forgets, replaces and learns, the generalised delta rule.
//! Peng et al., arXiv 2503.14456, section 4.1.
//!
//!   w_t = exp(-exp(-1/2) sigmoid(d_t))
//!   S_t = S_(t-1) (diag(w_t) + a_t^T b_t) + v_t^T k_t,   b_t = -a_t rate_t
//!   o_t = r_t S_t^T
//!
//! | here      | paper                                     | shape                                   |
//! |-----------|-------------------------------------------|-----------------------------------------|
//! | `r`       | r, receptance                             | `[batch, time, hidden]`                 |
//! | `d`       | d, the decay before its two functions     | `[batch, time, hidden]`                 |
//! | `k`, `v`  | k (the replacement key), v                | `[batch, time, hidden]`                 |
//! | `a`       | -kappa hat, the removal key, negated      | `[batch, time, hidden]`                 |
//! | `rate`    | a, the in-context learning rate           | `[batch, time, hidden]`                 |
//! | states    | S^T: rows are keys, columns are values    | `[batch, heads, size, size]`            |
//!
//! `hidden` is `heads * size`. The decay comes as `d` and not as `w`: so it lies between exp(-exp(-1/2)) = 0.545 and 1
//! whatever the input, which is what lets a chunk of positions be divided by its decays (see `cpu.rs`), and a decay
//! close to 1 keeps its digits.

mod backward;
mod cpu;
mod gradient;
pub mod keys;
pub mod output;
mod portable;
mod product;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// `exp(-1/2)`: no decay's logarithm is further below zero.
const STEEPEST: f64 = 0.606_530_659_712_633_4;

/// What the recurrence reads at each position, `[batch, time, hidden]` each.
#[derive(Debug, Clone)]
pub struct Wkv7Inputs {
    /// Reads the state.
    pub r: Tensor<3>,
    /// How much of each key's row of the state is forgotten, before its sigmoid.
    pub d: Tensor<3>,
    /// Where the value is added.
    pub k: Tensor<3>,
    /// What is added.
    pub v: Tensor<3>,
    /// Reads what is to be replaced, negated.
    pub a: Tensor<3>,
    /// How much of it, 0 to 1 for each key.
    pub rate: Tensor<3>,
}

/// Runs the recurrence over a ragged batch: the outputs `[batch, time, hidden]`, zero past a sentence's length, and each
/// sentence's own last state `[batch, heads, size, size]`.
///
/// `initial` is the state before each sentence's first position, zero if absent; a sentence of length 0 keeps it.
/// `lengths` are the sentences' (all of `time` if absent); what stands past a length is never read. A sentence's results
/// are the same, bit for bit, in whatever batch it is; read in pieces, they are the same up to rounding.
///
/// # Panics
/// If shapes do not fit each other, `heads` does not divide `hidden`, or a length exceeds `time`.
pub fn wkv7(
    inputs: Wkv7Inputs,
    heads: usize,
    initial: Option<Tensor<4>>,
    lengths: Option<&[usize]>,
) -> (Tensor<3>, Tensor<4>) {
    let Wkv7Inputs { r, d, k, v, a, rate } = inputs;
    let [batch, time, hidden] = r.dims();
    assert!(
        [&d, &k, &v, &a, &rate].iter().all(|input| input.dims() == r.dims()),
        "wkv7: r {:?}, d {:?}, k {:?}, v {:?}, a {:?} and rate {:?} differ",
        r.dims(),
        d.dims(),
        k.dims(),
        v.dims(),
        a.dims(),
        rate.dims()
    );
    assert!(heads > 0 && hidden > 0 && hidden.is_multiple_of(heads), "wkv7: {heads} heads of {hidden} values");
    let size = hidden / heads;
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "wkv7: lengths {lengths:?} for r {:?}",
        r.dims()
    );
    let initial = initial.unwrap_or_else(|| Tensor::zeros([batch, heads, size, size], &r.device()));
    assert_eq!(initial.dims(), [batch, heads, size, size], "wkv7: the initial state is [batch, heads, size, size]");
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::wkv7_forward(
        r.into_dispatch(),
        d.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        a.into_dispatch(),
        rate.into_dispatch(),
        initial.into_dispatch(),
        lengths,
    ));
    let rows = packed.dims()[0];
    let outputs = match time {
        // To `reshape`, a 0 means the length that the axis has.
        0 => Tensor::zeros([batch, time, hidden], &packed.device()),
        _ => packed.clone().slice(0..batch * time).reshape([batch, time, hidden]),
    };
    (outputs, packed.slice(batch * time..rows).reshape([batch, heads, size, size]))
}

/// The operands, in the order of [`Wkv7Ops::wkv7_forward`].
pub type Operands<B> = [FloatTensor<B>; 7];

/// The recurrence, as each device runs it.
///
/// The result is the outputs and under them the last states, `[batch * time + batch * size, hidden]`: one tensor, since an
/// operation has one node in the graph, and along its first axis, since parts of it then are views.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait Wkv7Ops: Backend {
    /// See [`wkv7`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
    fn wkv7_forward(
        r: FloatTensor<Self>,
        d: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        a: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([r, d, k, v, a, rate, initial], &lengths)
    }
}

/// The gradients of [`Wkv7Ops`]; real devices only.
pub trait Wkv7Grad: Backend {
    /// The result as [`Wkv7Ops`] gives it, and what the device keeps for the way back.
    fn wkv7_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let initial = operands[6].clone();
        (portable::forward::<Self>(operands, lengths), initial)
    }

    /// The gradients of all operands, from that of the result.
    fn wkv7_grad(
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
impl Wkv7Ops for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl Wkv7Grad for burn::backend::Cube {}

impl Wkv7Ops for Flex {
    fn wkv7_forward(
        r: FloatTensor<Self>,
        d: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        a: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        on_cpu([r, d, k, v, a, rate, initial], &lengths, false).0
    }
}

impl Wkv7Grad for Flex {
    fn wkv7_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_cpu(operands, lengths, true)
    }

    fn wkv7_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> Operands<Self> {
        let operands = operands.map(Values::new);
        let (kept, gradient) = (Values::new(kept), Values::new(gradient));
        let gradients = gradient::backward(Level::best(), &recurrence(&operands, lengths), kept.f32(), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn recurrence<'a>(operands: &'a [Values; 7], lengths: &'a [usize]) -> cpu::Recurrence<'a> {
    let [_, time, _] = operands[0].shape().dims();
    let [_, heads, size, _] = operands[6].shape().dims();
    let [r, d, k, v, a, rate, initial] = operands.each_ref().map(Values::f32);
    cpu::Recurrence { time, heads, size, lengths, r, d, k, v, a, rate, initial }
}

fn on_cpu(operands: Operands<Flex>, lengths: &[usize], keep: bool) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let operands = operands.map(Values::new);
    let recurrence = recurrence(&operands, lengths);
    let (packed, kept) = cpu::forward(Level::best(), &recurrence, keep);
    let (rows, count) = (lengths.len() * (recurrence.time + recurrence.size), kept.len());
    (tensor(packed, [rows, recurrence.heads * recurrence.size]), tensor(kept, [count]))
}
