//! The operation in Burn's own operations: what every device can run, position by position. Sentences that have ended
//! keep what they had by selection.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, DeviceOps, TensorMetadata};

use super::Operands;
use crate::recurrent::portable::{Array, mask};

/// What all positions share.
struct Wkv<'a, B: Backend> {
    receptance: Array<B>,
    key: Array<B>,
    value: Array<B>,
    /// `[1, hidden]` each.
    decay: Array<B>,
    bonus: Array<B>,
    lengths: &'a [usize],
}

/// Numerator, denominator and their exponent, `[batch, hidden]` each.
type State<B> = [Array<B>; 3];

/// Two terms of a sum, as multiples of the exponential of the larger exponent.
struct Shares<B: Backend> {
    old: Array<B>,
    new: Array<B>,
    exponent: Array<B>,
    is_older: BoolTensor<B>,
}

/// One position.
struct Position<B: Backend> {
    value: Array<B>,
    open: Array<B>,
    read: Shares<B>,
    kept: Shares<B>,
    wkv: Array<B>,
    /// Of the average.
    denominator: Array<B>,
}

fn shares<B: Backend>(old: Array<B>, new: Array<B>) -> Shares<B> {
    let dtype = old.0.device().defaults().bool_dtype;
    let is_older = B::float_greater(old.0.clone(), new.0.clone(), dtype);
    let exponent = new.clone().replaced(is_older.clone(), old.clone());
    let share = |term: Array<B>| Array(B::float_exp((term - exponent.clone()).0));
    Shares { old: share(old), new: share(new), exponent, is_older }
}

fn divided<B: Backend>(above: Array<B>, below: Array<B>) -> Array<B> {
    Array(B::float_div(above.0, below.0))
}

impl<'a, B: Backend> Wkv<'a, B> {
    fn new(operands: Operands<B>, lengths: &'a [usize]) -> (Self, State<B>) {
        let [receptance, key, value, decay, bonus, initial] = operands.map(Array::<B>);
        let [_, _, hidden] = key.shape();
        let [decay, bonus] = [decay, bonus].map(|row| row.reshape([1, hidden]));
        let state = std::array::from_fn(|i| initial.at(i));
        (Self { receptance, key, value, decay, bonus, lengths }, state)
    }

    /// A position, and the state after it.
    fn pass(&self, t: usize, [numerator, denominator, exponent]: &State<B>) -> (Position<B>, State<B>) {
        let (key, value) = (self.key.at(t), self.value.at(t));
        let read = shares(exponent.clone(), key.clone() + self.bonus.clone());
        let kept = shares(exponent.clone() - self.decay.clone(), key);
        let sums = |shares: &Shares<B>| {
            let (old, new) = (shares.old.clone(), shares.new.clone());
            [old.clone() * numerator.clone() + new.clone() * value.clone(), old * denominator.clone() + new]
        };
        let ([numerator, denominator], [above, below]) = (sums(&kept), sums(&read));
        let after = [numerator, denominator, kept.exponent.clone()];
        let open = self.receptance.at(t).sigmoid();
        let wkv = divided(above, below.clone());
        (Position { value, open, read, kept, wkv, denominator: below }, after)
    }

    /// `then` where a sentence has ended at `t`, `[batch, hidden]`.
    fn ended(&self, t: usize, row: Array<B>, then: Array<B>) -> Array<B> {
        if self.lengths.iter().all(|&length| t < length) {
            return row;
        }
        let to @ [batch, _] = row.shape();
        let ended = self.lengths.iter().map(|&length| t >= length).collect();
        let ended = mask(ended, [batch, 1], to, &row);
        row.replaced(ended, then)
    }

    /// The same for states and their gradients.
    fn kept(&self, t: usize, new: State<B>, old: &State<B>) -> State<B> {
        let mut old = old.iter().cloned();
        new.map(|new| self.ended(t, new, old.next().expect("as many")))
    }
}

/// One state under the other.
fn packed<B: Backend>(outputs: Vec<Array<B>>, state: State<B>) -> Array<B> {
    let [batch, hidden] = state[0].shape();
    let state = Array::stack(state.to_vec()).reshape([3 * batch, hidden]);
    match outputs.len() {
        0 => state,
        time => Array::cat(vec![Array::stack(outputs).reshape([batch * time, hidden]), state], 0),
    }
}

