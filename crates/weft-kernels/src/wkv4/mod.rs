//! RWKV-4's attention without queries: an average of all values so far, weighted by their keys and by a decay of each
//! channel's own.  Peng et al., arXiv 2305.13048, equations 16 and 17, computed step by step as in appendix D.
//!
//!   a_t = exp(-w) a_(t-1) + exp(k_t) v_t
//!   b_t = exp(-w) b_(t-1) + exp(k_t)
//!   y_t = sigmoid(r_t) (a_(t-1) + exp(u + k_t) v_t) / (b_(t-1) + exp(u + k_t))
//!
//! | here                          | paper      | shape                    |
//! |-------------------------------|------------|--------------------------|
//! | `receptance`, `key`, `value`  | r, k, v    | `[batch, time, hidden]`  |
//! | `decay`, `bonus`              | w > 0, u   | `[hidden]`               |
//! | states                        | a', b', p  | `[batch, 3, hidden]`     |
//!
//! Sums are kept as `a' = a exp(-p)` and `b' = b exp(-p)`, where `p` is the largest exponent in them, so that no
//! exponential overflows: of the two that meet in a sum, one is always 1. The states of all positions are never stored:
//! the backward pass makes them again, a few positions at a time, from those that the forward pass keeps at every 32nd.

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
use burn::tensor::{Device, TensorData};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// The exponent of sums in which nothing is yet: less than any key, and finite, so that differences are numbers.
const NOTHING: f32 = -1e38;

/// What the operation reads at each position, `[batch, time, hidden]` each.
#[derive(Debug, Clone)]
pub struct WkvInputs {
    /// What the result is multiplied with, through the logistic function.
    pub receptance: Tensor<3>,
    /// The logarithms of the values' weights.
    pub key: Tensor<3>,
    /// What is averaged.
    pub value: Tensor<3>,
}

/// Averages the values of a ragged batch so far: the outputs `[batch, time, hidden]`, zero past a sentence's length, and
/// each sentence's own last state `[batch, 3, hidden]`: numerator, denominator and their exponent.
///
/// `decay` is what an exponent loses with each position, and `bonus` what is added to the newest one, `[hidden]` both.
/// `initial` is the state before each sentence's first position, that of nothing read if absent; a sentence of length
/// 0 keeps it. `lengths` are the sentences' (all of `time` if absent); what stands past a length is never read. A
/// sentence's results are the same, bit for bit, in whatever batch it is, and whether it is read at once or in pieces.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn wkv4(
    inputs: WkvInputs,
    decay: Tensor<1>,
    bonus: Tensor<1>,
    initial: Option<Tensor<3>>,
    lengths: Option<&[usize]>,
) -> (Tensor<3>, Tensor<3>) {
    let WkvInputs { receptance, key, value } = inputs;
    let [batch, time, hidden] = key.dims();
    assert!(
        receptance.dims() == key.dims() && value.dims() == key.dims(),
        "wkv4: receptance {:?}, key {:?} and value {:?}",
        receptance.dims(),
        key.dims(),
        value.dims()
    );
    assert!(
        decay.dims() == [hidden] && bonus.dims() == [hidden],
        "wkv4: decay {:?} and bonus {:?} for {hidden} channels",
        decay.dims(),
        bonus.dims()
    );
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "wkv4: lengths {lengths:?} for key {:?}",
        key.dims()
    );
    let initial = initial.unwrap_or_else(|| nothing_read(batch, hidden, &key.device()));
    assert_eq!(initial.dims(), [batch, 3, hidden], "wkv4: the initial state is [batch, 3, hidden]");
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::wkv4_forward(
        receptance.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        decay.into_dispatch(),
        bonus.into_dispatch(),
        initial.into_dispatch(),
        lengths,
    ));
    let rows = packed.dims()[0];
    let outputs = match time {
        // To `reshape`, a 0 means the length that the axis has.
        0 => Tensor::zeros([batch, time, hidden], &packed.device()),
        _ => packed.clone().slice(0..batch * time).reshape([batch, time, hidden]),
    };
    (outputs, packed.slice(batch * time..rows).reshape([batch, 3, hidden]))
}

/// The state before the first position.
fn nothing_read(batch: usize, hidden: usize, device: &Device) -> Tensor<3> {
    let values = (0..batch * 3 * hidden).map(|i| if i / hidden % 3 == 2 { NOTHING } else { 0.0 });
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), [batch, 3, hidden]), device)
}

/// Receptance, key, value, decay, bonus and initial state.
pub type Operands<B> = [FloatTensor<B>; 6];

/// The operation, as each device runs it.
///
/// The result is the outputs and under them the last states, `[batch * time + batch * 3, hidden]`: one tensor, since an
/// operation has one node in the graph, and along its first axis, since parts of it then are views.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait Wkv4Ops: Backend {
    /// See [`wkv4`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
    fn wkv4_forward(
        receptance: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        decay: FloatTensor<Self>,
        bonus: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([receptance, key, value, decay, bonus, initial], &lengths)
    }
}

/// The gradients of [`Wkv4Ops`]; real devices only.
pub trait Wkv4Grad: Backend {
    /// The result as [`Wkv4Ops`] gives it, and the states that the device keeps for the way back.
    fn wkv4_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let initial = operands[5].clone();
        (portable::forward::<Self>(operands, lengths), initial)
    }

    /// The gradients of all operands, from that of the result.
    fn wkv4_grad(
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
impl Wkv4Ops for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl Wkv4Grad for burn::backend::Cube {}

impl Wkv4Ops for Flex {
    fn wkv4_forward(
        receptance: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        decay: FloatTensor<Self>,
        bonus: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        on_cpu([receptance, key, value, decay, bonus, initial], &lengths, false).0
    }
}

impl Wkv4Grad for Flex {
    fn wkv4_keeping(operands: Operands<Self>, lengths: &[usize]) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_cpu(operands, lengths, true)
    }

    fn wkv4_grad(
        operands: Operands<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> Operands<Self> {
        let operands = operands.map(Values::new);
        let wkv = borrowed(&operands, lengths);
        let (kept, gradient) = (Values::new(kept), Values::new(gradient));
        let gradients = gradient::backward(Level::best(), &wkv, kept.f32(), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn borrowed<'a>(operands: &'a [Values; 6], lengths: &'a [usize]) -> cpu::Wkv<'a> {
    let [_, time, hidden] = operands[1].shape().dims();
    let [receptance, key, value, decay, bonus, initial] = operands.each_ref().map(Values::f32);
    cpu::Wkv { time, hidden, lengths, receptance, key, value, decay, bonus, initial }
}

fn on_cpu(operands: Operands<Flex>, lengths: &[usize], keep: bool) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let operands = operands.map(Values::new);
    let wkv = borrowed(&operands, lengths);
    let (packed, kept) = cpu::forward(Level::best(), &wkv, keep);
    let (rows, count) = (lengths.len() * (wkv.time + 3), kept.len());
    (tensor(packed, [rows, wkv.hidden]), tensor(kept, [count]))
}
