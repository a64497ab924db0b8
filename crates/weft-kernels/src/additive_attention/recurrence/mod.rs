//! The recurrent decoder with additive attention, over a whole target sequence as one operation.
//! arXiv 1409.0473, appendix A.1.2 and A.2.2: at each step
//!
//!   query = s_{i-1} W_a;  c_i = additive attention of the query;  s_i = cell(x_i + c_i W_c, s_{i-1})
//!
//! | here           | shape                                      |
//! |----------------|--------------------------------------------|
//! | `gates_x`      | `[batch, target_time, gates * hidden]`     |
//! | `query_weight` | `[hidden, attention]`, W_a                 |
//! | `keys`         | `[batch, source_time, attention]`          |
//! | `values`       | `[batch, source_time, enc]`                |
//! | `score`        | `[attention]`                              |
//! | `context_weight` | `[enc, gates * hidden]`, W_c             |
//! | `weight_hh`    | `[hidden, gates * hidden]`                 |
//! | `bias_hh`      | `[gates * hidden]`                         |

mod backward;
mod cpu;
mod portable;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};

use super::checked_lengths;
use crate::flex::{Values, tensor};
use crate::recurrent::{Cell, RecurrentState};
use crate::simd::Level;

/// What goes into [`attentive_recurrence`].
#[derive(Debug, Clone)]
pub struct AttentiveInputs {
    /// `[batch, target_time, gates * hidden]`: the target embeddings' projections with their bias.
    pub gates_x: Tensor<3>,
    /// `[hidden, attention]`: from the state before a step to its query.
    pub query_weight: Tensor<2>,
    /// `[batch, source_time, attention]`: the source's projected keys.
    pub keys: Tensor<3>,
    /// `[batch, source_time, enc]`: the source's states.
    pub values: Tensor<3>,
    /// `[attention]`.
    pub score: Tensor<1>,
    /// `[enc, gates * hidden]`: from a context to the gates' inputs.
    pub context_weight: Tensor<2>,
    /// `[hidden, gates * hidden]`.
    pub weight_hh: Tensor<2>,
    /// `[gates * hidden]`, zero if absent.
    pub bias_hh: Option<Tensor<1>>,
    /// The state before the first step, zero if absent.
    pub initial: Option<RecurrentState>,
}

/// What comes out of [`attentive_recurrence`].
#[derive(Debug, Clone)]
pub struct AttentiveOutputs {
    /// s_1 .. s_T: `[batch, target_time, hidden]`, zero past a target's length.
    pub states: Tensor<3>,
    /// c_1 .. c_T: `[batch, target_time, enc]`, zero past a target's length.
    pub contexts: Tensor<3>,
    /// Each sentence's own last state.
    pub last: RecurrentState,
    /// The attention weights `[batch, target_time, source_time]`, to be shown; they have no gradient.
    pub weights: Tensor<3>,
}

/// Runs a decoder's recurrent layer with additive attention over a ragged batch.
///
/// The context enters the gates as an input does: with a GRU whose reset comes after the product, the reset gate
/// scales `s W_hh + bias_hh` and not the context. `source_lengths` and `target_lengths` are the sentences' (all
/// positions if absent). What stands past a length is never read; a source of length 0 gives contexts of zero; a
/// target of length 0 keeps its initial state. A sentence's results are the same, bit for bit, in whatever batch.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds its axis.
pub fn attentive_recurrence(
    cell: Cell,
    inputs: AttentiveInputs,
    source_lengths: Option<&[usize]>,
    target_lengths: Option<&[usize]>,
) -> AttentiveOutputs {
    let AttentiveInputs { gates_x, query_weight, keys, values, score, context_weight, weight_hh, bias_hh, initial } =
        inputs;
    let ([batch, time, width], [hidden, columns]) = (gates_x.dims(), weight_hh.dims());
    let ([_, source_time, query_size], [_, _, size]) = (keys.dims(), values.dims());
    let device = gates_x.device();
    let name = "attentive_recurrence";
    assert!(
        width == columns && columns == cell.gates() * hidden,
        "{name}: gates_x is [{batch}, {time}, {width}] and weight_hh [{hidden}, {columns}], but {cell:?} has {} gates",
        cell.gates()
    );
    assert_eq!(keys.dims(), [batch, source_time, query_size], "{name}: keys for gates_x [{batch}, {time}, {width}]");
    assert_eq!(values.dims(), [batch, source_time, size], "{name}: values for keys {:?}", keys.dims());
    assert_eq!(query_weight.dims(), [hidden, query_size], "{name}: query_weight for keys {:?}", keys.dims());
    assert_eq!(score.dims(), [query_size], "{name}: score for keys {:?}", keys.dims());
    assert_eq!(context_weight.dims(), [size, columns], "{name}: context_weight for values {:?}", values.dims());
    let bias_hh = bias_hh.unwrap_or_else(|| Tensor::zeros([columns], &device));
    assert_eq!(bias_hh.dims(), [columns], "{name}: bias_hh needs one value for each column of weight_hh");
    let initial = RecurrentState::stacked_or_zeros(initial, cell, [batch, hidden], name, &device);
    let recurrence = AttentiveRecurrence {
        cell,
        source_lengths: checked_lengths("attentive_recurrence: source", source_lengths, batch, source_time),
        target_lengths: checked_lengths("attentive_recurrence: target", target_lengths, batch, time),
    };
    let (packed, weights) = Dispatch::attentive_forward(
        gates_x.into_dispatch(),
        query_weight.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        score.into_dispatch(),
        context_weight.into_dispatch(),
        weight_hh.into_dispatch(),
        bias_hh.into_dispatch(),
        initial.into_dispatch(),
        recurrence,
    );
    let packed: Tensor<1> = Tensor::from_dispatch(packed);
    let outputs = batch * time * hidden;
    let states = outputs + cell.states() * batch * hidden;
    let last = packed.clone().slice(outputs..states).reshape([cell.states() * batch, hidden]);
    AttentiveOutputs {
        states: packed.clone().slice(0..outputs).reshape([batch, time, hidden]),
        contexts: packed.slice(states..states + batch * time * size).reshape([batch, time, size]),
        last: RecurrentState::split(cell, last),
        weights: Tensor::from_dispatch(weights),
    }
}

