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

    /// The `count` positions read last, `[rows, count, 2 * hidden]`, if that is any.
    pub(crate) fn last(&self, count: usize) -> Option<Tensor<3>> {
        let count = count.min(self.length);
        (count > 0).then(|| self.buffer.clone().narrow(1, self.length - count, count))
    }

    /// Lets go of all but the `count` positions read last, if that halves what is held: then forgetting costs constant
    /// time a position.
    pub(crate) fn forget_all_but(&mut self, count: usize) {
        if self.length >= (2 * count).max(FIRST_CAPACITY) {
            let [rows, _, width] = self.buffer.dims();
            let kept = self.buffer.clone().narrow(1, self.length - count, count);
            let room = Tensor::zeros([rows, self.length.next_power_of_two() - count, width], &self.buffer.device());
            *self = Self { buffer: Tensor::cat(vec![kept, room], 1), length: count };
        }
    }

    /// Takes the next positions' queries, keys and values side by side, `[rows, time, 3 * hidden]`; see
    /// [`attend_with`](Self::attend_with).
    pub(crate) fn attend(&mut self, packed: Tensor<3>, options: &AttentionOptions) -> Tensor<3> {
        let hidden = packed.dims()[2] / 3;
        let query = packed.clone().narrow(2, 0, hidden);
        self.attend_with(query, packed.narrow(2, hidden, 2 * hidden), options)
    }

    /// Keeps the next positions' keys and values, `[rows, time, 2 * hidden]`, and lets their queries attend to all that
    /// it holds: a result of their shape.
    pub(crate) fn attend_with(
        &mut self,
        query: Tensor<3>,
        keys_values: Tensor<3>,
        options: &AttentionOptions,
    ) -> Tensor<3> {
        self.append(keys_values);
        let lengths = vec![self.length; query.dims()[0]];
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
