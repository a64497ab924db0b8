//! Attention by Burn's own operations, for devices without a kernel. It stores the scores of the batch.

use burn::backend::tensor::{Device, FloatTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::settings::AttentionSettings;
use crate::dropout;
use crate::host_mask::host_mask;

/// q, k and v of one call, split into heads `[batch, heads, time, head_dim]`, padding zeroed.
struct Heads<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
}

/// `q` is `[batch, q_time, hidden]`, `k` and `v` are `[batch, k_time, hidden]`; the result has the shape of `q`.
pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    settings: &AttentionSettings,
) -> FloatTensor<B> {
    let shape = q.shape();
    if is_empty(&shape, &k.shape()) {
        return zeros_like::<B>(&q);
    }
    let heads = Heads::<B>::new(q, k, v, settings);
    let weights = dropout::portable::<B>(heads.probabilities(settings), settings.dropout);
    B::float_reshape(B::float_swap_dims(B::float_matmul(weights, heads.v), 1, 2), shape)
}

/// Probabilities `[batch, heads, q_time, k_time]`, without dropout.
pub(super) fn weights<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    settings: &AttentionSettings,
) -> FloatTensor<B> {
    let (q_shape, k_shape) = (q.shape(), k.shape());
    if is_empty(&q_shape, &k_shape) {
        let shape = Shape::from([q_shape[0], settings.num_heads, q_shape[1], k_shape[1]]);
        return B::float_zeros(shape, &q.device(), q.dtype().into());
    }
    Heads::<B>::new(q, k.clone(), k, settings).probabilities(settings)
}

/// The gradients of `q`, `k` and `v`, given that of the result.
pub(super) fn grad<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    dout: FloatTensor<B>,
    settings: &AttentionSettings,
) -> [FloatTensor<B>; 3] {
    let shapes = [q.shape(), k.shape(), v.shape()];
    if is_empty(&shapes[0], &shapes[1]) {
        return [zeros_like::<B>(&q), zeros_like::<B>(&k), zeros_like::<B>(&v)];
    }
    let head_dim = shapes[0][2] / settings.num_heads;
    let heads = Heads::<B>::new(q, k, v, settings);
    let dout = split::<B>(without_padding::<B>(dout, &settings.query_lengths), settings.num_heads);
    let probabilities = heads.probabilities(settings);
    let weights = dropout::portable::<B>(probabilities.clone(), settings.dropout);
    let dv = B::float_matmul(B::float_swap_dims(weights, 2, 3), dout.clone());
    // ds = p * (dp - sum over keys of p * dp) / sqrt(head_dim)
    let dp = B::float_matmul(dout, B::float_swap_dims(heads.v, 2, 3));
    let dp = dropout::portable::<B>(dp, settings.dropout);
    let along = B::float_sum_dim(B::float_mul(probabilities.clone(), dp.clone()), 3);
    let ds = B::float_mul(probabilities, B::float_sub(dp, along));
    let ds = B::float_mul_scalar(ds, scale(head_dim).into());
    let dq = B::float_matmul(ds.clone(), heads.k);
    let dk = B::float_matmul(B::float_swap_dims(ds, 2, 3), heads.q);
    let [q_shape, k_shape, v_shape] = shapes;
    let join = |x, shape| B::float_reshape(B::float_swap_dims(x, 1, 2), shape);
    [join(dq, q_shape), join(dk, k_shape), join(dv, v_shape)]
}

/// Columns `part * size..` of the last axis, `size` of them.
pub(super) fn columns<B: Backend>(x: FloatTensor<B>, part: usize, size: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let range = |length: usize| Slice::from(0..length);
    B::float_slice(x, &[range(shape[0]), range(shape[1]), Slice::from(part * size..(part + 1) * size)])
}

impl<B: Backend> Heads<B> {
    fn new(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, settings: &AttentionSettings) -> Self {
        let part = |x, lengths: &Option<Vec<usize>>| split::<B>(without_padding::<B>(x, lengths), settings.num_heads);
        Self {
            q: part(q, &settings.query_lengths),
            k: part(k, &settings.key_lengths),
            v: part(v, &settings.key_lengths),
        }
    }

    fn probabilities(&self, settings: &AttentionSettings) -> FloatTensor<B> {
        let (q_shape, k_shape) = (self.q.shape(), self.k.shape());
        let (batch, num_heads, q_time, head_dim) = (q_shape[0], q_shape[1], q_shape[2], q_shape[3]);
        let k_time = k_shape[2];
        let scores = B::float_matmul(self.q.clone(), B::float_swap_dims(self.k.clone(), 2, 3));
        let scores = B::float_mul_scalar(scores, scale(head_dim).into());
        let hidden = (0..batch).flat_map(|batch| {
            let sentence = settings.sentence(batch, q_time, k_time);
            (0..q_time).flat_map(move |query| {
                let seen = if query < sentence.queries { sentence.seen(query) } else { 0 };
                (0..k_time).map(move |key| key >= seen)
            })
        });
        let device = self.q.device();
        let hidden = host_mask::<B, 4>(hidden.collect(), [batch, 1, q_time, k_time], &device);
        let hidden = B::bool_expand(hidden, Shape::from([batch, num_heads, q_time, k_time]));
        // A row that sees no key is equal everywhere here, and all zeros once it is masked again.
        let scores = B::float_mask_fill(scores, hidden.clone(), f32::MIN.into());
        let most = B::float_max_dim(scores.clone(), 3);
        let powers = B::float_mask_fill(B::float_exp(B::float_sub(scores, most)), hidden, 0.0.into());
        let sum = B::float_sum_dim(powers.clone(), 3);
        let none = B::float_equal_elem(sum.clone(), 0.0.into(), bool_dtype::<B>(&device));
        B::float_div(powers, B::float_mask_fill(sum, none, 1.0.into()))
    }
}

fn bool_dtype<B: Backend>(device: &Device<B>) -> burn::tensor::BoolDType {
    use burn::backend::DeviceOps;
    device.defaults().bool_dtype
}

fn scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

fn is_empty(q: &Shape, k: &Shape) -> bool {
    q.num_elements() == 0 || k.num_elements() == 0
}

fn zeros_like<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(x.shape(), &x.device(), x.dtype().into())
}

/// `[batch, time, hidden]` as `[batch, heads, time, head_dim]`.
fn split<B: Backend>(x: FloatTensor<B>, num_heads: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let shape = Shape::from([shape[0], shape[1], num_heads, shape[2] / num_heads]);
    B::float_swap_dims(B::float_reshape(x, shape), 1, 2)
}

/// Zeros where `x` `[batch, time, hidden]` is past its sentence's length.
fn without_padding<B: Backend>(x: FloatTensor<B>, lengths: &Option<Vec<usize>>) -> FloatTensor<B> {
    let Some(lengths) = lengths else { return x };
    let shape = x.shape();
    let (batch, time) = (shape[0], shape[1]);
    let past: Vec<bool> = lengths.iter().flat_map(|&length| (0..time).map(move |t| t >= length)).collect();
    let past = host_mask::<B, 3>(past, [batch, time, 1], &x.device());
    B::float_mask_fill(x, B::bool_expand(past, shape), 0.0.into())
}
