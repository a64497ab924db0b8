//! The equations in plain `f64`, position by position.

/// A state space's operands, and one sentence's length for each of the batch.
#[derive(Clone)]
pub(super) struct Scan {
    pub time: usize,
    pub heads: usize,
    pub width: usize,
    pub groups: usize,
    pub states: usize,
    pub lengths: Vec<usize>,
    /// xbc, dt, a_log, skip, bias, initial.
    pub operands: [Vec<f64>; 6],
}

/// The outputs, zeros past a sentence's length, and the last states.
pub(super) fn forward(scan: &Scan) -> Vec<f64> {
    let &Scan { time, heads, width, groups, states, .. } = scan;
    let [xbc, dt, a_log, skip, bias, initial] = &scan.operands;
    let inner = heads * width;
    let mut outputs = vec![0.0; scan.lengths.len() * time * inner];
    let mut last = initial.clone();
    for (batch, &length) in scan.lengths.iter().enumerate() {
        for head in 0..heads {
            let group = head / (heads / groups);
            let state = &mut last[(batch * heads + head) * states * width..][..states * width];
            for t in 0..length {
                let row = batch * time + t;
                let (x, bc) = xbc[row * (inner + 2 * groups * states)..].split_at(inner);
                let x = &x[head * width..][..width];
                let (b, c) = (&bc[group * states..][..states], &bc[(groups + group) * states..][..states]);
                let dt = dt[row * heads + head] + bias[head];
                let step = dt.max(0.0) + (-dt.abs()).exp().ln_1p();
                let decay = (-step * a_log[head].exp()).exp();
                for p in 0..width {
                    let mut y = skip[head] * x[p];
                    for n in 0..states {
                        let s = &mut state[n * width + p];
                        *s = decay * *s + step * b[n] * x[p];
                        y += c[n] * *s;
                    }
                    outputs[row * inner + head * width + p] = y;
                }
            }
        }
    }
    outputs.extend(last);
    outputs
}
