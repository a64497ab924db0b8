//! Scaled dot-product attention with several heads.  Vaswani et al., arXiv 1706.03762, section 3.2, equation 1.
//!
//!   out = dropout(softmax(q k^T / sqrt(head_dim))) v      for each head's columns of q, k and v
//!
//! The scores of a batch are never stored: a block of queries goes through scores, softmax and values while it is
//! in cache, and the backward pass makes its probabilities again (after Dao et al., arXiv 2205.14135). Keys that a
//! causal mask hides are not computed.

mod backward;
mod cpu;
mod few;
mod flex;
pub(crate) mod memory;
pub(crate) mod pack;
mod portable;
pub(crate) mod product;
#[cfg(test)]
mod reference;
mod settings;
mod softmax;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};

use crate::dropout::Dropout;
pub use settings::AttentionSettings;

/// How to attend. Scores are scaled by `1 / sqrt(head_dim)`, where `head_dim` is `hidden / num_heads`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions {
    /// How many heads share the hidden axis; they must divide it.
    pub num_heads: usize,
    /// Whether a query sees only keys up to its own place. Queries and keys are aligned at their ends: with Q
    /// queries and K keys (of a sentence, padding not counted), query `i` sees the keys `j <= i + K - Q`. So a
    /// few new queries see all of an older cache, and if Q is larger the first Q - K queries see nothing.
    pub causal: bool,
    /// Dropout on the probabilities; element `((batch * heads + head) * q_time + query) * k_time + key`.
    pub dropout: Dropout,
}

impl AttentionOptions {
    fn settings(&self, query_lengths: Option<&[usize]>, key_lengths: Option<&[usize]>) -> AttentionSettings {
        AttentionSettings {
            num_heads: self.num_heads,
            causal: self.causal,
            dropout: self.dropout,
            query_lengths: query_lengths.map(<[usize]>::to_vec),
            key_lengths: key_lengths.map(<[usize]>::to_vec),
        }
    }
}

/// Attention of a sequence to itself.
///
/// `qkv` is `[batch, time, 3 * hidden]` (q | k | v, head after head in each); `lengths` counts the valid tokens
/// of each sentence, `None` meaning all. The result is `[batch, time, hidden]`. What stands past a sentence's
/// length is never read, be it NaN; there the result and its gradient are zeros. A sentence's result has the
/// same bits alone and in any batch (dropout aside: its choice depends on the place in the batch).
///
/// # Panics
/// If shapes, lengths or the number of heads do not fit together.
pub fn self_attention(qkv: Tensor<3>, lengths: Option<&[usize]>, options: &AttentionOptions) -> Tensor<3> {
    let [batch, time, width] = qkv.dims();
    assert!(width.is_multiple_of(3), "self_attention: the last axis of qkv {:?} is not q | k | v", qkv.dims());
    check_heads("self_attention", width / 3, options.num_heads);
    check_lengths("self_attention", "lengths", lengths, batch, time);
    let settings = options.settings(lengths, lengths);
    Tensor::from_dispatch(Dispatch::self_attention_forward(qkv.into_dispatch(), settings))
}

/// Attention of one sequence to another, or of new tokens to a cache.
///
/// `q` is `[batch, q_time, hidden]`, `kv` is `[batch, k_time, 2 * hidden]` (k | v), the lengths count valid
/// queries and keys of each sentence. The result has the shape of `q`. As for [`self_attention`], nothing past
/// a length is read. A cache may have a larger capacity (`k_time`) than it holds (`key_lengths`), and may be a
/// view of a larger tensor: it is not copied, and what it does not hold yet costs nothing.
///
/// # Panics
/// If shapes, lengths or the number of heads do not fit together.
pub fn cross_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    query_lengths: Option<&[usize]>,
    key_lengths: Option<&[usize]>,
    options: &AttentionOptions,
) -> Tensor<3> {
    let ([batch, q_time, hidden], [kv_batch, k_time, width]) = (q.dims(), kv.dims());
    assert!(
        kv_batch == batch && width == 2 * hidden,
        "cross_attention: kv {:?} does not fit q {:?}",
        kv.dims(),
        q.dims()
    );
    check_heads("cross_attention", hidden, options.num_heads);
    check_lengths("cross_attention", "query_lengths", query_lengths, batch, q_time);
    check_lengths("cross_attention", "key_lengths", key_lengths, batch, k_time);
    let settings = options.settings(query_lengths, key_lengths);
    Tensor::from_dispatch(Dispatch::cross_attention_forward(q.into_dispatch(), kv.into_dispatch(), settings))
}