/// What the decoder does, apart from its tensors.
#[derive(Debug, Clone)]
pub struct AttentiveRecurrence {
    /// The cell.
    pub cell: Cell,
    /// Each sentence's length in the source.
    pub source_lengths: Vec<usize>,
    /// Each sentence's length in the target.
    pub target_lengths: Vec<usize>,
}

/// Decoders with additive attention, as each device runs them.
///
/// The result is packed along one axis (states, last states, contexts), and the weights beside it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait AttentiveOps: Backend {
    /// See [`attentive_recurrence`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
    fn attentive_forward(
        gates_x: FloatTensor<Self>,
        query_weight: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        score: FloatTensor<Self>,
        context_weight: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: AttentiveRecurrence,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = AttentiveTensors {
            gates_x,
            query_weight,
            keys,
            values,
            score,
            context_weight,
            weight_hh,
            bias_hh,
            initial,
        };
        let forward = portable::forward::<Self>(tensors, &recurrence);
        (forward.packed, forward.weights)
    }
}

/// The inputs as a device has them; see [`AttentiveInputs`]. Initial states are stacked.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are those of AttentiveInputs")]
pub struct AttentiveTensors<B: Backend> {
    pub gates_x: FloatTensor<B>,
    pub query_weight: FloatTensor<B>,
    pub keys: FloatTensor<B>,
    pub values: FloatTensor<B>,
    pub score: FloatTensor<B>,
    pub context_weight: FloatTensor<B>,
    pub weight_hh: FloatTensor<B>,
    pub bias_hh: FloatTensor<B>,
    pub initial: FloatTensor<B>,
}

/// The forward pass's results and what it keeps.
#[derive(Debug, Clone)]
pub struct AttentiveForward<B: Backend> {
    /// States, last states and contexts.
    pub packed: FloatTensor<B>,
    /// `[batch, target_time, source_time]`.
    pub weights: FloatTensor<B>,
    /// What the device keeps of the cells.
    pub activations: FloatTensor<B>,
    /// What the device keeps of the queries.
    pub queries: FloatTensor<B>,
}

/// The gradients of [`AttentiveOps`]; real devices only.
pub trait AttentiveGrad: Backend {
    /// The results, and what the device keeps for the way back.
    fn attentive_forward_keeping(
        tensors: AttentiveTensors<Self>,
        recurrence: &AttentiveRecurrence,
    ) -> AttentiveForward<Self> {
        portable::forward::<Self>(tensors, recurrence)
    }

