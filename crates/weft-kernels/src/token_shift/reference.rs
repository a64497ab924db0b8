//! The equation in plain `f64`.

/// The operands, and one sentence's length for each of the batch.
#[derive(Clone)]
pub(super) struct Shift {
    pub time: usize,
    pub hidden: usize,
    pub lengths: Vec<usize>,
    /// x, mix, earlier.
    pub operands: [Vec<f64>; 3],
}

/// The result, zeros past a sentence's length.
pub(super) fn forward(shift: &Shift) -> Vec<f64> {
    let Shift { time, hidden, lengths, operands: [x, mix, earlier] } = shift;
    let mut y = vec![0.0; x.len()];
    for (batch, &length) in lengths.iter().enumerate() {
        for (t, channel) in (0..length).flat_map(|t| (0..*hidden).map(move |channel| (t, channel))) {
            let at = (batch * time + t) * hidden + channel;
            let before = if t == 0 { earlier[batch * hidden + channel] } else { x[at - hidden] };
            y[at] = mix[channel] * x[at] + (1.0 - mix[channel]) * before;
        }
    }
    y
}
