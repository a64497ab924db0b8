//! Recurrent layers in Burn's own operations: what every device can run. One operation per line of the equations
//! and step; all rows are computed at all steps, and those that have ended keep what they had by selection.

use std::ops::{Add, Mul, Range, Sub};

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};

use super::{Cell, Kept, Recurrence};
use crate::host_mask::host_mask;

/// A tensor with operators, so that equations read as such.
#[derive(Debug)]
pub(crate) struct Array<B: Backend>(pub(crate) FloatTensor<B>);

impl<B: Backend> Clone for Array<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Add for Array<B> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(B::float_add(self.0, other.0))
    }
}

impl<B: Backend> Sub for Array<B> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(B::float_sub(self.0, other.0))
    }
}

impl<B: Backend> Mul for Array<B> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(B::float_mul(self.0, other.0))
    }
}

impl<B: Backend> Array<B> {
    /// Zeros beside `like`, on its device.
    pub(crate) fn zeros(shape: impl Into<Shape>, like: &Self) -> Self {
        let shape = shape.into();
        Self(B::float_from_data(TensorData::zeros::<f32, _>(shape), &like.0.device()))
    }

    pub(crate) fn shape<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    /// A range of an axis.
    pub(crate) fn slice(&self, axis: usize, range: Range<usize>) -> Self {
        let full = self.0.shape();
        let slices: Vec<Slice> =
            (0..full.num_dims()).map(|i| if i == axis { range.clone() } else { 0..full[i] }.into()).collect();
        Self(B::float_slice(self.0.clone(), &slices))
    }

