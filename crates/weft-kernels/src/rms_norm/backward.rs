//! The autodiff step of the normalisation. It keeps `x` and `gain`; the normalised rows are made again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{RmsNormGrad, RmsNormOps};

#[derive(Debug)]
struct Step {
    epsilon: f64,
}

impl<B: RmsNormGrad> Backward<B, 2> for Step {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gain) = ops.state;
        let gradients = B::rms_norm_grad(x, gain, dy, self.epsilon);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: RmsNormOps + RmsNormGrad, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_norm_forward(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let parents = [x.node(), gain.node()];
        let (x, gain) = (x.into_primitive(), gain.into_primitive());
        match (Step { epsilon }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::rms_norm_forward(x.clone(), gain.clone(), epsilon);
                prep.finish((x, gain), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rms_norm_forward(x, gain, epsilon)),
        }
    }
}
