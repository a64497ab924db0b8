#![expect(unsafe_code, reason = "results are read from memory that the kernel wrote")]

mod devices;
mod equations;
mod masks;

use std::mem::MaybeUninit;

use burn::tensor::Device;

use super::cpu::{Call, Gradients, Saved, Sizes};
use super::memory::{Operand, Target};
use super::reference::{Inputs, plain, truth};
use super::*;
use crate::simd::Level;
use crate::testing::{assert_as_exact, assert_gradient, finite_differences, normal, wide};

/// One call on plain slices: `q` `[batch, q_time, heads * head_dim]`, `kv` `[batch, k_time, 2 * kv_heads * head_dim]`.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    q_time: usize,
    k_time: usize,
    head_dim: usize,
    settings: AttentionSettings,
    biased: bool,
    seed: u64,
}

/// What goes in: q, kv, the gradient of the result and the bias.
struct Data {
    q: Vec<f32>,
    kv: Vec<f32>,
    dout: Vec<f32>,
    bias: Vec<f32>,
}

/// What comes out.
struct Results {
    out: Vec<f32>,
    dq: Vec<f32>,
    dkv: Vec<f32>,
    dbias: Vec<f32>,
}

impl Case {
    fn new(batch: usize, [q_time, k_time]: [usize; 2], num_heads: usize, head_dim: usize, causal: bool) -> Self {
        let settings = AttentionOptions { causal, ..AttentionOptions::new(num_heads) }.settings(None, None);
        Self { batch, q_time, k_time, head_dim, settings, biased: false, seed: 1 }
    }

    fn lengths(mut self, queries: &[usize], keys: &[usize]) -> Self {
        self.settings.query_lengths = Some(queries.to_vec());
        self.settings.key_lengths = Some(keys.to_vec());
        self
    }

    fn dropout(mut self, probability: f32) -> Self {
        self.settings.dropout = Dropout::new(probability, 5);
        self
    }

    fn window(mut self, window: usize) -> Self {
        self.settings.window = Some(window);
        self
    }

    fn softcap(mut self, cap: f32) -> Self {
        self.settings.softcap = Some(cap);
        self
    }

    fn bias(mut self) -> Self {
        self.biased = true;
        self
    }

    /// Every answering head serves `group` asking ones: there are `group` times as many.
    fn grouped(mut self, group: usize) -> Self {
        self.settings.num_heads *= group;
        self
    }

    fn blocks(mut self, blocks: BlockMask) -> Self {
        self.settings.blocks = Some(Arc::new(blocks));
        self
    }

    /// Columns of queries.
    fn hidden(&self) -> usize {
        self.settings.num_heads * self.head_dim
    }

    /// Columns of keys.
    fn kv_hidden(&self) -> usize {
        self.settings.num_kv_heads * self.head_dim
    }

    fn distances(&self) -> usize {
        if self.biased { 2 * self.q_time.max(self.k_time).max(1) + 3 } else { 0 }
    }

    fn data(&self) -> Data {
        let (q, k) = (self.batch * self.q_time * self.hidden(), self.batch * self.k_time * self.kv_hidden());
        Data {
            q: normal(self.seed, q),
            kv: normal(self.seed + 1, 2 * k),
            dout: normal(self.seed + 2, q),
            bias: normal(self.seed + 3, self.settings.num_heads * self.distances()),
        }
    }

    fn call<'a>(&'a self, data: &'a Data) -> Call<'a> {
        let operand =
            |data, offset, time, width| Operand { data, offset, batch_stride: time * width, time_stride: width };
        let (hidden, kv_hidden) = (self.hidden(), self.kv_hidden());
        Call {
            q: operand(&data.q, 0, self.q_time, hidden),
            k: operand(&data.kv, 0, self.k_time, 2 * kv_hidden),
            v: operand(&data.kv, kv_hidden, self.k_time, 2 * kv_hidden),
            bias: &data.bias,
            sizes: Sizes { batch: self.batch, q_time: self.q_time, k_time: self.k_time, head_dim: self.head_dim },
            settings: &self.settings,
        }
    }

    fn forward(&self, level: Level, data: &Data) -> Vec<f32> {
        cpu::forward(level, &self.call(data), false).out
    }

    /// The result and the gradients.
    fn both(&self, level: Level, data: &Data) -> Results {
        let call = self.call(data);
        let cpu::Forward { out, statistics } = cpu::forward(level, &call, true);
        let saved = Saved {
            statistics: statistics.as_deref().unwrap(),
            out: Operand { data: &out, ..call.q },
            dout: Operand { data: &data.dout, ..call.q },
        };
        let (hidden, kv_width, heads) = (self.hidden(), 2 * self.kv_hidden(), self.settings.num_heads);
        // Garbage that a target that is not written would show.
        let [mut dq, mut dkv] = [&data.q, &data.kv].map(|like| room(like.len(), f32::NAN));
        let mut dbias = room(self.batch * heads * self.distances(), f32::NAN);
        let keys = Target::new(&mut dkv, self.k_time * kv_width, kv_width);
        let bias = Target::new(&mut dbias, heads * self.distances(), self.distances());
        let gradients = Gradients {
            q: Target::new(&mut dq, self.q_time * hidden, hidden),
            k: keys,
            v: keys.skip(kv_width / 2),
            bias: self.biased.then_some(bias),
        };
        cpu::backward(level, &call, &saved, gradients);
        let of_bias = filled(dbias);
        let columns = heads * self.distances();
        let sum = |column| of_bias.iter().skip(column).step_by(columns).sum();
        Results { out, dq: filled(dq), dkv: filled(dkv), dbias: (0..columns).map(sum).collect() }
    }

