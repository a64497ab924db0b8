//! Between Flex tensors and plain slices.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::{Bytes, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::gemm::transpose;
use crate::simd::Level;

/// The values of a tensor in row-major order; copies only a view that is not contiguous.
pub(crate) struct Values(FlexTensor);

impl Values {
    /// Takes an `f32` or `i32` tensor.
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        if tensor.is_contiguous() {
            return Self(tensor);
        }
        Self(turned(&tensor).unwrap_or_else(|| tensor.to_contiguous()))
    }

    /// The shape.
    pub(crate) fn shape(&self) -> Shape {
        self.0.shape()
    }

    /// The elements, row-major. The tensor must hold `f32`.
    pub(crate) fn f32(&self) -> &[f32] {
        assert_eq!(self.0.dtype(), DType::F32, "Weft's CPU kernels compute in f32");
        let (start, end) = self.0.layout().contiguous_offsets().expect("made contiguous in `new`");
        &self.0.storage::<f32>()[start..end]
    }

    /// The elements, row-major. The tensor must hold `i32`, Flex's integer type.
    pub(crate) fn i32(&self) -> &[i32] {
        assert_eq!(self.0.dtype(), DType::I32, "Weft's CPU kernels index with i32");
        let (start, end) = self.0.layout().contiguous_offsets().expect("made contiguous in `new`");
        &self.0.storage::<i32>()[start..end]
    }
}

/// Rows of a transposed matrix that a task copies: a multiple of a cache line's values.
const ROWS_PER_TASK: usize = 64;

/// A transposed `f32` matrix row by row, as weights in PyTorch's layout come; nothing for any other tensor.
fn turned(tensor: &FlexTensor) -> Option<FlexTensor> {
    let layout = tensor.layout();
    let (&[rows, cols], &[1, stride]) = (&layout.shape()[..], layout.strides()) else { return None };
    let stride = usize::try_from(stride).ok().filter(|&stride| tensor.dtype() == DType::F32 && stride >= rows)?;
    let from = &tensor.storage::<f32>()[layout.start_offset()..];
    let mut values = zeros(rows * cols);
    values.par_chunks_mut((ROWS_PER_TASK * cols).max(1)).enumerate().for_each(|(task, to)| {
        let first = task * ROWS_PER_TASK;
        // Few columns at a time: the lines of the result are whole before they leave the cache.
        for column in (0..cols).step_by(16) {
            let count = 16.min(cols - column);
            let from = &from[column * stride + first..];
            transpose(Level::best(), from, stride, count, to.len() / cols, &mut to[column..], cols);
        }
    });
    Some(self::tensor(values, [rows, cols]))
}

/// A contiguous `f32` tensor that owns `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    assert_eq!(shape.num_elements(), values.len(), "a tensor of {shape:?} from {} values", values.len());
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}
