//! A language model with its tokenizer.

use burn::Tensor;
use burn::tensor::{Int, TensorData};
use weft_decode::{DecodeError, Sampler};
use weft_models::search::{Generation, Session, StateError, generate, stream_loss};
use weft_models::{LanguageModel, Noise};
use weft_text::{RecallTask, Tokenizer};
use weft_train::{RecallAccuracy, TrainError, recall_accuracy};

use super::{device_of, stored_shapes};

/// A language model of any architecture, without its type.
pub(crate) trait Continues {
    /// A text of which nothing is read yet.
    fn begin(&self) -> Box<dyn Text + '_>;

    /// The text that a state file holds; it must have been saved for the model with this hash.
    fn go_on(&self, hash: &str, bytes: &[u8]) -> Result<Box<dyn Text + '_>, StateError>;

    /// The sum of the losses, in nats, of `targets` after `inputs`, both `[batch, time]` row by row; a target of -1
    /// counts nothing.
    fn loss(&self, inputs: Vec<i32>, targets: Vec<i32>, rows: usize, time: usize) -> f64;

    /// Attention probabilities `[heads, time, time]` of every layer, row by row; none if it does not attend.
    fn attention_maps(&self, tokens: &[u32]) -> Vec<Vec<f32>>;

    /// The sum of the losses, in nats, of every token but the first, each after all before it, read in pieces; `seen`
    /// is told how many were read.
    fn stream_loss(&self, tokens: &[u32], piece: usize, seen: &mut dyn FnMut(usize)) -> f64;

    /// How often the model answers rightly, at each distance.
    ///
    /// # Errors
    /// As [`weft_train::recall_accuracy`].
    fn recall_accuracy(
        &self,
        tokenizer: &Tokenizer,
        task: &RecallTask,
        distances: &[usize],
        questions: usize,
    ) -> Result<Vec<RecallAccuracy>, TrainError>;

    /// The longest sequence, if there is a limit.
    fn max_length(&self) -> Option<usize>;

    /// The name and shape of each tensor.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;
}

/// A text that a model is in the middle of.
pub(crate) trait Text {
    /// Its tokens.
    fn tokens(&self) -> &[u32];

    /// Whether it can go on without a prompt.
    fn has_unread(&self) -> bool;

    /// Continues it; each token is handed over as soon as it is drawn.
    fn generate(
        &mut self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, DecodeError>;

    /// The contents of its state file, for the model with this hash.
    fn into_bytes(self: Box<Self>, hash: &str) -> Vec<u8>;
}

struct TextOf<'a, M: LanguageModel> {
    model: &'a M,
    session: Session<M>,
}

impl<M: LanguageModel> Text for TextOf<'_, M> {
    fn tokens(&self) -> &[u32] {
        self.session.tokens()
    }

    fn has_unread(&self) -> bool {
        self.session.has_unread()
    }

    fn generate(
        &mut self,
        what: &Generation<'_>,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, DecodeError> {
        generate(self.model, &mut self.session, what, sampler, emit)
    }

    fn into_bytes(self: Box<Self>, hash: &str) -> Vec<u8> {
        self.session.into_bytes(self.model, hash)
    }
}

impl<M: LanguageModel> Continues for M {
    fn begin(&self) -> Box<dyn Text + '_> {
        Box::new(TextOf { model: self, session: Session::new(self) })
    }

    fn go_on(&self, hash: &str, bytes: &[u8]) -> Result<Box<dyn Text + '_>, StateError> {
        Ok(Box::new(TextOf { model: self, session: Session::from_bytes(self, hash, bytes)? }))
    }

    fn loss(&self, inputs: Vec<i32>, targets: Vec<i32>, rows: usize, time: usize) -> f64 {
        let device = device_of(self);
        let tensor = |ids: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, time]), &device);
        let loss = LanguageModel::loss(self, tensor(inputs), tensor(targets), &mut Noise::none());
        let values: Vec<f32> = loss.into_data().try_to_vec().expect("a loss is f32");
        values.iter().copied().map(f64::from).sum()
    }

    fn attention_maps(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let ids = tokens.iter().map(|&token| token as i32).collect();
        let ids = Tensor::from_data(TensorData::new::<i32, _>(ids, [1, tokens.len()]), &device_of(self));
        let maps = LanguageModel::attention_maps(self, ids).into_iter();
        maps.map(|map| map.into_data().try_to_vec().expect("probabilities are f32")).collect()
    }

    fn stream_loss(&self, tokens: &[u32], piece: usize, seen: &mut dyn FnMut(usize)) -> f64 {
        stream_loss(self, tokens, piece, seen)
    }

    fn recall_accuracy(
        &self,
        tokenizer: &Tokenizer,
        task: &RecallTask,
        distances: &[usize],
        questions: usize,
    ) -> Result<Vec<RecallAccuracy>, TrainError> {
        recall_accuracy(self, tokenizer, task, distances, questions)
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
