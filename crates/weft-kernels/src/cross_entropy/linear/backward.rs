//! The autodiff step of linear cross-entropy. It keeps the gradients, which the forward pass has made already.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients as Registry;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{LinearCrossEntropyGrad, LinearCrossEntropyOps, Options};
use crate::linear::{Gradients, Operand, Wanted, WeightLayout};

#[derive(Debug)]
struct Step;

/// The parents are `x`, the weight, and the bias if there is one.
impl<B: LinearCrossEntropyGrad, const N: usize> Backward<B, N> for Step {
    type State = Gradients<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Registry, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let Gradients { x, weight, bias } = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip([x, weight, bias]) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, B::linear_cross_entropy_scaled(gradient, upstream.clone()));
            }
        }
    }
}

impl<B, C> LinearCrossEntropyOps for Autodiff<B, C>
where
    B: LinearCrossEntropyOps + LinearCrossEntropyGrad,
    C: CheckpointStrategy,
{
    fn linear_cross_entropy_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        targets: IntTensor<Self>,
        layout: WeightLayout,
        options: Options,
    ) -> FloatTensor<Self> {
        let mut wanted = Wanted { x: x.is_tracked(), weight: weight.is_tracked(), bias: false };
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        match bias {
            Operand::Absent => {
                let run = Run { x, weight, bias: Operand::Absent, targets, layout, options, wanted };
                run.record::<C, 2>([x_node, weight_node])
            }
            Operand::Present(bias) => {
                wanted.bias = bias.is_tracked();
                let (bias, bias_node) = bias.into_parts();
                let run = Run { x, weight, bias: Operand::Present(bias), targets, layout, options, wanted };
                run.record::<C, 3>([x_node, weight_node, bias_node])
            }
        }
    }
}

struct Run<B: LinearCrossEntropyOps + LinearCrossEntropyGrad> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Operand<B>,
    targets: IntTensor<B>,
    layout: WeightLayout,
    options: Options,
    wanted: Wanted,
}

impl<B: LinearCrossEntropyOps + LinearCrossEntropyGrad> Run<B> {
    fn record<C: CheckpointStrategy, const N: usize>(self, nodes: [NodeGuard; N]) -> FloatTensor<Autodiff<B, C>> {
        let Self { x, weight, bias, targets, layout, options, wanted } = self;
        match Backward::<B, N>::prepare::<C>(Step, nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, gradients) =
                    B::linear_cross_entropy_tracked(x, weight, bias, targets, layout, options, wanted);
                prep.finish(gradients, loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::linear_cross_entropy_forward(x, weight, bias, targets, layout, options))
            }
        }
    }
}
