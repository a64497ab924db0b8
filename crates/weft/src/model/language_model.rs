//! A language model with its tokenizer.

use burn::Tensor;
use burn::tensor::{Int, TensorData};
use weft_decode::{DecodeError, Sampler};
use weft_models::search::{Generation, generate};
use weft_models::{LanguageModel, Noise};
use weft_text::Tokenizer;

use super::{device_of, stored_shapes};

/// A language model of any architecture, without its type.
pub(crate) trait Continues {
    /// Continues a prompt; each token is handed over as soon as it is drawn.
    fn generate(
        &self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, DecodeError>;

    /// The sum of the losses, in nats, of `targets` after `inputs`, both `[batch, time]` row by row; a target of -1
    /// counts nothing.
    fn loss(&self, inputs: Vec<i32>, targets: Vec<i32>, rows: usize, time: usize) -> f64;

    /// The longest sequence, if there is a limit.
    fn max_length(&self) -> Option<usize>;

    /// The name and shape of each tensor.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;
}

impl<M: LanguageModel> Continues for M {
    fn generate(
        &self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, DecodeError> {
        generate(self, what, sampler, emit)
    }

    fn loss(&self, inputs: Vec<i32>, targets: Vec<i32>, rows: usize, time: usize) -> f64 {
        let device = device_of(self);
        let tensor = |ids: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, time]), &device);
        let loss = LanguageModel::loss(self, tensor(inputs), tensor(targets), &mut Noise::none());
        let values: Vec<f32> = loss.into_data().try_to_vec().expect("a loss is f32");
        values.iter().copied().map(f64::from).sum()
    }

    fn max_length(&self) -> Option<usize> {
        LanguageModel::max_length(self)
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        stored_shapes(self)
    }
}

/// A language model and its tokenizer.
pub(crate) struct TextModel {
    pub(crate) model: Box<dyn Continues>,
    pub(crate) tokenizer: Tokenizer,
}
