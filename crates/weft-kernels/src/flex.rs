//! Between Flex tensors and plain slices.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::{Bytes, Shape};
use burn_flex::{FlexTensor, Layout};

/// The values of a tensor in row-major order; copies only a view that is not contiguous.
pub(crate) struct Values(FlexTensor);

impl Values {
    /// Takes an `f32` or `i32` tensor.
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() })
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

/// A contiguous `f32` tensor that owns `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    assert_eq!(shape.num_elements(), values.len(), "a tensor of {shape:?} from {} values", values.len());
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}
