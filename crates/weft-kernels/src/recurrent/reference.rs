//! The equations, one sentence after the other, in any precision: `f64` is the truth, and the same in
//! straightforward `f32` says how wrong a kernel may be.

use super::Cell;

/// `f32` or `f64`.
pub(crate) trait Real:
    Copy
    + From<f32>
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + PartialOrd
{
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn sigmoid(self) -> Self {
        Self::from(1.0) / (Self::from(1.0) + (-self).exp())
    }
}

impl Real for f32 {
    fn exp(self) -> Self {
        self.exp()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
}

impl Real for f64 {
    fn exp(self) -> Self {
        self.exp()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
}

/// One step of one sentence: `x` are the gates' arguments from the input; the states are replaced.
pub(crate) fn step<R: Real>(cell: Cell, x: &[R], weight: &[R], bias: &[R], h: &mut Vec<R>, c: &mut [R]) {
    let hidden = h.len();
    let columns = cell.gates() * hidden;
    let product = |state: &[R], column: usize| {
        let mut sum = R::from(0.0);
        for (unit, &value) in state.iter().enumerate() {
            sum += value * weight[unit * columns + column];
        }
        sum + bias[column]
    };
    let a = |gate: usize, unit: usize, state: &[R]| x[gate * hidden + unit] + product(state, gate * hidden + unit);
    let one = R::from(1.0);
    let new: Vec<R> = match cell {
        Cell::Rnn => (0..hidden).map(|u| a(0, u, h).tanh()).collect(),
        Cell::Lstm => (0..hidden)
            .map(|u| {
                let (i, f) = (a(0, u, h).sigmoid(), a(1, u, h).sigmoid());
                let (g, o) = (a(2, u, h).tanh(), a(3, u, h).sigmoid());
                c[u] = f * c[u] + i * g;
                o * c[u].tanh()
            })
            .collect(),
        Cell::Gru { reset_before } => {
            let r: Vec<R> = (0..hidden).map(|u| a(0, u, h).sigmoid()).collect();
            let scaled: Vec<R> = r.iter().zip(h.iter()).map(|(&r, &h)| r * h).collect();
            (0..hidden)
                .map(|u| {
                    let z = a(1, u, h).sigmoid();
                    let column = 2 * hidden + u;
                    let n = if reset_before { a(2, u, &scaled) } else { x[column] + r[u] * product(h, column) };
                    let n = n.tanh();
                    (one - z) * n + z * h[u]
                })
                .collect()
        }
    };
    *h = new;
}

/// The packed result, laid out as the operation has it.
#[expect(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
pub(super) fn forward<R: Real>(
    cell: Cell,
    lengths: &[usize],
    reverse: bool,
    [time, hidden]: [usize; 2],
    gates_x: &[R],
    weight: &[R],
    bias: &[R],
    initial: &[R],
) -> Vec<R> {
    let (batch, columns) = (lengths.len(), cell.gates() * hidden);
    let mut packed = vec![R::from(0.0); batch * time * hidden];
    packed.extend_from_slice(initial);
    for (sentence, &length) in lengths.iter().enumerate() {
        let first = |state: usize| (state * batch + sentence) * hidden..(state * batch + sentence + 1) * hidden;
        let mut h = initial[first(0)].to_vec();
        let mut c = if cell == Cell::Lstm { initial[first(1)].to_vec() } else { Vec::new() };
        for step_index in 0..length {
            let position = sentence * time + if reverse { length - 1 - step_index } else { step_index };
            step(cell, &gates_x[position * columns..(position + 1) * columns], weight, bias, &mut h, &mut c);
            packed[position * hidden..(position + 1) * hidden].copy_from_slice(&h);
        }
        let last = &mut packed[batch * time * hidden..];
        last[first(0)].copy_from_slice(&h);
        if cell == Cell::Lstm {
            last[first(1)].copy_from_slice(&c);
        }
    }
    packed
}
