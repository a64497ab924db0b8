//! Attention by Burn's own operations, for devices without a kernel. It stores the scores of the batch.

use burn::backend::tensor::{Device, FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{Backend, DeviceOps, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};

use super::settings::AttentionSettings;
use crate::dropout;
use crate::host_mask::host_mask;

/// q, k and v of one call, split into heads `[batch, num_heads, time, head_dim]`, padding zeroed, keys and values
/// repeated for all heads that ask them; and the bias.
struct Heads<'a, B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
    settings: &'a AttentionSettings,
}

/// What becomes of scores.
struct Scored<B: Backend> {
    /// `[batch, num_heads, q_time, k_time]`, without dropout.
    probabilities: FloatTensor<B>,
    /// The slope of the softcap at each score.
    slopes: Option<FloatTensor<B>>,
}

/// `q` is `[batch, q_time, hidden]`, `k` and `v` are `[batch, k_time, kv_hidden]`; the result has the shape of `q`.
pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
    settings: &AttentionSettings,
) -> FloatTensor<B> {
    let shape = q.shape();
    if is_empty(&shape, &k.shape()) {
        return zeros_like::<B>(&q);
    }
    let heads = Heads::<B>::new(q, k, v, bias, settings);
    let weights = dropout::portable::<B>(heads.scored().probabilities, settings.dropout);
    joined::<B>(B::float_matmul(weights, heads.v), shape)
}

/// Probabilities `[batch, num_heads, q_time, k_time]`, without dropout.
pub(super) fn weights<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    bias: FloatTensor<B>,
    settings: &AttentionSettings,
) -> FloatTensor<B> {
    let (q_shape, k_shape) = (q.shape(), k.shape());
    if is_empty(&q_shape, &k_shape) {
        let shape = Shape::from([q_shape[0], settings.num_heads, q_shape[1], k_shape[1]]);
        return B::float_zeros(shape, &q.device(), q.dtype().into());
    }
    Heads::<B>::new(q, k.clone(), k, bias, settings).scored().probabilities
}

/// The gradients of `q`, `k`, `v` and the bias, given that of the result.
pub(super) fn grad<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
    dout: FloatTensor<B>,
    settings: &AttentionSettings,
) -> [FloatTensor<B>; 4] {
    let [q_shape, k_shape, v_shape] = [q.shape(), k.shape(), v.shape()];
    if is_empty(&q_shape, &k_shape) {
        return [zeros_like::<B>(&q), zeros_like::<B>(&k), zeros_like::<B>(&v), zeros_like::<B>(&bias)];
    }
    let head_dim = q_shape[2] / settings.num_heads;
    let heads = Heads::<B>::new(q, k, v, bias, settings);
    let dout = split::<B>(without_padding::<B>(dout, &settings.query_lengths), settings.num_heads);
    let Scored { probabilities, slopes } = heads.scored();
    let weights = dropout::portable::<B>(probabilities.clone(), settings.dropout);
    let dv = B::float_matmul(B::float_swap_dims(weights, 2, 3), dout.clone());
    // ds = p * (dp - sum over keys of p * dp)
    let dp = B::float_matmul(dout, B::float_swap_dims(heads.v.clone(), 2, 3));
    let dp = dropout::portable::<B>(dp, settings.dropout);
    let along = B::float_sum_dim(B::float_mul(probabilities.clone(), dp.clone()), 3);
    let ds = B::float_mul(probabilities, B::float_sub(dp, along));
    let dbias = heads.bias_grad(&ds);
    let ds = match slopes {
        Some(slopes) => B::float_mul(ds, slopes),
        None => ds,
    };
    let ds = B::float_mul_scalar(ds, scale(head_dim).into());
    let dq = B::float_matmul(ds.clone(), heads.k);
    let dk = B::float_matmul(B::float_swap_dims(ds, 2, 3), heads.q);
    let group = settings.group();
    [
        joined::<B>(dq, q_shape),
        joined::<B>(summed::<B>(dk, group), k_shape),
        joined::<B>(summed::<B>(dv, group), v_shape),
        dbias,
    ]
}

/// Columns `start..start + size` of the last axis.
pub(super) fn columns<B: Backend>(x: FloatTensor<B>, start: usize, size: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let range = |length: usize| Slice::from(0..length);
    B::float_slice(x, &[range(shape[0]), range(shape[1]), Slice::from(start..start + size)])
}

