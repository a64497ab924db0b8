//! The autodiff step of the convolution. It keeps the operands; the sums before SiLU are made again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{CausalConvolutionGrad, CausalConvolutionOps};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: CausalConvolutionGrad> Backward<B, 4> for Step {
    type State = [FloatTensor<B>; 4];

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = B::causal_convolution_grad(ops.state, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: CausalConvolutionOps + CausalConvolutionGrad, C: CheckpointStrategy> CausalConvolutionOps for Autodiff<B, C> {
    fn causal_convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [x, weight, bias, initial];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let forward = |[x, weight, bias, initial]: [FloatTensor<B>; 4], lengths| {
            B::causal_convolution_forward(x, weight, bias, initial, lengths)
        };
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands.clone(), forward(operands, lengths)),
            OpsKind::UnTracked(prep) => prep.finish(forward(operands, lengths)),
        }
    }
}
