//! Additive attention, and the recurrent decoder that reads its source by it.
//! Bahdanau, Cho & Bengio, arXiv 1409.0473, section 3.1 and appendix A.1.2 and A.2.2.
//!
//!   e_ij = v_a . tanh(W_a s_{i-1} + U_a h_j),  alpha_i = softmax(e_i),  c_i = sum_j alpha_ij h_j
//!
//! | paper        | here      | shape                               |
//! |--------------|-----------|-------------------------------------|
//! | W_a s_{i-1}  | `query`   | `[batch, attention]`                |
//! | U_a h_j      | `keys`    | `[batch, source_time, attention]`   |
//! | h_j          | `values`  | `[batch, source_time, enc]`         |
//! | v_a          | `score`   | `[attention]`                       |
//! | alpha_ij     | `weights` | `[batch, source_time]`              |
//! | c_i          | `context` | `[batch, enc]`                      |

mod backward;
mod cpu;
mod portable;
mod recurrence;
#[cfg(test)]
mod reference;
mod rows;
#[cfg(test)]
mod tests;

pub use recurrence::{
    AttentiveForward, AttentiveGrad, AttentiveInputs, AttentiveKept, AttentiveOps, AttentiveOutputs,
    AttentiveRecurrence, AttentiveTensors, attentive_recurrence,
};

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// One query per sentence over that sentence's source.
///
/// `query` `[batch, attention]` and `keys` `[batch, source_time, attention]` are projected already; `values` are
/// `[batch, source_time, enc]`, `score` `[attention]`; `lengths` are the sentences' (all of `source_time` if absent).
///
/// Returns the contexts `[batch, enc]` and the weights `[batch, source_time]`, both with gradients. Positions
/// past a length have weight zero and are never read; a sentence of length 0 gives zeros.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `source_time`.
pub fn additive_attention(
    query: Tensor<2>,
    keys: Tensor<3>,
    values: Tensor<3>,
    score: Tensor<1>,
    lengths: Option<&[usize]>,
) -> (Tensor<2>, Tensor<2>) {
    let [batch, source_time, query_size] = keys.dims();
    let size = values.dims()[2];
    assert_eq!(query.dims(), [batch, query_size], "additive_attention: query for keys {:?}", keys.dims());
    assert_eq!(values.dims(), [batch, source_time, size], "additive_attention: values for keys {:?}", keys.dims());
    assert_eq!(score.dims(), [query_size], "additive_attention: score for keys {:?}", keys.dims());
    let lengths = checked_lengths("additive_attention: source", lengths, batch, source_time);
    let packed: Tensor<2> = Tensor::from_dispatch(Dispatch::additive_attention_forward(
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        score.into_dispatch(),
        lengths,
    ));
    (packed.clone().slice([0..batch, 0..size]), packed.slice([0..batch, size..size + source_time]))
}

/// The lengths of `batch` sentences of at most `time` positions.
fn checked_lengths(what: &str, lengths: Option<&[usize]>, batch: usize, time: usize) -> Vec<usize> {
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "{what} lengths {lengths:?} for {batch} sentences of at most {time} positions"
    );
    lengths
}

/// Additive attention, as each device runs it. The result is contexts and weights, `[batch, enc + source_time]`.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait AdditiveAttentionOps: Backend {
    /// See [`additive_attention`].
    fn additive_attention_forward(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        score: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>(query, keys, values, score, &lengths)
    }
}

/// The gradients of [`AdditiveAttentionOps`]; real devices only.
pub trait AdditiveAttentionGrad: Backend {
    /// The gradients of `query`, `keys`, `values` and `score`, from that of the result.
    fn additive_attention_grad(
        kept: AdditiveAttentionKept<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 4] {
        portable::backward::<Self>(kept, gradient, lengths)
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
pub struct AdditiveAttentionKept<B: Backend> {
    /// The projected queries.
    pub query: FloatTensor<B>,
    /// The projected keys.
    pub keys: FloatTensor<B>,
    /// The values.
    pub values: FloatTensor<B>,
    /// The score vector.
    pub score: FloatTensor<B>,
    /// The result: contexts and weights.
    pub packed: FloatTensor<B>,
}

#[cfg(feature = "gpu")]
impl AdditiveAttentionOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl AdditiveAttentionGrad for burn::backend::Cube {}

impl AdditiveAttentionOps for Flex {
    fn additive_attention_forward(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        score: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let (query, keys) = (Values::new(query), Values::new(keys));
        let (values, score) = (Values::new(values), Values::new(score));
        let [batch, source_time, query_size] = keys.shape().dims();
        let sizes = cpu::Sizes { source_time, query_size, size: values.shape()[2] };
        let inputs = cpu::Inputs {
            query: query.f32(),
            keys: keys.f32(),
            values: values.f32(),
            score: score.f32(),
            lengths: &lengths,
        };
        tensor(cpu::forward(Level::best(), inputs, sizes), [batch, sizes.size + source_time])
    }
}

impl AdditiveAttentionGrad for Flex {
    fn additive_attention_grad(
        kept: AdditiveAttentionKept<Self>,
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 4] {
        let (query, keys) = (Values::new(kept.query), Values::new(kept.keys));
        let (values, score) = (Values::new(kept.values), Values::new(kept.score));
        let (packed, gradient) = (Values::new(kept.packed), Values::new(gradient));
        let [_, source_time, query_size] = keys.shape().dims();
        let sizes = cpu::Sizes { source_time, query_size, size: values.shape()[2] };
        let inputs =
            cpu::Inputs { query: query.f32(), keys: keys.f32(), values: values.f32(), score: score.f32(), lengths };
        let [dquery, dkeys, dvalues, dscore] =
            cpu::backward(Level::best(), inputs, sizes, packed.f32(), gradient.f32());
        [
            tensor(dquery, query.shape()),
            tensor(dkeys, keys.shape()),
            tensor(dvalues, values.shape()),
            tensor(dscore, score.shape()),
        ]
    }
}
