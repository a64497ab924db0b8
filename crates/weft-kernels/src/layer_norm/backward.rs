//! The autodiff step of layer normalisation. It keeps `x` and `gain`; the normalised rows are made again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{LayerNormGrad, LayerNormOps};

#[derive(Debug)]
struct Step {
    epsilon: f64,
}

impl<B: LayerNormGrad> Backward<B, 3> for Step {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gain) = ops.state;
        let gradients = B::layer_norm_grad(x, gain, dy, self.epsilon);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: LayerNormOps + LayerNormGrad, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let parents = [x.node(), gain.node(), bias.node()];
        let (x, gain, bias) = (x.into_primitive(), gain.into_primitive(), bias.into_primitive());
        match (Step { epsilon }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::layer_norm_forward(x.clone(), gain.clone(), bias, epsilon);
                prep.finish((x, gain), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::layer_norm_forward(x, gain, bias, epsilon)),
        }
    }
}
