//! The CPU kernel's way back. A few positions at a time, the states are made again from the last one that was kept,
//! and the gradients pass through them from the last to the first.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use pulp::{Simd, WithSimd};

use super::cpu::{CHUNK, Position, State, Wkv};
use crate::fresh::zeros;
use crate::lanes::{Part, Shared, for_each_part, load, vectors};
use crate::simd::{Level, sigmoid};

/// The gradients of all operands, in their order; `gradient` is that of the packed result.
pub(super) fn backward(level: Level, wkv: &Wkv<'_>, kept: &[f32], gradient: &[f32]) -> [Vec<f32>; 6] {
    let (batch, hidden) = (wkv.lengths.len(), wkv.hidden);
    let [mut receptance, mut key, mut value] = std::array::from_fn(|_| zeros(wkv.key.len()));
    let mut initial = vec![0.0; wkv.initial.len()];
    // Of decay and bonus, for each sentence: added in order, so that they do not depend on the threads.
    let mut parameters = vec![0.0; batch * 2 * hidden];
    let to = Targets {
        receptance: Shared::new(&mut receptance),
        key: Shared::new(&mut key),
        value: Shared::new(&mut value),
        parameters: Shared::new(&mut parameters),
        initial: Shared::new(&mut initial),
    };
    for_each_part(batch, hidden, |part| level.run(Backward { wkv, part, kept, gradient, to }));
    let mut decay = vec![0.0; 2 * hidden];
    for part in parameters.chunks(decay.len().max(1)) {
        decay.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    let bonus = decay.split_off(hidden);
    [receptance, key, value, decay, bonus, initial]
}

/// Where gradients go; those of the parameters are `[batch, 2, hidden]`.
#[derive(Clone, Copy)]
struct Targets {
    receptance: Shared,
    key: Shared,
    value: Shared,
    parameters: Shared,
    initial: Shared,
}

struct Backward<'a> {
    wkv: &'a Wkv<'a>,
    part: Part,
    kept: &'a [f32],
    gradient: &'a [f32],
    to: Targets,
}

/// What one vector of channels carries from the last position to the first: the gradients of its state and parameters.
#[derive(Clone, Copy)]
struct Carried<S: Simd> {
    numerator: S::f32s,
    denominator: S::f32s,
    /// Of the exponent, apart from what it does to the sums: they are what they are, however they are scaled. It belongs
    /// to the key that the exponent comes from.
    exponent: S::f32s,
    decay: S::f32s,
    bonus: S::f32s,
}

impl<S: Simd> Carried<S> {
    /// From the gradient of the last state.
    #[inline(always)]
    fn new(simd: S, last: State<S>, gradient: State<S>) -> Self {
        // a' = a exp(-p): the gradient of p at given sums has a part -a' da'.
        let exponent = simd.negate_mul_add_f32s(last.numerator, gradient.numerator, gradient.exponent);
        let exponent = simd.negate_mul_add_f32s(last.denominator, gradient.denominator, exponent);
        let zero = simd.splat_f32s(0.0);
        let State { numerator, denominator, .. } = gradient;
        Self { numerator, denominator, exponent, decay: zero, bonus: zero }
    }

    /// That of the first state.
    #[inline(always)]
    fn initial(&self, simd: S, initial: State<S>) -> State<S> {
        let exponent = simd.mul_add_f32s(initial.numerator, self.numerator, self.exponent);
        let exponent = simd.mul_add_f32s(initial.denominator, self.denominator, exponent);
        State { numerator: self.numerator, denominator: self.denominator, exponent }
    }

