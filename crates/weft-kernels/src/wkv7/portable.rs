//! The recurrence in Burn's own operations: what every device can run, position by position. Sentences that have ended
//! keep what they had by selection.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::{Operands, STEEPEST};
use crate::recurrent::portable::{Array, ended};

/// What all positions share; a head of a sentence is a row.
struct Recurrence<'a, B: Backend> {
    /// r, d, k, v, a, rate.
    inputs: [Array<B>; 6],
    lengths: &'a [usize],
    batch: usize,
    time: usize,
    hidden: usize,
    size: usize,
}

/// One position: keys are columns, `[rows, size, 1]`, the value is a row, `[rows, 1, size]`.
struct Position<B: Backend> {
    r: Array<B>,
    /// `sigmoid(d)`.
    open: Array<B>,
    w: Array<B>,
    k: Array<B>,
    v: Array<B>,
    a: Array<B>,
    rate: Array<B>,
    /// `-a rate`.
    b: Array<B>,
}

impl<'a, B: Backend> Recurrence<'a, B> {
    /// And the initial states, `[rows, size, size]`.
    fn new(operands: Operands<B>, lengths: &'a [usize]) -> (Self, Array<B>) {
        let [r, d, k, v, a, rate, initial] = operands.map(Array::<B>);
        let ([batch, time, hidden], [_, heads, size, _]) = (r.shape(), initial.shape::<4>());
        let initial = initial.reshape([batch * heads, size, size]);
        (Self { inputs: [r, d, k, v, a, rate], lengths, batch, time, hidden, size }, initial)
    }

    fn rows(&self) -> usize {
        self.batch * self.hidden / self.size
    }

    fn position(&self, t: usize) -> Position<B> {
        let [r, d, k, v, a, rate] =
            self.inputs.each_ref().map(|input| input.at(t).reshape([self.rows(), self.size, 1]));
        let open = d.sigmoid();
        let w = Array(B::float_exp(B::float_mul_scalar(open.0.clone(), (-STEEPEST).into())));
        let b = Array(B::float_neg((a.clone() * rate.clone()).0));
        Position { r, open, w, k, v: self.as_value(v), a, rate, b }
    }

    fn as_value(&self, column: Array<B>) -> Array<B> {
        column.reshape([self.rows(), 1, self.size])
    }

    /// `[rows, .., size]`, a vector of each head, as `[batch, hidden]`; zeros where sentences have ended at `t`.
    fn flat(&self, t: usize, vectors: Array<B>) -> Array<B> {
        let flat = vectors.reshape([self.batch, self.hidden]);
        let zeros = Array::zeros([self.batch, self.hidden], &flat);
        self.select(t, flat, &zeros)
    }

    /// `old` where sentences have ended at `t`, for `[batch, width]`.
    fn select(&self, t: usize, new: Array<B>, old: &Array<B>) -> Array<B> {
        if self.lengths.iter().all(|&length| t < length) {
            return new;
        }
        let [_, width] = new.shape();
        let ended = ended(self.lengths, t, width, &new);
        new.replaced(ended, old.clone())
    }

    /// The same for states.
    fn select_states(&self, t: usize, new: Array<B>, old: &Array<B>) -> Array<B> {
        let flat = [self.batch, self.hidden * self.size];
        let new = self.select(t, new.reshape(flat), &old.clone().reshape(flat));
        new.reshape([self.rows(), self.size, self.size])
    }

    /// What is replaced, and the states after it.
    fn advance(&self, at: &Position<B>, state: &Array<B>) -> (Array<B>, Array<B>) {
        let replaced = (state.clone() * at.a.clone()).sum(1);
        let kept = state.clone() * at.w.clone();
        let state = kept + at.b.clone() * replaced.clone() + at.k.clone() * at.v.clone();
        (replaced, state)
    }
}

pub(super) fn forward<B: Backend>(operands: Operands<B>, lengths: &[usize]) -> FloatTensor<B> {
    let (recurrence, mut state) = Recurrence::<B>::new(operands, lengths);
    let Recurrence { batch, time, hidden, size, .. } = recurrence;
    if batch == 0 {
        return Array::zeros([0, hidden], &state).0;
    }
    let mut parts = Vec::with_capacity(time);
    for t in 0..time {
        let at = recurrence.position(t);
        state = recurrence.select_states(t, recurrence.advance(&at, &state).1, &state);
        parts.push(recurrence.flat(t, (state.clone() * at.r).sum(1)));
    }
    let last = state.reshape([batch * size, hidden]);
    if parts.is_empty() {
        return last.0;
    }
    Array::cat(vec![Array::stack(parts).reshape([batch * time, hidden]), last], 0).0
}

pub(super) fn backward<B: Backend>(operands: Operands<B>, gradient: FloatTensor<B>, lengths: &[usize]) -> Operands<B> {
    let empty = operands.clone();
    let (recurrence, initial) = Recurrence::<B>::new(operands, lengths);
    let Recurrence { batch, time, hidden, size, .. } = recurrence;
    let zeros = |operand: FloatTensor<B>| Array::zeros(operand.shape(), &Array::<B>(operand.clone())).0;
    if batch == 0 {
        return empty.map(zeros);
    }
    let (rows, heads) = (recurrence.rows(), hidden / size);
    let gradient = Array::<B>(gradient);
    let mut dstate = gradient.slice(0, batch * time..batch * (time + size)).reshape([rows, size, size]);
    if time == 0 {
        let mut gradients = empty.map(zeros);
        gradients[6] = dstate.reshape([batch, heads, size, size]).0;
        return gradients;
    }
    let gradient = gradient.slice(0, 0..batch * time).reshape([batch, time, hidden]);
    let mut before = vec![initial];
    for t in 0..time {
        let (_, after) = recurrence.advance(&recurrence.position(t), &before[t]);
        before.push(recurrence.select_states(t, after, &before[t]));
    }
    let mut parts: [Vec<Array<B>>; 6] = Default::default();
    for t in (0..time).rev() {
        let at = recurrence.position(t);
        let (replaced, _) = recurrence.advance(&at, &before[t]);
        let dout = recurrence.as_value(recurrence.flat(t, gradient.at(t)));
        let g = dstate.clone() + at.r.clone() * dout.clone();
        let dreplaced = (g.clone() * at.b.clone()).sum(1);
        let dw = (g.clone() * before[t].clone()).sum(2) * at.w.clone();
        let slope = at.open.clone() * at.open.clone().one_minus();
        let db = (g.clone() * replaced).sum(2);
        let new = [
            (before[t + 1].clone() * dout).sum(2),
            Array(B::float_mul_scalar((dw * slope).0, (-STEEPEST).into())),
            (g.clone() * at.v.clone()).sum(2),
            (g.clone() * at.k.clone()).sum(1),
            (before[t].clone() * dreplaced.clone()).sum(2) - db.clone() * at.rate.clone(),
            Array(B::float_neg((db * at.a.clone()).0)),
        ];
        for (parts, new) in parts.iter_mut().zip(new) {
            parts.push(recurrence.flat(t, new));
        }
        dstate = recurrence.select_states(t, g * at.w + at.a * dreplaced, &dstate);
    }
    let [r, d, k, v, a, rate] = parts.map(|mut parts| {
        parts.reverse();
        Array::stack(parts).0
    });
    [r, d, k, v, a, rate, dstate.reshape([batch, heads, size, size]).0]
}
