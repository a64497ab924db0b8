//! One step of a cell on vectors of hidden units: the arithmetic that `recurrent` and `attentive_recurrence` share.
//!
//! Letters are the equations': gates `i f g o` (LSTM) and `r z n` (GRU); a leading `d` is the loss's gradient;
//! `da` is the gradient of a gate's argument.

use pulp::Simd;

use crate::simd::{sigmoid, tanh};

/// `1 - y * y`, the slope of `y = tanh(x)`.
#[inline(always)]
fn tanh_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    simd.negate_mul_add_f32s(y, y, simd.splat_f32s(1.0))
}

/// `y * (1 - y)`, the slope of `y = sigmoid(x)`.
#[inline(always)]
fn sigmoid_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    simd.mul_f32s(y, simd.sub_f32s(simd.splat_f32s(1.0), y))
}

/// An LSTM's step from the gates' arguments: the gates, the cell state and the hidden state.
#[inline(always)]
pub(crate) fn lstm<S: Simd>(simd: S, a: [S::f32s; 4], c_before: S::f32s) -> ([S::f32s; 4], S::f32s, S::f32s) {
    let gates = [sigmoid(simd, a[0]), sigmoid(simd, a[1]), tanh(simd, a[2]), sigmoid(simd, a[3])];
    let c = lstm_cell(simd, gates, c_before);
    (gates, c, simd.mul_f32s(gates[3], tanh(simd, c)))
}

/// `c = f * c_before + i * g`.
#[inline(always)]
fn lstm_cell<S: Simd>(simd: S, [i, f, g, _]: [S::f32s; 4], c_before: S::f32s) -> S::f32s {
    simd.mul_add_f32s(f, c_before, simd.mul_f32s(i, g))
}

/// The gradients of the gates' arguments and of `c_before`, from those of the hidden and the cell state.
#[inline(always)]
pub(crate) fn lstm_backward<S: Simd>(
    simd: S,
    gates: [S::f32s; 4],
    c_before: S::f32s,
    dh: S::f32s,
    dc: S::f32s,
) -> ([S::f32s; 4], S::f32s) {
    let [i, f, g, o] = gates;
    let tanh_c = tanh(simd, lstm_cell(simd, gates, c_before));
    let dc = simd.mul_add_f32s(simd.mul_f32s(dh, o), tanh_slope(simd, tanh_c), dc);
    let da = [
        simd.mul_f32s(simd.mul_f32s(dc, g), sigmoid_slope(simd, i)),
        simd.mul_f32s(simd.mul_f32s(dc, c_before), sigmoid_slope(simd, f)),
        simd.mul_f32s(simd.mul_f32s(dc, i), tanh_slope(simd, g)),
        simd.mul_f32s(simd.mul_f32s(dh, tanh_c), sigmoid_slope(simd, o)),
    ];
    (da, simd.mul_f32s(dc, f))
}

/// A plain recurrent network's step backward: the gradient of the argument, from the new state.
#[inline(always)]
pub(crate) fn rnn_backward<S: Simd>(simd: S, h: S::f32s, dh: S::f32s) -> S::f32s {
    simd.mul_f32s(dh, tanh_slope(simd, h))
}

/// `(1 - z) * n + z * h_before`.
#[inline(always)]
pub(crate) fn gru_blend<S: Simd>(simd: S, z: S::f32s, n: S::f32s, h_before: S::f32s) -> S::f32s {
    simd.mul_add_f32s(z, simd.sub_f32s(h_before, n), n)
}

/// A GRU's step with the reset after the product: `x` are the gates' arguments from the input, `u` those from the
/// state. Returns `r z n` and the new state.
#[inline(always)]
pub(crate) fn gru_after<S: Simd>(
    simd: S,
    x: [S::f32s; 3],
    u: [S::f32s; 3],
    h_before: S::f32s,
) -> ([S::f32s; 3], S::f32s) {
    let r = sigmoid(simd, simd.add_f32s(x[0], u[0]));
    let z = sigmoid(simd, simd.add_f32s(x[1], u[1]));
    let n = tanh(simd, simd.mul_add_f32s(r, u[2], x[2]));
    ([r, z, n], gru_blend(simd, z, n, h_before))
}

/// Back through [`gru_blend`]: the gradients of the arguments of `z` and `n`, and the direct one of `h_before`.
#[inline(always)]
pub(crate) fn gru_blend_backward<S: Simd>(
    simd: S,
    z: S::f32s,
    n: S::f32s,
    h_before: S::f32s,
    dh: S::f32s,
) -> [S::f32s; 3] {
    let dz = simd.mul_f32s(dh, simd.sub_f32s(h_before, n));
    let dn = simd.mul_f32s(dh, simd.sub_f32s(simd.splat_f32s(1.0), z));
    let da_n = simd.mul_f32s(dn, tanh_slope(simd, n));
    [simd.mul_f32s(dz, sigmoid_slope(simd, z)), da_n, simd.mul_f32s(dh, z)]
}

/// The gradient of the argument of `r`, which multiplies `factor`, from that of the product.
#[inline(always)]
pub(crate) fn reset_backward<S: Simd>(simd: S, r: S::f32s, factor: S::f32s, dproduct: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.mul_f32s(dproduct, factor), sigmoid_slope(simd, r))
}
