//! The allocator of Weft's binaries: mimalloc, told to keep the memory that a training step frees.
//!
//! Linking this crate makes mimalloc the global allocator; [`keep_freed_memory`] is called once, first thing in `main`.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mimalloc.h`, which the bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Never hands freed memory back to the system.
///
/// A training step frees and takes the same large blocks again and again. Given back, every page is cleared by the
/// kernel when it is touched next: a tenth of a step of the small Transformer. `MIMALLOC_PURGE_DELAY` overrides this.
pub fn keep_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        #[expect(unsafe_code, reason = "a call into the allocator's C interface")]
        // SAFETY: sets one number of the allocator, which it reads atomically.
        unsafe {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        }
    }
}
