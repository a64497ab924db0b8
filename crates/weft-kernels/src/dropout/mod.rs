//! Dropout.  Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, JMLR 15 (2014), in the form that scales
//! what is kept during training, so that nothing changes afterwards.
//!
//! The mask is never stored: whether an element is kept is a hash of the seed and the element's place, made
//! again in the backward pass, by whichever operation applies it.

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DeviceOps, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;
use pulp::Simd;

use crate::flex::{Values, tensor};
use crate::in_place::unshared;
use crate::simd::Level;

/// Which elements to drop: each with `probability`, decided by `seed` and the element's row-major index.
///
/// Kept elements are multiplied by `1 / (1 - probability)`, dropped ones become 0, even if they were NaN. The
/// index counts modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The share of elements that is dropped, from 0 up to but not including 1.
    pub probability: f32,
    /// Another seed gives an independent choice.
    pub seed: u64,
}

impl Default for Dropout {
    fn default() -> Self {
        Self::NONE
    }
}

impl Dropout {
    /// Keeps everything.
    pub const NONE: Self = Self { probability: 0.0, seed: 0 };

    /// Drops each element with `probability`. Panics unless `0 <= probability < 1`.
    pub fn new(probability: f32, seed: u64) -> Self {
        assert!((0.0..1.0).contains(&probability), "Dropout: probability {probability} is not from 0 to below 1");
        Self { probability, seed }
    }

    /// Whether every element is kept as it is.
    pub fn is_none(self) -> bool {
        self.probability <= 0.0
    }

    /// What kept elements are multiplied by.
    pub fn scale(self) -> f32 {
        if self.is_none() { 1.0 } else { 1.0 / (1.0 - self.probability) }
    }

    /// Whether the element at row-major `index` is kept.
    #[inline]
    pub fn keeps(self, index: usize) -> bool {
        let [low, high] = self.keys();
        let mut x = index as u32 ^ low;
        x ^= x >> 16;
        x = x.wrapping_mul(FACTORS[0]);
        x ^= x >> 15;
        x = x.wrapping_add(high);
        x = x.wrapping_mul(FACTORS[1]);
        x ^= x >> 16;
        x >= self.threshold()
    }

    /// What dropout makes of `x` at row-major `index`.
    #[inline]
    pub fn at(self, index: usize, x: f32) -> f32 {
        if self.keeps(index) { x * self.scale() } else { 0.0 }
    }

    /// What each of the first `count` elements is multiplied by, for devices that cannot hash.
    pub fn host_mask(self, count: usize) -> Vec<f32> {
        let mut mask = vec![1.0; count];
        cpu::in_place(Level::best(), &mut mask, self);
        mask
    }

    /// The row-major indices `start, start + 1, ..` of a vector's lanes.
    #[inline(always)]
    pub(crate) fn indices<S: Simd>(simd: S, start: usize) -> S::u32s {
        simd.add_u32s(simd.splat_u32s(start as u32), simd.partial_load_u32s(&LANES[..S::U32_LANES]))
    }

    /// What dropout makes of `x`, whose lanes have the row-major `indices`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, indices: S::u32s, x: S::f32s) -> S::f32s {
        // A selection, not a product with 0: a NaN that is dropped must be gone.
        let kept = simd.mul_f32s(x, simd.splat_f32s(self.scale()));
        simd.select_f32s(self.kept(simd, indices), kept, simd.splat_f32s(0.0))
    }

    /// [`Dropout::keeps`] for every lane.
    #[inline(always)]
    fn kept<S: Simd>(self, simd: S, indices: S::u32s) -> S::m32s {
        let [low, high] = self.keys();
        let fold = |x, bits| simd.xor_u32s(x, simd.wrapping_dyn_shr_u32s(x, simd.splat_u32s(bits)));
        let times = |x, factor| simd.widening_mul_u32s(x, simd.splat_u32s(factor)).0;
        let x = fold(simd.xor_u32s(indices, simd.splat_u32s(low)), 16);
        let x = fold(times(x, FACTORS[0]), 15);
        let x = fold(times(simd.add_u32s(x, simd.splat_u32s(high)), FACTORS[1]), 16);
        simd.greater_than_or_equal_u32s(x, simd.splat_u32s(self.threshold()))
    }

    /// Two keys from the seed by a 64-bit mixing function (Steele, Lea & Flood, SplitMix, OOPSLA 2014): seeds
    /// that differ in one bit would otherwise make choices that resemble each other.
    fn keys(self) -> [u32; 2] {
        let mut z = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        [z as u32, (z >> 32) as u32]
    }

    fn threshold(self) -> u32 {
        (f64::from(self.probability) * 4_294_967_296.0) as u32
    }
}

/// The multipliers of a 32-bit mixing function (two rounds of multiply and fold).
const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

const LANES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Drops elements of `x`: see [`Dropout`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    if dropout.is_none() {
        return x;
    }
    Tensor::from_dispatch(Dispatch::dropout_forward(x.into_dispatch(), dropout))
}

/// Dropout, as each device runs it. The gradient is the same operation on the gradient of the result.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait DropoutOps: Backend {
    /// See [`dropout`].
    fn dropout_forward(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        portable::<Self>(x, dropout)
    }
}

/// Dropout by Burn's own operations.
pub(crate) fn portable<B: Backend>(x: FloatTensor<B>, dropout: Dropout) -> FloatTensor<B> {
    if dropout.is_none() {
        return x;
    }
    let (shape, device) = (x.shape(), x.device());
    let mask = TensorData::new(dropout.host_mask(shape.num_elements()), shape);
    let bool_dtype = device.defaults().bool_dtype;
    let dropped = B::float_equal_elem(B::float_from_data(mask, &device), 0.0.into(), bool_dtype);
    B::float_mask_fill(B::float_mul_scalar(x, dropout.scale().into()), dropped, 0.0.into())
}

#[cfg(feature = "gpu")]
impl DropoutOps for burn::backend::Cube {}

impl DropoutOps for Flex {
    fn dropout_forward(mut x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let level = Level::best();
        if let Some(values) = unshared(&mut x) {
            cpu::in_place(level, values, dropout);
            return x;
        }
        let x = Values::new(x);
        let mut y = x.f32().to_vec();
        cpu::in_place(level, &mut y, dropout);
        tensor(y, x.shape())
    }
}
