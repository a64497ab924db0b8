//! The autodiff step of the linear map. It keeps `x`, the weight, and what [`Saved`] says.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{How, LinearGrad, LinearOps, Operand, Saved, Wanted};

#[derive(Debug)]
struct Step {
    how: How,
    has_bias: bool,
}

/// The parents are `x`, the weight, the bias if there is one, and the residual if there is one.
impl<B: LinearGrad, const N: usize> Backward<B, N> for Step {
    type State = (FloatTensor<B>, FloatTensor<B>, Saved<B>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, saved) = ops.state;
        let mut parents = ops.parents.into_iter();
        let mut next = || parents.next().flatten();
        let (x_node, weight_node) = (next(), next());
        let bias_node = if self.has_bias { next() } else { None };
        if let Some(residual) = next() {
            grads.register::<B>(residual.id, dy.clone());
        }
        let wanted = Wanted { x: x_node.is_some(), weight: weight_node.is_some(), bias: bias_node.is_some() };
        if wanted == (Wanted { x: false, weight: false, bias: false }) {
            return;
        }
        let gradients = B::linear_grad(x, weight, saved, dy, self.how, wanted);
        for (node, gradient) in [(x_node, gradients.x), (weight_node, gradients.weight), (bias_node, gradients.bias)] {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LinearOps + LinearGrad, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        residual: Operand<Self>,
        how: How,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = parts(bias);
        let (residual, residual_node) = parts(residual);
        match (bias_node, residual_node) {
            (None, None) => record::<B, C, 2>([x_node, weight_node], x, weight, bias, residual, how),
            (Some(node), None) | (None, Some(node)) => {
                record::<B, C, 3>([x_node, weight_node, node], x, weight, bias, residual, how)
            }
            (Some(bias_node), Some(residual_node)) => {
                record::<B, C, 4>([x_node, weight_node, bias_node, residual_node], x, weight, bias, residual, how)
            }
        }
    }
}

/// The tensor of the inner device, and its node.
fn parts<B: LinearOps, C: CheckpointStrategy>(operand: Operand<Autodiff<B, C>>) -> (Operand<B>, Option<NodeGuard>) {
    match operand {
        Operand::Absent => (Operand::Absent, None),
        Operand::Present(tensor) => {
            let (tensor, node) = tensor.into_parts();
            (Operand::Present(tensor), Some(node))
        }
    }
}

/// Runs the forward pass, and saves for the backward pass only if there will be one.
fn record<B: LinearOps + LinearGrad, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Operand<B>,
    residual: Operand<B>,
    how: How,
) -> FloatTensor<Autodiff<B, C>> {
    let step = Step { how, has_bias: matches!(bias, Operand::Present(_)) };
    match Backward::<B, N>::prepare::<C>(step, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, saved) = B::linear_forward_saving(x.clone(), weight.clone(), bias, residual, how);
            prep.finish((x, weight, saved), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::linear_forward(x, weight, bias, residual, how)),
    }
}
