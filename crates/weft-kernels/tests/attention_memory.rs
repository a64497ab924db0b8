//! Attention's memory grows with the length of a sequence, not with its square.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use weft_kernels::{AttentionOptions, Dropout, self_attention};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes in use, and the most that ever were.
static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does the work; the counters do not touch what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(USED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that a forward and a backward pass take at once: one sequence, eight heads of 8.
fn peak(time: usize, causal: bool) -> usize {
    let device = Device::flex().autodiff();
    let qkv = Tensor::<3>::random([1, time, 3 * 64], Distribution::Normal(0.0, 1.0), &device).require_grad();
    let options = AttentionOptions { num_heads: 8, causal, dropout: Dropout::new(0.1, 1) };
    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let gradients = self_attention(qkv.clone(), None, &options).sum().backward();
    assert_eq!(qkv.grad(&gradients).expect("a gradient").dims(), qkv.dims());
    PEAK.load(Relaxed) - before
}

#[test]
fn linear_in_the_length() {
    for causal in [false, true] {
        peak(64, causal);
        let (short, long) = (peak(1024, causal), peak(2048, causal));
        assert!(long < 3 * short, "{short} bytes for 1,024 tokens, {long} for 2,048");
        let scores = 8 * 2048 * 2048 * size_of::<f32>();
        assert!(long < scores / 8, "{long} bytes, the scores of all heads are {scores}");
    }
}
