//! Embedding by Burn's own operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DeviceOps, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use super::Lookup;
use crate::dropout;

pub(super) fn forward<B: Backend>(
    table: FloatTensor<B>,
    ids: IntTensor<B>,
    positions: Option<FloatTensor<B>>,
    how: Lookup,
) -> FloatTensor<B> {
    let ([vocab, hidden], [batch, time]) = (table.shape().dims(), ids.shape().dims());
    let (tokens, shape) = (batch * time, Shape::from([batch, time, hidden]));
    let device = table.device();
    if tokens * hidden == 0 {
        return B::float_zeros(shape, &device, device.defaults().float_dtype);
    }
    assert!(vocab > 0, "embedding: a table without rows has no token");
    let dtype = device.defaults().bool_dtype;
    let ids = B::int_reshape(ids, Shape::from([tokens]));
    let below = B::int_lower_elem(ids.clone(), 0i32.into(), dtype);
    let above = B::int_greater_equal_elem(ids.clone(), (vocab as i64).into(), dtype);
    let invalid = B::bool_or(below, above);
    let rows = B::float_select(table, 0, B::int_mask_fill(ids, invalid.clone(), 0i32.into()));
    let invalid = B::bool_expand(B::bool_reshape(invalid, Shape::from([tokens, 1])), Shape::from([tokens, hidden]));
    let rows = B::float_mask_fill(rows, invalid, f32::NAN.into());
    let mut y = B::float_reshape(B::float_mul_scalar(rows, how.scale.into()), shape);
    if let Some(positions) = positions {
        let used = B::float_slice(positions, &[Slice::from(how.offset..how.offset + time), Slice::from(0..hidden)]);
        y = B::float_add(y, B::float_reshape(used, Shape::from([1, time, hidden])));
    }
    dropout::portable::<B>(y, how.dropout)
}

pub(super) fn table_gradient<B: Backend>(
    vocab: usize,
    ids: IntTensor<B>,
    dy: FloatTensor<B>,
    how: Lookup,
) -> FloatTensor<B> {
    let [batch, time, hidden] = dy.shape().dims();
    let device = dy.device();
    let zeros = B::float_zeros(Shape::from([vocab, hidden]), &device, device.defaults().float_dtype);
    if batch * time * hidden == 0 {
        return zeros;
    }
    let dy = B::float_mul_scalar(dropout::portable::<B>(dy, how.dropout), how.scale.into());
    let dy = B::float_reshape(dy, Shape::from([batch * time, hidden]));
    let ids = B::int_reshape(ids, Shape::from([batch * time]));
    B::float_select_assign(zeros, 0, ids, dy, IndexingUpdateOp::Add)
}

pub(super) fn positions_gradient<B: Backend>(length: usize, dy: FloatTensor<B>, how: Lookup) -> FloatTensor<B> {
    let [batch, time, hidden] = dy.shape().dims();
    let device = dy.device();
    let zeros = B::float_zeros(Shape::from([length, hidden]), &device, device.defaults().float_dtype);
    if batch * time * hidden == 0 {
        return zeros;
    }
    let sum = B::float_sum_dim(dropout::portable::<B>(dy, how.dropout), 0);
    let sum = B::float_reshape(sum, Shape::from([time, hidden]));
    B::float_slice_assign(zeros, &[Slice::from(how.offset..how.offset + time), Slice::from(0..hidden)], sum)
}
