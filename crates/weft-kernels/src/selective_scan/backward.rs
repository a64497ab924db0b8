//! The autodiff step of the selective scan. It keeps the operands and a state for every 32 positions.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Operands, SelectiveScanGrad, SelectiveScanOps};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: SelectiveScanGrad> Backward<B, 8> for Step {
    type State = (Operands<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 8>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (operands, kept) = ops.state;
        let gradients = B::selective_scan_grad(operands, kept, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: SelectiveScanOps + SelectiveScanGrad, C: CheckpointStrategy> SelectiveScanOps for Autodiff<B, C> {
    fn selective_scan_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        bc: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        a_log: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let operands = [x, delta, bc, gate, a_log, skip, bias, initial];
        let parents = operands.each_ref().map(|operand| operand.node());
        let operands = operands.map(|operand| operand.into_primitive());
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, kept) = B::selective_scan_keeping(operands.clone(), &lengths);
                prep.finish((operands, kept), packed)
            }
            OpsKind::UnTracked(prep) => {
                let [x, delta, bc, gate, a_log, skip, bias, initial] = operands;
                prep.finish(B::selective_scan_forward(x, delta, bc, gate, a_log, skip, bias, initial, lengths))
            }
        }
    }
}
