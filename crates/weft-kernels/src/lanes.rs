//! Channels as the lanes of vectors: kernels that pass along time read and write some channels of each row.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

/// Channels of a task.
pub(crate) const GROUP: usize = 64;

/// Some channels of one sentence.
pub(crate) struct Part {
    pub batch: usize,
    /// Counts the groups of channels.
    pub group: usize,
    pub channels: Range<usize>,
}

/// One task for each sentence and each [`GROUP`] of its channels, on all threads. How they are cut does not depend
/// on the number of threads.
pub(crate) fn for_each_part(batch: usize, channels: usize, work: impl Fn(Part) + Sync) {
    let groups = channels.div_ceil(GROUP);
    (0..batch * groups).into_par_iter().with_max_len(1).for_each(|task| {
        let (batch, group) = (task / groups, task % groups);
        work(Part { batch, group, channels: group * GROUP..channels.min((group + 1) * GROUP) });
    });
}

/// The vectors of a range of channels: where each begins, and how many of its lanes are channels.
#[inline(always)]
pub(crate) fn vectors<S: Simd>(channels: &Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<S> {
    let end = channels.end;
    channels.clone().step_by(S::F32_LANES).map(move |first| (first, S::F32_LANES.min(end - first)))
}

/// `width` values from `at`, and zeros.
#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, values: &[f32], at: usize, width: usize) -> S::f32s {
    let values = &values[at..at + width];
    match S::as_simd_f32s(values).0 {
        [whole, ..] => *whole,
        [] => simd.partial_load_f32s(values),
    }
}

/// Writes the first `width` lanes at `at`.
#[inline(always)]
pub(crate) fn store<S: Simd>(simd: S, values: &mut [f32], at: usize, width: usize, lanes: S::f32s) {
    let values = &mut values[at..at + width];
    match S::as_mut_simd_f32s(values).0 {
        [whole, ..] => *whole = lanes,
        [] => simd.partial_store_f32s(values, lanes),
    }
}

/// Values that tasks write different parts of.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    first: *mut f32,
    count: usize,
}

// SAFETY: `store` and `part` leave it to callers that threads write different values.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self { first: values.as_mut_ptr(), count: values.len() }
    }

    /// Writes the first `width` lanes from `at` on.
    ///
    /// # Safety
    /// The values are still borrowed by whoever made this, and nobody else reads or writes these meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(self, simd: S, at: usize, width: usize, lanes: S::f32s) {
        // SAFETY: the caller's promise.
        store(simd, unsafe { self.part(at, width) }, 0, width, lanes);
    }

    /// The `count` values from `at` on.
    ///
    /// # Safety
    /// As for [`store`](Self::store), as long as the part lives.
    #[inline(always)]
    pub(crate) unsafe fn part<'a>(self, at: usize, count: usize) -> &'a mut [f32] {
        assert!(at + count <= self.count, "{count} values at {at} of {}", self.count);
        // SAFETY: within the values, by the line above; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), count) }
    }
}
