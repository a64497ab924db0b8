//! Scaled dot-product attention with several heads.  Vaswani et al., arXiv 1706.03762, section 3.2, equation 1.
//!
//!   score = cap tanh(q k^T / (cap sqrt(head_dim))) + bias        the cap and the bias if there are any
//!   out   = dropout(softmax(score)) v                            for each head's columns of q, k and v
//!
//! The scores of a batch are never stored: a tile of queries meets a span of keys at a time, in cache, and the
//! backward pass makes its probabilities again (FlashAttention: Dao et al., arXiv 2205.14135, and 2307.08691). So
//! memory grows with the length, not with its square, and what the mask hides costs nothing.

mod backward;
mod block_mask;
mod cpu;
mod few;
mod flex;
mod memory;
mod portable;
#[cfg(test)]
mod reference;
mod settings;
mod softmax;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};

use crate::dropout::Dropout;
pub use block_mask::BlockMask;
pub use settings::AttentionSettings;

/// How to attend. Queries and keys are aligned at their ends: with Q queries and K keys (of a sentence, padding not
/// counted), query `i` stands at the place `i + K - Q` among the keys.
#[derive(Debug, Clone)]
pub struct AttentionOptions {
    /// How many heads ask: how many columns of queries there are.
    pub num_heads: usize,
    /// How many heads answer, each of them `num_heads / num_kv_heads` asking ones.  Grouped-query attention: Ainslie et
    /// al., arXiv 2305.13245.
    pub num_kv_heads: usize,
    /// Whether a query sees only keys up to its own place. So a few new queries see all of an older cache, and with
    /// more queries than keys the first Q - K queries see nothing.
    pub causal: bool,
    /// How far a query sees: the keys less than this many places away, its own included.
    pub window: Option<usize>,
    /// Squeezes scores between -cap and cap.
    pub softcap: Option<f32>,
    /// What is added to the score of a key by its distance, `[num_heads, 2 * reach - 1]`: column `reach - 1 + d` for a
    /// key `d` places after the query (before it where `d` is negative). It may have a gradient.
    pub bias: Option<Tensor<2>>,
    /// Which blocks of keys each block of queries sees.
    pub blocks: Option<Arc<BlockMask>>,
    /// Dropout on the probabilities; element `((batch * heads + head) * q_time + query) * k_time + key`.
    pub dropout: Dropout,
}

impl AttentionOptions {
    /// Plain attention of all to all.
    pub fn new(num_heads: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads: num_heads,
            causal: false,
            window: None,
            softcap: None,
            bias: None,
            blocks: None,
            dropout: Dropout::NONE,
        }
    }

    /// Attention to what came before.
    pub fn causal(num_heads: usize) -> Self {
        Self { causal: true, ..Self::new(num_heads) }
    }

    fn settings(&self, query_lengths: Option<&[usize]>, key_lengths: Option<&[usize]>) -> AttentionSettings {
        AttentionSettings {
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            causal: self.causal,
            window: self.window,
            softcap: self.softcap,
            blocks: self.blocks.clone(),
            dropout: self.dropout,
            query_lengths: query_lengths.map(<[usize]>::to_vec),
            key_lengths: key_lengths.map(<[usize]>::to_vec),
        }
    }

    /// The bias, or a tensor without elements.
    fn bias_or_none<const D: usize>(&self, like: &Tensor<D>) -> Tensor<2> {
        self.bias.clone().unwrap_or_else(|| Tensor::zeros([self.num_heads, 0], &like.device()))
    }

    /// The columns of a head, of `columns` that `heads` share.
    fn check(&self, name: &str, columns: usize, heads: usize, [q_time, k_time]: [usize; 2]) -> usize {
        let Self { num_heads, num_kv_heads, .. } = *self;
        assert!(
            heads > 0 && columns > 0 && columns.is_multiple_of(heads),
            "{name}: {heads} heads do not divide {columns} columns"
        );
        assert!(
            num_kv_heads > 0 && num_heads.is_multiple_of(num_kv_heads),
            "{name}: {num_kv_heads} heads of keys cannot serve {num_heads} of queries"
        );
        assert!(self.window != Some(0), "{name}: a window of 0 sees nothing");
        assert!(self.softcap.is_none_or(|cap| cap > 0.0), "{name}: a softcap must be positive");
        let longest = q_time.max(k_time);
        if let Some(bias) = &self.bias {
            let [rows, width] = bias.dims();
            assert!(
                rows == num_heads && !width.is_multiple_of(2) && width.div_ceil(2) >= longest,
                "{name}: bias [{rows}, {width}] does not reach over {longest} places for {num_heads} heads"
            );
        }
        if let Some(blocks) = &self.blocks {
            let covered = blocks.longest();
            assert!(covered >= longest, "{name}: the block mask covers {covered} places, the sequence has {longest}");
        }
        columns / heads
    }
}

