//! Where kernels read and write: one head's columns of a tensor, and scratch memory.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A tensor `[batch, time, ..]` to read: element (batch, time, column) stands at
/// `offset + batch * batch_stride + time * time_stride + column`.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) data: &'a [f32],
    pub(super) offset: usize,
    pub(super) batch_stride: usize,
    pub(super) time_stride: usize,
}

impl<'a> Operand<'a> {
    /// The elements from (batch, 0, column) on; nothing when the tensor has none.
    pub(super) fn from(&self, batch: usize, column: usize) -> &'a [f32] {
        self.data.get(self.offset + batch * self.batch_stride + column..).unwrap_or(&[])
    }
}

/// A tensor `[batch, time, ..]` to write, laid out as [`Operand`] says, shared by tasks that write different parts.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    start: *mut MaybeUninit<f32>,
    length: usize,
    offset: usize,
    batch_stride: usize,
    time_stride: usize,
    lifetime: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: a `Target` is a mutable slice; `row` leaves it to callers that threads take different parts of it.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    pub(super) fn new(data: &'a mut [MaybeUninit<f32>], batch_stride: usize, time_stride: usize) -> Self {
        Self {
            start: data.as_mut_ptr(),
            length: data.len(),
            offset: 0,
            batch_stride,
            time_stride,
            lifetime: PhantomData,
        }
    }

    /// The same tensor from `column` on.
    pub(super) fn skip(self, column: usize) -> Self {
        Self { offset: self.offset + column, ..self }
    }

    /// `count` values from (batch, time, column) on.
    ///
    /// # Safety
    /// While the slice lives, nobody else reads or writes these values.
    pub(super) unsafe fn row(
        &self,
        batch: usize,
        time: usize,
        column: usize,
        count: usize,
    ) -> &'a mut [MaybeUninit<f32>] {
        let start = self.offset + batch * self.batch_stride + time * self.time_stride + column;
        assert!(start + count <= self.length, "attention: row past the end of its tensor");
        // SAFETY: inside the slice that `new` took, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), count) }
    }

    /// Zeros in the `count` columns from `column` on, at these times.
    ///
    /// # Safety
    /// As for [`Target::row`].
    pub(super) unsafe fn zero(&self, batch: usize, times: std::ops::Range<usize>, column: usize, count: usize) {
        for time in times {
            // SAFETY: the caller's promise.
            unsafe { self.row(batch, time, column, count) }.fill(MaybeUninit::new(0.0));
        }
    }
}

/// Memory that a thread keeps from task to task, so that it is warm and need not be asked for again.
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
