//! The equations in plain `f64`.

/// The loss of each row of `logits`, `[rows, vocab]`.
pub(super) fn losses(logits: &[f64], vocab: usize, targets: &[i32], smoothing: f64, ignore: Option<i32>) -> Vec<f64> {
    let row = |(row, &target): (usize, &i32)| {
        if Some(target) == ignore {
            return 0.0;
        }
        let logits = &logits[row * vocab..(row + 1) * vocab];
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        let log_p: Vec<f64> = logits.iter().map(|x| x - log_sum).collect();
        let mean = log_p.iter().sum::<f64>() / vocab as f64;
        -(1.0 - smoothing) * log_p[target as usize] - smoothing * mean
    };
    targets.iter().enumerate().map(row).collect()
}
