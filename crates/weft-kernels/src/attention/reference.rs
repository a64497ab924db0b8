//! The equations as the paper writes them: in `f64` they are the truth, in `f32` the plain code that the kernel
//! may be at most twice as wrong as.

/// `q` `[batch, q_time, hidden]`, `k` and `v` `[batch, k_time, hidden]`.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, F> {
    pub(super) q: &'a [F],
    pub(super) k: &'a [F],
    pub(super) v: &'a [F],
    pub(super) batch: usize,
    pub(super) q_time: usize,
    pub(super) k_time: usize,
    pub(super) hidden: usize,
}

macro_rules! equations {
    ($name:ident, $float:ty) => {
        pub(super) mod $name {
            use super::Inputs;
            use crate::attention::AttentionSettings;

            /// Probabilities `[batch, heads, q_time, k_time]`, before dropout.
            pub(in crate::attention) fn weights(
                inputs: &Inputs<'_, $float>,
                settings: &AttentionSettings,
            ) -> Vec<$float> {
                let Inputs { q, k, batch, q_time, k_time, hidden, .. } = *inputs;
                let (heads, head_dim) = (settings.num_heads, hidden / settings.num_heads);
                let mut weights = vec![0.0; batch * heads * q_time * k_time];
                for (row, weights) in weights.chunks_mut(k_time.max(1)).enumerate() {
                    let (b, h, i) = (row / q_time / heads, row / q_time % heads, row % q_time);
                    let queries = settings.query_lengths.as_ref().map_or(q_time, |lengths| lengths[b]);
                    let keys = settings.key_lengths.as_ref().map_or(k_time, |lengths| lengths[b]);
                    let sees = |j: usize| i < queries && j < keys && (!settings.causal || j + queries <= i + keys);
                    let q = &q[(b * q_time + i) * hidden + h * head_dim..][..head_dim];
                    let score = |j: usize| {
                        let k = &k[(b * k_time + j) * hidden + h * head_dim..][..head_dim];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<$float>() / (head_dim as $float).sqrt()
                    };
                    let seen = || (0..k_time).filter(|&j| sees(j));
                    let most = seen().map(score).fold(<$float>::NEG_INFINITY, <$float>::max);
                    let sum: $float = seen().map(|j| (score(j) - most).exp()).sum();
                    seen().for_each(|j| weights[j] = (score(j) - most).exp() / sum);
                }
                weights
            }

            /// The result `[batch, q_time, hidden]`.
            pub(in crate::attention) fn forward(
                inputs: &Inputs<'_, $float>,
                settings: &AttentionSettings,
            ) -> Vec<$float> {
                let Inputs { v, batch, q_time, k_time, hidden, .. } = *inputs;
                let (heads, head_dim) = (settings.num_heads, hidden / settings.num_heads);
                let mut out = vec![0.0; batch * q_time * hidden];
                for (index, &weight) in weights(inputs, settings).iter().enumerate() {
                    let (row, j) = (index / k_time, index % k_time);
                    let (b, h, i) = (row / q_time / heads, row / q_time % heads, row % q_time);
                    if weight != 0.0 && settings.dropout.keeps(index) {
                        let kept = weight / (1.0 - settings.dropout.probability as $float);
                        for c in h * head_dim..(h + 1) * head_dim {
                            out[(b * q_time + i) * hidden + c] += kept * v[(b * k_time + j) * hidden + c];
                        }
                    }
                }
                out
            }

            /// The gradients of q, k and v.
            pub(in crate::attention) fn grad(
                inputs: &Inputs<'_, $float>,
                dout: &[$float],
                settings: &AttentionSettings,
            ) -> [Vec<$float>; 3] {
                let Inputs { q, k, v, q_time, k_time, hidden, .. } = *inputs;
                let (heads, head_dim) = (settings.num_heads, hidden / settings.num_heads);
                let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
                let weights = weights(inputs, settings);
                for (row, weights) in weights.chunks(k_time.max(1)).enumerate() {
                    let (b, h, i) = (row / q_time / heads, row / q_time % heads, row % q_time);
                    let at_q = (b * q_time + i) * hidden + h * head_dim;
                    let at_k = |j: usize| (b * k_time + j) * hidden + h * head_dim;
                    let factor = |j: usize| match settings.dropout.keeps(row * k_time + j) {
                        true => 1.0 / (1.0 - settings.dropout.probability as $float),
                        false => 0.0,
                    };
                    let dp =
                        |j: usize| factor(j) * (0..head_dim).map(|c| dout[at_q + c] * v[at_k(j) + c]).sum::<$float>();
                    let seen = || (0..k_time).filter(|&j| weights[j] != 0.0);
                    let along: $float = seen().map(|j| weights[j] * dp(j)).sum();
                    for j in seen() {
                        let ds = weights[j] * (dp(j) - along) / (head_dim as $float).sqrt();
                        for c in 0..head_dim {
                            dq[at_q + c] += ds * k[at_k(j) + c];
                            dk[at_k(j) + c] += ds * q[at_q + c];
                            dv[at_k(j) + c] += factor(j) * weights[j] * dout[at_q + c];
                        }
                    }
                }
                [dq, dk, dv]
            }
        }
    };
}

equations!(truth, f64);
equations!(plain, f32);
