//! What only translators have: validation sentences, as they translate and align them.

use weft_decode::BeamConfig;
use weft_plot::Alignment;
use weft_train::{RunConfig, Translated, TranslationData};

use super::attention::alignment_of;
use crate::error::Result;
use crate::model::TranslationModel;

/// Validation sentences that are shown with their translations.
const SENTENCES: usize = 3;
/// Beam of translations.
const BEAM: usize = 4;

/// What is measured of a translator, with the first seed: nothing where the data are no longer there.
#[derive(Default)]
pub(super) struct OfPairs {
    /// Of the validation targets, ends included.
    pub(super) bytes_per_token: Option<f64>,
    /// Of those that attend.
    pub(super) alignment: Option<Alignment>,
    pub(super) translations: Vec<Translated>,
}

/// Measures a translator.
///
/// # Errors
/// Scores that are NaN.
pub(super) fn measure(config: &RunConfig, model: &TranslationModel) -> Result<OfPairs> {
    let tokenizers = (model.source.clone(), model.target.clone());
    let Ok(data) = TranslationData::prepare(config, Some(tokenizers)) else { return Ok(OfPairs::default()) };
    Ok(OfPairs {
        bytes_per_token: bytes_per_token(&data)?,
        alignment: alignment_of(&data, model)?,
        translations: translations(&data, model)?,
    })
}

/// How translations are searched for.
pub(super) fn beam(model: &TranslationModel) -> BeamConfig {
    BeamConfig::new(BEAM.min(model.target.vocab_size()), 1, model.target.eos_id())
}

fn bytes_per_token(data: &TranslationData) -> Result<Option<f64>> {
    let (mut bytes, mut tokens) = (0, 0);
    for target in data.validation.target.iter() {
        bytes += data.target_tokenizer.byte_count(target)?;
        tokens += target.len() + 1;
    }
    Ok((bytes > 0).then(|| bytes as f64 / tokens as f64))
}

/// The first validation sentences.
fn translations(data: &TranslationData, model: &TranslationModel) -> Result<Vec<Translated>> {
    let (from, to) = (&data.validation.source, &data.validation.target);
    let end = model.source.eos_id();
    let sources: Vec<Vec<u32>> = from.iter().take(SENTENCES).map(|source| [source, &[end]].concat()).collect();
    let found = model.search(&sources, &beam(model), None)?;
    let mut all = Vec::with_capacity(found.len());
    for (index, hypotheses) in found.iter().enumerate() {
        let best = hypotheses.first().map_or(&[][..], |best| &best.tokens);
        all.push(Translated {
            source: model.source.decode(from.get(index))?,
            hypothesis: model.decode(best)?,
            reference: model.decode(to.get(index))?,
        });
    }
    Ok(all)
}
