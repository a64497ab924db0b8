//! The kernel on Flex tensors: views are read where they lie.

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn_flex::FlexTensor;

use super::cpu::{self, Call, Saved, Sizes};
use super::memory::Operand;
use super::{AttentionGrad, AttentionOps, AttentionSettings};
use crate::flex::{Values, tensor};
use crate::simd::Level;

/// An `f32` tensor `[batch, time, columns]` whose columns stand side by side; other views are copied.
struct Rows(FlexTensor);

impl Rows {
    fn new(tensor: FlexTensor) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "Weft's CPU kernels compute in f32");
        let strides = tensor.layout().strides();
        let usable = strides[2] == 1 && strides[0] >= 0 && strides[1] >= 0;
        Self(if usable { tensor } else { tensor.to_contiguous() })
    }

    fn dims(&self) -> [usize; 3] {
        let shape = self.0.shape();
        [shape[0], shape[1], shape[2]]
    }

    /// To read from `column` on.
    fn operand(&self, column: usize) -> Operand<'_> {
        let layout = self.0.layout();
        Operand {
            data: self.0.storage::<f32>(),
            offset: layout.start_offset() + column,
            batch_stride: layout.strides()[0].unsigned_abs(),
            time_stride: layout.strides()[1].unsigned_abs(),
        }
    }
}

fn self_call<'a>(qkv: &'a Rows, settings: &'a AttentionSettings) -> Call<'a> {
    let [batch, time, width] = qkv.dims();
    let hidden = width / 3;
    let sizes = Sizes { batch, q_time: time, k_time: time, head_dim: hidden / settings.num_heads };
    Call { q: qkv.operand(0), k: qkv.operand(hidden), v: qkv.operand(2 * hidden), sizes, settings }
}

fn cross_call<'a>(q: &'a Rows, kv: &'a Rows, settings: &'a AttentionSettings) -> Call<'a> {
    let ([batch, q_time, hidden], [_, k_time, _]) = (q.dims(), kv.dims());
    let sizes = Sizes { batch, q_time, k_time, head_dim: hidden / settings.num_heads };
    Call { q: q.operand(0), k: kv.operand(0), v: kv.operand(hidden), sizes, settings }
}

/// The result and what was kept, as tensors.
fn forward(call: &Call<'_>, keep: bool) -> (FlexTensor, Option<FlexTensor>) {
    let Sizes { batch, q_time, head_dim, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let (out, kept) = cpu::forward(Level::best(), call, keep);
    (tensor(out, [batch, q_time, heads * head_dim]), kept.map(|kept| tensor(kept, [batch, heads, q_time, 2])))
}

impl AttentionOps for Flex {
    fn self_attention_forward(qkv: FloatTensor<Self>, settings: AttentionSettings) -> FloatTensor<Self> {
        forward(&self_call(&Rows::new(qkv), &settings), false).0
    }

    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        forward(&cross_call(&Rows::new(q), &Rows::new(kv), &settings), false).0
    }

    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let (q, k) = (Rows::new(q), Rows::new(k));
        let ([batch, q_time, hidden], [_, k_time, _]) = (q.dims(), k.dims());
        let sizes = Sizes { batch, q_time, k_time, head_dim: hidden / settings.num_heads };
        let keys = k.operand(0);
        let call = Call { q: q.operand(0), k: keys, v: keys, sizes, settings: &settings };
        tensor(cpu::weights(Level::best(), &call), [batch, settings.num_heads, q_time, k_time])
    }
}

impl AttentionGrad for Flex {
    fn self_attention_keep(
        qkv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        forward(&self_call(&Rows::new(qkv), &settings), true)
    }

    fn self_attention_grad(
        qkv: FloatTensor<Self>,
        kept: Option<FloatTensor<Self>>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let (qkv, dout) = (Rows::new(qkv), Rows::new(dout));
        let kept = Values::new(kept.expect("the forward pass keeps its rows"));
        let [batch, time, width] = qkv.dims();
        let saved = Saved { statistics: kept.f32(), dout: dout.operand(0) };
        let gradient = cpu::self_backward(Level::best(), &self_call(&qkv, &settings), &saved);
        tensor(gradient, [batch, time, width])
    }

    fn cross_attention_keep(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        forward(&cross_call(&Rows::new(q), &Rows::new(kv), &settings), true)
    }

    fn cross_attention_grad(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        kept: Option<FloatTensor<Self>>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 2] {
        let (q, kv, dout) = (Rows::new(q), Rows::new(kv), Rows::new(dout));
        let kept = Values::new(kept.expect("the forward pass keeps its rows"));
        let ([batch, q_time, hidden], [_, k_time, width]) = (q.dims(), kv.dims());
        let saved = Saved { statistics: kept.f32(), dout: dout.operand(0) };
        let [dq, dkv] = cpu::cross_backward(Level::best(), &cross_call(&q, &kv, &settings), &saved);
        [tensor(dq, [batch, q_time, hidden]), tensor(dkv, [batch, k_time, width])]
    }
}
