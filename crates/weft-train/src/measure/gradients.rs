//! How far back a language model's last loss reaches: the gradient of each earlier position's vector.
//! After Pascanu et al., arXiv 1211.5063, section 2.2.

use std::path::Path;

use burn::Tensor;
use burn::tensor::{Device, TensorData};
use weft_kernels::cross_entropy::cross_entropy;
use weft_models::{LanguageModel, checkpoint};
use weft_text::Tokenizer;

use super::{ForLanguageModel, ids, with_architecture};
use crate::build::Buildable;
use crate::config::RunConfig;
use crate::error::TrainError;

/// Places of the text over which the mean is taken.
const WINDOWS: usize = 16;
/// Windows in a batch.
const ROWS: usize = 4;

/// Gradient norms by distance back in time, the last position's being 0.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientReach {
    /// With the weights as they were trained.
    pub trained: Vec<f64>,
    /// With weights as they are before training.
    pub fresh: Vec<f64>,
}

/// The norms of a run's model, over windows of `text` as long as those that it was trained on; none of a translator, or
/// where there is too little text.
///
/// # Errors
/// A model that cannot be read or built.
pub fn measure_gradients(
    config: &RunConfig,
    model: &Path,
    tokenizer: &Tokenizer,
    text: &[u32],
    device: &Device,
) -> Result<Option<GradientReach>, TrainError> {
    let window = config.training.window.unwrap_or(1).min(text.len().saturating_sub(1));
    if window == 0 {
        return Ok(None);
    }
    let room = text.len() - window - 1;
    let starts = (0..WINDOWS).map(|i| room * i / (WINDOWS - 1));
    let windows: Vec<&[u32]> = starts.map(|start| &text[start..=start + window]).collect();
    with_architecture(config.model.architecture, Measure { config, model, tokenizer, windows, device }).transpose()
}

struct Measure<'a> {
    config: &'a RunConfig,
    model: &'a Path,
    tokenizer: &'a Tokenizer,
    windows: Vec<&'a [u32]>,
    device: &'a Device,
}

impl ForLanguageModel for Measure<'_> {
    type Output = Result<GradientReach, TrainError>;

    fn call<M: LanguageModel + Buildable>(self) -> Self::Output {
        let device = self.device.clone().autodiff();
        let trained: M = checkpoint::load(self.model, &device)?;
        let shape = M::checked_config(self.config, self.tokenizer, None)?;
        let fresh = M::new(&shape, self.config.training.seed, &device);
        let norms = |model: M| gradient_norms(&model, &self.windows);
        Ok(GradientReach { trained: norms(trained), fresh: norms(fresh) })
    }
}

/// The norm of the gradient of the last position's loss with respect to the vector of each position, by its distance
/// back from the last one: `[time]`, the mean over `windows`, which are `time + 1` tokens each. The model is on an
/// autodiff device.
pub fn gradient_norms<M: LanguageModel>(model: &M, windows: &[&[u32]]) -> Vec<f64> {
    // The weights' own gradients are not wanted.
    let model = model.clone().no_grad();
    let device = model.devices()[0].clone();
    let time = windows.first().map_or(0, |window| window.len() - 1);
    let mut norms = vec![0.0; time];
    for rows in windows.chunks(ROWS) {
        let shape = [rows.len(), time];
        let inputs: Vec<u32> = rows.iter().flat_map(|window| &window[..time]).copied().collect();
        let last: Vec<i32> = rows.iter().map(|window| window[time] as i32).collect();
        let mut state = model.start(rows.len());
        let x = model.embed(ids(&inputs, shape, &device), &state).detach().require_grad();
        let logits = model.read_embedded(x.clone(), &mut state).narrow(1, time - 1, 1).squeeze_dim::<2>(1);
        let targets = Tensor::from_data(TensorData::new(last, [rows.len()]), &device);
        let gradients = cross_entropy(logits, targets, 0.0, None).backward();
        let Some(gradient) = x.grad(&gradients) else { continue };
        let width = gradient.dims()[2];
        let values: Vec<f32> = gradient.into_data().try_to_vec().expect("gradients are f32");
        for (place, vector) in values.chunks(width).enumerate() {
            let norm = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            norms[time - 1 - place % time] += norm / windows.len() as f64;
        }
    }
    norms
}
