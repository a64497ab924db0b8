//! The CPU kernel's way back. A few positions at a time, the states are made again from the last one that was kept,
//! and the gradients pass through them from the last to the first.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use pulp::{Simd, WithSimd};

use super::cpu::{CHUNK, Scan};
use crate::fresh::zeros;
use crate::lanes::{GROUP, Part, Shared, for_each_part, load, vectors};
use crate::simd::{Level, exp2_of_negative, sigmoid, softplus};

/// The gradients of all operands, in their order; `gradient` is that of the packed result.
pub(super) fn backward(level: Level, scan: &Scan<'_>, kept: &[f32], gradient: &[f32]) -> [Vec<f32>; 8] {
    let (batch, time, inner, states) = (scan.lengths.len(), scan.time, scan.inner, scan.states);
    let (mut x, mut delta, mut gate) = (zeros(scan.x.len()), zeros(scan.x.len()), zeros(scan.x.len()));
    // Sums over channels are made group by group, sums over sentences sentence by sentence, and then added in order:
    // they do not depend on the number of threads.
    let mut bc = zeros(inner.div_ceil(GROUP) * scan.bc.len());
    let mut parameters = vec![0.0; batch * (states + 2) * inner];
    let mut initial = vec![0.0; batch * states * inner];
    let to = Targets {
        x: Shared::new(&mut x),
        delta: Shared::new(&mut delta),
        gate: Shared::new(&mut gate),
        bc: Shared::new(&mut bc),
        parameters: Shared::new(&mut parameters),
        initial: Shared::new(&mut initial),
    };
    for_each_part(batch, inner, |part| level.run(Backward { scan, part, kept, gradient, to }));
    let sum = |parts: &[f32], count: usize| {
        let mut total = vec![0.0; count];
        for part in parts.chunks(count.max(1)) {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        total
    };
    let bc = sum(&bc, batch * time * 2 * states);
    let mut parameters = sum(&parameters, (states + 2) * inner);
    let bias = parameters.split_off((states + 1) * inner);
    let skip = parameters.split_off(states * inner);
    let a_log = (0..inner * states).map(|i| parameters[i % states * inner + i / states]).collect();
    [x, delta, bc, gate, a_log, skip, bias, initial]
}

/// Where gradients go: those of the parameters are `[batch, states + 2, inner]`, a_log's transposed, then skip's and
/// the bias'; those of B and C are `[groups, batch, time, 2 * states]`.
#[derive(Clone, Copy)]
struct Targets {
    x: Shared,
    delta: Shared,
    gate: Shared,
    bc: Shared,
    parameters: Shared,
    initial: Shared,
}

struct Backward<'a> {
    scan: &'a Scan<'a>,
    part: Part,
    kept: &'a [f32],
    gradient: &'a [f32],
    to: Targets,
}

