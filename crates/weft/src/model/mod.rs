//! A model's folder, whatever its architecture, opened with its tokenizers.

mod language_model;
mod open;
mod size;
mod translator;

pub(crate) use language_model::{Continues, Text, TextModel};
pub(crate) use open::{Model, folder_of, open, open_language_model, open_translator};
pub(crate) use size::check_training;
pub(crate) use translator::{Translates, TranslationModel};

use burn::tensor::Device;
use weft_models::{Architecture, named_parameters};

/// A tensor that Marian's format wants and that nothing trains: no parameter.
const CONSTANT: &str = "final_logits_bias";

/// The name and the shape of each tensor of parameters that a checkpoint of the model holds.
fn stored_shapes<M: Architecture>(model: &M) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    for parameter in named_parameters(model).into_iter().filter(|parameter| parameter.name != CONSTANT) {
        let names = M::stored_names(&parameter.name);
        let mut shape = parameter.shape;
        if let Some(rows) = shape.first_mut() {
            *rows /= names.len();
        }
        shapes.extend(names.into_iter().map(|name| (name, shape.clone())));
    }
    shapes
}

/// Where a model's parameters lie.
fn device_of(model: &impl Architecture) -> Device {
    model.devices().first().cloned().unwrap_or_default()
}
