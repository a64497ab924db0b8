//! The autodiff step of rotary positions, which keeps nothing but the angles.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{RotaryOps, Rotation};

#[derive(Debug)]
struct Step {
    columns: usize,
    rotation: Rotation,
}

impl<B: RotaryOps> Backward<B, 1> for Step {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::rotary_forward(dy, self.columns, self.rotation.inverse()));
        }
    }
}

impl<B: RotaryOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotary_forward(x: FloatTensor<Self>, columns: usize, rotation: Rotation) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        match (Step { columns, rotation: rotation.clone() }).prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), B::rotary_forward(x, columns, rotation)),
            OpsKind::UnTracked(prep) => prep.finish(B::rotary_forward(x, columns, rotation)),
        }
    }
}