/// What one vector of channels makes again at one position.
#[derive(Clone, Copy)]
struct Position<S: Simd> {
    x: S::f32s,
    /// Before softplus.
    delta: S::f32s,
    step: S::f32s,
    /// Before the gate.
    y: S::f32s,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scan, part: Part { batch, group, channels }, kept, gradient, to } = self;
        let length = scan.lengths[batch];
        let (time, inner, states) = (scan.time, scan.inner, scan.states);
        let blocks = channels.len().div_ceil(S::F32_LANES);
        let zero = simd.splat_f32s(0.0);
        // For each vector of channels: the rates, the gradients of the states, and the parameters' gradients.
        let (mut rates, mut dh) = (vec![zero; blocks * states], vec![zero; blocks * states]);
        let mut dparameters = vec![zero; blocks * (states + 2)];
        for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
            scan.rates(simd, from..from + width, &mut rates[block * states..][..states]);
            for (n, dh) in dh[block * states..][..states].iter_mut().enumerate() {
                let row = scan.lengths.len() * time + batch * states + n;
                *dh = load(simd, gradient, row * inner + from, width);
            }
        }
        let nothing = Position::<S> { x: zero, delta: zero, step: zero, y: zero };
        let mut positions = [nothing; CHUNK];
        // For each position and state: the decay, the state after it, and the gradients of B and C.
        let (mut decays, mut after) = (vec![zero; CHUNK * states], vec![zero; (CHUNK + 1) * states]);
        let (mut db, mut dc) = (vec![zero; CHUNK * states], vec![zero; CHUNK * states]);
        for chunk in (0..length.div_ceil(CHUNK)).rev() {
            let (first, count) = (chunk * CHUNK, CHUNK.min(length - chunk * CHUNK));
            db.fill(zero);
            dc.fill(zero);
            for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
                let (rates, dh) = (&rates[block * states..][..states], &mut dh[block * states..][..states]);
                let (skip, bias) = (load(simd, scan.skip, from, width), load(simd, scan.bias, from, width));
                for (n, h) in after[..states].iter_mut().enumerate() {
                    let row = (batch * scan.chunks() + chunk) * states + n;
                    *h = load(simd, kept, row * inner + from, width);
                }
                for (i, position) in positions[..count].iter_mut().enumerate() {
                    let row = batch * time + first + i;
                    let at = row * inner + from;
                    let x = load(simd, scan.x, at, width);
                    let delta = simd.add_f32s(load(simd, scan.delta, at, width), bias);
                    let step = softplus(simd, delta);
                    let u = simd.mul_f32s(step, x);
                    let (b, c) = scan.bc[row * 2 * states..][..2 * states].split_at(states);
                    let (before, after) = after[i * states..][..2 * states].split_at_mut(states);
                    let decays = &mut decays[i * states..][..states];
                    let mut y = zero;
                    for n in 0..states {
                        decays[n] = exp2_of_negative(simd, simd.mul_f32s(step, rates[n]));
                        after[n] = simd.mul_add_f32s(decays[n], before[n], simd.mul_f32s(u, simd.splat_f32s(b[n])));
                        y = simd.mul_add_f32s(after[n], simd.splat_f32s(c[n]), y);
                    }
                    *position = Position { x, delta, step, y: simd.mul_add_f32s(skip, x, y) };
                }
                let (da, others) = dparameters[block * (states + 2)..][..states + 2].split_at_mut(states);
                for i in (0..count).rev() {
                    let Position { x, delta, step, y } = positions[i];
                    let row = batch * time + first + i;
                    let at = row * inner + from;
                    let (dout, gate) = (load(simd, gradient, at, width), load(simd, scan.gate, at, width));
                    let open = sigmoid(simd, gate);
                    // SiLU's derivative is sigmoid (1 + gate (1 - sigmoid)).
                    let slope = simd.mul_f32s(gate, simd.sub_f32s(simd.splat_f32s(1.0), open));
                    let slope = simd.mul_add_f32s(open, slope, open);
                    let dgate = simd.mul_f32s(simd.mul_f32s(dout, y), slope);
                    let dy = simd.mul_f32s(dout, simd.mul_f32s(gate, open));
                    let u = simd.mul_f32s(step, x);
                    let (b, c) = scan.bc[row * 2 * states..][..2 * states].split_at(states);
                    let (before, after) = after[i * states..][..2 * states].split_at(states);
                    let decays = &decays[i * states..][..states];
                    let (db, dc) = (&mut db[i * states..][..states], &mut dc[i * states..][..states]);
                    let (mut du, mut drate) = (zero, zero);
                    for n in 0..states {
                        let g = simd.mul_add_f32s(dy, simd.splat_f32s(c[n]), dh[n]);
                        dc[n] = simd.mul_add_f32s(dy, after[n], dc[n]);
                        db[n] = simd.mul_add_f32s(g, u, db[n]);
                        du = simd.mul_add_f32s(g, simd.splat_f32s(b[n]), du);
                        dh[n] = simd.mul_f32s(g, decays[n]);
                        let along = simd.mul_f32s(dh[n], before[n]);
                        drate = simd.mul_add_f32s(along, rates[n], drate);
                        da[n] = simd.mul_add_f32s(along, step, da[n]);
                    }
                    let dx = simd.mul_add_f32s(du, step, simd.mul_f32s(dy, skip));
                    // The rates are in binary logarithms.
                    let drate = simd.mul_f32s(drate, simd.splat_f32s(std::f32::consts::LN_2));
                    let ddelta = simd.mul_f32s(simd.mul_add_f32s(du, x, drate), sigmoid(simd, delta));
                    others[0] = simd.mul_add_f32s(dy, x, others[0]);
                    others[1] = simd.add_f32s(others[1], ddelta);
                    // SAFETY: these channels are this task's.
                    unsafe {
                        to.x.store(simd, at, width, dx);
                        to.delta.store(simd, at, width, ddelta);
                        to.gate.store(simd, at, width, dgate);
                    }
                }
            }
            for i in 0..count {
                let row = (group * scan.lengths.len() + batch) * time + first + i;
                // SAFETY: the part of this group and this sentence is this task's.
                let bc = unsafe { to.bc.part(row * 2 * states, 2 * states) };
                for n in 0..states {
                    bc[n] = simd.reduce_sum_f32s(db[i * states + n]);
                    bc[states + n] = simd.reduce_sum_f32s(dc[i * states + n]);
                }
            }
        }
        for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
            let parameters = &dparameters[block * (states + 2)..][..states + 2];
            for (n, &parameter) in parameters.iter().enumerate() {
                // Of a_log: that of A times A, which is the rate.
                let parameter = match rates[block * states..][..states].get(n) {
                    Some(&rate) => {
                        simd.mul_f32s(parameter, simd.mul_f32s(rate, simd.splat_f32s(std::f32::consts::LN_2)))
                    }
                    None => parameter,
                };
                // SAFETY: these channels are this task's.
                unsafe { to.parameters.store(simd, (batch * (states + 2) + n) * inner + from, width, parameter) };
            }
            for (n, &dh) in dh[block * states..][..states].iter().enumerate() {
                // SAFETY: as above.
                unsafe { to.initial.store(simd, (batch * states + n) * inner + from, width, dh) };
            }
        }
    }
}