/// Attention of a sequence to itself.
///
/// `qkv` is `[batch, time, (num_heads + 2 * num_kv_heads) * head_dim]` (q | k | v, head after head in each); `lengths`
/// counts the valid tokens of each sentence, `None` meaning all. The result is `[batch, time, num_heads * head_dim]`.
/// What stands past a sentence's length is never read, be it NaN; there the result and its gradient are zeros. A
/// sentence's result has the same bits alone and in any batch (dropout aside: its choice depends on the place in the
/// batch).
///
/// # Panics
/// If shapes, lengths or options do not fit together.
pub fn self_attention(qkv: Tensor<3>, lengths: Option<&[usize]>, options: &AttentionOptions) -> Tensor<3> {
    let [batch, time, width] = qkv.dims();
    options.check("self_attention", width, options.num_heads + 2 * options.num_kv_heads, [time, time]);
    check_lengths("self_attention", "lengths", lengths, batch, time);
    let settings = options.settings(lengths, lengths);
    let bias = options.bias_or_none(&qkv);
    Tensor::from_dispatch(Dispatch::self_attention_forward(qkv.into_dispatch(), bias.into_dispatch(), settings))
}

/// Attention of one sequence to another, or of new tokens to a cache.
///
/// `q` is `[batch, q_time, num_heads * head_dim]`, `kv` is `[batch, k_time, 2 * num_kv_heads * head_dim]` (k | v), the
/// lengths count valid queries and keys of each sentence. The result has the shape of `q`. As for
/// [`self_attention`], nothing past a length is read. A cache may have a larger capacity (`k_time`) than it holds
/// (`key_lengths`), and may be a view of a larger tensor: it is not copied, and what it does not hold yet costs
/// nothing.
///
/// # Panics
/// If shapes, lengths or options do not fit together.
pub fn cross_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    query_lengths: Option<&[usize]>,
    key_lengths: Option<&[usize]>,
    options: &AttentionOptions,
) -> Tensor<3> {
    let ([batch, q_time, hidden], [kv_batch, k_time, width]) = (q.dims(), kv.dims());
    let head_dim = options.check("cross_attention", hidden, options.num_heads, [q_time, longest(key_lengths, k_time)]);
    assert!(
        kv_batch == batch && width == 2 * options.num_kv_heads * head_dim,
        "cross_attention: kv {:?} does not fit q {:?}",
        kv.dims(),
        q.dims()
    );
    check_lengths("cross_attention", "query_lengths", query_lengths, batch, q_time);
    check_lengths("cross_attention", "key_lengths", key_lengths, batch, k_time);
    let settings = options.settings(query_lengths, key_lengths);
    let bias = options.bias_or_none(&q).into_dispatch();
    Tensor::from_dispatch(Dispatch::cross_attention_forward(q.into_dispatch(), kv.into_dispatch(), bias, settings))
}

/// The probabilities of attention, for showing: `[batch, num_heads, q_time, k_time]`. They have no gradient, and
/// dropout is left out.
///
/// `q` is `[batch, q_time, num_heads * head_dim]`, `k` is `[batch, k_time, num_kv_heads * head_dim]`. A key that a
/// query does not see has probability 0; every other row sums to 1.
///
/// # Panics
/// If shapes, lengths or options do not fit together.
pub fn attention_weights(
    q: Tensor<3>,
    k: Tensor<3>,
    key_lengths: Option<&[usize]>,
    options: &AttentionOptions,
) -> Tensor<4> {
    let ([batch, q_time, hidden], [k_batch, k_time, k_hidden]) = (q.dims(), k.dims());
    let keys = longest(key_lengths, k_time);
    let head_dim = options.check("attention_weights", hidden, options.num_heads, [q_time, keys]);
    assert!(
        k_batch == batch && k_hidden == options.num_kv_heads * head_dim,
        "attention_weights: k {:?} does not fit q {:?}",
        k.dims(),
        q.dims()
    );
    check_lengths("attention_weights", "key_lengths", key_lengths, batch, k_time);
    let settings = options.settings(None, key_lengths);
    let bias = options.bias_or_none(&q).into_dispatch();
    Tensor::from_dispatch(Dispatch::attention_weights_forward(q.into_dispatch(), k.into_dispatch(), bias, settings))
}

