//! Ten losses of training from recorded weights, against what torch computed in f64 from the same weights and batches.
//! `tests/reference/README.md` says how they were recorded.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

use std::collections::HashMap;
use std::path::PathBuf;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use safetensors::SafeTensors;
use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, LanguageModel, Noise, Sequences, Translator, checkpoint};
use weft_train::{GradientSum, Optimizer, OptimizerSettings};

/// A recorded case: tensors by name, all as f64.
struct Recording {
    case: String,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference").join(case)
}

impl Recording {
    fn read(case: &str) -> Self {
        let bytes = std::fs::read(folder(case).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let is_float = view.dtype() == safetensors::Dtype::F64;
            let number = |&bytes: &[u8; 8]| {
                if is_float { f64::from_le_bytes(bytes) } else { i64::from_le_bytes(bytes) as f64 }
            };
            let values = view.data().as_chunks().0.iter().map(number).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Self { case: case.to_owned(), tensors: tensors.collect() }
    }

    fn values(&self, name: &str) -> &[f64] {
        let tensor = self.tensors.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.case));
        &tensor.1
    }

    fn rows(&self, name: &str, lengths: &str) -> Vec<Vec<u32>> {
        let width = self.tensors[name].0[1].max(1);
        let rows = self.values(name).chunks(width).zip(self.values(lengths));
        rows.map(|(row, &length)| row[..length as usize].iter().map(|&id| id as u32).collect()).collect()
    }

    /// Trains with the optimizer of real runs and compares every loss before its update.
    fn check<M: Architecture>(&self, loss: impl Fn(&M, &str) -> (Tensor<1>, usize)) {
        let device = Device::flex().autodiff();
        let mut model: M = checkpoint::load(&folder(&self.case), &device).unwrap();
        let settings = OptimizerSettings { betas: [0.9, 0.98], epsilon: 1e-9, weight_decay: 0.01, clip_norm: 1.0 };
        let mut optimizer = Optimizer::new(settings);
        let truth = self.values("losses");
        assert_eq!(truth.len(), 10, "{}", self.case);
        let scale = truth.iter().fold(0.0, |most: f64, loss| most.max(loss.abs()));
        let allowed = 2.0 * self.values("f32_error.losses")[0] + 4.0 * f64::from(f32::EPSILON) * scale;
        for (step, &truth) in truth.iter().enumerate() {
            let (sum, tokens) = loss(&model, &format!("step.{step}."));
            let found = f64::from(sum.to_data().try_to_vec::<f32>().unwrap()[0]) / tokens as f64;
            let off = (found - truth).abs();
            assert!(
                off <= allowed,
                "{}: loss {step} is {found}, not {truth} (off {off:.2e}, allowed {allowed:.2e})",
                self.case
            );
            let mut gradients = GradientSum::new();
            gradients.add(&model, sum.backward());
            drop(sum);
            model = optimizer.step(model, gradients, tokens, 1e-3);
        }
    }
}

fn check_translator<M: Translator>(case: &str) {
    let recording = Recording::read(case);
    let device = Device::flex().autodiff();
    recording.check::<M>(|model, step| {
        let batch = |ids: &str, lengths: &str| {
            let rows = recording.rows(&format!("{step}{ids}"), &format!("{step}{lengths}"));
            Sequences::new(&rows, 0, &device)
        };
        let source = batch("source_ids", "source_lengths");
        let (read, predicted) = (batch("target_in", "target_lengths"), batch("target_out", "target_lengths"));
        let mut noise = Noise::none();
        (model.loss(&source, &read, &predicted, 0.1, &mut noise), predicted.tokens())
    });
}

fn check_language_model<M: LanguageModel>(case: &str) {
    let recording = Recording::read(case);
    let device = Device::flex().autodiff();
    recording.check::<M>(|model, step| {
        let lengths = format!("{step}target_lengths");
        let rows = recording.rows(&format!("{step}input_ids"), &lengths);
        let targets = recording.rows(&format!("{step}target_out"), &lengths);
        let ids = Sequences::new(&rows, 0, &device).ids;
        let time = ids.dims()[1];
        let mut padded = vec![-1; rows.len() * time];
        for (to, row) in padded.chunks_mut(time).zip(&targets) {
            to.iter_mut().zip(row).for_each(|(to, &id)| *to = id as i32);
        }
        let targets: Tensor<2, Int> = Tensor::from_data(TensorData::new(padded, [rows.len(), time]), &device);
        let mut noise = Noise::none();
        (model.loss(ids, targets, &mut noise), rows.iter().map(Vec::len).sum())
    });
}

#[test]
fn gpt_trains_as_recorded() {
    check_language_model::<Gpt>("gpt");
}

#[test]
fn mamba_trains_as_recorded() {
    check_language_model::<Mamba>("mamba");
}

#[test]
fn rwkv4_trains_as_recorded() {
    check_language_model::<Rwkv4>("rwkv4");
}

#[test]
fn mamba2_trains_as_recorded() {
    check_language_model::<Mamba2>("mamba2");
}

#[test]
fn llama_trains_as_recorded() {
    check_language_model::<Llama>("llama");
}

#[test]
fn rwkv7_trains_as_recorded() {
    check_language_model::<Rwkv7>("rwkv7");
}

#[test]
fn recurrent_language_models_train_as_recorded() {
    for cell in ["rnn", "lstm", "gru"] {
        check_language_model::<RecurrentLm>(&format!("recurrent-lm-{cell}"));
    }
}

#[test]
fn transformers_train_as_recorded() {
    for case in ["post-norm", "pre-norm"] {
        check_translator::<Transformer>(&format!("transformer-{case}"));
    }
}

#[test]
fn attention_networks_train_as_recorded() {
    for case in ["gru-before", "lstm", "rnn-unidirectional"] {
        check_translator::<RnnEncoderDecoder>(&format!("rnn-attention-{case}"));
    }
}

#[test]
fn plain_encoder_decoders_train_as_recorded() {
    for case in ["gru", "lstm", "rnn-unidirectional"] {
        check_translator::<RnnEncoderDecoder>(&format!("rnn-plain-{case}"));
    }
}
