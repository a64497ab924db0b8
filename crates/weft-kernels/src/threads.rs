//! The threads that share the kernels' work.

/// Runs `work` on one of the threads among which kernels share their work, and waits for it.
///
/// Whoever calls kernels from outside of these threads sleeps during each of them and is woken after it, and one of the
/// threads is woken before it; a step of training or decoding is hundreds of kernels, so do a whole step in here. Within
/// `work` do not wait for anything but kernels: other work of the threads may be done meanwhile.
pub fn on_worker<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}
