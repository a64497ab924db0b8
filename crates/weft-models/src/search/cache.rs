//! Keys and values of the tokens decoded so far.

use burn::Tensor;
use burn::tensor::Device;
use weft_kernels::attention::{AttentionOptions, cross_attention};

/// A cache of one layer's keys and values, `[rows, capacity, 2 * hidden]`, of which `length` are filled.
#[derive(Debug, Clone)]
pub(crate) struct KeyValueCache {
    buffer: Tensor<3>,
    length: usize,
}

/// The first capacity; it doubles when it is full, so that appending costs constant time on average. Small, since a
/// beam search copies the whole cache when its hypotheses change places.
const FIRST_CAPACITY: usize = 8;

impl KeyValueCache {
    pub(crate) fn new(rows: usize, hidden: usize, device: &Device) -> Self {
        Self { buffer: Tensor::zeros([rows, FIRST_CAPACITY, 2 * hidden], device), length: 0 }
    }

    /// A full cache of these keys and values, `[rows, time, 2 * hidden]`.
    pub(crate) fn of(keys_values: Tensor<3>) -> Self {
        Self { length: keys_values.dims()[1], buffer: keys_values }
    }

    /// What it holds, `[rows, time, 2 * hidden]`, if that is anything.
    pub(crate) fn filled(&self) -> Option<Tensor<3>> {
        (self.length > 0).then(|| self.buffer.clone().narrow(1, 0, self.length))
    }

    /// Takes the next positions' queries, keys and values, `[rows, time, 3 * hidden]`, keeps the latter two and lets
    /// the queries attend to all positions so far: `[rows, time, hidden]`.
    pub(crate) fn attend(&mut self, packed: Tensor<3>, options: &AttentionOptions) -> Tensor<3> {
        let [rows, _, width] = packed.dims();
        let hidden = width / 3;
        let query = packed.clone().narrow(2, 0, hidden);
        self.append(packed.narrow(2, hidden, 2 * hidden));
        let lengths = vec![self.length; rows];
        cross_attention(query, self.buffer.clone(), None, Some(&lengths), options)
    }

    fn append(&mut self, keys_values: Tensor<3>) {
        let [rows, capacity, width] = self.buffer.dims();
        let device = self.buffer.device();
        let at = self.length;
        let end = at + keys_values.dims()[1];
        if end > capacity {
            let more = Tensor::zeros([rows, end.next_power_of_two() - capacity, width], &device);
            self.buffer = Tensor::cat(vec![self.buffer.clone(), more], 1);
        }
        // The buffer is taken out, so that it has one owner and is written in place.
        let buffer = std::mem::replace(&mut self.buffer, Tensor::zeros([0, 0, 0], &device));
        self.buffer = buffer.slice_assign([0..rows, at..end, 0..width], keys_values);
        self.length = end;
    }

    /// Row `i` becomes what row `rows[i]` was.
    pub(crate) fn select(&mut self, rows: &[usize]) {
        if !stays(rows, self.buffer.dims()[0]) {
            self.buffer = weft_kernels::select_rows(self.buffer.clone(), rows, self.length);
        }
    }
}

/// Whether `rows` are all of `count` rows in their order.
fn stays(rows: &[usize], count: usize) -> bool {
    rows.len() == count && rows.iter().enumerate().all(|(i, &row)| i == row)
}

/// Row `i` of the result is row `rows[i]`; the same tensor if nothing moves.
pub(crate) fn select_rows<const D: usize>(tensor: Tensor<D>, rows: &[usize]) -> Tensor<D> {
    if stays(rows, tensor.dims()[0]) {
        return tensor;
    }
    let mut shape = tensor.dims();
    let width = shape.iter().skip(1).product();
    let selected = weft_kernels::select_rows(tensor.reshape([shape[0], 1, width]), rows, 1);
    shape[0] = rows.len();
    selected.reshape(shape)
}
