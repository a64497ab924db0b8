//! The equation in plain `f64`.

/// o, r, k, v, gate: positions of `heads * size` values; rho, gain, bias: one.
pub(super) fn forward(operands: &[Vec<f64>; 8], size: usize, epsilon: f64) -> Vec<f64> {
    let [o, r, k, v, gate, rho, gain, bias] = operands;
    let mut y = Vec::with_capacity(o.len());
    for (row, o) in o.chunks(size).enumerate() {
        let (at, channel) = (row * size, row * size % gain.len());
        let mean = o.iter().sum::<f64>() / size as f64;
        let variance = o.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / size as f64;
        let bonus: f64 = (0..size).map(|i| r[at + i] * k[at + i] * rho[channel + i]).sum();
        y.extend((0..size).map(|i| {
            let normal = (o[i] - mean) / (variance + epsilon).sqrt();
            (gain[channel + i] * normal + bias[channel + i] + bonus * v[at + i]) * gate[at + i]
        }));
    }
    y
}
