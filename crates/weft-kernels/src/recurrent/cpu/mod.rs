//! The CPU kernel: a team of workers walks through the time steps together.
//!
//! Each worker owns some of the hidden units, for all rows and all steps: its columns of the recurrent weights
//! are packed once and stay in its second-level cache (512 units of an LSTM on two cores: 2 MiB each), and the
//! gates of a unit are computed by its owner while the product's panel is warm. One barrier per step lets the
//! others read the new state. Every element is one chain of additions in a fixed order, so neither the number
//! of workers nor the other rows of the batch change a bit of it.

mod backward;
mod context;
mod forward;
mod weights;

pub(crate) use backward::backward;
pub(crate) use context::{Context, ContextGradient, NoContext};
pub(crate) use forward::forward;
pub(crate) use weights::{Upstream, weight_gradient};

use pulp::{Simd, WithSimd};

use super::Cell;
use crate::simd::Level;

/// The tensors that go in, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// `[batch, time, gates * hidden]`
    pub(crate) gates_x: &'a [f32],
    /// `[hidden, gates * hidden]`
    pub(crate) weight: &'a [f32],
    /// `[gates * hidden]`
    pub(crate) bias: &'a [f32],
    /// `[states * batch, hidden]`
    pub(crate) initial: &'a [f32],
}

/// What the forward pass made.
#[derive(Clone, Copy)]
pub(crate) struct Results<'a> {
    /// `[batch * time + states * batch, hidden]`
    pub(crate) packed: &'a [f32],
    /// `[unit vector][running row][kept][lane]`: a worker writes and reads its own from beginning to end.
    pub(crate) activations: &'a [f32],
}

/// Vectors that the forward pass keeps for each running row and unit vector.
pub(crate) fn kept(cell: Cell) -> usize {
    match cell {
        Cell::Rnn => 1,                         // h
        Cell::Lstm => 5,                        // i f g o, c before
        Cell::Gru { reset_before: false } => 5, // r z n, h W_n + b_n, h before
        Cell::Gru { reset_before: true } => 4,  // r z n, h before
    }
}

/// Lanes of a vector at this level.
pub(crate) fn lanes(level: Level) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    level.run(Lanes)
}