    /// The gradients of all inputs in their order, from that of the packed result.
    fn attentive_grad(
        kept: AttentiveKept<Self>,
        gradient: FloatTensor<Self>,
        recurrence: &AttentiveRecurrence,
    ) -> [FloatTensor<Self>; 9] {
        portable::backward::<Self>(kept, gradient, recurrence)
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are those of AttentiveInputs")]
pub struct AttentiveKept<B: Backend> {
    pub query_weight: FloatTensor<B>,
    pub keys: FloatTensor<B>,
    pub values: FloatTensor<B>,
    pub score: FloatTensor<B>,
    pub context_weight: FloatTensor<B>,
    pub weight_hh: FloatTensor<B>,
    pub initial: FloatTensor<B>,
    /// What the forward pass made.
    pub forward: AttentiveForward<B>,
}

#[cfg(feature = "gpu")]
impl AttentiveOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl AttentiveGrad for burn::backend::Cube {}

impl AttentiveOps for Flex {
    fn attentive_forward(
        gates_x: FloatTensor<Self>,
        query_weight: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        score: FloatTensor<Self>,
        context_weight: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: AttentiveRecurrence,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = AttentiveTensors {
            gates_x,
            query_weight,
            keys,
            values,
            score,
            context_weight,
            weight_hh,
            bias_hh,
            initial,
        };
        let forward = on_cpu(tensors, &recurrence, false);
        (forward.packed, forward.weights)
    }
}

impl AttentiveGrad for Flex {
    fn attentive_forward_keeping(
        tensors: AttentiveTensors<Self>,
        recurrence: &AttentiveRecurrence,
    ) -> AttentiveForward<Self> {
        on_cpu(tensors, recurrence, true)
    }

    fn attentive_grad(
        kept: AttentiveKept<Self>,
        gradient: FloatTensor<Self>,
        recurrence: &AttentiveRecurrence,
    ) -> [FloatTensor<Self>; 9] {
        let (query_weight, keys) = (Values::new(kept.query_weight), Values::new(kept.keys));
        let (values, score) = (Values::new(kept.values), Values::new(kept.score));
        let (context_weight, weight) = (Values::new(kept.context_weight), Values::new(kept.weight_hh));
        let initial = Values::new(kept.initial);
        let AttentiveForward { packed, weights, activations, queries } = kept.forward;
        let (packed, weights) = (Values::new(packed), Values::new(weights));
        let (activations, queries, gradient) = (Values::new(activations), Values::new(queries), Values::new(gradient));
        let ([hidden, columns], [batch, time, source_time]) = (weight.shape().dims(), weights.shape().dims());
        let sizes = cpu::Sizes { time, hidden, source_time, query_size: score.shape()[0], size: values.shape()[2] };
        let weights_in = cpu::Weights {
            query: query_weight.f32(),
            keys: keys.f32(),
            values: values.f32(),
            score: score.f32(),
            context: context_weight.f32(),
        };
        let forward = cpu::Forward {
            packed: packed.f32(),
            weights: weights.f32(),
            activations: activations.f32(),
            queries: queries.f32(),
        };
        let gradients = cpu::backward(
            Level::best(),
            recurrence,
            sizes,
            weights_in,
            weight.f32(),
            initial.f32(),
            forward,
            gradient.f32(),
        );
        tensor_all(
            gradients,
            [
                vec![batch, time, columns],
                vec![hidden, sizes.query_size],
                vec![batch, source_time, sizes.query_size],
                vec![batch, source_time, sizes.size],
                vec![sizes.query_size],
                vec![sizes.size, columns],
                vec![hidden, columns],
                vec![columns],
                initial.shape().to_vec(),
            ],
        )
    }
}

fn tensor_all<const N: usize>(values: [Vec<f32>; N], shapes: [Vec<usize>; N]) -> [FloatTensor<Flex>; N] {
    let mut shapes = shapes.into_iter();
    values.map(|values| tensor(values, shapes.next().expect("as many shapes as values")))
}

fn on_cpu(tensors: AttentiveTensors<Flex>, recurrence: &AttentiveRecurrence, keep: bool) -> AttentiveForward<Flex> {
    let (gates_x, query_weight) = (Values::new(tensors.gates_x), Values::new(tensors.query_weight));
    let (keys, values) = (Values::new(tensors.keys), Values::new(tensors.values));
    let (score, context_weight) = (Values::new(tensors.score), Values::new(tensors.context_weight));
    let (weight, bias) = (Values::new(tensors.weight_hh), Values::new(tensors.bias_hh));
    let initial = Values::new(tensors.initial);
    let [batch, time, _] = gates_x.shape().dims();
    let [_, source_time, query_size] = keys.shape().dims();
    let sizes = cpu::Sizes { time, hidden: weight.shape()[0], source_time, query_size, size: values.shape()[2] };
    let weights = cpu::Weights {
        query: query_weight.f32(),
        keys: keys.f32(),
        values: values.f32(),
        score: score.f32(),
        context: context_weight.f32(),
    };
    let inputs = cpu::Inputs { gates_x: gates_x.f32(), weight: weight.f32(), bias: bias.f32(), initial: initial.f32() };
    let [packed, weights, activations, queries] = cpu::forward(Level::best(), recurrence, sizes, weights, inputs, keep);
    let flat = |values: Vec<f32>| {
        let length = values.len();
        tensor(values, [length])
    };
    AttentiveForward {
        packed: flat(packed),
        weights: tensor(weights, [batch, time, source_time]),
        activations: flat(activations),
        queries: flat(queries),
    }
}
