//! The selective scan in Burn's own operations: what every device can run, position by position. Sentences that have
//! ended keep what they had by selection.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::Operands;
use crate::recurrent::portable::{Array, mask};

/// What all positions share.
struct Scan<B: Backend> {
    /// x, delta, bc, gate.
    inputs: [Array<B>; 4],
    /// `A`, `[1, states, inner]`.
    rates: Array<B>,
    /// `[1, inner]` each.
    skip: Array<B>,
    bias: Array<B>,
    batch: usize,
    time: usize,
    inner: usize,
    states: usize,
}

/// One position.
struct Position<B: Backend> {
    x: Array<B>,
    /// Before softplus.
    delta: Array<B>,
    step: Array<B>,
    gate: Array<B>,
    /// `[batch, states, 1]` each.
    b: Array<B>,
    c: Array<B>,
    /// `[batch, states, inner]`.
    decay: Array<B>,
}

impl<B: Backend> Scan<B> {
    fn new(operands: Operands<B>) -> (Self, Array<B>) {
        let [x, delta, bc, gate, a_log, skip, bias, initial] = operands.map(Array::<B>);
        let ([batch, time, inner], [_, states]) = (x.shape(), a_log.shape());
        let rates = Array::<B>(B::float_neg(B::float_exp(a_log.transpose().0))).reshape([1, states, inner]);
        let (skip, bias) = (skip.reshape([1, inner]), bias.reshape([1, inner]));
        (Self { inputs: [x, delta, bc, gate], rates, skip, bias, batch, time, inner, states }, initial)
    }

    fn position(&self, t: usize) -> Position<B> {
        let [x, delta, bc, gate] = self.inputs.each_ref().map(|input| input.at(t));
        let delta = delta + self.bias.clone();
        let step = delta.clone().softplus();
        let column = |from: usize| bc.slice(1, from..from + self.states).reshape([self.batch, self.states, 1]);
        let decay = Array(B::float_exp((self.wide(&step) * self.rates.clone()).0));
        Position { x, delta, step, gate, b: column(0), c: column(self.states), decay }
    }

    /// `[batch, inner]` for every state.
    fn wide(&self, row: &Array<B>) -> Array<B> {
        row.clone().reshape([self.batch, 1, self.inner])
    }

    fn advance(&self, at: &Position<B>, h: &Array<B>) -> Array<B> {
        at.decay.clone() * h.clone() + self.wide(&(at.step.clone() * at.x.clone())) * at.b.clone()
    }

    /// Before the gate.
    fn read(&self, at: &Position<B>, h: &Array<B>) -> Array<B> {
        let read = (h.clone() * at.c.clone()).sum(1).reshape([self.batch, self.inner]);
        read + self.skip.clone() * at.x.clone()
    }

    /// `then` where a sentence has ended at `t`, `[batch, width]`.
    fn ended(&self, t: usize, lengths: &[usize], row: Array<B>, then: Array<B>) -> Array<B> {
        if lengths.iter().all(|&length| t < length) {
            return row;
        }
        let [_, width] = row.shape();
        let ended =
            mask(lengths.iter().map(|&length| t >= length).collect(), [self.batch, 1], [self.batch, width], &row);
        row.replaced(ended, then)
    }

    /// The same for states.
    fn kept(&self, t: usize, lengths: &[usize], new: Array<B>, old: &Array<B>) -> Array<B> {
        let flat = [self.batch, self.states * self.inner];
        let new = self.ended(t, lengths, new.reshape(flat), old.clone().reshape(flat));
        new.reshape([self.batch, self.states, self.inner])
    }

    fn rows(&self, per_position: Vec<Array<B>>) -> Array<B> {
        let [_, width] = per_position[0].shape();
        Array::stack(per_position).reshape([self.batch * self.time, width])
    }
}

