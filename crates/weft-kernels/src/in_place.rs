//! Writing a result over an operand that nobody else holds.

use burn::backend::{DType, TensorMetadata};
use burn_flex::FlexTensor;

/// The elements of a contiguous `f32` tensor, to be written over; `None` if its storage is shared or larger
/// than the tensor. A caller that gets `None` allocates instead: the values are the same, bit for bit.
pub(crate) fn unshared(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    let range = tensor.layout().contiguous_offsets()?;
    let count = tensor.shape().num_elements();
    if range != (0, count) {
        return None;
    }
    tensor.try_storage_mut::<f32>().filter(|storage| storage.len() == count)
}

/// Where the values of a plain tensor on Flex lie, for tests.
#[cfg(test)]
pub(crate) fn address<const D: usize>(tensor: &burn::Tensor<D>) -> *const u8 {
    use burn::backend::{BackendTensor, DispatchTensorKind};
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr(),
        other => panic!("not a float tensor on Flex: {other:?}"),
    }
}
