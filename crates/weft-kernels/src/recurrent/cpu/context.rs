//! What a recurrence may take in at each step beside the inputs that are known before it: a context that is made
//! from the state before the step, such as what a decoder reads from the source by attention.

use std::ops::Range;

use pulp::Simd;

use super::super::schedule::Schedule;
use super::super::team::{Shared, Worker};

/// A context on the way forward. It enters the gates like an input, through weights of its own.
pub(crate) trait Context: Copy + Sync {
    /// What each worker prepares once, such as packed weights.
    type Local;

    /// Values of a context; 0 for none.
    fn size(self) -> usize;

    /// The gates' weights, `[size, gates * hidden]`.
    fn weight(&self) -> &[f32];

    /// Called once by each worker.
    fn begin<S: Simd>(self, simd: S, worker: &Worker<'_>) -> Self::Local;

    /// Makes the contexts of the running rows from the states `[row, padded hidden]`; called by each worker, and
    /// when it returns all have done their part.
    fn prepare<S: Simd>(
        self,
        simd: S,
        local: &Self::Local,
        worker: &Worker<'_>,
        schedule: &Schedule,
        step: usize,
        states: Shared<'_>,
    );

    /// The contexts of this step, `[row, padded size]`.
    fn step_contexts(&self) -> Shared<'_>;
}

/// A context on the way back.
pub(crate) trait ContextGradient: Copy + Sync {
    /// What each worker prepares once, such as packed weights.
    type Local;

    /// Values of a context; 0 for none.
    fn size(self) -> usize;

    /// Values of a query, what the context asks of a state; 0 for none.
    fn query_size(self) -> usize;

    /// The query's weights, `[hidden, query_size]`.
    fn query_weight(&self) -> &[f32];

    /// Called once by each worker.
    fn begin<S: Simd>(self, simd: S, worker: &Worker<'_>) -> Self::Local;

    /// From the gradients of the gates' inputs at this step (`[unit vector][running row][gate][lane]`) to those
    /// of the queries; called by each worker, and when it returns all have done their part.
    fn back<S: Simd>(
        self,
        simd: S,
        local: &Self::Local,
        worker: &Worker<'_>,
        schedule: &Schedule,
        step: usize,
        dinputs: Shared<'_>,
    );

    /// The gradients of the queries, `[running row, padded query_size]`, if there are any.
    fn dqueries(&self) -> Option<Shared<'_>>;

    /// After all steps: what is summed over them, for the worker's units. `previous` are the states before each
    /// running row's step, `[running row, padded hidden]`.
    fn finish<S: Simd>(
        self,
        simd: S,
        worker: &Worker<'_>,
        schedule: &Schedule,
        units: Range<usize>,
        dinputs: Shared<'_>,
        previous: Shared<'_>,
    );
}

/// A plain recurrent layer's: none.
#[derive(Clone, Copy)]
pub(crate) struct NoContext;

impl Context for NoContext {
    type Local = ();

    fn size(self) -> usize {
        0
    }

    fn weight(&self) -> &[f32] {
        &[]
    }

    fn begin<S: Simd>(self, _: S, _: &Worker<'_>) {}

    fn prepare<S: Simd>(self, _: S, (): &(), _: &Worker<'_>, _: &Schedule, _: usize, _: Shared<'_>) {}

    fn step_contexts(&self) -> Shared<'_> {
        Shared::new(&mut [])
    }
}

impl ContextGradient for NoContext {
    type Local = ();

    fn size(self) -> usize {
        0
    }

    fn query_size(self) -> usize {
        0
    }

    fn query_weight(&self) -> &[f32] {
        &[]
    }

    fn begin<S: Simd>(self, _: S, _: &Worker<'_>) {}

    fn back<S: Simd>(self, _: S, (): &(), _: &Worker<'_>, _: &Schedule, _: usize, _: Shared<'_>) {}

    fn dqueries(&self) -> Option<Shared<'_>> {
        None
    }

    fn finish<S: Simd>(self, _: S, _: &Worker<'_>, _: &Schedule, _: Range<usize>, _: Shared<'_>, _: Shared<'_>) {}
}
