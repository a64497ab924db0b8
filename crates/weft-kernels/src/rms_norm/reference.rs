//! The equation in plain `f64`.

/// `[rows, hidden]` in, `[rows, hidden]` out.
pub(super) fn forward(x: &[f64], gain: &[f64], epsilon: f64) -> Vec<f64> {
    let hidden = gain.len();
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(hidden) {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / hidden as f64;
        y.extend((0..hidden).map(|i| gain[i] * row[i] / (mean + epsilon).sqrt()));
    }
    y
}
