//! The state space in Burn's own operations: what every device can run, position by position. Sentences that have
//! ended keep what they had by selection.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::Operands;
use crate::recurrent::portable::{Array, mask};

/// What all positions share. Heads are counted within their group: axes are batch, group, head, state, channel.
struct Scan<B: Backend> {
    xbc: Array<B>,
    dt: Array<B>,
    /// `[1, groups, heads, 1, 1]` each; `rates` is A.
    rates: Array<B>,
    skip: Array<B>,
    bias: Array<B>,
    batch: usize,
    time: usize,
    groups: usize,
    /// Of each group.
    heads: usize,
    states: usize,
    width: usize,
}

/// One position.
struct Position<B: Backend> {
    /// `[batch, groups, heads, 1, width]`.
    x: Array<B>,
    /// `[batch, groups, 1, states, 1]` each.
    b: Array<B>,
    c: Array<B>,
    /// `[batch, groups, heads, 1, 1]` each; `dt` is what softplus is applied to.
    dt: Array<B>,
    step: Array<B>,
    decay: Array<B>,
}

impl<B: Backend> Scan<B> {
    fn new(operands: Operands<B>, groups: usize) -> (Self, Array<B>) {
        let [xbc, dt, a_log, skip, bias, initial] = operands.map(Array::<B>);
        let ([batch, time, _], [_, heads, states, width]) = (xbc.shape(), initial.shape());
        let heads = heads / groups;
        let of_heads = |parameter: Array<B>| parameter.reshape([1, groups, heads, 1, 1]);
        let rates = of_heads(Array(B::float_neg(a_log.exp().0)));
        let (skip, bias) = (of_heads(skip), of_heads(bias));
        let initial = initial.reshape([batch, groups, heads, states, width]);
        (Self { xbc, dt, rates, skip, bias, batch, time, groups, heads, states, width }, initial)
    }

    /// Columns of the outputs.
    fn inner(&self) -> usize {
        self.groups * self.heads * self.width
    }

    fn position(&self, t: usize) -> Position<B> {
        let &Self { batch, groups, heads, states, width, .. } = self;
        let (row, inner, of_groups) = (self.xbc.at(t), self.inner(), groups * states);
        let x = row.slice(1, 0..inner).reshape([batch, groups, heads, 1, width]);
        let column = |from| row.slice(1, from..from + of_groups).reshape([batch, groups, 1, states, 1]);
        let dt = self.dt.at(t).reshape([batch, groups, heads, 1, 1]) + self.bias.clone();
        let step = dt.clone().softplus();
        let decay = (step.clone() * self.rates.clone()).exp();
        Position { x, b: column(inner), c: column(inner + of_groups), dt, step, decay }
    }

    fn advance(&self, at: &Position<B>, state: &Array<B>) -> Array<B> {
        at.decay.clone() * state.clone() + at.step.clone() * at.x.clone() * at.b.clone()
    }

    /// `then` for sentences that have ended at `t`.
    fn ended(&self, t: usize, lengths: &[usize], new: Array<B>, then: Array<B>) -> Array<B> {
        if lengths.iter().all(|&length| t < length) {
            return new;
        }
        let shape = new.0.shape();
        let flat = [self.batch, shape.num_elements() / self.batch];
        let ended = mask(lengths.iter().map(|&length| t >= length).collect(), [self.batch, 1], flat, &new);
        new.reshape(flat).replaced(ended, then.reshape(flat)).reshape(shape)
    }

    /// The same with zeros, as a row `[batch, ..]`.
    fn row(&self, t: usize, lengths: &[usize], new: Array<B>) -> Array<B> {
        let zeros = Array::zeros(new.0.shape(), &new);
        let width = new.count() / self.batch;
        self.ended(t, lengths, new, zeros).reshape([self.batch, width])
    }
}

