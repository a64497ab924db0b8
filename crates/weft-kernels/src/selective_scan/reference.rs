//! The equations in plain `f64`.

/// A scan's operands, and one sentence's length for each of the batch.
#[derive(Clone)]
pub(super) struct Scan {
    pub time: usize,
    pub inner: usize,
    pub states: usize,
    pub lengths: Vec<usize>,
    /// x, delta, bc, gate, a_log, skip, bias, initial.
    pub operands: [Vec<f64>; 8],
}

/// The outputs, zeros past a sentence's length, and the last states.
pub(super) fn forward(scan: &Scan) -> Vec<f64> {
    let Scan { time, inner, states, lengths, operands: [x, delta, bc, gate, a_log, skip, bias, initial] } = scan;
    let (time, inner, states) = (*time, *inner, *states);
    let mut outputs = vec![0.0; lengths.len() * time * inner];
    let mut last = initial.clone();
    for (batch, &length) in lengths.iter().enumerate() {
        for channel in 0..inner {
            for t in 0..length {
                let at = (batch * time + t) * inner + channel;
                let step = (1.0 + (delta[at] + bias[channel]).exp()).ln();
                let bc = &bc[(batch * time + t) * 2 * states..][..2 * states];
                let mut y = skip[channel] * x[at];
                for n in 0..states {
                    let h = &mut last[(batch * states + n) * inner + channel];
                    *h = (-step * a_log[channel * states + n].exp()).exp() * *h + step * bc[n] * x[at];
                    y += bc[states + n] * *h;
                }
                outputs[at] = y * gate[at] / (1.0 + (-gate[at]).exp());
            }
        }
    }
    outputs.extend(last);
    outputs
}
