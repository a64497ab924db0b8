//! The autodiff step of cross-entropy. It keeps the logits themselves, and gives their storage to the gradient.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend};

use super::{CrossEntropyGrad, CrossEntropyOps, Options, Statistics};

#[derive(Debug)]
struct Step {
    options: Options,
}

impl<B: CrossEntropyGrad> Backward<B, 1> for Step {
    type State = (FloatTensor<B>, IntTensor<B>, Statistics<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let (logits, targets, statistics) = ops.state;
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let gradient = B::cross_entropy_grad(logits, targets, statistics, upstream, self.options);
            grads.register::<B>(parent.id, gradient);
        }
    }
}

impl<B: CrossEntropyOps + CrossEntropyGrad, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        let parents = [logits.node()];
        let logits = logits.into_primitive();
        match (Step { options }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, statistics) = B::cross_entropy_tracked(logits.clone(), targets.clone(), options);
                prep.finish((logits, targets, statistics), loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy_forward(logits, targets, options)),
        }
    }

    fn cross_entropy_rows_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::cross_entropy_rows_forward(Self::inner(logits), targets, options))
    }
}
