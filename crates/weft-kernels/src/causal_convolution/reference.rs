//! The equations in plain `f64`.

/// A convolution's operands, and one length for each sentence of the batch.
#[derive(Clone)]
pub(super) struct Convolution {
    pub time: usize,
    pub channels: usize,
    pub width: usize,
    pub lengths: Vec<usize>,
    /// x, weight, bias, initial.
    pub operands: [Vec<f64>; 4],
}

/// The result, zeros past a sentence's length.
pub(super) fn forward(convolution: &Convolution) -> Vec<f64> {
    let Convolution { time, channels, width, lengths, operands: [x, weight, bias, initial] } = convolution;
    let (time, channels, width) = (*time, *channels, *width);
    let mut y = vec![0.0; lengths.len() * time * channels];
    for (batch, &length) in lengths.iter().enumerate() {
        for (t, channel) in (0..length).flat_map(|t| (0..channels).map(move |channel| (t, channel))) {
            let mut sum = bias[channel];
            for k in 0..width {
                let input = match (t + k).checked_sub(width - 1) {
                    Some(from) => x[(batch * time + from) * channels + channel],
                    None => initial[(batch * (width - 1) + t + k) * channels + channel],
                };
                sum += weight[channel * width + k] * input;
            }
            y[(batch * time + t) * channels + channel] = sum / (1.0 + (-sum).exp());
        }
    }
    y
}
