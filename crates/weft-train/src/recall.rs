//! How well a language model finds again what it has read, by how far back it stands.

use burn::Tensor;
use burn::tensor::{Int, TensorData};
use weft_models::LanguageModel;
use weft_text::{RecallTask, RecallTokens, TextError, Tokenizer, WindowBatch};

use crate::error::TrainError;

/// Tokens that are read together, whatever the length of their texts.
const BATCH_TOKENS: usize = 8192;
/// Logits that are held at once: 64 MiB of them.
const MOST_LOGITS: usize = 1 << 24;

/// How often a model answers rightly at one distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecallAccuracy {
    /// Tokens between a key and the same key as a question.
    pub distance: usize,
    /// Questions asked.
    pub questions: usize,
    /// Those for which the right value was the likeliest of all tokens.
    pub correct: usize,
}

impl RecallAccuracy {
    /// The share of right answers, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.questions.max(1) as f64
    }
}

/// Asks a model (a plain one: of one in training, `model.valid()`) `questions` questions at each distance, one a text,
/// the same ones for every model: arXiv 2312.04927, section 3.
///
/// # Errors
/// A task that cannot be; a tokenizer without a token for each letter; a distance of less than 2 tokens, or one that
/// needs more positions than the model has, as [`RecallTask::length_at`] tells beforehand.
pub fn recall_accuracy<M: LanguageModel>(
    model: &M,
    tokenizer: &Tokenizer,
    task: &RecallTask,
    distances: &[usize],
    questions: usize,
) -> Result<Vec<RecallAccuracy>, TrainError> {
    task.check()?;
    let tokens = RecallTokens::new(tokenizer)?;
    for &distance in distances {
        if distance < 2 {
            let wanted = "at least 2, the tokens of a pair";
            return Err(TextError::Setting { field: "distance", found: distance, wanted }.into());
        }
        if distance > MOST_DISTANCE {
            let wanted = "at most 16777216 tokens";
            return Err(TextError::Setting { field: "distance", found: distance, wanted }.into());
        }
        let needed = task.length_at(distance);
        if let Some(limit) = model.max_length().filter(|&limit| needed > limit) {
            return Err(TrainError::Distance { distance, needed, limit });
        }
    }
    let at = |&distance: &usize| {
        let rows = (BATCH_TOKENS / task.length_at(distance)).max(1);
        let piece = piece(rows, tokenizer.vocab_size());
        let correct = (0..questions).step_by(rows).map(|first| {
            let asked = first..questions.min(first + rows);
            let texts: Vec<_> = asked.map(|index| task.test_text(distance, index as u64)).collect();
            count_correct(model, &tokens.collate(&texts), piece)
        });
        let correct = correct.sum();
        RecallAccuracy { distance, questions, correct }
    };
    Ok(distances.iter().map(at).collect())
}

/// A text reaches over the distance as a whole and is in memory.
const MOST_DISTANCE: usize = 1 << 24;

/// Tokens that `rows` rows may read at once, so that their logits fit.
pub(crate) fn piece(rows: usize, vocab_size: usize) -> usize {
    (MOST_LOGITS / (rows * vocab_size).max(1)).max(1)
}

/// The targets of a batch, -1 aside, that a model holds for the likeliest of all tokens; it is read in pieces.
pub(crate) fn count_correct<M: LanguageModel>(model: &M, batch: &WindowBatch, piece: usize) -> usize {
    let Some(device) = model.devices().into_iter().next() else { return 0 };
    let mut state = model.start(batch.rows);
    let mut correct = 0;
    for from in (0..batch.time).step_by(piece) {
        let time = piece.min(batch.time - from);
        let ids: Vec<i32> = batch.inputs.chunks(batch.time).flat_map(|row| &row[from..from + time]).copied().collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.rows, time]), &device);
        let logits = model.read(ids, &mut state);
        let [_, _, vocabulary] = logits.dims();
        let logits: Vec<f32> = logits.into_data().try_to_vec().expect("logits are f32");
        let targets = batch.targets.chunks(batch.time).flat_map(|row| &row[from..from + time]);
        let asked = targets.zip(logits.chunks(vocabulary)).filter(|(target, _)| **target >= 0);
        correct += asked.filter(|(target, logits)| likeliest(logits) == Some(**target as usize)).count();
    }
    correct
}

/// The place of the largest number; none where there is only NaN.
fn likeliest(logits: &[f32]) -> Option<usize> {
    let numbers = logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan());
    numbers.max_by(|a, b| a.1.total_cmp(b.1)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use weft_models::Architecture;
    use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
    use weft_text::{RecallKind, TokenizerKind};

    use super::*;

    #[test]
    fn pieces_change_no_answer() {
        let alphabet = std::iter::once(Ok(RecallTask::ALPHABET.to_owned()));
        let tokenizer = Tokenizer::train(TokenizerKind::Characters, 400, alphabet).unwrap();
        let config = RecurrentLmConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 16,
            embedding_size: 16,
            ..RecurrentLmConfig::default()
        };
        let model = RecurrentLm::new(&config, 3, &Device::flex());
        let task = RecallTask::new(RecallKind::Recall);
        let texts: Vec<_> = (0..20).map(|index| task.training_text(1, index)).collect();
        let mut batch = RecallTokens::new(&tokenizer).unwrap().collate(&texts);
        // What the model itself answers is right, for every other question.
        let time = batch.time;
        let ids = Tensor::<2, Int>::from_data(TensorData::new(batch.inputs.clone(), [20, time]), &Device::flex());
        let logits: Vec<f32> = model.forward(ids).into_data().try_to_vec().unwrap();
        let answers = logits.chunks(config.vocab_size).map(|logits| likeliest(logits).unwrap() as i32);
        let asked = batch.targets.iter_mut().zip(answers).filter(|(target, _)| **target >= 0);
        let mut wanted = 0;
        for (number, (target, answer)) in asked.enumerate() {
            *target = if number % 2 == 0 { answer } else { (answer + 1) % config.vocab_size as i32 };
            wanted += usize::from(number % 2 == 0);
        }
        for piece in [1, 7, 62, 63, 1000] {
            assert_eq!(count_correct(&model, &batch, piece), wanted, "{piece}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_answer() {
        assert_eq!(likeliest(&[f32::NAN, -1.0, 3.0, f32::NAN, 2.0]), Some(2));
        assert_eq!(likeliest(&[f32::NAN; 3]), None);
    }
}