pub(super) fn forward<B: Backend>(operands: Operands<B>, lengths: &[usize]) -> FloatTensor<B> {
    if lengths.is_empty() {
        let [.., initial] = operands;
        let [_, _, hidden] = initial.shape().dims();
        return B::float_reshape(initial, [0, hidden].into());
    }
    let (wkv, mut state) = Wkv::<B>::new(operands, lengths);
    let [_, time, _] = wkv.key.shape();
    let mut outputs = Vec::with_capacity(time);
    for t in 0..time {
        let (at, after) = wkv.pass(t, &state);
        let output = at.open * at.wkv;
        let zeros = Array::zeros(output.0.shape(), &output);
        outputs.push(wkv.ended(t, output, zeros));
        state = wkv.kept(t, after, &state);
    }
    packed(outputs, state).0
}

pub(super) fn backward<B: Backend>(operands: Operands<B>, gradient: FloatTensor<B>, lengths: &[usize]) -> Operands<B> {
    if lengths.is_empty() {
        return operands.map(|operand| Array::<B>::zeros(operand.shape(), &Array(operand)).0);
    }
    let empty = operands[1].clone();
    let (wkv, initial) = Wkv::<B>::new(operands, lengths);
    let ([batch, time, hidden], gradient) = (wkv.key.shape(), Array::<B>(gradient));
    let of_last = gradient.slice(0, batch * time..batch * (time + 3)).reshape([batch, 3, hidden]);
    let gradient = gradient.slice(0, 0..batch * time);
    let mut before = vec![initial];
    for t in 0..time {
        let (_, after) = wkv.pass(t, &before[t]);
        before.push(wkv.kept(t, after, &before[t]));
    }
    // Of the exponent at given sums: a' = a exp(-p) has the part -a' da'.
    let scaled = |state: &State<B>, of: &State<B>| state[0].clone() * of[0].clone() + state[1].clone() * of[1].clone();
    let mut back: State<B> = std::array::from_fn(|i| of_last.at(i));
    back[2] = back[2].clone() - scaled(&before[time], &back);
    let zeros = Array::zeros([batch, hidden], &back[0]);
    let (mut ddecay, mut dbonus) = (zeros.clone(), zeros.clone());
    let mut rows: [Vec<Array<B>>; 3] = Default::default();
    for t in (0..time).rev() {
        let (at, _) = wkv.pass(t, &before[t]);
        let [numerator, denominator, exponent] = back.clone();
        let row = |row| wkv.ended(t, row, zeros.clone());
        let output = row(gradient.clone().reshape([batch, time, hidden]).at(t));
        let dreceptance = output.clone() * at.wkv.clone() * at.open.clone() * at.open.clone().one_minus();
        let upon = divided(output * at.open, at.denominator);
        let of_new = upon.clone() * at.read.new;
        let bonus = of_new.clone() * (at.value.clone() - at.wkv.clone());
        let of_key = exponent.clone().replaced(at.kept.is_older.clone(), zeros.clone());
        let added = numerator.clone() * at.value + denominator.clone();
        let dkey = bonus.clone() + at.kept.new.clone() * added + of_key;
        let dvalue = of_new + numerator.clone() * at.kept.new;
        let (numerator, denominator) = (numerator * at.kept.old.clone(), denominator * at.kept.old);
        let exponent = zeros.clone().replaced(at.kept.is_older, exponent);
        let along = scaled(&before[t], &[numerator.clone(), denominator.clone(), zeros.clone()]) + exponent.clone();
        ddecay = ddecay - row(along);
        dbonus = dbonus + row(bonus);
        let of_old = upon * at.read.old;
        let new = [numerator + of_old.clone(), denominator - of_old * at.wkv, exponent];
        back = wkv.kept(t, new, &back);
        for (rows, new) in rows.iter_mut().zip([dreceptance, dkey, dvalue]) {
            rows.push(row(new));
        }
    }
    back[2] = back[2].clone() + scaled(&before[0], &back);
    let [receptance, key, value] = rows.map(|mut rows| {
        rows.reverse();
        if rows.is_empty() { empty.clone() } else { Array::stack(rows).0 }
    });
    let total = |rows: Array<B>| rows.sum(0).reshape([hidden]).0;
    [receptance, key, value, total(ddecay), total(dbonus), Array::stack(back.to_vec()).0]
}
