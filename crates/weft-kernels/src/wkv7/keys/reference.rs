//! The equations in plain `f64`.

/// `-normal(k * xi)`, heads of `size` values.
pub(super) fn removal(k: &[f64], xi: &[f64], size: usize) -> Vec<f64> {
    let product: Vec<f64> = k.iter().zip(xi.iter().cycle()).map(|(k, xi)| k * xi).collect();
    let normal = |head: &[f64]| {
        let length = head.iter().map(|x| x * x).sum::<f64>().sqrt().max(super::SHORTEST);
        head.iter().map(|x| -x / length).collect::<Vec<_>>()
    };
    product.chunks(size).flat_map(normal).collect()
}

/// `k * (1 + (rate - 1) * alpha)`
pub(super) fn replacement(k: &[f64], rate: &[f64], alpha: &[f64]) -> Vec<f64> {
    let rates = k.iter().zip(rate).zip(alpha.iter().cycle());
    rates.map(|((k, rate), alpha)| k * (1.0 + (rate - 1.0) * alpha)).collect()
}