    fn inputs<'a, F>(&self, q: &'a [F], [k, v]: [&'a [F]; 2], bias: &'a [F]) -> Inputs<'a, F> {
        let Self { batch, q_time, k_time, head_dim, .. } = *self;
        Inputs { q, k, v, bias, batch, q_time, k_time, head_dim }
    }

    /// Result, gradients and weights on every level against the references. Small shapes run with many seeds: the
    /// worst of a few values is luck, for the plain code as for the kernel.
    fn check(&self) {
        let size = self.batch * self.q_time.min(self.k_time) * self.hidden();
        let runs = (4000 / size.max(1)).clamp(1, 64);
        let cases: Vec<_> = (0..runs as u64).map(|run| Self { seed: self.seed + 5 * run, ..self.clone() }).collect();
        let all = |results: &dyn Fn(&Self) -> [Vec<f32>; 6]| join(cases.iter().map(results));
        let all_exact = join(cases.iter().map(|case| {
            let data = case.data();
            let (k, v) = unpack(&data.kv, case.kv_hidden());
            let (q, k, v, bias) = (wide(&data.q), wide(&k), wide(&v), wide(&data.bias));
            let inputs = case.inputs(&q, [&k, &v], &bias);
            let [dq, dk, dv, dbias] = truth::grad(&inputs, &wide(&data.dout), &case.settings);
            [truth::forward(&inputs, &case.settings), dq, dk, dv, dbias, truth::weights(&inputs, &case.settings)]
        }));
        let all_plain = all(&|case| {
            let data = case.data();
            let (k, v) = unpack(&data.kv, case.kv_hidden());
            let inputs = case.inputs(&data.q, [&k, &v], &data.bias);
            let [dq, dk, dv, dbias] = plain::grad(&inputs, &data.dout, &case.settings);
            [plain::forward(&inputs, &case.settings), dq, dk, dv, dbias, plain::weights(&inputs, &case.settings)]
        });
        for level in Level::available() {
            let all_got = all(&|case| {
                let data = case.data();
                let Results { out, dq, dkv, dbias } = case.both(level, &data);
                let (dk, dv) = unpack(&dkv, case.kv_hidden());
                [out, dq, dk, dv, dbias, cpu::weights(level, &case.call(&data))]
            });
            for (i, what) in ["out", "dq", "dk", "dv", "dbias", "weights"].into_iter().enumerate() {
                let name = format!("{} {what} {self:?}", level.name());
                if ["dq", "dk", "dbias"].contains(&what) {
                    assert_as_exact_or_cancelled(&name, &all_got[i], &all_plain[i], &all_exact[i]);
                } else {
                    assert_as_exact(&name, &all_got[i], &all_plain[i], &all_exact[i], 2.0);
                }
            }
        }
    }
}

/// Memory to be written, with `value` in it.
fn room(count: usize, value: f32) -> Vec<MaybeUninit<f32>> {
    vec![MaybeUninit::new(value); count]
}

/// What was written.
fn filled(mut room: Vec<MaybeUninit<f32>>) -> Vec<f32> {
    // SAFETY: `room` wrote everything.
    room.iter_mut().map(|value| unsafe { value.assume_init_read() }).collect()
}

/// Each of the six results, over all runs.
fn join<F>(runs: impl Iterator<Item = [Vec<F>; 6]>) -> [Vec<F>; 6] {
    runs.fold([const { Vec::new() }; 6], |mut all, run| {
        all.iter_mut().zip(run).for_each(|(all, run)| all.extend(run));
        all
    })
}

/// The tolerance rule for gradients that are differences of nearly equal terms: where a query has no or little choice between
/// keys, the true one is 0 or small, and how wrong the plain code is depends on luck. The rounding of the terms, which are of
/// size 1, is allowed besides.
#[track_caller]
fn assert_as_exact_or_cancelled(name: &str, got: &[f32], plain: &[f32], truth: &[f64]) {
    let rounding = 32.0 * f64::from(f32::EPSILON);
    let forgive = |(&got, &truth): (&f32, &f64)| match f64::from(got) - truth {
        off if off.abs() <= rounding => truth as f32,
        off if off.is_finite() => (f64::from(got) - rounding.copysign(off)) as f32,
        _ => got,
    };
    let got: Vec<f32> = got.iter().zip(truth).map(forgive).collect();
    assert_as_exact(name, &got, plain, truth, 2.0);
}

/// k | v apart.
fn unpack(kv: &[f32], hidden: usize) -> (Vec<f32>, Vec<f32>) {
    let part = |start: usize| kv.chunks(2 * hidden).flat_map(move |row| row[start..start + hidden].to_vec());
    (part(0).collect(), part(hidden).collect())
}

/// Writes `value` past the lengths of `[batch, time, width]`.
fn poison(data: &mut [f32], lengths: &[usize], time: usize, width: usize, value: f32) {
    for (sentence, &length) in data.chunks_mut((time * width).max(1)).zip(lengths) {
        sentence[length * width..].fill(value);
    }
}
