//! One step: micro-batches against one large batch, and what is not finite.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::Tensor;
use burn::tensor::Device;
use support::{alphabet_text, config, resume, start};
use weft_models::gpt::Gpt;
use weft_models::transformer::{Transformer, TransformerConfig};
use weft_models::{Architecture, NamedParameter, Noise, Sequences, Translator, named_parameters};
use weft_text::Tokenizer;
use weft_train::{
    Buildable, DataHashes, GradientSum, LanguageModelling, Optimizer, OptimizerSettings, Outcome, RunFolder, Task,
    TextData, TrainError, Trainer, Translations,
};

/// Epsilon is large enough that a gradient that is nothing but rounding, as a key bias has, moves nothing.
const SETTINGS: OptimizerSettings =
    OptimizerSettings { betas: [0.9, 0.98], epsilon: 1e-3, weight_decay: 0.01, clip_norm: 0.5 };

fn transformer(device: &Device) -> Transformer {
    let config = TransformerConfig {
        hidden_size: 32,
        num_encoder_layers: 1,
        num_decoder_layers: 1,
        encoder_intermediate_size: 64,
        decoder_intermediate_size: 64,
        ..TransformerConfig::preset("tiny", 50).unwrap()
    };
    Transformer::new(&config, 7, device)
}

/// Sentences of lengths from 1 to 9.
fn rows() -> Vec<Vec<u32>> {
    let mut next = support::numbers(3);
    (0..12).map(|row| (0..1 + row * 7 % 9).map(|_| 4 + next(46) as u32).collect()).collect()
}

/// The gradients of some sentences as one batch, added to those that are there.
fn learn(model: &Transformer, rows: &[Vec<u32>], gradients: &mut GradientSum, device: &Device) -> (f64, usize) {
    let with = |first: Option<u32>, last: Option<u32>| {
        let row = |row: &Vec<u32>| first.iter().chain(row).chain(&last).copied().collect::<Vec<u32>>();
        Sequences::new(&rows.iter().map(row).collect::<Vec<_>>(), 0, device)
    };
    let (source, read, predicted) = (with(None, Some(3)), with(Some(2), None), with(None, Some(3)));
    let mut noise = Noise::none();
    let loss = model.loss(&source, &read, &predicted, 0.1, &mut noise);
    let sum = f64::from(loss.to_data().try_to_vec::<f32>().unwrap()[0]);
    gradients.add(model, loss.backward());
    (sum, predicted.tokens())
}

#[test]
fn ragged_micro_batches_equal_the_one_large_batch() {
    let device = Device::flex().autodiff();
    let rows = rows();
    let train = |parts: &[&[Vec<u32>]]| {
        let mut model = transformer(&device);
        let mut optimizer = Optimizer::new(SETTINGS);
        let (mut sum, mut norm) = (0.0, 0.0);
        for _ in 0..3 {
            let mut gradients = GradientSum::new();
            let mut tokens = 0;
            sum = 0.0;
            for part in parts {
                let (loss, count) = learn(&model, part, &mut gradients, &device);
                sum += loss;
                tokens += count;
            }
            norm = gradients.norm();
            model = optimizer.step(model, gradients, tokens, 1e-3);
        }
        (named_parameters(&model), sum, norm)
    };
    let (whole, whole_sum, whole_norm) = train(&[&rows]);
    let (parts, parts_sum, parts_norm) = train(&[&rows[..2], &rows[2..3], &rows[3..]]);
    assert!((whole_sum - parts_sum).abs() < 1e-5 * whole_sum, "{whole_sum} {parts_sum}");
    assert!((whole_norm - parts_norm).abs() < 1e-5 * whole_norm, "{whole_norm} {parts_norm}");
    assert!(whole_norm > 0.0);
    for (one, other) in whole.iter().zip(&parts) {
        for (a, b) in one.values.iter().zip(&other.values) {
            assert!((a - b).abs() < 1e-5, "{}: {a} and {b}", one.name);
        }
    }
}

