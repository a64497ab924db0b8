//! The equations in plain `f64`, whose exponentials of some 80 are far from overflowing: the sums are kept as they are.

/// The operands, and one sentence's length for each of the batch.
#[derive(Clone)]
pub(super) struct Wkv {
    pub time: usize,
    pub hidden: usize,
    pub lengths: Vec<usize>,
    /// receptance, key, value, decay, bonus, initial.
    pub operands: [Vec<f64>; 6],
}

/// The outputs, zeros past a sentence's length, and the last states: only they are multiples of an exponential, that of
/// the largest exponent.
pub(super) fn forward(wkv: &Wkv) -> Vec<f64> {
    let Wkv { time, hidden, lengths, operands: [receptance, key, value, decay, bonus, initial] } = wkv;
    let (time, hidden) = (*time, *hidden);
    let mut outputs = vec![0.0; lengths.len() * time * hidden];
    let mut last = initial.clone();
    for (batch, &length) in lengths.iter().enumerate() {
        for channel in 0..hidden {
            let row = |i: usize| (3 * batch + i) * hidden + channel;
            let mut largest = initial[row(2)];
            let (mut a, mut b) = (initial[row(0)] * largest.exp(), initial[row(1)] * largest.exp());
            for t in 0..length {
                let at = (batch * time + t) * hidden + channel;
                let (open, new) = (1.0 / (1.0 + (-receptance[at]).exp()), (bonus[channel] + key[at]).exp());
                outputs[at] = open * (a + new * value[at]) / (b + new);
                a = (-decay[channel]).exp() * a + key[at].exp() * value[at];
                b = (-decay[channel]).exp() * b + key[at].exp();
                largest = key[at].max(largest - decay[channel]);
            }
            last[row(0)] = a * (-largest).exp();
            last[row(1)] = b * (-largest).exp();
            last[row(2)] = largest;
        }
    }
    outputs.extend(last);
    outputs
}
