//! Workers that walk through the time steps together, and the memory that they share.
#![expect(unsafe_code, reason = "workers write disjoint parts of shared buffers between two barriers")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pulp::Simd;

/// Turns of waiting before the processor is offered to others: a few microseconds, more than the workers'
/// usual distance at the end of a step, less than a time slice.
const SPINS: usize = 4000;

/// Runs `body` on `count` workers at once and returns when all have ended.
///
/// Threads of their own and not tasks of a pool: a barrier needs all of its workers to run, and a pool does not
/// promise that. Starting one costs some 30 microseconds, once for a whole sequence.
pub(crate) fn team(count: usize, body: impl Fn(&Worker<'_>) + Sync) {
    let barrier = Barrier::default();
    let run = |index| {
        let worker = Worker { index, count, barrier: &barrier };
        let _guard = Guard(&barrier);
        body(&worker);
    };
    std::thread::scope(|scope| {
        for index in 1..count {
            let run = &run;
            scope.spawn(move || run(index));
        }
        run(0);
    });
}

/// Workers worth starting for `multiplications` in all: under some 50 microseconds of work one is faster.
pub(crate) fn workers_for(multiplications: usize) -> usize {
    if multiplications < 2_000_000 { 1 } else { rayon::current_num_threads() }
}

/// One member of a team.
pub(crate) struct Worker<'a> {
    index: usize,
    count: usize,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// This worker's share of `items`.
    pub(crate) fn share(&self, items: usize) -> Range<usize> {
        items * self.index / self.count..items * (self.index + 1) / self.count
    }

    /// Workers of the team.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns when every worker of the team has called it; what they wrote before can be read after.
    pub(crate) fn wait(&self) {
        self.barrier.wait(self.count);
    }
}

#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

impl Barrier {
    fn wait(&self, count: usize) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == count {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            assert!(!self.broken.load(Ordering::Relaxed), "another worker of the team panicked");
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Tells the others when a worker panics, so that they do not wait for it for ever.
struct Guard<'a>(&'a Barrier);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A slice that several workers read and write.
///
/// The rule that every user keeps: between two barriers an element is either written by one worker, who alone
/// may read it, or only read. Offsets are checked in debug builds.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pointer: *mut f32,
    length: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a borrowed `&mut [f32]`, whose use from several threads the rule above governs.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { pointer: slice.as_mut_ptr(), length: slice.len(), borrowed: PhantomData }
    }

    /// The address of an element.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.length, "offset {offset} in {}", self.length);
        self.pointer.wrapping_add(offset)
    }

    /// Reads `count` lanes (at most a vector's) from `offset` on; the others are zero.
    ///
    /// # Safety
    /// The range is inside the slice, and nobody writes it before the next barrier but this worker.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Simd>(&self, simd: S, offset: usize, count: usize) -> S::f32s {
        debug_assert!(offset + count <= self.length, "{offset} + {count} in {}", self.length);
        // SAFETY: the caller's promise.
        unsafe { load(simd, self.at(offset), count) }
    }

    /// Writes the first `count` lanes (at most a vector's) from `offset` on.
    ///
    /// # Safety
    /// The range is inside the slice, and nobody else reads or writes it before the next barrier.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(&self, simd: S, offset: usize, count: usize, value: S::f32s) {
        debug_assert!(offset + count <= self.length, "{offset} + {count} in {}", self.length);
        // SAFETY: the caller's promise.
        unsafe { store(simd, self.at(offset), count, value) }
    }

    /// A part to read.
    ///
    /// # Safety
    /// The range is inside the slice, and nobody writes it before the next barrier.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a [f32] {
        debug_assert!(range.start <= range.end && range.end <= self.length, "{range:?} in {}", self.length);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(range.start), range.len()) }
    }

    /// A part to write.
    ///
    /// # Safety
    /// The range is inside the slice, and nobody else reads or writes it while the result lives.
    pub(crate) unsafe fn slice_mut(&self, range: Range<usize>) -> &'a mut [f32] {
        debug_assert!(range.start <= range.end && range.end <= self.length, "{range:?} in {}", self.length);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(range.start), range.len()) }
    }
}

/// Reads `count` lanes, at most a vector's, of a slice from `start` on; the others are zero.
///
/// (Whole vectors are one instruction; the library's reading of parts of vectors is a call.)
#[inline(always)]
pub(crate) fn read<S: Simd>(simd: S, values: &[f32], start: usize, count: usize) -> S::f32s {
    // SAFETY: the slice checks the range.
    unsafe { load(simd, values[start..start + count].as_ptr(), count) }
}

/// Writes `count` lanes, at most a vector's, of a slice from `start` on.
#[inline(always)]
pub(crate) fn write<S: Simd>(simd: S, values: &mut [f32], start: usize, count: usize, vector: S::f32s) {
    // SAFETY: the slice checks the range.
    unsafe { store(simd, values[start..start + count].as_mut_ptr(), count, vector) }
}

/// Reads `count` lanes, at most a vector's; the others are zero.
///
/// # Safety
/// `count` values can be read at `pointer`.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(simd: S, pointer: *const f32, count: usize) -> S::f32s {
    if count == S::F32_LANES {
        // SAFETY: the caller's promise; a vector is its lanes one after the other, for any alignment.
        unsafe { pointer.cast::<S::f32s>().read_unaligned() }
    } else {
        // SAFETY: the caller's promise.
        simd.partial_load_f32s(unsafe { std::slice::from_raw_parts(pointer, count) })
    }
}

/// Writes the first `count` lanes, at most a vector's.
///
/// # Safety
/// `count` values can be written at `pointer`.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(simd: S, pointer: *mut f32, count: usize, value: S::f32s) {
    if count == S::F32_LANES {
        // SAFETY: the caller's promise; a vector is its lanes one after the other, for any alignment.
        unsafe { pointer.cast::<S::f32s>().write_unaligned(value) }
    } else {
        // SAFETY: the caller's promise.
        simd.partial_store_f32s(unsafe { std::slice::from_raw_parts_mut(pointer, count) }, value);
    }
}

/// Zeros that begin on a cache line, so that no vector of a packed matrix straddles two.
pub(crate) struct Buffer {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// `length` zeros.
    pub(crate) fn new(length: usize) -> Self {
        let values = vec![0.0; length + 15];
        let start = values.as_ptr().align_offset(64).min(15);
        Self { values, start, length }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}
