//! The autodiff steps. They keep the operands.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Wkv7KeysGrad, Wkv7KeysOps};

#[derive(Debug)]
struct Removal {
    size: usize,
}

impl<B: Wkv7KeysGrad> Backward<B, 2> for Removal {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let da = grads.consume::<B>(&ops.node);
        let gradients = B::removal_key_grad(ops.state, da, self.size);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Replacement;

impl<B: Wkv7KeysGrad> Backward<B, 3> for Replacement {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dkey = grads.consume::<B>(&ops.node);
        let gradients = B::replacement_key_grad(ops.state, dkey);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Wkv7KeysOps + Wkv7KeysGrad, C: CheckpointStrategy> Wkv7KeysOps for Autodiff<B, C> {
    fn removal_key_forward(k: FloatTensor<Self>, xi: FloatTensor<Self>, size: usize) -> FloatTensor<Self> {
        let operands = [k, xi];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let [k, xi] = operands.clone();
        let key = B::removal_key_forward(k, xi, size);
        match (Removal { size }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands, key),
            OpsKind::UnTracked(prep) => prep.finish(key),
        }
    }

    fn replacement_key_forward(
        k: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let operands = [k, rate, alpha];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        let [k, rate, alpha] = operands.clone();
        let key = B::replacement_key_forward(k, rate, alpha);
        match Replacement.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(operands, key),
            OpsKind::UnTracked(prep) => prep.finish(key),
        }
    }
}