pub(super) fn forward<B: Backend>(operands: Operands<B>, groups: usize, lengths: &[usize]) -> FloatTensor<B> {
    let (scan, mut state) = Scan::<B>::new(operands, groups);
    let mut outputs = Vec::with_capacity(scan.time);
    for t in 0..scan.time {
        let at = scan.position(t);
        state = scan.ended(t, lengths, scan.advance(&at, &state), state);
        let y = (state.clone() * at.c).sum(3) + scan.skip.clone() * at.x;
        outputs.push(scan.row(t, lengths, y));
    }
    let inner = scan.inner();
    let last = state.reshape([scan.batch * scan.states, inner]);
    match outputs.is_empty() {
        true => last.0,
        false => Array::cat(vec![Array::stack(outputs).reshape([scan.batch * scan.time, inner]), last], 0).0,
    }
}

pub(super) fn backward<B: Backend>(
    operands: Operands<B>,
    gradient: FloatTensor<B>,
    groups: usize,
    lengths: &[usize],
) -> Operands<B> {
    let like = operands.clone().map(Array::<B>);
    let (scan, initial) = Scan::<B>::new(operands, groups);
    let Scan { batch, time, heads, states, width, .. } = scan;
    let (inner, gradient) = (scan.inner(), Array::<B>(gradient));
    let mut dstate =
        gradient.slice(0, batch * time..batch * (time + states)).reshape([batch, groups, heads, states, width]);
    if time == 0 {
        let mut gradients = like.map(|operand| Array::zeros(operand.0.shape(), &operand).0);
        gradients[5] = dstate.reshape([batch, groups * heads, states, width]).0;
        return gradients;
    }
    let gradient = gradient.slice(0, 0..batch * time).reshape([batch, time, inner]);
    let mut before = vec![initial];
    for t in 0..time {
        let at = scan.position(t);
        before.push(scan.ended(t, lengths, scan.advance(&at, &before[t]), before[t].clone()));
    }
    let zero = Array::zeros([batch, groups * heads], &dstate);
    let (mut dxbc, mut ddt) = (Vec::new(), Vec::new());
    let (mut drates, mut dskip, mut dbias) = (zero.clone(), zero.clone(), zero);
    for t in (0..time).rev() {
        let at = scan.position(t);
        let row = |new| scan.row(t, lengths, new);
        let dy = row(gradient.at(t)).reshape([batch, groups, heads, 1, width]);
        let dafter = dy.clone() * at.c.clone() + dstate.clone();
        let dc = (dy.clone() * before[t + 1].clone()).sum(4).sum(2);
        let db = (dafter.clone() * at.step.clone() * at.x.clone()).sum(4).sum(2);
        let dentering = (dafter.clone() * at.b.clone()).sum(3);
        let dbefore = dafter * at.decay.clone();
        let dlog = (dbefore.clone() * before[t].clone()).sum(4).sum(3);
        let dstep = dlog.clone() * scan.rates.clone() + (dentering.clone() * at.x.clone()).sum(4);
        let dx = dentering * at.step.clone() + dy.clone() * scan.skip.clone();
        let new = row(dstep * at.dt.sigmoid());
        dskip = dskip + row((dy * at.x.clone()).sum(4));
        drates = drates + row(dlog * at.step.clone());
        dbias = dbias + new.clone();
        ddt.push(new);
        dxbc.push(Array::cat(vec![row(dx), row(db), row(dc)], 1));
        dstate = scan.ended(t, lengths, dbefore, dstate);
    }
    let stacked = |mut rows: Vec<Array<B>>| {
        rows.reverse();
        Array::stack(rows).0
    };
    let total = |rows: Array<B>| rows.sum(0).reshape([groups * heads]);
    // Of a_log: that of A times A.
    let da_log = total(drates) * scan.rates.reshape([groups * heads]);
    let dinitial = dstate.reshape([batch, groups * heads, states, width]);
    [stacked(dxbc), stacked(ddt), da_log.0, total(dskip).0, total(dbias).0, dinitial.0]
}