/// The most keys that any sentence has.
fn longest(lengths: Option<&[usize]>, time: usize) -> usize {
    lengths.map_or(time, |lengths| lengths.iter().copied().max().unwrap_or(0))
}

fn check_lengths(name: &str, argument: &str, lengths: Option<&[usize]>, batch: usize, time: usize) {
    if let Some(lengths) = lengths {
        assert_eq!(lengths.len(), batch, "{name}: {argument} needs one length for each sentence of the batch");
        let longest = lengths.iter().copied().max().unwrap_or(0);
        assert!(longest <= time, "{name}: {argument} has {longest}, the tensor only {time} steps");
    }
}

/// Attention, as each device runs it. A bias without elements is none.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait AttentionOps: Backend {
    /// See [`self_attention`].
    fn self_attention_forward(
        qkv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let [q, k, v] = split_qkv::<Self>(qkv, &settings);
        portable::forward::<Self>(q, k, v, bias, &settings)
    }

    /// See [`cross_attention`].
    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let [k, v] = split_kv::<Self>(kv);
        portable::forward::<Self>(q, k, v, bias, &settings)
    }

    /// See [`attention_weights`].
    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        portable::weights::<Self>(q, k, bias, &settings)
    }
}

/// What the backward pass of a device may need besides the inputs.
#[derive(Debug, Clone)]
pub struct Kept<B: Backend> {
    /// What the device keeps of the rows of scores.
    pub rows: Option<FloatTensor<B>>,
    /// The result.
    pub out: FloatTensor<B>,
}

/// The forward pass that keeps what the backward pass needs, and the gradients; real devices only.
pub trait AttentionGrad: AttentionOps {
    /// The result, and what is kept.
    fn self_attention_keep(qkv: FloatTensor<Self>, bias: FloatTensor<Self>, settings: AttentionSettings) -> Kept<Self> {
        Kept { rows: None, out: Self::self_attention_forward(qkv, bias, settings) }
    }

    /// The gradients of `qkv` and of the bias from that of the result.
    fn self_attention_grad(
        qkv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        _kept: Kept<Self>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 2] {
        let [q, k, v] = split_qkv::<Self>(qkv, &settings);
        let [dq, dk, dv, dbias] = portable::grad::<Self>(q, k, v, bias, dout, &settings);
        [Self::float_cat(vec![dq, dk, dv], 2), dbias]
    }

    /// The result, and what is kept.
    fn cross_attention_keep(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> Kept<Self> {
        Kept { rows: None, out: Self::cross_attention_forward(q, kv, bias, settings) }
    }

    /// The gradients of `q`, `kv` and the bias from that of the result.
    fn cross_attention_grad(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        _kept: Kept<Self>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 3] {
        let [k, v] = split_kv::<Self>(kv);
        let [dq, dk, dv, dbias] = portable::grad::<Self>(q, k, v, bias, dout, &settings);
        [dq, Self::float_cat(vec![dk, dv], 2), dbias]
    }
}

fn split_qkv<B: Backend>(qkv: FloatTensor<B>, settings: &AttentionSettings) -> [FloatTensor<B>; 3] {
    let (heads, kv_heads) = (settings.num_heads, settings.num_kv_heads);
    let head_dim = qkv.shape()[2] / (heads + 2 * kv_heads);
    [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)]
        .map(|(start, count)| portable::columns::<B>(qkv.clone(), start * head_dim, count * head_dim))
}

fn split_kv<B: Backend>(kv: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let hidden = kv.shape()[2] / 2;
    [0, hidden].map(|start| portable::columns::<B>(kv.clone(), start, hidden))
}

#[cfg(feature = "gpu")]
impl AttentionOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl AttentionGrad for burn::backend::Cube {}
