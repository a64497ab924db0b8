//! The autodiff steps of attention. They keep the inputs, the result, and two numbers for each row of scores.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};

use super::{AttentionGrad, AttentionOps, AttentionSettings, Kept};

#[derive(Debug)]
struct SelfStep {
    settings: AttentionSettings,
}

impl<B: AttentionGrad> Backward<B, 2> for SelfStep {
    /// qkv, bias, what was kept.
    type State = (FloatTensor<B>, FloatTensor<B>, Kept<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (qkv, bias, kept) = ops.state;
        let gradients = B::self_attention_grad(qkv, bias, kept, dout, self.settings);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct CrossStep {
    settings: AttentionSettings,
}

impl<B: AttentionGrad> Backward<B, 3> for CrossStep {
    /// q, kv, bias, what was kept.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Kept<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (q, kv, bias, kept) = ops.state;
        let gradients = B::cross_attention_grad(q, kv, bias, kept, dout, self.settings);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: AttentionGrad, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn self_attention_forward(
        qkv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let nodes = [qkv.node(), bias.node()];
        let (qkv, bias) = (qkv.into_primitive(), bias.into_primitive());
        match (SelfStep { settings: settings.clone() }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept = B::self_attention_keep(qkv.clone(), bias.clone(), settings);
                let out = kept.out.clone();
                prep.finish((qkv, bias, kept), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::self_attention_forward(qkv, bias, settings)),
        }
    }

    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), kv.node(), bias.node()];
        let (q, kv, bias) = (q.into_primitive(), kv.into_primitive(), bias.into_primitive());
        match (CrossStep { settings: settings.clone() }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept = B::cross_attention_keep(q.clone(), kv.clone(), bias.clone(), settings);
                let out = kept.out.clone();
                prep.finish((q, kv, bias, kept), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_attention_forward(q, kv, bias, settings)),
        }
    }

    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let (q, k, bias) = (q.into_primitive(), k.into_primitive(), bias.into_primitive());
        Self::from_inner(B::attention_weights_forward(q, k, bias, settings))
    }
}
