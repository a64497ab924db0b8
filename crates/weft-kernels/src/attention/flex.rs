//! The kernel on Flex tensors: views are read where they lie.
#![expect(unsafe_code, reason = "results are filled by tasks, each its own columns")]

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn_flex::FlexTensor;

use super::cpu::{self, Call, Gradients, Saved, Sizes};
use super::memory::{Operand, Target};
use super::{AttentionGrad, AttentionOps, AttentionSettings, Kept};
use crate::flex::{Values, tensor};
use crate::fresh::Fresh;
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

/// The operands of a self-attention.
fn self_call<'a>(qkv: &'a Rows, bias: &'a Values, settings: &'a AttentionSettings) -> Call<'a> {
    let [batch, time, width] = qkv.dims();
    let (heads, kv_heads) = (settings.num_heads, settings.num_kv_heads);
    let head_dim = width / (heads + 2 * kv_heads);
    let [q, k, v] = [0, heads, heads + kv_heads].map(|head| qkv.operand(head * head_dim));
    let sizes = Sizes { batch, q_time: time, k_time: time, head_dim };
    Call { q, k, v, bias: bias.f32(), sizes, settings }
}

/// Those of a cross-attention.
fn cross_call<'a>(q: &'a Rows, kv: &'a Rows, bias: &'a Values, settings: &'a AttentionSettings) -> Call<'a> {
    let ([batch, q_time, hidden], [_, k_time, width]) = (q.dims(), kv.dims());
    let sizes = Sizes { batch, q_time, k_time, head_dim: hidden / settings.num_heads };
    Call { q: q.operand(0), k: kv.operand(0), v: kv.operand(width / 2), bias: bias.f32(), sizes, settings }
}

/// The result as a tensor.
fn forward(call: &Call<'_>) -> FlexTensor {
    let Sizes { batch, q_time, head_dim, .. } = call.sizes;
    let out = cpu::forward(Level::best(), call, false).out;
    tensor(out, [batch, q_time, call.settings.num_heads * head_dim])
}

/// The result, and what the backward pass needs.
fn keep(call: &Call<'_>) -> Kept<Flex> {
    let Sizes { batch, q_time, head_dim, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let cpu::Forward { out, statistics } = cpu::forward(Level::best(), call, true);
    Kept {
        rows: statistics.map(|statistics| tensor(statistics, [batch, heads, q_time, 2])),
        out: tensor(out, [batch, q_time, heads * head_dim]),
    }
}

/// Writes gradients of queries, keys and values where `targets` says, and returns that of the bias.
fn backward(call: &Call<'_>, kept: Kept<Flex>, dout: FlexTensor, targets: [Target<'_>; 3]) -> FlexTensor {
    let rows = Values::new(kept.rows.expect("the forward pass keeps its rows"));
    let (out, dout) = (Rows::new(kept.out), Rows::new(dout));
    let saved = Saved { statistics: rows.f32(), out: out.operand(0), dout: dout.operand(0) };
    let [q, k, v] = targets;
    let (batch, heads) = (call.sizes.batch, call.settings.num_heads);
    let distances = call.bias.len() / heads;
    let size = batch * heads * distances;
    let mut of_bias = Fresh::new(size);
    let bias = (distances > 0).then(|| Target::new(of_bias.room(), heads * distances, distances));
    cpu::backward(Level::best(), call, &saved, Gradients { q, k, v, bias });
    // SAFETY: `backward` writes all of its targets.
    let of_bias = unsafe { of_bias.filled(size) };
    // The sentences' one after the other, so that the result is the same on any number of threads.
    let mut sum = vec![0.0; heads * distances];
    for part in of_bias.chunks_exact(sum.len().max(1)) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    tensor(sum, [heads, distances])
}

impl AttentionOps for Flex {
    fn self_attention_forward(
        qkv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        forward(&self_call(&Rows::new(qkv), &Values::new(bias), &settings))
    }

    fn cross_attention_forward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        forward(&cross_call(&Rows::new(q), &Rows::new(kv), &Values::new(bias), &settings))
    }

    fn attention_weights_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let (q, k, bias) = (Rows::new(q), Rows::new(k), Values::new(bias));
        let ([batch, q_time, hidden], [_, k_time, _]) = (q.dims(), k.dims());
        let sizes = Sizes { batch, q_time, k_time, head_dim: hidden / settings.num_heads };
        let keys = k.operand(0);
        let call = Call { q: q.operand(0), k: keys, v: keys, bias: bias.f32(), sizes, settings: &settings };
        tensor(cpu::weights(Level::best(), &call), [batch, settings.num_heads, q_time, k_time])
    }
}

impl AttentionGrad for Flex {
    fn self_attention_keep(qkv: FloatTensor<Self>, bias: FloatTensor<Self>, settings: AttentionSettings) -> Kept<Self> {
        keep(&self_call(&Rows::new(qkv), &Values::new(bias), &settings))
    }

    fn self_attention_grad(
        qkv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kept: Kept<Self>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 2] {
        let (qkv, bias) = (Rows::new(qkv), Values::new(bias));
        let call = self_call(&qkv, &bias, &settings);
        let [batch, time, width] = qkv.dims();
        let size = batch * time * width;
        let mut gradient = Fresh::new(size);
        let all = Target::new(gradient.room(), time * width, width);
        let (heads, head_dim) = (settings.num_heads, call.sizes.head_dim);
        let targets = [0, heads, heads + settings.num_kv_heads].map(|head| all.skip(head * head_dim));
        let of_bias = backward(&call, kept, dout, targets);
        // SAFETY: the backward pass writes all of its targets, which are all columns.
        let gradient = unsafe { gradient.filled(size) };
        [tensor(gradient, [batch, time, width]), of_bias]
    }

    fn cross_attention_keep(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> Kept<Self> {
        keep(&cross_call(&Rows::new(q), &Rows::new(kv), &Values::new(bias), &settings))
    }

    fn cross_attention_grad(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kept: Kept<Self>,
        dout: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> [FloatTensor<Self>; 3] {
        let (q, kv, bias) = (Rows::new(q), Rows::new(kv), Values::new(bias));
        let call = cross_call(&q, &kv, &bias, &settings);
        let ([batch, q_time, hidden], [_, k_time, width]) = (q.dims(), kv.dims());
        let (q_size, kv_size) = (batch * q_time * hidden, batch * k_time * width);
        let (mut dq, mut dkv) = (Fresh::new(q_size), Fresh::new(kv_size));
        let keys = Target::new(dkv.room(), k_time * width, width);
        let targets = [Target::new(dq.room(), q_time * hidden, hidden), keys, keys.skip(width / 2)];
        let of_bias = backward(&call, kept, dout, targets);
        // SAFETY: the backward pass writes all of its targets, which are all columns.
        let (dq, dkv) = unsafe { (dq.filled(q_size), dkv.filled(kv_size)) };
        [tensor(dq, [batch, q_time, hidden]), tensor(dkv, [batch, k_time, width]), of_bias]
    }
}
