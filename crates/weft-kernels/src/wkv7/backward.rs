//! The autodiff step of the recurrence. It keeps the operands, a state for every 16 positions and what was
//! replaced.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Operands, Wkv7Grad, Wkv7Ops};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: Wkv7Grad> Backward<B, 7> for Step {
    type State = (Operands<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 7>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (operands, kept) = ops.state;
        let gradients = B::wkv7_grad(operands, kept, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Wkv7Ops + Wkv7Grad, C: CheckpointStrategy> Wkv7Ops for Autodiff<B, C> {
    fn wkv7_forward(
        r: FloatTensor<Self>,
        d: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        a: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [r, d, k, v, a, rate, initial];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, kept) = B::wkv7_keeping(operands.clone(), &lengths);
                prep.finish((operands, kept), packed)
            }
            OpsKind::UnTracked(prep) => {
                let [r, d, k, v, a, rate, initial] = operands;
                prep.finish(B::wkv7_forward(r, d, k, v, a, rate, initial, lengths))
            }
        }
    }
}
