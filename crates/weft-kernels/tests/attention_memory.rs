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

/// Bytes that a forward and a backward pass take at once: one sequence, eight heads.
fn peak(time: usize, head_dim: usize, options: &AttentionOptions) -> usize {
    let device = Device::flex().autodiff();
    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let shape = [1, time, 3 * 8 * head_dim];
    let qkv = Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad();
    let gradients = self_attention(qkv.clone(), None, options).sum().backward();
    assert_eq!(qkv.grad(&gradients).expect("a gradient").dims(), qkv.dims());
    PEAK.load(Relaxed) - before
}

/// One test, since the counters are the process's.
#[test]
fn linear_in_the_length() {
    for causal in [false, true] {
        let options = AttentionOptions { causal, dropout: Dropout::new(0.1, 1), ..AttentionOptions::new(8) };
        peak(64, 8, &options);
        let (short, long) = (peak(1024, 8, &options), peak(2048, 8, &options));
        assert!(long < 3 * short, "{short} bytes for 1,024 tokens, {long} for 2,048");
        let scores = 8 * 2048 * 2048 * size_of::<f32>();
        assert!(long < scores / 8, "{long} bytes, the scores of all heads are {scores}");
    }
    // What a window hides saves time, not memory: docs/benchmarks.md has the same without one.
    let windowed = peak(32_768, 64, &AttentionOptions { window: Some(512), ..AttentionOptions::causal(8) });
    assert!(windowed < 3 << 29, "{windowed} bytes for 32,768 tokens: more than 1.5 GiB");
}
