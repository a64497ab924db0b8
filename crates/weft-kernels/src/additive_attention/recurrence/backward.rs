//! The autodiff step of the decoder with additive attention.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};

use super::{AttentiveGrad, AttentiveKept, AttentiveOps, AttentiveRecurrence, AttentiveTensors};

#[derive(Debug)]
struct Step {
    recurrence: AttentiveRecurrence,
}

impl<B: AttentiveGrad> Backward<B, 9> for Step {
    type State = AttentiveKept<B>;

    fn backward(self, ops: Ops<Self::State, 9>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = B::attentive_grad(ops.state, gradient, &self.recurrence);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: AttentiveOps + AttentiveGrad, C: CheckpointStrategy> AttentiveOps for Autodiff<B, C> {
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
        let parents = [
            gates_x.node(),
            query_weight.node(),
            keys.node(),
            values.node(),
            score.node(),
            context_weight.node(),
            weight_hh.node(),
            bias_hh.node(),
            initial.node(),
        ];
        let tensors = AttentiveTensors::<B> {
            gates_x: gates_x.into_primitive(),
            query_weight: query_weight.into_primitive(),
            keys: keys.into_primitive(),
            values: values.into_primitive(),
            score: score.into_primitive(),
            context_weight: context_weight.into_primitive(),
            weight_hh: weight_hh.into_primitive(),
            bias_hh: bias_hh.into_primitive(),
            initial: initial.into_primitive(),
        };
        match (Step { recurrence: recurrence.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let forward = B::attentive_forward_keeping(tensors.clone(), &recurrence);
                let (packed, weights) = (forward.packed.clone(), forward.weights.clone());
                let AttentiveTensors { query_weight, keys, values, score, context_weight, weight_hh, initial, .. } =
                    tensors;
                let kept =
                    AttentiveKept { query_weight, keys, values, score, context_weight, weight_hh, initial, forward };
                (prep.finish(kept, packed), Self::from_inner(weights))
            }
            OpsKind::UnTracked(prep) => {
                let AttentiveTensors {
                    gates_x,
                    query_weight,
                    keys,
                    values,
                    score,
                    context_weight,
                    weight_hh,
                    bias_hh,
                    initial,
                } = tensors;
                let (packed, weights) = B::attentive_forward(
                    gates_x,
                    query_weight,
                    keys,
                    values,
                    score,
                    context_weight,
                    weight_hh,
                    bias_hh,
                    initial,
                    recurrence,
                );
                (prep.finish(packed), Self::from_inner(weights))
            }
        }
    }
}
