//! Rows of a cache, when hypotheses change places: a beam search does it in every step.
//!
//! Burn's own selection clears the result before it writes it and copies room that was never filled.

#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;

use crate::flex::{Values, tensor};

/// Row `i` of the result is row `rows[i]` of `x` `[rows, time, width]`. Only the first `filled` positions are copied:
/// what lies past them is of no meaning, and never NaN on the CPU.
///
/// `x` is a plain tensor, without autodiff. Panics if a row does not exist or `filled` is more than `time`.
pub fn select_rows(x: Tensor<3>, rows: &[usize], filled: usize) -> Tensor<3> {
    let [count, time, _] = x.dims();
    assert!(filled <= time, "select_rows: {filled} positions of {time}");
    assert!(rows.iter().all(|&row| row < count), "select_rows: rows {rows:?} of {count}");
    Tensor::from_dispatch(Dispatch::select_filled_rows(x.into_dispatch(), rows.to_vec(), filled))
}

/// The selection, as each device runs it: for plain tensors only, it has no gradient.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"))]
pub trait SelectRowsOps: Backend {
    /// See [`select_rows`].
    fn select_filled_rows(x: FloatTensor<Self>, rows: Vec<usize>, _filled: usize) -> FloatTensor<Self> {
        let device = x.device();
        let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let ids = Self::int_from_data(TensorData::new(ids, [rows.len()]), &device);
        Self::float_select(x, 0, ids)
    }
}

#[cfg(feature = "gpu")]
impl SelectRowsOps for burn::backend::Cube {}

impl SelectRowsOps for Flex {
    fn select_filled_rows(x: FloatTensor<Self>, rows: Vec<usize>, filled: usize) -> FloatTensor<Self> {
        let x = Values::new(x);
        let [_, time, width] = x.shape().dims();
        let (row_size, values) = (time * width, x.f32());
        let mut result = Vec::with_capacity(rows.len() * row_size);
        for (i, row) in rows.iter().enumerate() {
            result.extend_from_slice(&values[row * row_size..][..filled * width]);
            result.resize((i + 1) * row_size, 0.0);
        }
        tensor(result, [rows.len(), time, width])
    }
}
