//! The autodiff step. It keeps the operands and a state for every 32 positions.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Operands, Wkv4Grad, Wkv4Ops};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: Wkv4Grad> Backward<B, 6> for Step {
    type State = (Operands<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (operands, kept) = ops.state;
        let gradients = B::wkv4_grad(operands, kept, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Wkv4Ops + Wkv4Grad, C: CheckpointStrategy> Wkv4Ops for Autodiff<B, C> {
    fn wkv4_forward(
        receptance: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        decay: FloatTensor<Self>,
        bonus: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [receptance, key, value, decay, bonus, initial];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, kept) = B::wkv4_keeping(operands.clone(), &lengths);
                prep.finish((operands, kept), packed)
            }
            OpsKind::UnTracked(prep) => {
                let [receptance, key, value, decay, bonus, initial] = operands;
                prep.finish(B::wkv4_forward(receptance, key, value, decay, bonus, initial, lengths))
            }
        }
    }
}