impl<'a, B: Backend> Heads<'a, B> {
    fn new(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        v: FloatTensor<B>,
        bias: FloatTensor<B>,
        settings: &'a AttentionSettings,
    ) -> Self {
        let keys = |x| {
            let x = split::<B>(without_padding::<B>(x, &settings.key_lengths), settings.num_kv_heads);
            repeated::<B>(x, settings.group())
        };
        let q = split::<B>(without_padding::<B>(q, &settings.query_lengths), settings.num_heads);
        Self { q, k: keys(k), v: keys(v), bias, settings }
    }

    /// Batch, heads, queries, keys.
    fn sizes(&self) -> [usize; 4] {
        let shape = self.q.shape();
        [shape[0], shape[1], shape[2], self.k.shape()[2]]
    }

    fn scored(&self) -> Scored<B> {
        let [batch, num_heads, q_time, k_time] = self.sizes();
        let settings = self.settings;
        let scores = B::float_matmul(self.q.clone(), B::float_swap_dims(self.k.clone(), 2, 3));
        let scores = B::float_mul_scalar(scores, scale(self.q.shape()[3]).into());
        let (scores, slopes) = match settings.softcap {
            Some(cap) => {
                let bent = B::float_tanh(B::float_div_scalar(scores, cap.into()));
                let square = B::float_mul(bent.clone(), bent.clone());
                let slopes = B::float_add_scalar(B::float_neg(square), 1.0.into());
                (B::float_mul_scalar(bent, cap.into()), Some(slopes))
            }
            None => (scores, None),
        };
        let scores = match self.distances() {
            Some(distances) => {
                let added = B::float_select(self.bias.clone(), 1, distances);
                let added = B::float_reshape(added, Shape::from([num_heads, batch, q_time, k_time]));
                B::float_add(scores, B::float_swap_dims(added, 0, 1))
            }
            None => scores,
        };
        let hidden = (0..batch).flat_map(|batch| {
            let sentence = settings.sentence(batch, q_time, k_time);
            (0..q_time).flat_map(move |query| (0..k_time).map(move |key| !sentence.sees(query, key)))
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
        Scored { probabilities: B::float_div(powers, B::float_mask_fill(sum, none, 1.0.into())), slopes }
    }

    /// The column of the bias for each (sentence, query, key), if there is a bias; any for a pair out of its reach,
    /// which no mask leaves.
    fn distances(&self) -> Option<IntTensor<B>> {
        let [batch, _, q_time, k_time] = self.sizes();
        let last = self.bias.shape()[1].checked_sub(1)? as isize;
        let columns = (0..batch).flat_map(|batch| {
            let sentence = self.settings.sentence(batch, q_time, k_time);
            let column = move |query, key: usize| last / 2 + key as isize - sentence.place(query);
            (0..q_time).flat_map(move |query| (0..k_time).map(move |key| column(query, key).clamp(0, last) as i32))
        });
        let columns: Vec<i32> = columns.collect();
        let count = columns.len();
        Some(B::int_from_data(TensorData::new(columns, [count]), &self.q.device()))
    }

    /// The gradient of the bias from that of the scores.
    fn bias_grad(&self, ds: &FloatTensor<B>) -> FloatTensor<B> {
        let [batch, num_heads, q_time, k_time] = self.sizes();
        let zeros = zeros_like::<B>(&self.bias);
        let Some(distances) = self.distances() else { return zeros };
        let shape = Shape::from([num_heads, batch * q_time * k_time]);
        let ds = B::float_reshape(B::float_swap_dims(ds.clone(), 0, 1), shape);
        B::float_select_assign(zeros, 1, distances, ds, IndexingUpdateOp::Add)
    }
}

fn bool_dtype<B: Backend>(device: &Device<B>) -> burn::tensor::BoolDType {
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

/// The other way round.
fn joined<B: Backend>(x: FloatTensor<B>, shape: Shape) -> FloatTensor<B> {
    B::float_reshape(B::float_swap_dims(x, 1, 2), shape)
}

/// Every head `group` times in a row.
fn repeated<B: Backend>(x: FloatTensor<B>, group: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let [batch, heads, time, head_dim] = [shape[0], shape[1], shape[2], shape[3]];
    let x = B::float_reshape(x, Shape::from([batch, heads, 1, time, head_dim]));
    let x = B::float_expand(x, Shape::from([batch, heads, group, time, head_dim]));
    B::float_reshape(x, Shape::from([batch, heads * group, time, head_dim]))
}

/// The sum of every `group` heads in a row.
fn summed<B: Backend>(x: FloatTensor<B>, group: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let [batch, heads, time, head_dim] = [shape[0], shape[1] / group, shape[2], shape[3]];
    let x = B::float_sum_dim(B::float_reshape(x, Shape::from([batch, heads, group, time, head_dim])), 2);
    B::float_reshape(x, Shape::from([batch, heads, time, head_dim]))
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
