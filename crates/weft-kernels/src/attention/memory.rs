//! Where the kernel reads and writes: one head's columns of a tensor.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

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
