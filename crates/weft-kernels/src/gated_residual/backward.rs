//! The autodiff step. It keeps `x` and the gate.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{GatedResidualGrad, GatedResidualOps};
use crate::Dropout;

#[derive(Debug)]
struct Step {
    dropout: Dropout,
}

impl<B: GatedResidualGrad> Backward<B, 3> for Step {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, gate], [x_node, gate_node, residual]) = (ops.state, ops.parents);
        if let Some(residual) = residual {
            grads.register::<B>(residual.id, dy.clone());
        }
        let gradients = B::gated_residual_grad(x, gate, dy, self.dropout);
        for (node, gradient) in [x_node, gate_node].into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: GatedResidualOps + GatedResidualGrad, C: CheckpointStrategy> GatedResidualOps for Autodiff<B, C> {
    fn gated_residual_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let operands = [x, gate, residual];
        let parents = operands.each_ref().map(|operand| operand.node());
        let [x, gate, residual] = operands.map(|operand| operand.into_primitive());
        match (Step { dropout }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::gated_residual_forward(x.clone(), gate.clone(), residual, dropout);
                prep.finish([x, gate], y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gated_residual_forward(x, gate, residual, dropout)),
        }
    }
}
