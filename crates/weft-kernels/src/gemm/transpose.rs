//! Copies that turn rows into columns.
#![expect(unsafe_code, reason = "shuffles between vectors exist as intrinsics only")]

use crate::simd::Level;

/// `to[step * width + j] = from[j * stride + step]` for `j` below `rows` and `step` below `steps`.
pub(crate) fn transpose(
    level: Level,
    from: &[f32],
    stride: usize,
    rows: usize,
    steps: usize,
    to: &mut [f32],
    width: usize,
) {
    if rows == 0 || steps == 0 {
        return;
    }
    assert!(rows <= width && to.len() >= (steps - 1) * width + rows && from.len() >= (rows - 1) * stride + steps);
    let (mut done_rows, mut done_steps) = (0, 0);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::Avx512(_) => {
            (done_rows, done_steps) = (rows / 8 * 8, steps / 8 * 8);
            for j in (0..done_rows).step_by(8) {
                // SAFETY: the level has AVX, and the assertion above covers whole blocks.
                unsafe { avx(from.as_ptr().add(j * stride), stride, done_steps, to.as_mut_ptr().add(j), width) };
            }
        }
        _ => {}
    }
    for j in 0..rows {
        let from = &from[j * stride..][..steps];
        for step in if j < done_rows { done_steps } else { 0 }..steps {
            to[step * width + j] = from[step];
        }
    }
}

/// Eight rows, `steps` a multiple of eight.
///
/// # Safety
/// AVX is there, and all that is named can be read and written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn avx(from: *const f32, stride: usize, steps: usize, to: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    for step in (0..steps).step_by(8) {
        // SAFETY: the caller's promise.
        unsafe {
            let row = |j: usize| _mm256_loadu_ps(from.add(j * stride + step));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (e, f, g, h) = (row(4), row(5), row(6), row(7));
            // Pairs, then fours, then halves.
            let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let (ef, ef_high) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
            let (gh, gh_high) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
            let left = [
                _mm256_shuffle_ps::<0x44>(ab, cd),
                _mm256_shuffle_ps::<0xee>(ab, cd),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            let right = [
                _mm256_shuffle_ps::<0x44>(ef, gh),
                _mm256_shuffle_ps::<0xee>(ef, gh),
                _mm256_shuffle_ps::<0x44>(ef_high, gh_high),
                _mm256_shuffle_ps::<0xee>(ef_high, gh_high),
            ];
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(left[i], right[i]);
                let high = _mm256_permute2f128_ps::<0x31>(left[i], right[i]);
                _mm256_storeu_ps(to.add((step + i) * width), low);
                _mm256_storeu_ps(to.add((step + i + 4) * width), high);
            }
        }
    }
}
