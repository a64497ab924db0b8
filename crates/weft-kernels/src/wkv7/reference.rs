//! The equations in plain `f64`.

/// The operands, and one sentence's length for each of the batch.
#[derive(Clone)]
pub(super) struct Recurrence {
    pub time: usize,
    pub heads: usize,
    pub size: usize,
    pub lengths: Vec<usize>,
    /// r, d, k, v, a, rate, initial.
    pub operands: [Vec<f64>; 7],
}

/// The outputs, zeros past a sentence's length, and the last states.
pub(super) fn forward(recurrence: &Recurrence) -> Vec<f64> {
    let &Recurrence {
        time,
        heads,
        size,
        ref lengths,
        operands: [ref r, ref d, ref k, ref v, ref a, ref rate, ref initial],
    } = recurrence;
    let mut outputs = vec![0.0; lengths.len() * time * heads * size];
    let mut last = initial.clone();
    for (head, state) in last.chunks_mut(size * size).enumerate() {
        let (batch, head) = (head / heads, head % heads);
        for t in 0..lengths[batch] {
            let at = ((batch * time + t) * heads + head) * size;
            let replaced: Vec<f64> =
                (0..size).map(|i| (0..size).map(|j| state[j * size + i] * a[at + j]).sum()).collect();
            for j in 0..size {
                let w = (-(-0.5f64).exp() / (1.0 + (-d[at + j]).exp())).exp();
                for i in 0..size {
                    let s = &mut state[j * size + i];
                    *s = *s * w + replaced[i] * -a[at + j] * rate[at + j] + v[at + i] * k[at + j];
                    outputs[at + i] += r[at + j] * *s;
                }
            }
        }
    }
    outputs.extend(last);
    outputs
}
