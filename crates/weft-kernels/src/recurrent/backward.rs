//! The autodiff step of recurrent layers. It keeps the gates' activations; the inputs' projections are not needed.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Kept, Recurrence, RecurrentGrad, RecurrentOps};

#[derive(Debug)]
struct Step {
    recurrence: Recurrence,
}

impl<B: RecurrentGrad> Backward<B, 4> for Step {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = B::recurrent_grad(ops.state, gradient, &self.recurrence);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: RecurrentOps + RecurrentGrad, C: CheckpointStrategy> RecurrentOps for Autodiff<B, C> {
    fn recurrent_forward(
        gates_x: FloatTensor<Self>,
        weight_hh: FloatTensor<Self>,
        bias_hh: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        recurrence: Recurrence,
    ) -> FloatTensor<Self> {
        let parents = [gates_x.node(), weight_hh.node(), bias_hh.node(), initial.node()];
        let (gates_x, weight_hh) = (gates_x.into_primitive(), weight_hh.into_primitive());
        let (bias_hh, initial) = (bias_hh.into_primitive(), initial.into_primitive());
        match (Step { recurrence: recurrence.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, activations) =
                    B::recurrent_forward_keeping(gates_x, weight_hh.clone(), bias_hh, initial.clone(), &recurrence);
                prep.finish(Kept { weight_hh, initial, packed: packed.clone(), activations }, packed)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::recurrent_forward(gates_x, weight_hh, bias_hh, initial, recurrence))
            }
        }
    }
}
