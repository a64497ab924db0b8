//! Memory that threads keep from task to task.

use std::cell::RefCell;

/// Memory that is warm and need not be asked for again.
#[derive(Default)]
pub(crate) struct Scratch(Vec<f32>);

/// Floats in a cache line.
const LINE: usize = 16;

impl Scratch {
    /// Slices that start at cache lines. Their values are whatever was left there.
    pub(crate) fn split<const N: usize>(&mut self, sizes: [usize; N]) -> [&mut [f32]; N] {
        let total: usize = sizes.iter().map(|size| size.next_multiple_of(LINE)).sum();
        if self.0.len() < total + LINE {
            self.0 = vec![0.0; total + LINE];
        }
        let start = self.0.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let mut rest = &mut self.0[start..];
        sizes.map(|size| {
            let (slice, after) = std::mem::take(&mut rest).split_at_mut(size.next_multiple_of(LINE));
            rest = after;
            &mut slice[..size]
        })
    }
}

/// Runs `work` with this thread's scratch memory.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
    SCRATCH.with_borrow_mut(work)
}

/// The row stride for `columns` values in scratch memory: whole cache lines, and an odd number of them, so that
/// the elements of a column spread over all sets of the cache.
pub(crate) const fn pitch(columns: usize) -> usize {
    (columns.div_ceil(LINE) | 1) * LINE
}
