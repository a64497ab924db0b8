//! Truth values from the host, for portable bodies.

use burn::backend::tensor::{BoolTensor, Device};
use burn::backend::{Backend, DeviceOps};
use burn::tensor::TensorData;

/// A mask on the device, in the type in which that device stores truth values.
pub(crate) fn host_mask<B: Backend, const D: usize>(
    values: Vec<bool>,
    shape: [usize; D],
    device: &Device<B>,
) -> BoolTensor<B> {
    let data = TensorData::new(values, shape).convert_dtype(device.defaults().bool_dtype.into());
    B::bool_from_data(data, device)
}
