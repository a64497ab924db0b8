//! The device that `--device` names.

use burn::tensor::Device;

use crate::cli::DeviceName;
use crate::error::{Error, Result};

/// Opens a device.
///
/// # Errors
/// A device that this binary was not built for, or that this machine does not have.
pub(crate) fn open(name: DeviceName) -> Result<Device> {
    match name {
        DeviceName::Cpu => Ok(Device::flex()),
        DeviceName::Gpu => gpu(),
    }
}

#[cfg(not(any(feature = "gpu", feature = "cuda")))]
fn gpu() -> Result<Device> {
    Err(Error::new("`--device gpu`: this weft was built without a GPU feature")
        .hint("build it with `cargo build --release --features gpu` (Vulkan, Metal, DirectX 12) or `--features cuda`, or leave --device out"))
}

#[cfg(any(feature = "gpu", feature = "cuda"))]
fn gpu() -> Result<Device> {
    // Burn panics where there is no device, when it is used first.
    let opened = std::panic::catch_unwind(|| {
        #[cfg(feature = "cuda")]
        let device = Device::cuda(0);
        #[cfg(not(feature = "cuda"))]
        let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
        let one: burn::Tensor<1> = burn::Tensor::ones([1], &device);
        let _ = one.into_data();
        device
    });
    opened.map_err(|_| {
        Error::new("`--device gpu`: no GPU can be opened on this machine")
            .hint("check that the graphics driver is installed, or leave --device out")
    })
}