/// A model before and after one step on all rows.
fn one_step(settings: OptimizerSettings, learning_rate: f64) -> (Vec<NamedParameter>, Vec<NamedParameter>, f64) {
    let device = Device::flex().autodiff();
    let model = transformer(&device);
    let mut gradients = GradientSum::new();
    let (_, tokens) = learn(&model, &rows(), &mut gradients, &device);
    let (before, norm) = (named_parameters(&model), gradients.norm() / tokens as f64);
    let after = named_parameters(&Optimizer::new(settings).step(model, gradients, tokens, learning_rate));
    (before, after, norm)
}

#[test]
fn decay_spares_vectors() {
    // With a learning rate this small only the decay, as much larger, can be seen.
    let (before, after, _) = one_step(OptimizerSettings { weight_decay: 1e11, ..SETTINGS }, 1e-12);
    for (before, after) in before.iter().zip(&after) {
        let kept = if Transformer::decays(&before.name, before.shape.len()) { 0.9 } else { 1.0 };
        for (a, b) in before.values.iter().zip(&after.values) {
            assert!((kept * a - b).abs() < 1e-6, "{}: {a} became {b}", before.name);
        }
    }
}

#[test]
fn a_long_gradient_is_shortened_and_a_short_one_is_not() {
    // Where epsilon outweighs the second moment, a step is the gradient itself.
    let length = |clip_norm: f64| {
        let settings = OptimizerSettings { epsilon: 1e4, weight_decay: 0.0, clip_norm, ..SETTINGS };
        let (before, after, norm) = one_step(settings, 1e4);
        let squares = before
            .iter()
            .zip(&after)
            .flat_map(|(before, after)| before.values.iter().zip(&after.values).map(|(a, b)| f64::from(a - b).powi(2)));
        (squares.sum::<f64>().sqrt(), norm)
    };
    let (unclipped, norm) = length(0.0);
    assert!((unclipped / norm - 1.0).abs() < 1e-3, "{unclipped} {norm}");
    assert!((length(10.0 * norm).0 / norm - 1.0).abs() < 1e-3);
    assert!((length(0.25 * norm).0 / norm - 0.25).abs() < 1e-3);
}

/// What a task can be made to do wrong.
#[derive(Clone)]
enum Fault {
    Loss,
    Gradient,
    /// Somebody presses Ctrl-C meanwhile.
    Stop(Arc<AtomicBool>),
}

/// A task that goes wrong at one micro-batch.
struct Faulty {
    task: LanguageModelling,
    at: usize,
    fault: Fault,
}

impl Task<Gpt> for Faulty {
    fn begin_epoch(&mut self, epoch: u64) -> Result<usize, TrainError> {
        Task::<Gpt>::begin_epoch(&mut self.task, epoch)
    }

    fn loss(
        &self,
        model: &Gpt,
        position: usize,
        noise: &mut Noise,
        device: &Device,
    ) -> Result<(Tensor<1>, usize), TrainError> {
        let (loss, tokens) = self.task.loss(model, position, noise, device)?;
        let loss = match &self.fault {
            _ if position != self.at => loss,
            Fault::Loss => loss.mul_scalar(f32::INFINITY),
            Fault::Stop(stop) => {
                stop.store(true, Ordering::Relaxed);
                loss
            }
            // Zero, with a slope that is not finite.
            Fault::Gradient => loss.clone() + (loss.clone() - loss.detach()).abs().sqrt(),
        };
        Ok((loss, tokens))
    }

    fn validation_loss(&self, model: &Gpt, device: &Device) -> Result<(f64, usize), TrainError> {
        self.task.validation_loss(model, device)
    }

    fn translations(&self, _: &Gpt) -> Result<Option<Translations>, TrainError> {
        Ok(None)
    }

    fn hashes(&self) -> DataHashes {
        Task::<Gpt>::hashes(&self.task)
    }

    fn tokenizers(&self) -> (&Tokenizer, Option<&Tokenizer>) {
        Task::<Gpt>::tokenizers(&self.task)
    }
}

