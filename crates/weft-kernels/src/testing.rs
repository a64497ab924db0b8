//! What kernel tests share: inputs, the tolerance rule and gradients by finite differences.

use burn::Tensor;
use burn::tensor::{Device, TensorData};

/// `count` values from a normal distribution, the same for the same seed. Normal, not uniform: a softmax over
/// uniform values is so flat that a wrong scale passes.
pub(crate) fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut uniform = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count)
        .map(|_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect()
}

/// The same values in `f64`.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// `got` may be at most `slack` times as wrong as `plain`, the same computation in straightforward `f32`; both
/// are measured against `truth`. A NaN must be where `truth` has one, and nowhere else.
#[track_caller]
pub(crate) fn assert_as_exact(name: &str, got: &[f32], plain: &[f32], truth: &[f64], slack: f64) {
    assert!(got.len() == truth.len() && plain.len() == truth.len(), "{name}: lengths differ");
    let worst = |values: &[f32]| {
        let off = |(&x, &t): (&f32, &f64)| match (x.is_nan(), t.is_nan()) {
            (true, true) => 0.0,
            (false, false) => (f64::from(x) - t).abs(),
            _ => f64::INFINITY,
        };
        values.iter().zip(truth).map(off).fold(0.0, f64::max)
    };
    let scale = truth.iter().filter(|t| t.is_finite()).fold(0.0, |m: f64, t| m.max(t.abs()));
    let allowed = slack * worst(plain) + 4.0 * f64::from(f32::EPSILON) * scale;
    assert!(allowed.is_finite() && worst(got) <= allowed, "{name}: off by {:.2e}, allowed {allowed:.2e}", worst(got));
}

/// The gradient of `f` at `x` by central differences, for `f64` references.
pub(crate) fn finite_differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            let step = 1e-5 * x[i].abs().max(1.0);
            moved[i] = x[i] + step;
            let above = f(&moved);
            moved[i] = x[i] - step;
            let below = f(&moved);
            moved[i] = x[i];
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Asserts that gradients agree with finite differences: 1e-4 of the largest, plus 1e-5, leaves room for f32
/// against f64 and for the differences' own error, and none for a wrong term.
#[track_caller]
pub(crate) fn assert_gradient(name: &str, got: &[f32], differences: &[f64]) {
    assert_eq!(got.len(), differences.len(), "{name}: lengths differ");
    let scale = differences.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
    for (i, (&g, &d)) in got.iter().zip(differences).enumerate() {
        let off = (f64::from(g) - d).abs();
        assert!(off <= 1e-4 * scale + 1e-5, "{name}[{i}] is {g}, finite differences say {d}");
    }
}

/// The devices to test: Flex, and with the `gpu` feature whatever WGSL device is there.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![Device::flex()];
    #[cfg(feature = "gpu")]
    devices.push(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
    devices.truncate(2);
    devices
}

/// A tensor from values.
pub(crate) fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The values of a tensor, row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("an f32 tensor")
}