pub(super) fn forward<B: Backend>(operands: Operands<B>, lengths: &[usize]) -> FloatTensor<B> {
    let (scan, mut h) = Scan::<B>::new(operands);
    let mut outputs = Vec::with_capacity(scan.time);
    for t in 0..scan.time {
        let at = scan.position(t);
        h = scan.kept(t, lengths, scan.advance(&at, &h), &h);
        let y = scan.read(&at, &h) * at.gate.clone() * at.gate.clone().sigmoid();
        let zeros = Array::zeros([scan.batch, scan.inner], &h);
        outputs.push(scan.ended(t, lengths, y, zeros));
    }
    let last = h.reshape([scan.batch * scan.states, scan.inner]);
    match outputs.is_empty() {
        true => last.0,
        false => Array::cat(vec![scan.rows(outputs), last], 0).0,
    }
}

pub(super) fn backward<B: Backend>(operands: Operands<B>, gradient: FloatTensor<B>, lengths: &[usize]) -> Operands<B> {
    let empty = operands.clone();
    let (scan, initial) = Scan::<B>::new(operands);
    let Scan { batch, time, inner, states, .. } = scan;
    let gradient = Array::<B>(gradient);
    let mut dh = gradient.slice(0, batch * time..batch * (time + states)).reshape([batch, states, inner]);
    if time == 0 {
        let mut gradients = empty.map(|operand| {
            let operand = Array::<B>(operand);
            Array::zeros(operand.0.shape(), &operand).0
        });
        gradients[7] = dh.0;
        return gradients;
    }
    let gradient = gradient.slice(0, 0..batch * time).reshape([batch, time, inner]);
    let mut before = vec![initial];
    for t in 0..time {
        let at = scan.position(t);
        before.push(scan.kept(t, lengths, scan.advance(&at, &before[t]), &before[t]));
    }
    let zeros = |width| Array::zeros([batch, width], &dh);
    let zero = zeros(inner);
    let mut rows: [Vec<Array<B>>; 4] = Default::default();
    let (mut drates, mut dskip, mut dbias) = (Array::zeros([batch, states, inner], &zero), zero.clone(), zero.clone());
    for t in (0..time).rev() {
        let at = scan.position(t);
        let h = &before[t + 1];
        let row = |row, width| scan.ended(t, lengths, row, Array::zeros([batch, width], &zero));
        let dout = row(gradient.at(t), inner);
        let open = at.gate.clone().sigmoid();
        let dgate = dout.clone()
            * scan.read(&at, h)
            * (open.clone() + open.clone() * at.gate.clone() * open.clone().one_minus());
        let dy = dout * at.gate.clone() * open;
        let g = scan.wide(&dy) * at.c.clone() + dh.clone();
        let u = at.step.clone() * at.x.clone();
        let of_states = |product: Array<B>| product.sum(2).reshape([batch, states]);
        let of_channels = |product: Array<B>| product.sum(1).reshape([batch, inner]);
        let dc = of_states(scan.wide(&dy) * h.clone());
        let db = of_states(g.clone() * scan.wide(&u));
        let du = of_channels(g.clone() * at.b.clone());
        let back = g * at.decay.clone();
        let along = back.clone() * before[t].clone();
        let dstep = of_channels(along.clone() * scan.rates.clone()) + du.clone() * at.x.clone();
        let ddelta = row(dstep * at.delta.clone().sigmoid(), inner);
        let dx = row(du * at.step.clone() + dy.clone() * scan.skip.clone(), inner);
        dskip = dskip + row(dy * at.x.clone(), inner);
        dbias = dbias + ddelta.clone();
        let nothing = Array::zeros([batch, states, inner], &zero);
        drates = drates + scan.kept(t, lengths, along * scan.wide(&at.step), &nothing);
        dh = scan.kept(t, lengths, back, &dh);
        let bc = row(Array::cat(vec![db, dc], 1), 2 * states);
        for (rows, new) in rows.iter_mut().zip([dx, ddelta, bc, row(dgate, inner)]) {
            rows.push(new);
        }
    }
    let [dx, ddelta, dbc, dgate] = rows.map(|mut rows| {
        rows.reverse();
        Array::stack(rows).0
    });
    // Of a_log: that of A times A.
    let da_log = (drates.sum(0) * scan.rates).reshape([states, inner]).transpose();
    let total = |rows: Array<B>| rows.sum(0).reshape([inner]).0;
    [dx, ddelta, dbc, dgate, da_log.0, total(dskip), total(dbias), dh.0]
}
