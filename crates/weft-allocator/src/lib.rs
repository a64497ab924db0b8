//! The allocator of Weft's binaries: mimalloc, told to keep the memory that a training step frees, and asked on occasion
//! how much some work takes.
//!
//! Linking this crate makes it the global allocator; [`keep_freed_memory`] is called once, first thing in `main`.

#![expect(unsafe_code, reason = "an allocator is unsafe by its interface")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: Counting = Counting;

/// mimalloc; counts while [`peak_of`] is at work.
struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
/// Bytes more than when the count began; less than none where older memory was freed.
static MORE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Does some work and returns how many bytes more than before were allocated at most, by all threads. One at a time.
pub fn peak_of(work: impl FnOnce()) -> usize {
    MORE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    IS_COUNTING.store(true, Relaxed);
    work();
    IS_COUNTING.store(false, Relaxed);
    PEAK.load(Relaxed).max(0) as usize
}

fn count(change: isize) {
    if IS_COUNTING.load(Relaxed) {
        let now = MORE.fetch_add(change, Relaxed) + change;
        PEAK.fetch_max(now, Relaxed);
    }
}

// SAFETY: mimalloc does the work; the counters do not touch what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}

/// `mi_option_purge_delay` of mimalloc's `mimalloc.h`, which the bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Never hands freed memory back to the system.
///
/// A training step frees and takes the same large blocks again and again. Given back, every page is cleared by the
/// kernel when it is touched next: a tenth of a step of the small Transformer. `MIMALLOC_PURGE_DELAY` overrides this.
pub fn keep_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: sets one number of the allocator, which it reads atomically.
        unsafe {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_what_was_there_at_once() {
        let megabyte = 1 << 20;
        let old = vec![1u8; megabyte];
        let peak = super::peak_of(|| {
            drop(std::hint::black_box(vec![0u8; 3 * megabyte]));
            drop(std::hint::black_box(vec![0u8; 2 * megabyte]));
            drop(old);
        });
        assert!((3 * megabyte..3 * megabyte + megabyte / 2).contains(&peak), "{peak}");
    }
}
