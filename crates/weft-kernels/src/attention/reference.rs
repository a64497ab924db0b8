//! The equations as the papers write them: in `f64` they are the truth, in `f32` the plain code that the kernel
//! may be at most twice as wrong as.

/// `q` `[batch, q_time, heads * head_dim]`, `k` and `v` `[batch, k_time, kv_heads * head_dim]`, `bias`
/// `[heads, distances]`, which may be empty.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, F> {
    pub(super) q: &'a [F],
    pub(super) k: &'a [F],
    pub(super) v: &'a [F],
    pub(super) bias: &'a [F],
    pub(super) batch: usize,
    pub(super) q_time: usize,
    pub(super) k_time: usize,
    pub(super) head_dim: usize,
}

macro_rules! equations {
    ($name:ident, $float:ty) => {
        pub(super) mod $name {
            use super::Inputs;
            use crate::attention::AttentionSettings;

            /// One query of one head.
            struct Row<'a> {
                inputs: Inputs<'a, $float>,
                settings: &'a AttentionSettings,
                batch: usize,
                head: usize,
                query: usize,
            }

            impl Row<'_> {
                fn all<'a>(inputs: &Inputs<'a, $float>, settings: &'a AttentionSettings) -> Vec<Row<'a>> {
                    let (inputs, heads, q_time) = (*inputs, settings.num_heads, inputs.q_time);
                    let row = |i: usize| (i / q_time / heads, i / q_time % heads, i % q_time);
                    let rows = (0..inputs.batch * heads * q_time).map(row);
                    rows.map(|(batch, head, query)| Row { inputs, settings, batch, head, query }).collect()
                }

                fn at_q(&self) -> usize {
                    let width = self.settings.num_heads * self.inputs.head_dim;
                    (self.batch * self.inputs.q_time + self.query) * width + self.head * self.inputs.head_dim
                }

                fn at_k(&self, key: usize) -> usize {
                    let Self { inputs, settings, .. } = self;
                    let head = self.head * settings.num_kv_heads / settings.num_heads;
                    ((self.batch * inputs.k_time + key) * settings.num_kv_heads + head) * inputs.head_dim
                }

                /// Where the last query stands at the last key.
                fn place(&self) -> isize {
                    let length = |of: &Option<Vec<usize>>, time| of.as_ref().map_or(time, |of| of[self.batch]);
                    let queries = length(&self.settings.query_lengths, self.inputs.q_time);
                    let keys = length(&self.settings.key_lengths, self.inputs.k_time);
                    self.query as isize + keys as isize - queries as isize
                }

                fn sees(&self, key: usize) -> bool {
                    let Self { settings, .. } = self;
                    let within = |of: &Option<Vec<usize>>, i| of.as_ref().is_none_or(|of| i < of[self.batch]);
                    let behind = self.place() - key as isize;
                    within(&settings.query_lengths, self.query)
                        && within(&settings.key_lengths, key)
                        && (!settings.causal || behind >= 0)
                        && settings.window.is_none_or(|window| behind.unsigned_abs() < window)
                        && settings.blocks.as_ref().is_none_or(|blocks| {
                            let size = blocks.block_size();
                            self.place() >= 0
                                && blocks.rows()[self.place() as usize / size].contains(&((key / size) as u32))
                        })
                }

                fn seen(&self) -> impl Iterator<Item = usize> {
                    (0..self.inputs.k_time).filter(|&key| self.sees(key))
                }

                /// The column of the bias, if there is one.
                fn distance(&self, key: usize) -> Option<usize> {
                    let distances = self.inputs.bias.len() / self.settings.num_heads;
                    let column = (distances as isize - 1) / 2 + key as isize - self.place();
                    (distances > 0).then(|| self.head * distances + column as usize)
                }

                /// q . k / sqrt(head_dim)
                fn product(&self, key: usize) -> $float {
                    let size = self.inputs.head_dim;
                    let (q, k) = (&self.inputs.q[self.at_q()..][..size], &self.inputs.k[self.at_k(key)..][..size]);
                    q.iter().zip(k).map(|(q, k)| q * k).sum::<$float>() / (size as $float).sqrt()
                }

                fn bent(&self, key: usize) -> Option<$float> {
                    self.settings.softcap.map(|cap| (self.product(key) / cap as $float).tanh())
                }

                fn score(&self, key: usize) -> $float {
                    let score = match self.bent(key) {
                        Some(bent) => bent * self.settings.softcap.unwrap() as $float,
                        None => self.product(key),
                    };
                    score + self.distance(key).map_or(0.0, |at| self.inputs.bias[at])
                }

                /// Probabilities of all keys, before dropout.
                fn weights(&self) -> Vec<$float> {
                    let mut weights = vec![0.0; self.inputs.k_time];
                    let most = self.seen().map(|key| self.score(key)).fold(<$float>::NEG_INFINITY, <$float>::max);
                    self.seen().for_each(|key| weights[key] = (self.score(key) - most).exp());
                    let sum: $float = self.seen().map(|key| weights[key]).sum();
                    weights.iter_mut().filter(|weight| **weight != 0.0).for_each(|weight| *weight /= sum);
                    weights
                }

                /// What dropout multiplies a probability by.
                fn kept(&self, key: usize) -> $float {
                    let row = (self.batch * self.settings.num_heads + self.head) * self.inputs.q_time + self.query;
                    match self.settings.dropout.keeps(row * self.inputs.k_time + key) {
                        true => 1.0 / (1.0 - self.settings.dropout.probability as $float),
                        false => 0.0,
                    }
                }
            }

            /// Probabilities `[batch, heads, q_time, k_time]`, before dropout.
            pub(in crate::attention) fn weights(
                inputs: &Inputs<'_, $float>,
                settings: &AttentionSettings,
            ) -> Vec<$float> {
                Row::all(inputs, settings).iter().flat_map(Row::weights).collect()
            }

            /// The result, in the shape of q.
            pub(in crate::attention) fn forward(
                inputs: &Inputs<'_, $float>,
                settings: &AttentionSettings,
            ) -> Vec<$float> {
                let mut out = vec![0.0; inputs.q.len()];
                for row in Row::all(inputs, settings) {
                    let weights = row.weights();
                    for key in row.seen() {
                        for c in 0..inputs.head_dim {
                            out[row.at_q() + c] += weights[key] * row.kept(key) * inputs.v[row.at_k(key) + c];
                        }
                    }
                }
                out
            }

            /// The gradients of q, k, v and the bias.
            pub(in crate::attention) fn grad(
                inputs: &Inputs<'_, $float>,
                dout: &[$float],
                settings: &AttentionSettings,
            ) -> [Vec<$float>; 4] {
                let Inputs { q, k, v, bias, head_dim, .. } = *inputs;
                let [mut dq, mut dk, mut dv, mut dbias] = [q, k, v, bias].map(|x| vec![0.0; x.len()]);
                for row in Row::all(inputs, settings) {
                    let (weights, at_q) = (row.weights(), row.at_q());
                    let dp = |key: usize| {
                        let at = row.at_k(key);
                        row.kept(key) * (0..head_dim).map(|c| dout[at_q + c] * v[at + c]).sum::<$float>()
                    };
                    let along: $float = row.seen().map(|key| weights[key] * dp(key)).sum();
                    for key in row.seen() {
                        let at_k = row.at_k(key);
                        let of_score = weights[key] * (dp(key) - along);
                        if let Some(at) = row.distance(key) {
                            dbias[at] += of_score;
                        }
                        let slope = row.bent(key).map_or(1.0, |bent| 1.0 - bent * bent);
                        let of_product = of_score * slope / (head_dim as $float).sqrt();
                        for c in 0..head_dim {
                            dq[at_q + c] += of_product * k[at_k + c];
                            dk[at_k + c] += of_product * q[at_q + c];
                            dv[at_k + c] += row.kept(key) * weights[key] * dout[at_q + c];
                        }
                    }
                }
                [dq, dk, dv, dbias]
            }
        }
    };
}

equations!(truth, f64);
equations!(plain, f32);
