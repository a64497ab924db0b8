//! The CPU kernel's way back, from the last chunk to the first. The products of a chunk are made again from the state
//! at its start, which was kept; the gradient of the state goes on to the chunk before.
#![expect(unsafe_code, reason = "tasks write different heads of the same rows")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::cpu::{CHUNK, Part, Scan, copy_rows, scale, scale_panels, scale_rows, up_to_diagonal, whole};
use super::mix::{PITCH, Steps, clear_after, unmix};
use crate::fresh::zeros;
use crate::lanes::Shared;
use crate::panels::pack::{self, panels_size};
use crate::panels::product::{Product, Ramp};
use crate::panels::scratch::{Scratch, pitch, with_scratch};
use crate::simd::Level;

/// The gradients of all operands, in their order; `gradient` is that of the packed result.
pub(super) fn backward(level: Level, scan: &Scan<'_>, kept: &[f32], gradient: &[f32]) -> [Vec<f32>; 6] {
    let (batch, heads, inner) = (scan.lengths.len(), scan.heads, scan.inner());
    let (rows, of_bc) = (batch * scan.time, 2 * scan.groups * scan.states);
    let (mut xbc, mut dt) = (zeros(scan.xbc.len()), vec![0.0; scan.dt.len()]);
    // Sums over heads are made block by block, sums over sentences sentence by sentence, and then added in order: they
    // do not depend on the number of threads.
    let mut bc = zeros(scan.blocks() * rows * of_bc);
    let mut parameters = vec![0.0; batch * heads * 3];
    let mut initial = zeros(scan.initial.len());
    let to = Targets {
        xbc: Shared::new(&mut xbc),
        dt: Shared::new(&mut dt),
        bc: Shared::new(&mut bc),
        parameters: Shared::new(&mut parameters),
        initial: Shared::new(&mut initial),
    };
    scan.for_each_part(|part| {
        with_scratch(|scratch| level.run(Backward { scan, part, scratch, kept, gradient, to }));
    });
    xbc.par_chunks_mut(scan.columns()).with_min_len(CHUNK).enumerate().for_each(|(row, xbc)| {
        for block in 0..scan.blocks() {
            let part = &bc[(block * rows + row) * of_bc..][..of_bc];
            xbc[inner..].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    });
    let [a_log, skip, bias] = [0, 1, 2].map(|parameter| {
        let of_sentence = |batch, head| parameters[(batch * heads + head) * 3 + parameter];
        (0..heads).map(|head| (0..batch).map(|batch| of_sentence(batch, head)).sum()).collect()
    });
    [xbc, dt, a_log, skip, bias, initial]
}

/// Where gradients go. Those of B and C are `[blocks, batch * time, 2 * groups * states]`; those of the parameters are
/// `[batch, heads, 3]`: a_log's, the skip's and the bias'.
#[derive(Clone, Copy)]
struct Targets {
    xbc: Shared,
    dt: Shared,
    bc: Shared,
    parameters: Shared,
    initial: Shared,
}

struct Backward<'a> {
    scan: &'a Scan<'a>,
    part: Part,
    scratch: &'a mut Scratch,
    kept: &'a [f32],
    gradient: &'a [f32],
    to: Targets,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scan, part: Part { batch, group, block, heads }, scratch, kept, gradient, to } = self;
        let (width, states, inner, stride) = (scan.width, scan.states, scan.inner(), scan.columns());
        let (lanes, length, rows) = (S::F32_LANES, scan.lengths[batch], scan.lengths.len() * scan.time);
        let (wide, wide_b, used) = (width.next_multiple_of(lanes), pitch(states), states.next_multiple_of(lanes));
        let most_across = panels_size(width, CHUNK.max(states), lanes).max(panels_size(states, CHUNK, lanes));
        let most_along = panels_size(states.max(CHUNK), width, lanes).max(panels_size(CHUNK, states, lanes));
        let of_chunk = CHUNK * wide_b;
        let [dstates, b, c, db, dc, dbc, products, dproducts, weights, dweights, across, along, dx] = scratch.split([
            heads.len() * states * wide,
            of_chunk,
            of_chunk,
            of_chunk,
            of_chunk,
            of_chunk,
            CHUNK * PITCH,
            CHUNK * PITCH,
            CHUNK * PITCH,
            CHUNK * PITCH,
            most_across,
            most_along,
            CHUNK * wide,
        ]);
        for (head, dstate) in heads.clone().zip(dstates.chunks_exact_mut(states * wide)) {
            copy_rows(&gradient[rows * inner + scan.state_at(batch, head)..], width, width, dstate, wide);
        }
        // For each head, the gradients of a_log, of the skip and of the bias.
        let mut parameters = vec![[0.0f32; 3]; heads.len()];
        for chunk in (0..length.div_ceil(CHUNK)).rev() {
            let (row, count) = (batch * scan.time + chunk * CHUNK, CHUNK.min(length - chunk * CHUNK));
            pack::columns(simd, scan.b(row, group), stride, count, states, across);
            copy_rows(scan.b(row, group), stride, states, &mut b[..count * wide_b], wide_b);
            copy_rows(scan.c(row, group), stride, states, &mut c[..count * wide_b], wide_b);
            simd.vectorize(Product {
                columns: up_to_diagonal(count),
                ..whole(c, [wide_b, 1], across, [count, states, count], products, PITCH)
            });
            (0..count).for_each(|i| clear_after(products, i));
            dproducts.fill(0.0);
            db.fill(0.0);
            dc.fill(0.0);
            let states_of_heads = dstates.chunks_exact_mut(states * wide);
            for ((head, dstate), parameters) in heads.clone().zip(states_of_heads).zip(&mut parameters) {
                let (x, dy) = (scan.x(row, head), &gradient[row * inner + head * width..]);
                let before = &kept[scan.kept_at(batch, chunk, head)..][..states * width];
                let steps = Steps::new(simd, scan, head, row, count);
                pack::columns(simd, x, stride, count, width, across);
                simd.vectorize(Product {
                    columns: up_to_diagonal(count),
                    ..whole(dy, [inner, 1], across, [count, width, count], dweights, PITCH)
                });
                let mixed = unmix(simd, &steps, scan.skip[head], products, dweights, weights, dproducts);
                let from_start = mixed.left.from_start;
                let mut entering = mixed.left.to_end;
                entering.iter_mut().zip(&steps.step).for_each(|(left, step)| *left *= step);

                // x by way of the state at the chunk's end, and within the chunk.
                pack::rows(simd, dstate, wide, states, width, along);
                simd.vectorize(whole(b, [wide_b, 1], along, [count, states, width], dx, wide));
                scale_rows(simd, &mut dx[..count * wide], wide, &entering);
                pack::rows(simd, dy, inner, count, width, along);
                simd.vectorize(Product {
                    from: Ramp::rising(0, count),
                    accumulate: true,
                    ..whole(weights, [1, PITCH], along, [count, count, width], dx, wide)
                });
                for (i, dx) in dx.chunks_exact(wide).take(count).enumerate() {
                    // SAFETY: these heads are this task's.
                    let to = unsafe { to.xbc.part((row + i) * stride + head * width, width) };
                    to.copy_from_slice(&dx[..width]);
                }
                // B, and how much of x enters that state.
                pack::columns(simd, dstate, wide, states, width, across);
                simd.vectorize(whole(x, [stride, 1], across, [count, width, states], dbc, wide_b));
                let dentering = add_scaled(simd, dbc, &entering[..count], b, db, [wide_b, used]);
                // C, and how much of the state at the chunk's start is read.
                pack::columns(simd, before, width, states, width, across);
                simd.vectorize(whole(dy, [inner, 1], across, [count, width, states], dbc, wide_b));
                let dfrom_start = add_scaled(simd, dbc, &from_start[..count], c, dc, [wide_b, used]);
                // How much of that is left at the end.
                let last = count - 1;
                let dleft = dot_rows(simd, dstate, wide, before, width);

                let rate = scan.rate(head);
                let (mut dt, mut dlog) = ([0.0; CHUNK], f64::from(from_start[last] * dleft));
                let mut drate = 0.0;
                for i in 0..last {
                    dlog += f64::from(dentering[i] * entering[i]);
                }
                for i in (0..count).rev() {
                    dlog += f64::from(mixed.log[i] + from_start[i] * dfrom_start[i]);
                    if i < last {
                        dlog -= f64::from(dentering[i] * entering[i]);
                    }
                    let dstep = mixed.step[i] + mixed.left.to_end[i] * dentering[i];
                    dt[i] = (dlog as f32 * rate + dstep) * steps.slope[i];
                    drate += dlog * f64::from(steps.step[i]);
                }
                for (i, &dt) in dt[..count].iter().enumerate() {
                    // SAFETY: these heads are this task's.
                    unsafe { to.dt.part((row + i) * scan.heads + head, 1).fill(dt) };
                }
                parameters[0] += drate as f32 * rate;
                parameters[1] += mixed.skip;
                parameters[2] += dt[..count].iter().sum::<f32>();

                // The state at the chunk's start; `along` holds the gradient of the outputs.
                scale_panels(simd, along, count, width, &from_start);
                scale(simd, dstate, from_start[last]);
                simd.vectorize(Product {
                    accumulate: true,
                    ..whole(c, [1, wide_b], along, [states, count, width], dstate, wide)
                });
            }
            pack::rows(simd, b, wide_b, count, states, along);
            simd.vectorize(Product {
                to: up_to_diagonal(count),
                accumulate: true,
                ..whole(dproducts, [PITCH, 1], along, [count, count, states], dc, wide_b)
            });
            pack::rows(simd, c, wide_b, count, states, along);
            simd.vectorize(Product {
                from: Ramp::rising(0, count),
                accumulate: true,
                ..whole(dproducts, [1, PITCH], along, [count, count, states], db, wide_b)
            });
            for (i, (db, dc)) in db.chunks_exact(wide_b).zip(dc.chunks_exact(wide_b)).take(count).enumerate() {
                let at = ((block * rows + row + i) * 2 * scan.groups + group) * states;
                // SAFETY: the parts of this group in this block are this task's.
                unsafe {
                    to.bc.part(at, states).copy_from_slice(&db[..states]);
                    to.bc.part(at + scan.groups * states, states).copy_from_slice(&dc[..states]);
                }
            }
        }
        let dstates = dstates.chunks_exact(states * wide);
        for ((head, dstate), parameters) in heads.zip(dstates).zip(&parameters) {
            // SAFETY: these heads are this task's.
            unsafe {
                let to_initial = to.initial.part(scan.state_at(batch, head), states * width);
                copy_rows(dstate, wide, width, to_initial, width);
                to.parameters.part((batch * scan.heads + head) * 3, 3).copy_from_slice(parameters);
            }
        }
    }
}

