//! New results that are not written twice: memory from the allocator, filled part by part on all threads.
#![expect(unsafe_code, reason = "a vector's length is set after its values are")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Values that are yet to be written.
pub(crate) struct Fresh(Vec<f32>);

impl Fresh {
    /// Room for `count` values.
    pub(crate) fn new(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// The room, at least as large as asked for.
    pub(crate) fn room(&mut self) -> &mut [MaybeUninit<f32>] {
        self.0.spare_capacity_mut()
    }

    /// The values.
    ///
    /// # Safety
    /// The first `count` values have been written.
    pub(crate) unsafe fn filled(mut self, count: usize) -> Vec<f32> {
        assert!(count <= self.0.capacity());
        // SAFETY: the caller's promise.
        unsafe { self.0.set_len(count) };
        self.0
    }
}

/// `count` zeros, written on all threads if they are many: for results of which tasks write parts.
pub(crate) fn zeros(count: usize) -> Vec<f32> {
    const PART: usize = 1 << 16;
    if count <= PART {
        return vec![0.0; count];
    }
    let mut values = Fresh::new(count);
    values.room()[..count].par_chunks_mut(PART).for_each(|part| part.fill(MaybeUninit::new(0.0)));
    // SAFETY: all were just written.
    unsafe { values.filled(count) }
}

/// A part of the room as zeros. A part that fits the cache and is then written costs memory one pass, not two.
pub(crate) fn zeroed(room: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    room.fill(MaybeUninit::new(0.0));
    // SAFETY: all values were just written.
    unsafe { &mut *(std::ptr::from_mut(room) as *mut [f32]) }
}

/// A part of the room with the values of `from`, which is as long.
pub(crate) fn copied<'a>(room: &'a mut [MaybeUninit<f32>], from: &[f32]) -> &'a mut [f32] {
    room.write_copy_of_slice(from)
}
