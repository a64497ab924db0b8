//! A text that a language model is in the middle of, and its file.

use std::collections::HashMap;

use burn::Tensor;
use burn::tensor::{Device, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::LanguageModel;

/// A text and the model's state after it, so that the text can go on without being read again.
#[derive(Debug, Clone)]
pub struct Session<M: LanguageModel> {
    /// The text so far.
    pub(super) tokens: Vec<u32>,
    /// How many of them the state has seen: all, or all but the last ones.
    pub(super) read: usize,
    /// Tokens drawn so far: the sampler's place in its random numbers.
    pub(super) drawn: u64,
    pub(super) state: M::State,
}

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not a state file, or a damaged one.
    #[error("it is not a whole state file: {0}")]
    Format(String),
    /// The state of another model.
    #[error("it is the state of another model")]
    OtherModel,
}

/// The text; the other tensors of a state file are the model's own.
const TOKENS: &str = "tokens";

/// Metadata: the model's hash, and the counts of a [`Session`].
const MODEL: &str = "model";
const READ: &str = "read";
const DRAWN: &str = "drawn";

impl<M: LanguageModel> Session<M> {
    /// Before the first token.
    pub fn new(model: &M) -> Self {
        Self { tokens: Vec::new(), read: 0, drawn: 0, state: model.start(1) }
    }

    /// The text so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether the text can go on without further tokens: whether the state has something yet to read.
    pub fn has_unread(&self) -> bool {
        self.read < self.tokens.len()
    }

    /// The session as a safetensors file, for the model with this hash.
    pub fn into_bytes(mut self, model: &M, hash: &str) -> Vec<u8> {
        let mut file = StateFile { position: self.read, mode: Mode::Write(Vec::new()) };
        model.visit_state(&mut self.state, &mut file).expect("writing to memory");
        let Mode::Write(tensors) = file.mode else { unreachable!("the mode stays") };
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tokens: Vec<u8> = self.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let mut parts = vec![(TOKENS.to_owned(), Dtype::U32, vec![self.tokens.len()], tokens)];
        parts.extend(tensors.into_iter().map(|(name, shape, values)| (name, Dtype::F32, shape, bytes(&values))));
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape says"))
        });
        let metadata = [(MODEL, hash.to_owned()), (READ, self.read.to_string()), (DRAWN, self.drawn.to_string())];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        safetensors::serialize(views, Some(metadata)).expect("names are unique")
    }

    /// The session that a file holds.
    ///
    /// # Errors
    /// Another model's hash, or what is no state file of this model.
    pub fn from_bytes(model: &M, hash: &str, bytes: &[u8]) -> Result<Self, StateError> {
        let format = |error: &dyn std::fmt::Display| StateError::Format(error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format(&error))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| metadata.get(key).ok_or_else(|| format(&format_args!("it names no `{key}`")));
        if entry(MODEL)? != hash {
            return Err(StateError::OtherModel);
        }
        let count = |key| {
            let text = entry(key)?;
            text.parse::<u64>().map_err(|_| format(&format_args!("`{key}` is {text:?}, not a count")))
        };
        let file = SafeTensors::deserialize(bytes).map_err(|error| format(&error))?;
        let view = file.tensor(TOKENS).map_err(|error| format(&error))?;
        if view.dtype() != Dtype::U32 {
            return Err(format(&format_args!("`{TOKENS}` holds {:?}, not U32", view.dtype())));
        }
        let tokens: Vec<u32> = view.data().as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let (read, drawn) = (count(READ)?, count(DRAWN)?);
        let read = usize::try_from(read).ok().filter(|&read| read <= tokens.len());
        let read = read.ok_or_else(|| format(&format_args!("more tokens are read than there are")))?;
        let mut tensors = HashMap::new();
        for (name, view) in file.tensors().into_iter().filter(|(name, _)| name != TOKENS) {
            if view.dtype() != Dtype::F32 {
                return Err(format(&format_args!("`{name}` holds {:?}, not F32", view.dtype())));
            }
            let values = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        let mut session = Self { tokens, read, drawn, ..Self::new(model) };
        if read > 0 {
            let device = model.devices()[0].clone();
            let mut file = StateFile { position: read, mode: Mode::Read { tensors, device } };
            model.visit_state(&mut session.state, &mut file)?;
        }
        Ok(session)
    }
}

/// Bytes of a state that has seen `position` tokens of one sequence.
pub fn state_bytes<M: LanguageModel>(model: &M, state: &M::State, position: usize) -> usize {
    let mut file = StateFile { position, mode: Mode::Write(Vec::new()) };
    model.visit_state(&mut state.clone(), &mut file).expect("writing to memory");
    let Mode::Write(tensors) = file.mode else { unreachable!("the mode stays") };
    tensors.iter().map(|(_, _, values)| size_of_val(&values[..])).sum()
}

/// A state on its way to a file or back: [`LanguageModel::visit_state`] hands over its tensors one by one.
#[derive(Debug)]
pub struct StateFile {
    position: usize,
    mode: Mode,
}

/// A tensor's shape and values.
type Array = (Vec<usize>, Vec<f32>);

#[derive(Debug)]
enum Mode {
    Write(Vec<(String, Vec<usize>, Vec<f32>)>),
    Read { tensors: HashMap<String, Array>, device: Device },
}

impl StateFile {
    /// Tokens that the state has seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes note of a tensor, or replaces it by the one in the file, which must have the shape. A state that has seen
    /// nothing has no tensors.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn tensor<const D: usize>(
        &mut self,
        name: &str,
        slot: &mut Option<Tensor<D>>,
        shape: [usize; D],
    ) -> Result<(), StateError> {
        match &mut self.mode {
            Mode::Write(tensors) => {
                if let Some(tensor) = slot {
                    let (shape, data) = (tensor.dims().to_vec(), tensor.clone().into_data());
                    tensors.push((name.to_owned(), shape, data.try_to_vec().expect("states are f32")));
                }
            }
            Mode::Read { tensors, device } => {
                let missing = || StateError::Format(format!("`{name}` is missing"));
                let (found, values) = tensors.remove(name).ok_or_else(missing)?;
                if found != shape {
                    return Err(StateError::Format(format!("`{name}` is {found:?}, not {shape:?}")));
                }
                *slot = Some(Tensor::from_data(TensorData::new(values, shape), &*device));
            }
        }
        Ok(())
    }
}