    /// Past a position: the gradients of receptance, key and value, from that of the output.
    #[inline(always)]
    fn pass(&mut self, simd: S, at: Position<S>, [receptance, value, output]: [S::f32s; 3]) -> [S::f32s; 3] {
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        let Position { before, read, kept, numerator, denominator } = at;
        let inverse = simd.div_f32s(one, denominator);
        let wkv = simd.mul_f32s(numerator, inverse);
        let open = sigmoid(simd, receptance);
        let dwkv = simd.mul_f32s(output, open);
        let dreceptance = simd.mul_f32s(simd.mul_f32s(dwkv, wkv), simd.sub_f32s(one, open));
        // Of the output: y = a / b has the gradients 1 / b and -y / b.
        let upon = simd.mul_f32s(dwkv, inverse);
        let of_new = simd.mul_f32s(upon, read.new);
        let dbonus = simd.mul_f32s(of_new, simd.sub_f32s(value, wkv));
        self.bonus = simd.add_f32s(self.bonus, dbonus);
        // Of the state after this position.
        let added = simd.mul_add_f32s(self.numerator, value, self.denominator);
        let dkey = simd.mul_add_f32s(kept.new, added, dbonus);
        let dkey = simd.add_f32s(dkey, simd.select_f32s(kept.is_older, zero, self.exponent));
        let dvalue = simd.mul_add_f32s(self.numerator, kept.new, of_new);
        self.exponent = simd.select_f32s(kept.is_older, self.exponent, zero);
        let (numerator, denominator) =
            (simd.mul_f32s(self.numerator, kept.old), simd.mul_f32s(self.denominator, kept.old));
        let along = simd.mul_add_f32s(denominator, before.denominator, self.exponent);
        let along = simd.mul_add_f32s(numerator, before.numerator, along);
        self.decay = simd.sub_f32s(self.decay, along);
        let of_old = simd.mul_f32s(upon, read.old);
        self.numerator = simd.add_f32s(numerator, of_old);
        self.denominator = simd.negate_mul_add_f32s(of_old, wkv, denominator);
        [dreceptance, dkey, dvalue]
    }
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { wkv, part: Part { batch, channels, .. }, kept, gradient, to } = self;
        let (time, hidden, length) = (wkv.time, wkv.hidden, wkv.lengths[batch]);
        let (gradient, of_states) = gradient.split_at(wkv.lengths.len() * time * hidden);
        let mut blocks = Vec::with_capacity(channels.len().div_ceil(S::F32_LANES));
        for (from, width) in vectors::<S>(&channels) {
            let parameters = [load(simd, wkv.decay, from, width), load(simd, wkv.bonus, from, width)];
            let last = State::<S>::load(simd, kept, hidden, (batch + 1) * wkv.states() - 1, from, width);
            let of_last = State::<S>::load(simd, of_states, hidden, batch, from, width);
            blocks.push((parameters, Carried::new(simd, last, of_last)));
        }
        let mut positions = Vec::with_capacity(CHUNK);
        for chunk in (0..length.div_ceil(CHUNK)).rev() {
            let range = chunk * CHUNK..length.min((chunk + 1) * CHUNK);
            for ((from, width), (parameters, carried)) in vectors::<S>(&channels).zip(&mut blocks) {
                let mut state = State::<S>::load(simd, kept, hidden, batch * wkv.states() + chunk, from, width);
                positions.clear();
                for t in range.clone() {
                    let at = (batch * time + t) * hidden + from;
                    let (key, value) = (load(simd, wkv.key, at, width), load(simd, wkv.value, at, width));
                    let (position, after) = Position::pass(simd, state, *parameters, key, value);
                    positions.push(position);
                    state = after;
                }
                for (t, &position) in range.clone().zip(&positions).rev() {
                    let at = (batch * time + t) * hidden + from;
                    let receptance = load(simd, wkv.receptance, at, width);
                    let (value, output) = (load(simd, wkv.value, at, width), load(simd, gradient, at, width));
                    let [dreceptance, dkey, dvalue] = carried.pass(simd, position, [receptance, value, output]);
                    // SAFETY: these channels are this task's.
                    unsafe {
                        to.receptance.store(simd, at, width, dreceptance);
                        to.key.store(simd, at, width, dkey);
                        to.value.store(simd, at, width, dvalue);
                    }
                }
            }
        }
        for ((from, width), (_, carried)) in vectors::<S>(&channels).zip(&blocks) {
            let initial = carried.initial(simd, State::load(simd, wkv.initial, hidden, batch, from, width));
            // SAFETY: these channels are this task's.
            unsafe {
                to.parameters.store(simd, 2 * batch * hidden + from, width, carried.decay);
                to.parameters.store(simd, (2 * batch + 1) * hidden + from, width, carried.bonus);
                initial.store(simd, to.initial, hidden, batch, from, width);
            }
        }
    }
}
