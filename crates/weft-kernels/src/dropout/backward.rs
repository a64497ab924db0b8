//! The autodiff step of dropout: it keeps nothing but the seed.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Dropout, DropoutOps};

#[derive(Debug)]
struct Step;

impl<B: DropoutOps> Backward<B, 1> for Step {
    type State = Dropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::dropout_forward(dy, ops.state));
        }
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn dropout_forward(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let parents = [x.node()];
        let x = x.into_primitive();
        match Step.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(dropout, B::dropout_forward(x, dropout)),
            OpsKind::UnTracked(prep) => prep.finish(B::dropout_forward(x, dropout)),
        }
    }
}