/// A GPT whose task goes wrong at its sixth micro-batch.
fn faulty(folder: &Path, fault: Fault, more: &[(&str, &str)]) -> (Trainer<Gpt>, std::path::PathBuf) {
    let train = alphabet_text(folder, "train.txt", 200, 1);
    let validation = alphabet_text(folder, "validation.txt", 20, 2);
    let config = config("gpt", &train, &validation, more);
    let data = TextData::prepare(&config, None).unwrap();
    let model = Gpt::checked_config(&config, &data.tokenizer, None).unwrap();
    let device = Device::flex();
    let model = Gpt::new(&model, 1, &device.clone().autodiff());
    let task = Faulty { task: LanguageModelling::new(&config, data), at: 5, fault };
    let path = folder.join("run");
    (Trainer::start(config, model, Box::new(task), &path, &device).unwrap(), path)
}

fn check_fault(fault: Fault, message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (mut trainer, path) = faulty(folder.path(), fault, &[]);
    let error = trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with(message), "{error}");
    assert!(error.hint().is_some());
    // The last good checkpoint stays, and a run without the fault goes on from it.
    let (checkpoint, state, passed_over) = RunFolder::open(&path).unwrap().newest_whole().unwrap();
    assert_eq!((state.step, passed_over.len()), (4, 0), "{}", checkpoint.display());
    assert_eq!(support::finish(resume(&path).unwrap().0).state().step, 12);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    check_fault(Fault::Loss, "step 6: all parameters are finite, but the loss is inf");
}

#[test]
fn a_gradient_that_is_not_finite_is_named() {
    check_fault(Fault::Gradient, "step 6: the gradient of `transformer.wte.weight` is NaN");
}

/// What is half done is dropped, and done again the same way; a line of metrics over several steps knows those before.
#[test]
fn a_step_that_is_interrupted_in_its_middle_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let more = [("training.accumulate", "4"), ("training.log_interval", "3")];
    let stop = Arc::new(AtomicBool::new(false));
    let (mut trainer, path) = faulty(folder.path(), Fault::Stop(stop.clone()), &more);
    assert_eq!(trainer.run(&stop, &mut |_| ()).unwrap(), Outcome::Interrupted);
    assert_eq!((trainer.state().step, trainer.state().position), (1, 4));
    drop(trainer);
    support::finish(resume(&path).unwrap().0);
    let whole = folder.path().join("whole");
    std::fs::create_dir(&whole).unwrap();
    let (mut trainer, unbroken) = faulty(&whole, Fault::Stop(stop), &more);
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap(), Outcome::Finished);
    assert_eq!(support::trace(&path), support::trace(&unbroken));
}

#[test]
fn a_parameter_that_is_not_finite_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 50, 1);
    let config = config("gpt", &train, &train, &[]);
    let data = TextData::prepare(&config, None).unwrap();
    let device = Device::flex().autodiff();
    let model = Gpt::new(&Gpt::checked_config(&config, &data.tokenizer, None).unwrap(), 1, &device);
    // One step with an infinite learning rate leaves nothing finite.
    let mut task = LanguageModelling::new(&config, data);
    Task::<Gpt>::begin_epoch(&mut task, 0).unwrap();
    let mut gradients = GradientSum::new();
    let mut noise = Noise::none();
    let (loss, tokens) = task.loss(&model, 0, &mut noise, &device).unwrap();
    gradients.add(&model, loss.backward());
    let model = Optimizer::new(SETTINGS).step(model, gradients, tokens, f64::INFINITY);
    let run = Trainer::start(config, model, Box::new(task), &folder.path().join("run"), &Device::flex());
    let text = run.err().unwrap().to_string();
    assert!(text.starts_with("step 0: the parameter `transformer."), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_the_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 100, 1);
    let config = config("recurrent_lm", &train, &train, &[]);
    // A file where the folder should be.
    let error = start(&config, &train).err().unwrap();
    assert!(matches!(error, TrainError::Write { .. }) && error.hint().is_some(), "{error}");
    let path = folder.path().join("run");
    let mut run = start(&config, &path).unwrap();
    for _ in 0..4 {
        run.advance(&AtomicBool::new(false), &mut |_| ()).unwrap();
    }
    let error = start(&config, &path).err().unwrap();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
    // The place of the next checkpoint is taken by something that cannot be replaced.
    std::fs::write(path.join("checkpoints/.step-00000008.weft-partial"), "in the way").unwrap();
    let error = run.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, TrainError::Write { .. }), "{error}");
    assert_eq!(RunFolder::open(&path).unwrap().newest_whole().unwrap().1.step, 4);
}