/// The probabilities of attention, for showing: `[batch, heads, q_time, k_time]`. They have no gradient, and
/// dropout is left out.
///
/// `q` is `[batch, q_time, hidden]`, `k` is `[batch, k_time, hidden]`. A key that a query does not see has
/// probability 0; every other row sums to 1.
///
/// # Panics
/// If shapes, lengths or the number of heads do not fit together.
pub fn attention_weights(
    q: Tensor<3>,
    k: Tensor<3>,
    key_lengths: Option<&[usize]>,
    options: &AttentionOptions,
) -> Tensor<4> {
    let ([batch, _, hidden], [k_batch, k_time, k_hidden]) = (q.dims(), k.dims());
    assert!(
        k_batch == batch && k_hidden == hidden,
        "attention_weights: k {:?} does not fit q {:?}",
        k.dims(),
        q.dims()
    );
    check_heads("attention_weights", hidden, options.num_heads);
    check_lengths("attention_weights", "key_lengths", key_lengths, batch, k_time);
    let settings = options.settings(None, key_lengths);
    Tensor::from_dispatch(Dispatch::attention_weights_forward(q.into_dispatch(), k.into_dispatch(), settings))
}

fn check_heads(name: &str, hidden: usize, num_heads: usize) {
    assert!(
        num_heads > 0 && hidden > 0 && hidden.is_multiple_of(num_heads),
        "{name}: {num_heads} heads do not divide {hidden} columns"
    );
}

fn check_lengths(name: &str, argument: &str, lengths: Option<&[usize]>, batch: usize, time: usize) {
    if let Some(lengths) = lengths {
        assert_eq!(lengths.len(), batch, "{name}: {argument} needs one length for each sentence of the batch");
        let longest = lengths.iter().copied().max().unwrap_or(0);
        assert!(longest <= time, "{name}: {argument} has {longest}, the tensor only {time} steps");
    }
}

/// Attention, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait AttentionOps: Backend {
    /// See [`self_attention`].
    fn self_attention_forward(qkv: FloatTensor<Self>, settings: AttentionSettings) -> FloatTensor<Self> {
        let [q, k, v] = split_qkv::<Self>(qkv);
        portable::forward::<Self>(q, k, v, &settings)
    }

    /// See [`cross_attention`].
    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let [k, v] = split_kv::<Self>(kv);
        portable::forward::<Self>(q, k, v, &settings)
    }

    /// See [`attention_weights`].
    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        portable::weights::<Self>(q, k, &settings)
    }
}

/// The forward pass that keeps what the backward pass needs, and the gradients; real devices only.
pub trait AttentionGrad: AttentionOps {
    /// The result, and what the device wants kept of the rows of scores.
    fn self_attention_keep(
        qkv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        (Self::self_attention_forward(qkv, settings), None)
    }

    /// The gradient of `qkv` from that of the result.
    fn self_attention_grad(
        qkv: FloatTensor<Self>,
        _kept: Option<FloatTensor<Self>>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let [q, k, v] = split_qkv::<Self>(qkv);
        Self::float_cat(portable::grad::<Self>(q, k, v, dout, &settings).into(), 2)
    }

    /// The result, and what the device wants kept of the rows of scores.
    fn cross_attention_keep(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        (Self::cross_attention_forward(q, kv, settings), None)
    }

    /// The gradients of `q` and `kv` from that of the result.
    fn cross_attention_grad(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        _kept: Option<FloatTensor<Self>>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 2] {
        let [k, v] = split_kv::<Self>(kv);
        let [dq, dk, dv] = portable::grad::<Self>(q, k, v, dout, &settings);
        [dq, Self::float_cat(vec![dk, dv], 2)]
    }
}

fn split_qkv<B: Backend>(qkv: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let hidden = qkv.shape()[2] / 3;
    [0, 1, 2].map(|part| portable::columns::<B>(qkv.clone(), part, hidden))
}

fn split_kv<B: Backend>(kv: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let hidden = kv.shape()[2] / 2;
    [0, 1].map(|part| portable::columns::<B>(kv.clone(), part, hidden))
}

#[cfg(feature = "gpu")]
impl AttentionOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl AttentionGrad for burn::backend::Cube {}