/// Adds rows times their factors to `sums`, and returns the gradients of the factors where `others` is what the rows
/// are multiplied with. All are `wide` apart and hold `used` values, whole vectors.
#[inline(always)]
fn add_scaled<S: Simd>(
    simd: S,
    rows: &[f32],
    factors: &[f32],
    others: &[f32],
    sums: &mut [f32],
    [wide, used]: [usize; 2],
) -> [f32; CHUNK] {
    let mut dots = [0.0; CHUNK];
    let rows = rows.chunks_exact(wide).zip(others.chunks_exact(wide)).zip(sums.chunks_exact_mut(wide));
    for (((row, other), sum), (&factor, to)) in rows.zip(factors.iter().zip(&mut dots)) {
        let (row, _) = S::as_simd_f32s(&row[..used]);
        let (other, _) = S::as_simd_f32s(&other[..used]);
        let (sum, _) = S::as_mut_simd_f32s(&mut sum[..used]);
        let mut dot = simd.splat_f32s(0.0);
        for ((&value, &other), sum) in row.iter().zip(other).zip(sum) {
            *sum = simd.mul_add_f32s(value, simd.splat_f32s(factor), *sum);
            dot = simd.mul_add_f32s(value, other, dot);
        }
        *to = simd.reduce_sum_f32s(dot);
    }
    dots
}

/// The sum of the products of rows of `width` values, `a_stride` apart in `a`.
#[inline(always)]
fn dot_rows<S: Simd>(simd: S, a: &[f32], a_stride: usize, b: &[f32], width: usize) -> f32 {
    let (mut sums, mut rest) = (simd.splat_f32s(0.0), 0.0);
    for (a, b) in a.chunks_exact(a_stride).zip(b.chunks_exact(width)) {
        let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(&a[..width]), S::as_simd_f32s(b));
        for (&a, &b) in a.iter().zip(b) {
            sums = simd.mul_add_f32s(a, b, sums);
        }
        for (&a, &b) in a_rest.iter().zip(b_rest) {
            rest += a * b;
        }
    }
    simd.reduce_sum_f32s(sums) + rest
}
