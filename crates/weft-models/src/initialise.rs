//! Initial values, a function of the seed alone.

use burn::Tensor;
use burn::module::Param;
use burn::tensor::{Device, TensorData};

/// A counter-based generator (the output function of SplitMix64, Steele et al. 2014): value `i` of stream
/// `seed` does not depend on what was drawn before.
#[derive(Debug, Clone)]
pub(crate) struct Initialiser {
    state: u64,
    device: Device,
}

impl Initialiser {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        Self { state: seed ^ 0x0005_EED0_FA11, device: device.clone() }
    }

    fn uniform_value(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal_value(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform_value()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform_value()).cos()
    }

    fn parameter<const D: usize>(
        &mut self,
        shape: [usize; D],
        mut value: impl FnMut(&mut Self) -> f64,
    ) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| value(self) as f32).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// Normal with mean 0.
    pub(crate) fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64) -> Param<Tensor<D>> {
        self.parameter(shape, |generator| deviation * generator.normal_value())
    }

    /// Rows, or columns if there are fewer, of length `gain` and orthogonal to each other, in a direction without
    /// preference (Saxe et al., arXiv 1312.6120): normal vectors, each freed of those before it.
    pub(crate) fn orthogonal(&mut self, [rows, columns]: [usize; 2], gain: f64) -> Param<Tensor<2>> {
        let (count, size) = (rows.min(columns), rows.max(columns));
        let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for _ in 0..count {
            let mut vector: Vec<f64> = (0..size).map(|_| self.normal_value()).collect();
            // Twice: the first time leaves rounding errors that are large when little is left.
            for earlier in vectors.iter().chain(&vectors) {
                let along = dot(&vector, earlier);
                vector.iter_mut().zip(earlier).for_each(|(value, earlier)| *value -= along * earlier);
            }
            let length = dot(&vector, &vector).sqrt();
            vector.iter_mut().for_each(|value| *value /= length);
            vectors.push(vector);
        }
        let (row_stride, column_stride) = if rows <= columns { (size, 1) } else { (1, size) };
        let values = vectors.concat();
        self.with_rows([rows, columns], |i| gain * values[i / columns * row_stride + i % columns * column_stride])
    }

    /// Uniform in `-limit..limit`.
    pub(crate) fn uniform<const D: usize>(&mut self, shape: [usize; D], limit: f64) -> Param<Tensor<D>> {
        self.parameter(shape, |generator| limit * (2.0 * generator.uniform_value() - 1.0))
    }

    /// Glorot & Bengio 2010: uniform with variance 2 / (fan_in + fan_out), for `[out, in]`.
    pub(crate) fn glorot(&mut self, [out, fan_in]: [usize; 2]) -> Param<Tensor<2>> {
        self.uniform([out, fan_in], (6.0 / (fan_in + out) as f64).sqrt())
    }

    /// A function of values that are uniform in `0..1`.
    pub(crate) fn by_uniform<const D: usize>(
        &mut self,
        shape: [usize; D],
        value: impl Fn(f64) -> f64,
    ) -> Param<Tensor<D>> {
        self.parameter(shape, |generator| value(generator.uniform_value()))
    }

    /// What softplus turns into steps of a state space, spread evenly over their magnitudes; none is below 1e-4.
    pub(crate) fn steps(&mut self, count: usize, least: f64, most: f64) -> Param<Tensor<1>> {
        let (least, most) = (least.ln(), most.ln());
        self.by_uniform([count], |uniform| {
            let step = (least + uniform * (most - least)).exp().max(1e-4);
            step + (-(-step).exp_m1()).ln()
        })
    }

    /// A value for each place of the last axis, the same in every row.
    pub(crate) fn with_columns<const D: usize>(
        &mut self,
        shape: [usize; D],
        value: impl Fn(usize) -> f64,
    ) -> Param<Tensor<D>> {
        let mut element = 0;
        self.parameter(shape, |_| {
            element += 1;
            value((element - 1) % shape[D - 1])
        })
    }

    /// A value for each position, row after row.
    pub(crate) fn with_rows<const D: usize>(
        &mut self,
        shape: [usize; D],
        value: impl Fn(usize) -> f64,
    ) -> Param<Tensor<D>> {
        let mut row = 0;
        self.parameter(shape, |_| {
            row += 1;
            value(row - 1)
        })
    }

    /// One value everywhere.
    pub(crate) fn constant<const D: usize>(&mut self, shape: [usize; D], value: f64) -> Param<Tensor<D>> {
        self.parameter(shape, |_| value)
    }
}
