//! The autodiff step of the gate, which keeps its input.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{SwigluGrad, SwigluOps};

#[derive(Debug)]
struct Step;

impl<B: SwigluGrad> Backward<B, 1> for Step {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::swiglu_grad(ops.state, dy));
        }
    }
}

impl<B: SwigluOps + SwigluGrad, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        match Step.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::swiglu_forward(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::swiglu_forward(x)),
        }
    }
}
