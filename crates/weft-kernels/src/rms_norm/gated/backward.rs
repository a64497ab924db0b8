//! The autodiff step of the gated norm. It keeps its operands; the rest is made again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{GatedRmsNormGrad, GatedRmsNormOps};

#[derive(Debug)]
struct Step {
    epsilon: f64,
}

impl<B: GatedRmsNormGrad> Backward<B, 3> for Step {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, gate, gain] = ops.state;
        let gradients = B::gated_rms_norm_grad(x, gate, gain, dy, self.epsilon);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: GatedRmsNormOps + GatedRmsNormGrad, C: CheckpointStrategy> GatedRmsNormOps for Autodiff<B, C> {
    fn gated_rms_norm_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let operands = [x, gate, gain];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let [x, gate, gain] = operands.clone();
        let y = B::gated_rms_norm_forward(x, gate, gain, epsilon);
        match (Step { epsilon }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
