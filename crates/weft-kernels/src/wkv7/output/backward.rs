//! The autodiff step. It keeps the operands and nothing else: all of it is made again from a head's values, which are warm.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Operands, Wkv7OutputGrad, Wkv7OutputOps};

#[derive(Debug)]
struct Step {
    epsilon: f64,
}

impl<B: Wkv7OutputGrad> Backward<B, 8> for Step {
    type State = Operands<B>;

    fn backward(self, ops: Ops<Self::State, 8>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let gradients = B::wkv7_output_grad(ops.state, dy, self.epsilon);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Wkv7OutputOps + Wkv7OutputGrad, C: CheckpointStrategy> Wkv7OutputOps for Autodiff<B, C> {
    fn wkv7_output_forward(
        o: FloatTensor<Self>,
        r: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        rho: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let operands = [o, r, k, v, gate, rho, gain, bias];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let [o, r, k, v, gate, rho, gain, bias] = operands.clone();
        let y = B::wkv7_output_forward(o, r, k, v, gate, rho, gain, bias, epsilon);
        match (Step { epsilon }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
