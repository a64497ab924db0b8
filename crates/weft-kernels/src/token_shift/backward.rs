//! The autodiff step of the shift. It keeps the operands.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{TokenShiftGrad, TokenShiftOps};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: TokenShiftGrad> Backward<B, 3> for Step {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = B::token_shift_grad(ops.state, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: TokenShiftOps + TokenShiftGrad, C: CheckpointStrategy> TokenShiftOps for Autodiff<B, C> {
    fn token_shift_forward(
        x: FloatTensor<Self>,
        mix: FloatTensor<Self>,
        earlier: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [x, mix, earlier];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let forward =
            |[x, mix, earlier]: [FloatTensor<B>; 3], lengths| B::token_shift_forward(x, mix, earlier, lengths);
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands.clone(), forward(operands, lengths)),
            OpsKind::UnTracked(prep) => prep.finish(forward(operands, lengths)),
        }
    }
}
