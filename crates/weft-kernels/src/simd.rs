//! Instruction sets, chosen at run time, and the elementary functions that kernels share.

use pulp::{Simd, WithSimd};

/// Asks for the cache line at an address, which need not be valid.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "an instruction without a safe name"))]
pub(crate) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it changes no state, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for the second-level cache, where it does not displace what is being worked on.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "an instruction without a safe name"))]
pub(crate) fn prefetch_far(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: as in `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for `count` values from `first` on, as far as they exist.
#[inline(always)]
pub(crate) fn prefetch_values(values: &[f32], first: usize, count: usize) {
    if first + count <= values.len() {
        for i in (0..count).step_by(16) {
            prefetch(values[first + i..].as_ptr());
        }
    }
}

/// An instruction set that this machine can run.
///
/// Kernels take the level as an argument, so that a test can run every level that the machine has.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// One lane at a time; what remains when nothing better is there.
    Scalar,
    /// 128-bit vectors on 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

impl Level {
    /// The fastest level of this machine. `WEFT_SIMD=scalar|avx2` lowers it, to measure or to track down a fault.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| {
            let available = Self::available();
            let wanted = std::env::var("WEFT_SIMD").unwrap_or_default();
            let named = available.iter().find(|level| level.name() == wanted);
            *named.unwrap_or(&available[available.len() - 1])
        })
    }

    /// Every level of this machine, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Scalar];
        #[cfg(target_arch = "aarch64")]
        levels.extend(pulp::aarch64::Neon::try_new().map(Self::Neon));
        #[cfg(target_arch = "x86_64")]
        levels.extend(pulp::x86::V3::try_new().map(Self::Avx2));
        #[cfg(target_arch = "x86_64")]
        levels.extend(pulp::x86::V4::try_new().map(Self::Avx512));
        levels
    }

    /// The name that benchmarks print: `scalar`, `neon`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `operation` compiled for this level.
    #[inline]
    pub(crate) fn run<Op: WithSimd>(self, operation: Op) -> Op::Output {
        match self {
            Self::Scalar => Simd::vectorize(pulp::Scalar, operation),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => Simd::vectorize(simd, operation),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, operation),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, operation),
        }
    }
}

/// `exp(x)`, within 2 units in the last place; 0 below -103.9, infinite above 88.8, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // x = n ln2 + r with |r| <= ln2 / 2, exp(x) = 2^n exp(r): Cody-Waite reduction, degree 6 in r.
    // 2^n is two factors, so that results below the smallest normal number come out gradually.
    // Minimum and maximum drop NaN on some instruction sets: it is told by its bits and put back at the end.
    let magnitude = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(0x7fff_ffff));
    let is_nan = simd.greater_than_u32s(magnitude, simd.splat_u32s(0x7f80_0000));
    let nan = x;
    let x = simd.max_f32s(simd.splat_f32s(-104.0), simd.min_f32s(simd.splat_f32s(89.0), x));
    let shift = simd.splat_f32s(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer
    let shifted = simd.mul_add_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), shift);
    let n = simd.sub_f32s(shifted, shift);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-0.693_145_75), x);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-1.428_606_8e-6), r);
    let mut p = simd.splat_f32s(1.388_888_9e-3);
    for coefficient in [8.333_334e-3, 4.166_666_6e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
        p = simd.mul_add_f32s(p, r, simd.splat_f32s(coefficient));
    }
    let half = simd.sub_f32s(simd.mul_add_f32s(n, simd.splat_f32s(0.5), shift), shift);
    let rest = simd.sub_f32s(n, half);
    let result = simd.mul_f32s(simd.mul_f32s(p, power_of_two(simd, half)), power_of_two(simd, rest));
    simd.select_f32s(is_nan, nan, result)
}

/// `2^n` for whole `n` in -126..=127.
#[inline(always)]
fn power_of_two<S: Simd>(simd: S, n: S::f32s) -> S::f32s {
    // 2^23 + 127 + n has n + 127 in its low bits: shifted into the exponent, that is 2^n.
    let biased = simd.add_f32s(n, simd.splat_f32s(8_388_608.0 + 127.0));
    let bits = simd.transmute_u32s_f32s(biased);
    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23)))
}

/// `1 / (1 + exp(-x))`; results below the smallest normal number may come out as 0.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// `tanh(x)`, within 3 units in the last place, also near zero.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Away from zero (e - 1) / (e + 1) with e = exp(2|x|); near zero that cancels, and the odd
    // polynomial (Taylor to x^11, error below 1e-8 relative for |x| < 0.35) takes over.
    let magnitude = simd.abs_f32s(x);
    let one = simd.splat_f32s(1.0);
    let e = exp(simd, simd.add_f32s(magnitude, magnitude));
    let far = simd.sub_f32s(one, simd.div_f32s(simd.splat_f32s(2.0), simd.add_f32s(e, one)));
    let square = simd.mul_f32s(x, x);
    let mut p = simd.splat_f32s(-1382.0 / 155_925.0);
    for coefficient in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0] {
        p = simd.mul_add_f32s(p, square, simd.splat_f32s(coefficient));
    }
    let near = simd.mul_add_f32s(simd.mul_f32s(p, square), magnitude, magnitude);
    let is_near = simd.less_than_f32s(magnitude, simd.splat_f32s(0.35));
    let result = simd.select_f32s(is_near, near, far);
    // The sign of x, put back as a bit.
    let sign = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(0x8000_0000));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(result), sign))
}

/// `2^x` for `x <= 0`, within 2 units in the last place; 0 below -126, NaN for NaN.
#[inline(always)]
pub(crate) fn exp2_of_negative<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // x = n + r with |r| <= 1/2 (adding 1.5 * 2^23 rounds to an integer); Taylor's polynomial in r ln 2.
    let shift = simd.splat_f32s(12_582_912.0);
    let vanishes = simd.less_than_f32s(x, simd.splat_f32s(-126.0));
    let n = simd.sub_f32s(simd.add_f32s(x, shift), shift);
    let r = simd.sub_f32s(x, n);
    let mut p = simd.splat_f32s(1.525_273_4e-5);
    for coefficient in [1.540_353e-4, 1.333_355_8e-3, 9.618_13e-3, 5.550_411e-2, 2.402_265e-1, 6.931_472e-1, 1.0] {
        p = simd.mul_add_f32s(p, r, simd.splat_f32s(coefficient));
    }
    simd.select_f32s(vanishes, simd.splat_f32s(0.0), simd.mul_f32s(p, power_of_two(simd, n)))
}

/// `ln(1 + exp(x))`, within a few units in the last place, also where it is small.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // max(x, 0) + ln(1 + e) with e = exp(-|x|); ln(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3.
    let e = exp(simd, simd.neg_f32s(simd.abs_f32s(x)));
    let s = simd.div_f32s(e, simd.add_f32s(simd.splat_f32s(2.0), e));
    let square = simd.mul_f32s(s, s);
    let mut p = simd.splat_f32s(2.0 / 17.0);
    for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = simd.mul_add_f32s(p, square, simd.splat_f32s(2.0 / odd));
    }
    let positive = simd.greater_than_f32s(x, simd.splat_f32s(0.0));
    let above = simd.select_f32s(positive, x, simd.splat_f32s(0.0));
    simd.mul_add_f32s(p, s, above)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Map<'a>(&'a [f32], &'a mut [f32], u8);
    impl WithSimd for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self(from, to, function) = self;
            for (x, y) in from.chunks(S::F32_LANES).zip(to.chunks_mut(S::F32_LANES)) {
                let v = simd.partial_load_f32s(x);
                let v = match function {
                    0 => exp(simd, v),
                    1 => tanh(simd, v),
                    2 => sigmoid(simd, v),
                    _ => exp2_of_negative(simd, simd.neg_f32s(simd.abs_f32s(v))),
                };
                simd.partial_store_f32s(y, v);
            }
        }
    }

    #[test]
    fn elementary_functions_are_accurate_on_every_level() {
        let xs: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 1e-3 + i as f32 * 1.7e-8).collect();
        type Case = (&'static str, fn(f64) -> f64, f64);
        let functions: [Case; 4] = [
            ("exp", f64::exp, 2.0),
            ("tanh", f64::tanh, 3.0),
            ("sigmoid", |x| 1.0 / (1.0 + (-x).exp()), 3.0),
            ("exp2_of_negative", |x| (-x.abs()).exp2(), 2.0),
        ];
        for level in Level::available() {
            for (index, (name, truth, ulps)) in functions.into_iter().enumerate() {
                let mut ys = vec![0.0; xs.len()];
                level.run(Map(&xs, &mut ys, index as u8));
                for (&x, &y) in xs.iter().zip(&ys) {
                    let t = truth(f64::from(x));
                    if t > f64::from(f32::MAX) {
                        assert!(y.is_infinite(), "{name}({x}) = {y}");
                        continue;
                    }
                    let gradual = matches!(name, "exp" | "tanh");
                    let denormal = if gradual { 2e-45 } else { f64::from(f32::MIN_POSITIVE) };
                    let ulp = f64::from(f32::EPSILON) * t.abs() + denormal;
                    assert!((f64::from(y) - t).abs() <= ulps * ulp, "{level:?} {name}({x}) = {y:e}, not {t:e}");
                }
            }
        }
    }

    #[test]
    fn elementary_functions_keep_nan_and_limits() {
        let xs = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-30];
        for level in Level::available() {
            let mut ys = [0.0; 6];
            level.run(Map(&xs, &mut ys, 0));
            assert!(ys[0].is_nan() && ys[1] == f32::INFINITY && ys[2] == 0.0 && ys[3] == 1.0, "{level:?} exp: {ys:?}");
            level.run(Map(&xs, &mut ys, 1));
            assert!(ys[0].is_nan() && ys[1] == 1.0 && ys[2] == -1.0, "{level:?} tanh: {ys:?}");
            assert!(ys[4].to_bits() == (-0.0f32).to_bits() && ys[5] == 1e-30, "{level:?} tanh: {ys:?}");
            level.run(Map(&xs, &mut ys, 2));
            assert!(ys[0].is_nan() && ys[1] == 1.0 && ys[2] == 0.0 && ys[3] == 0.5, "{level:?} sigmoid: {ys:?}");
        }
    }
}