    /// `[batch, time, width]` at one position: `[batch, width]`.
    pub(crate) fn at(&self, position: usize) -> Self {
        let [batch, _, width] = self.shape();
        self.slice(1, position..position + 1).reshape([batch, width])
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> usize {
        self.0.shape().num_elements()
    }

    pub(crate) fn reshape(self, shape: impl Into<Shape>) -> Self {
        Self(B::float_reshape(self.0, shape.into()))
    }

    pub(crate) fn matmul(self, other: Self) -> Self {
        Self(B::float_matmul(self.0, other.0))
    }

    /// The last two axes exchanged.
    pub(crate) fn transpose(self) -> Self {
        let rank = self.0.shape().num_dims();
        Self(B::float_swap_dims(self.0, rank - 2, rank - 1))
    }

    pub(crate) fn tanh(self) -> Self {
        Self(B::float_tanh(self.0))
    }

    /// `1 / (1 + exp(-x))`, through tanh: exact also where exp would overflow.
    pub(crate) fn sigmoid(self) -> Self {
        let half = Self(B::float_mul_scalar(self.0, 0.5f32.into())).tanh();
        Self(B::float_add_scalar(B::float_mul_scalar(half.0, 0.5f32.into()), 0.5f32.into()))
    }

    /// `exp(x)`
    pub(crate) fn exp(self) -> Self {
        Self(B::float_exp(self.0))
    }

    /// `ln(1 + exp(x))`
    pub(crate) fn softplus(self) -> Self {
        let tail = B::float_log1p(B::float_exp(B::float_neg(B::float_abs(self.0.clone()))));
        Self(B::float_add(B::float_clamp_min(self.0, 0f32.into()), tail))
    }

    /// `1 - x`
    pub(crate) fn one_minus(self) -> Self {
        Self(B::float_add_scalar(B::float_neg(self.0), 1f32.into()))
    }

    /// Sums an axis, which keeps length 1.
    pub(crate) fn sum(self, axis: usize) -> Self {
        Self(B::float_sum_dim(self.0, axis))
    }

    /// `other` where the mask is true; masks have the tensors' shape.
    pub(crate) fn replaced(self, mask: BoolTensor<B>, other: Self) -> Self {
        Self(B::float_mask_where(self.0, mask, other.0))
    }

    pub(crate) fn cat(parts: Vec<Self>, axis: usize) -> Self {
        Self(B::float_cat(parts.into_iter().map(|part| part.0).collect(), axis))
    }

    /// Rows `[batch, width]` for each position, stacked: `[batch, time, width]`.
    pub(crate) fn stack(parts: Vec<Self>) -> Self {
        let parts = parts.into_iter().map(|part| {
            let [batch, width] = part.shape();
            part.reshape([batch, 1, width])
        });
        Self::cat(parts.collect(), 1)
    }

    /// `[batch, gates * hidden]` cut into its gates.
    fn gates<const G: usize>(&self, hidden: usize) -> [Self; G] {
        std::array::from_fn(|gate| self.slice(1, gate * hidden..(gate + 1) * hidden))
    }
}

/// A mask from host values, expanded along the axes where `shape` has length 1.
pub(crate) fn mask<B: Backend>(values: Vec<bool>, shape: [usize; 2], to: [usize; 2], like: &Array<B>) -> BoolTensor<B> {
    B::bool_expand(host_mask::<B, 2>(values, shape, &like.0.device()), Shape::from(to))
}

/// One step of a cell: the states `[h]` or `[h, c]`, and what its way back needs.
pub(crate) fn step<B: Backend>(
    cell: Cell,
    x: Array<B>,
    states: &[Array<B>],
    weight: &Array<B>,
    bias: &Array<B>,
) -> (Vec<Array<B>>, Vec<Array<B>>) {
    let h = states[0].clone();
    let [_, hidden] = h.shape();
    if cell == (Cell::Gru { reset_before: true }) {
        let columns = |from: usize, to: usize| from * hidden..to * hidden;
        let product = h.clone().matmul(weight.slice(1, columns(0, 2))) + bias.slice(1, columns(0, 2));
        let [r, z] = (x.slice(1, columns(0, 2)) + product).gates(hidden).map(Array::sigmoid);
        let scaled = r.clone() * h.clone();
        let product = scaled.matmul(weight.slice(1, columns(2, 3))) + bias.slice(1, columns(2, 3));
        let n = (x.slice(1, columns(2, 3)) + product).tanh();
        let new = n.clone() + z.clone() * (h - n.clone());
        return (vec![new], vec![r, z, n]);
    }
    let u = h.clone().matmul(weight.clone()) + bias.clone();
    match cell {
        Cell::Rnn => {
            let new = (x + u).tanh();
            (vec![new.clone()], vec![new])
        }
        Cell::Lstm => {
            let [i, f, g, o] = (x + u).gates(hidden);
            let (i, f, g, o) = (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid());
            let c = f.clone() * states[1].clone() + i.clone() * g.clone();
            let new = o.clone() * c.clone().tanh();
            (vec![new, c], vec![i, f, g, o, states[1].clone()])
        }
        Cell::Gru { .. } => {
            let ([x_r, x_z, x_n], [u_r, u_z, q]) = (x.gates(hidden), u.gates(hidden));
            let (r, z) = ((x_r + u_r).sigmoid(), (x_z + u_z).sigmoid());
            let n = (x_n + r.clone() * q.clone()).tanh();
            let new = n.clone() + z.clone() * (h - n.clone());
            (vec![new], vec![r, z, n, q])
        }
    }
}

/// The gradients of one step.
pub(crate) struct StepGradient<B: Backend> {
    /// Of the gates' arguments on the input's side, `[batch, gates * hidden]`.
    pub(crate) x: Array<B>,
    /// On the state's side.
    pub(crate) u: Array<B>,
    /// Of the states before the step.
    pub(crate) states: Vec<Array<B>>,
    /// Of the weights.
    pub(crate) weight: Array<B>,
}

/// Back through [`step`], from the gradients of the states after it; `kept` is what it returned.
pub(crate) fn step_backward<B: Backend>(
    cell: Cell,
    kept: &[Array<B>],
    h: Array<B>,
    gradients: &[Array<B>],
    weight: &Array<B>,
) -> StepGradient<B> {
    let dh = gradients[0].clone();
    let [_, hidden] = h.shape();
    let kept = |index: usize| kept[index].clone();
    let sigmoid_slope = |y: Array<B>| y.clone() * y.one_minus();
    let tanh_slope = |y: Array<B>| (y.clone() * y).one_minus();
    let through = |u: &Array<B>, weight: Array<B>| u.clone().matmul(weight.transpose());
    let before = h.clone().transpose();
    match cell {
        Cell::Rnn => {
            let da = dh * tanh_slope(kept(0));
            let states = vec![through(&da, weight.clone())];
            StepGradient { weight: before.matmul(da.clone()), x: da.clone(), u: da, states }
        }
        Cell::Lstm => {
            let (i, f, g, o, c_before) = (kept(0), kept(1), kept(2), kept(3), kept(4));
            let tanh_c = (f.clone() * c_before.clone() + i.clone() * g.clone()).tanh();
            let dc = gradients[1].clone() + dh.clone() * o.clone() * tanh_slope(tanh_c.clone());
            let da = Array::cat(
                vec![
                    dc.clone() * g.clone() * sigmoid_slope(i.clone()),
                    dc.clone() * c_before * sigmoid_slope(f.clone()),
                    dc.clone() * i * tanh_slope(g),
                    dh * tanh_c * sigmoid_slope(o),
                ],
                1,
            );
            let states = vec![through(&da, weight.clone()), dc * f];
            StepGradient { weight: before.matmul(da.clone()), x: da.clone(), u: da, states }
        }
        Cell::Gru { reset_before } => {
            let (r, z, n) = (kept(0), kept(1), kept(2));
            let da_z = dh.clone() * (h.clone() - n.clone()) * sigmoid_slope(z.clone());
            let da_n = dh.clone() * z.clone().one_minus() * tanh_slope(n);
            let direct = dh * z;
            if reset_before {
                let [rz, new] = [0..2 * hidden, 2 * hidden..3 * hidden].map(|columns| weight.slice(1, columns));
                let dscaled = through(&da_n, new);
                let da_r = dscaled.clone() * h.clone() * sigmoid_slope(r.clone());
                let da_rz = Array::cat(vec![da_r, da_z], 1);
                let states = vec![direct + dscaled * r.clone() + through(&da_rz, rz)];
                let dweight = vec![before.matmul(da_rz.clone()), (r * h).transpose().matmul(da_n.clone())];
                let da = Array::cat(vec![da_rz, da_n], 1);
                StepGradient { weight: Array::cat(dweight, 1), x: da.clone(), u: da, states }
            } else {
                let da_r = da_n.clone() * kept(3) * sigmoid_slope(r.clone());
                let x = Array::cat(vec![da_r.clone(), da_z.clone(), da_n.clone()], 1);
                let u = Array::cat(vec![da_r, da_z, da_n * r], 1);
                let states = vec![direct + through(&u, weight.clone())];
                StepGradient { weight: before.matmul(u.clone()), x, u, states }
            }
        }
    }
}

/// The number of tensors that [`step`] keeps.
pub(crate) fn kept_by_step(cell: Cell) -> usize {
    match cell {
        Cell::Rnn => 1,
        Cell::Lstm => 5,
        Cell::Gru { reset_before: false } => 4,
        Cell::Gru { reset_before: true } => 3,
    }
}

/// True for each sentence that has no token at `position`.
pub(crate) fn ended<B: Backend>(lengths: &[usize], position: usize, width: usize, like: &Array<B>) -> BoolTensor<B> {
    let values = lengths.iter().map(|&length| position >= length).collect();
    mask(values, [lengths.len(), 1], [lengths.len(), width], like)
}

/// The packed result, and what the steps keep: `[batch, time, (kept + states) * hidden]`, each step's states before
/// it at the end.
pub(super) fn forward<B: Backend>(
    gates_x: FloatTensor<B>,
    weight_hh: FloatTensor<B>,
    bias_hh: FloatTensor<B>,
    initial: FloatTensor<B>,
    recurrence: &Recurrence,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (gates_x, weight, bias) = (Array::<B>(gates_x), Array(weight_hh), Array(bias_hh));
    let (cell, lengths) = (recurrence.cell, &recurrence.lengths);
    let [batch, time, columns] = gates_x.shape();
    let [hidden, _] = weight.shape();
    let initial = Array(initial);
    if batch * time * hidden == 0 {
        let zeros = Array::zeros([batch * time, hidden], &initial);
        let packed = if time == 0 { initial } else { Array::cat(vec![zeros, initial], 0) };
        let kept = Array::zeros([batch, 0, 0], &packed);
        return (packed.0, kept.0);
    }
    let bias = bias.reshape([1, columns]);
    let mut states: Vec<_> = (0..cell.states()).map(|s| initial.slice(0, s * batch..(s + 1) * batch)).collect();
    let zero = Array::zeros([batch, hidden], &gates_x);
    let none = Array::zeros([batch, columns], &gates_x);
    let mut outputs = vec![zero.clone(); time];
    let mut kept = vec![zero.clone(); time];
    for step_index in 0..time {
        let position = if recurrence.reverse { time - 1 - step_index } else { step_index };
        let gone = || ended(lengths, position, hidden, &zero);
        // What stands past a length may be NaN: it is taken out before it can spread.
        let x = gates_x.at(position).replaced(ended(lengths, position, columns, &zero), none.clone());
        let (new, mut keep) = step(cell, x, &states, &weight, &bias);
        keep.extend(states.iter().cloned());
        kept[position] = Array::cat(keep, 1);
        outputs[position] = new[0].clone().replaced(gone(), zero.clone());
        states = new.into_iter().zip(states).map(|(new, old)| new.replaced(gone(), old)).collect();
    }
    let mut parts = vec![Array::stack(outputs).reshape([batch * time, hidden])];
    parts.extend(states);
    (Array::cat(parts, 0).0, Array::stack(kept).0)
}

/// The gradients of `gates_x`, `weight_hh`, `bias_hh` and `initial`.
pub(super) fn backward<B: Backend>(
    kept: Kept<B>,
    gradient: FloatTensor<B>,
    recurrence: &Recurrence,
) -> [FloatTensor<B>; 4] {
    let (weight, initial, gradient) = (Array::<B>(kept.weight_hh), Array::<B>(kept.initial), Array::<B>(gradient));
    let activations = Array::<B>(kept.activations);
    let (cell, lengths) = (recurrence.cell, &recurrence.lengths);
    let batch = lengths.len();
    let [hidden, columns] = weight.shape();
    let [rows, _]: [usize; 2] = gradient.shape();
    let time = (rows - cell.states() * batch).checked_div(batch).unwrap_or(0);
    let mut dweight = Array::zeros([hidden, columns], &weight);
    let mut dbias = Array::zeros([1, columns], &weight);
    if batch * time * hidden == 0 {
        let dgates_x = Array::zeros([batch, time, columns], &weight);
        let dinitial = gradient.slice(0, rows - cell.states() * batch..rows);
        debug_assert_eq!(dinitial.shape::<2>(), initial.shape::<2>());
        return [dgates_x.0, dweight.0, dbias.reshape([columns]).0, dinitial.0];
    }
    let last = batch * time;
    let mut states: Vec<_> =
        (0..cell.states()).map(|s| gradient.slice(0, last + s * batch..last + (s + 1) * batch)).collect();
    let outputs = gradient.slice(0, 0..last).reshape([batch, time, hidden]);
    let zero = Array::zeros([batch, hidden], &weight);
    let none = Array::zeros([batch, columns], &weight);
    let mut dgates_x = vec![none.clone(); time];
    for step_index in (0..time).rev() {
        let position = if recurrence.reverse { time - 1 - step_index } else { step_index };
        let gone = |width| ended(lengths, position, width, &zero);
        // Rows that have ended take no part: their gradients enter as zero and leave as they were.
        let mut after: Vec<_> = states.iter().map(|state| state.clone().replaced(gone(hidden), zero.clone())).collect();
        after[0] = after[0].clone() + outputs.at(position).replaced(gone(hidden), zero.clone());
        let activations = activations.at(position);
        let part = |index: usize| activations.slice(1, index * hidden..(index + 1) * hidden);
        let kept: Vec<_> = (0..kept_by_step(cell)).map(part).collect();
        let back = step_backward(cell, &kept, part(kept_by_step(cell)), &after, &weight);
        dgates_x[position] = back.x.replaced(gone(columns), none.clone());
        dweight = dweight + back.weight;
        dbias = dbias + back.u.sum(0);
        states = back.states.into_iter().zip(states).map(|(new, old)| new.replaced(gone(hidden), old)).collect();
    }
    [Array::stack(dgates_x).0, dweight.0, dbias.reshape([columns]).0, Array::cat(states, 0).0]
}
