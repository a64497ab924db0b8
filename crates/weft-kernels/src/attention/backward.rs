//! The autodiff steps of attention. They keep the inputs, and two numbers for each row of scores.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};

use super::{AttentionGrad, AttentionOps, AttentionSettings};

#[derive(Debug)]
struct SelfStep {
    settings: AttentionSettings,
}

impl<B: AttentionGrad> Backward<B, 1> for SelfStep {
    /// qkv, what was kept of the rows.
    type State = (FloatTensor<B>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (qkv, kept) = ops.state;
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let gradient = B::self_attention_grad(qkv, kept, dout, self.settings);
            grads.register::<B>(parent.id, gradient);
        }
    }
}

#[derive(Debug)]
struct CrossStep {
    settings: AttentionSettings,
}

impl<B: AttentionGrad> Backward<B, 2> for CrossStep {
    /// q, kv, what was kept of the rows.
    type State = (FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (q, kv, kept) = ops.state;
        let gradients = B::cross_attention_grad(q, kv, kept, dout, self.settings);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: AttentionGrad, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn self_attention_forward(qkv: FloatTensor<Self>, settings: AttentionSettings) -> FloatTensor<Self> {
        let node = qkv.node();
        let qkv = qkv.into_primitive();
        match (SelfStep { settings: settings.clone() }).prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, kept) = B::self_attention_keep(qkv.clone(), settings);
                prep.finish((qkv, kept), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::self_attention_forward(qkv, settings)),
        }
    }

    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), kv.node()];
        let (q, kv) = (q.into_primitive(), kv.into_primitive());
        match (CrossStep { settings: settings.clone() }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, kept) = B::cross_attention_keep(q.clone(), kv.clone(), settings);
                prep.finish((q, kv, kept), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_attention_forward(q, kv, settings)),
        }
    }

    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::attention_weights_forward(q.into_primitive(), k.into_primitive(), settings))
    }
}
