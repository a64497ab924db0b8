//! Rotary positions.  Su et al., arXiv 2104.09864, section 3.2.2.
//!
//!   y_i        = x_i cos(t f_i) - x_(i+d/2) sin(t f_i)
//!   y_(i+d/2)  = x_(i+d/2) cos(t f_i) + x_i sin(t f_i)          f_i = base^(-2i/d), i < d/2, at position t
//!
//! The pairs are (i, i + d/2) of each head, as in GPT-NeoX and LLaMA; the paper's are neighbours. The scalar product of a
//! rotated query and a rotated key depends on how far apart they stand, not on where.

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Slice, TensorData};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// The angles of some positions; made once for all layers.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// For each position the cosines, then the sines, of `half` angles.
    table: Arc<Vec<f32>>,
    half: usize,
    inverse: bool,
}

impl Rotation {
    /// For `count` positions from `first` on, and heads of `head_dim`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(first: usize, count: usize, head_dim: usize, base: f64) -> Self {
        assert!(head_dim.is_multiple_of(2), "Rotation: heads of {head_dim} columns have no pairs");
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| base.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let mut table = Vec::with_capacity(count * head_dim);
        for position in first..first + count {
            let angles = frequencies.iter().map(|frequency| position as f64 * frequency);
            table.extend(angles.clone().map(|angle| angle.cos() as f32));
            table.extend(angles.map(|angle| angle.sin() as f32));
        }
        Self { table: Arc::new(table), half, inverse: false }
    }

    fn head_dim(&self) -> usize {
        2 * self.half
    }

    fn inverse(self) -> Self {
        Self { inverse: !self.inverse, ..self }
    }

    /// Cosines and sines, `[1, positions, 1, half]` each.
    fn tensors<B: Backend>(&self, device: &burn::backend::tensor::Device<B>) -> [FloatTensor<B>; 2] {
        let positions = self.table.len() / self.head_dim();
        let sign = if self.inverse { -1.0 } else { 1.0 };
        [(0, 1.0), (self.half, sign)].map(|(start, sign)| {
            let rows = self.table.chunks_exact(self.head_dim());
            let values: Vec<f32> = rows.flat_map(|row| row[start..][..self.half].iter().map(|x| sign * x)).collect();
            B::float_from_data(TensorData::new(values, [1, positions, 1, self.half]), device)
        })
    }
}

/// Rotates the heads in the first `columns` columns of `x` `[batch, time, width]`, time `t` by the angles of the rotation's
/// position `t`; the other columns stay.
///
/// # Panics
/// If heads do not divide the columns, or the rotation has another number of positions.
pub fn rotary(x: Tensor<3>, columns: usize, rotation: &Rotation) -> Tensor<3> {
    let ([_, time, width], size) = (x.dims(), rotation.head_dim());
    assert!(
        columns <= width && columns.is_multiple_of(size.max(1)) && rotation.table.len() == time * size,
        "rotary: {columns} columns of {:?} with {} angles of heads of {size}",
        x.dims(),
        rotation.table.len()
    );
    Tensor::from_dispatch(Dispatch::rotary_forward(x.into_dispatch(), columns, rotation.clone()))
}

/// The operation, as each device runs it. Its gradient is the rotation back.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait RotaryOps: Backend {
    /// See [`rotary`].
    fn rotary_forward(x: FloatTensor<Self>, columns: usize, rotation: Rotation) -> FloatTensor<Self> {
        let shape = x.shape();
        let [batch, time, width] = [shape[0], shape[1], shape[2]];
        let part = |from: usize, to: usize| {
            let all = |size: usize| Slice::from(0..size);
            Self::float_slice(x.clone(), &[all(batch), all(time), Slice::from(from..to)])
        };
        if batch * time * columns == 0 {
            return x;
        }
        let (half, heads) = (rotation.half, columns / rotation.head_dim());
        let pairs = Self::float_reshape(part(0, columns), Shape::from([batch, time, heads, 2 * half]));
        let half_of = |start: usize| {
            let all = |size: usize| Slice::from(0..size);
            Self::float_slice(pairs.clone(), &[all(batch), all(time), all(heads), Slice::from(start..start + half)])
        };
        let (a, b) = (half_of(0), half_of(half));
        let [cos, sin] = rotation.tensors::<Self>(&x.device());
        let times = |x: &FloatTensor<Self>, y: &FloatTensor<Self>| Self::float_mul(x.clone(), y.clone());
        let first = Self::float_sub(times(&a, &cos), times(&b, &sin));
        let second = Self::float_add(times(&b, &cos), times(&a, &sin));
        let rotated = Self::float_reshape(Self::float_cat(vec![first, second], 3), Shape::from([batch, time, columns]));
        if columns == width {
            return rotated;
        }
        Self::float_cat(vec![rotated, part(columns, width)], 2)
    }
}

#[cfg(feature = "gpu")]
impl RotaryOps for burn::backend::Cube {}

impl RotaryOps for Flex {
    fn rotary_forward(x: FloatTensor<Self>, columns: usize, rotation: Rotation) -> FloatTensor<Self> {
        let x = Values::new(x);
        let [_, time, width] = [0, 1, 2].map(|axis| x.shape()[axis]);
        tensor(cpu::rotated(Level::best(), x.f32(), [time, width], columns, &rotation), x.shape())
    }
}
