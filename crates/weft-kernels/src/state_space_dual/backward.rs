//! The autodiff step of the state space. It keeps the operands and a state for every chunk of positions.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Operands, StateSpaceDualGrad, StateSpaceDualOps};

#[derive(Debug)]
struct Step {
    groups: usize,
    lengths: Vec<usize>,
}

impl<B: StateSpaceDualGrad> Backward<B, 6> for Step {
    type State = (Operands<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (operands, kept) = ops.state;
        let gradients = B::state_space_dual_grad(operands, kept, gradient, self.groups, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: StateSpaceDualOps + StateSpaceDualGrad, C: CheckpointStrategy> StateSpaceDualOps for Autodiff<B, C> {
    fn state_space_dual_forward(
        xbc: FloatTensor<Self>,
        dt: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        groups: usize,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [xbc, dt, a_log, skip, bias, initial];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        match (Step { groups, lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, kept) = B::state_space_dual_keeping(operands.clone(), groups, &lengths);
                prep.finish((operands, kept), packed)
            }
            OpsKind::UnTracked(prep) => {
                let [xbc, dt, a_log, skip, bias, initial] = operands;
                prep.finish(B::state_space_dual_forward(xbc, dt, a_log, skip, bias, initial, groups, lengths))
            }
        }
    }
}
