//! Reads a recorded case and compares a model with it.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use safetensors::SafeTensors;
use weft_models::{
    Architecture, LanguageModel, NamedParameter, Noise, Sequences, Translator, checkpoint, named_gradients,
};

/// What was recorded of one case.
pub(crate) struct Recording {
    name: String,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
    /// How many times as wrong as PyTorch's f32 a result may be.
    slack: f64,
}

/// How far a step may be from the whole sequence, in parts of the largest logit: sixteen roundings of f32. The sums are
/// the same but for the length of attention's, of which the terms past the position are zeros.
const STEP_TOLERANCE: f32 = 2e-6;

/// The devices to test: Flex, and with the `gpu` feature whatever WGSL device is there.
pub(crate) fn devices() -> Vec<Device> {
    #[cfg(not(feature = "gpu"))]
    return vec![Device::flex()];
    #[cfg(feature = "gpu")]
    vec![Device::flex(), Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)]
}

/// The folder of a case.
pub(crate) fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference").join(case)
}

impl Recording {
    /// The case, for results from `device`. WGSL promises of an exponential 3 + 2 |x| units in the last place where a
    /// processor's library has one.
    pub(crate) fn read(case: &str, device: &Device) -> Self {
        let bytes = std::fs::read(folder(case).join("expected.safetensors")).expect("a recorded case");
        let file = SafeTensors::deserialize(&bytes).expect("a whole file");
        let number = |bytes: &[u8], is_float: bool| {
            let bytes = bytes.try_into().expect("eight bytes");
            if is_float { f64::from_le_bytes(bytes) } else { i64::from_le_bytes(bytes) as f64 }
        };
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let is_float = view.dtype() == safetensors::Dtype::F64;
                let values = view.data().chunks(8).map(|bytes| number(bytes, is_float)).collect();
                (name.to_owned(), (view.shape().to_vec(), values))
            })
            .collect();
        let slack = if *device == Device::flex() { 2.0 } else { 4.0 };
        Self { name: case.to_owned(), tensors, slack }
    }

    fn values(&self, name: &str) -> &[f64] {
        let tensor = self.tensors.get(name).unwrap_or_else(|| panic!("{}: nothing recorded as {name}", self.name));
        &tensor.1
    }

    /// Rows of ids, each cut to its length.
    fn rows(&self, name: &str, lengths: &str) -> Vec<Vec<u32>> {
        let (shape, values) = &self.tensors[name];
        let rows = values.chunks(shape[1].max(1)).zip(self.values(lengths));
        rows.map(|(row, &length)| row[..length as usize].iter().map(|&id| id as u32).collect()).collect()
    }

    /// At most `slack` times as wrong as PyTorch's own f32 was, both against f64, plus four units of rounding of the largest
    /// value. `zero` marks values that must not be compared (outputs at padding).
    fn assert_close(&self, name: &str, scale_name: &str, got: &[f32], keep: impl Fn(usize) -> bool) {
        let truth = self.values(name);
        assert_eq!(got.len(), truth.len(), "{}: {name} has another length", self.name);
        let largest = |values: &[f64]| values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let scale = largest(truth).max(largest(self.values(scale_name)));
        let plain =
            self.values(&format!("f32_error.{name}"))[0].max(self.values(&format!("f32_error.{scale_name}"))[0]);
        let allowed = self.slack * plain + 4.0 * f64::from(f32::EPSILON) * scale;
        for (i, (&g, &t)) in got.iter().zip(truth).enumerate().filter(|(i, _)| keep(*i)) {
            let off = (f64::from(g) - t).abs();
            assert!(
                off <= allowed,
                "{}: {name}[{i}] is {g}, not {t} (off {off:.2e}, allowed {allowed:.2e})",
                self.name
            );
        }
    }

    fn assert_gradients<M: Architecture>(&self, gradients: &[NamedParameter], tokens: f32) {
        let recorded = self.tensors.keys().filter(|name| name.starts_with("gradient.")).count();
        let mut compared = 0;
        for gradient in gradients {
            let names = M::stored_names(&gradient.name);
            let parts = gradient.values.chunks(gradient.values.len() / names.len());
            for (name, part) in names.iter().zip(parts) {
                let name = format!("gradient.{name}");
                // The gradient of a key's bias is exactly zero; what is recorded is rounding.
                let scale_name =
                    if name.ends_with("k_proj.bias") { name.replace("bias", "weight") } else { name.clone() };
                let part: Vec<f32> = part.iter().map(|value| value / tokens).collect();
                self.assert_close(&name, &scale_name, &part, |_| true);
                compared += 1;
            }
        }
        assert_eq!(compared, recorded, "{}: parameters without a gradient, or gradients without a record", self.name);
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("an f32 tensor")
}

/// Which entries of `[batch, time, width]` are not padding.
fn real(lengths: &[usize], time: usize, width: usize) -> impl Fn(usize) -> bool {
    let lengths = lengths.to_vec();
    move |i| i / width % time < lengths[i / width / time]
}

pub(crate) fn check_translator<M: Translator>(case: &str) {
    devices().into_iter().for_each(|device| check_translator_on::<M>(case, &device));
}

fn check_translator_on<M: Translator>(case: &str, plain: &Device) {
    let recording = Recording::read(case, plain);
    let device = plain.clone().autodiff();
    let model: M = checkpoint::load(&folder(case), &device).expect("a whole checkpoint");
    let batch = |ids: &str, lengths: &str| Sequences::new(&recording.rows(ids, lengths), 0, &device);
    let source = batch("source_ids", "source_lengths");
    let (target_in, target_out) = (batch("target_in", "target_lengths"), batch("target_out", "target_lengths"));

    let (logits, alignment) = model.forward(&source, &target_in);
    let [_, time, vocab] = logits.dims();
    recording.assert_close("logits", "logits", &values(logits), real(&target_in.lengths, time, vocab));
    if let Some(alignment) = alignment {
        let width = alignment.dims()[2];
        recording.assert_close("alignment", "alignment", &values(alignment), real(&target_in.lengths, time, width));
    }

    let tokens = target_out.tokens() as f32;
    let loss = model.loss(&source, &target_in, &target_out, 0.1, &mut Noise::none());
    recording.assert_close("loss", "loss", &[values(loss.clone())[0] / tokens], |_| true);
    let gradients = loss.backward();
    recording.assert_gradients::<M>(&named_gradients(&model, &gradients), tokens);

    steps_equal_forward(&model, &recording, plain);
}

/// One token at a time gives what the whole target gives: three different hypotheses of a source side by side, which
/// change places after every step.
fn steps_equal_forward<M: Translator>(model: &M, recording: &Recording, device: &Device) {
    const PARENTS: [usize; 3] = [2, 0, 1];
    let model = model.valid();
    let (sources, targets) =
        (recording.rows("source_ids", "source_lengths"), recording.rows("target_in", "target_lengths"));
    let scale = recording.values("logits").iter().fold(0.0, |m: f64, v| m.max(v.abs())) as f32;
    for (source, target) in sources.iter().zip(&targets) {
        let source = Sequences::new(&[source], 0, device);
        let forward = |target: &[u32]| model.forward(&source, &Sequences::new(&[target], 0, device)).0;
        let vocab = forward(target).dims()[2];
        let hypotheses = [0, 1, 2].map(|shift| -> Vec<u32> {
            let word = |(i, &token): (usize, &u32)| if i == 0 { token } else { (token + shift) % vocab as u32 };
            target.iter().enumerate().map(word).collect()
        });
        let whole = hypotheses.each_ref().map(|hypothesis| values(forward(hypothesis)));
        let mut state = model.encode(&source, 3);
        let mut places = [0, 1, 2];
        for i in 0..target.len() {
            let rows = values(model.step(&places.map(|place| hypotheses[place][i]), &mut state));
            for (row, place) in rows.chunks(vocab).zip(places) {
                for (a, b) in row.iter().zip(&whole[place][i * vocab..]) {
                    assert!(
                        (a - b).abs() <= STEP_TOLERANCE * scale,
                        "{}: step {i} gives {a}, forward {b}",
                        recording.name
                    );
                }
            }
            model.reorder(&mut state, &[0], &PARENTS);
            places = PARENTS.map(|parent| places[parent]);
        }
    }
}

pub(crate) fn check_language_model<M: LanguageModel>(case: &str) {
    devices().into_iter().for_each(|device| check_language_model_on::<M>(case, &device));
}

fn check_language_model_on<M: LanguageModel>(case: &str, plain: &Device) {
    let recording = Recording::read(case, plain);
    let device = plain.clone().autodiff();
    let model: M = checkpoint::load(&folder(case), &device).expect("a whole checkpoint");
    let rows = recording.rows("input_ids", "target_lengths");
    let targets = recording.rows("target_out", "target_lengths");
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let ids = Sequences::new(&rows, 0, &device).ids;
    let time = ids.dims()[1];

    let logits = model.forward(ids.clone());
    let vocab = logits.dims()[2];
    let whole = values(logits);
    recording.assert_close("logits", "logits", &whole, real(&lengths, time, vocab));

    let tokens: usize = lengths.iter().sum();
    let mut padded = vec![-1; rows.len() * time];
    for (to, row) in padded.chunks_mut(time).zip(&targets) {
        to.iter_mut().zip(row).for_each(|(to, &id)| *to = id as i32);
    }
    let targets: Tensor<2, Int> = Tensor::from_data(TensorData::new(padded, [rows.len(), time]), &device);
    let loss = model.loss(ids, targets, &mut Noise::none());
    recording.assert_close("loss", "loss", &[values(loss.clone())[0] / tokens as f32], |_| true);
    let gradients = loss.backward();
    recording.assert_gradients::<M>(&named_gradients(&model, &gradients), tokens as f32);

    let model = model.valid();
    let scale = recording.values("logits").iter().fold(0.0, |m: f64, v| m.max(v.abs())) as f32;
    for (row, tokens) in rows.iter().enumerate() {
        let mut state = model.start(2);
        for (i, &token) in tokens.iter().enumerate() {
            let logits = values(model.step(&[token; 2], &mut state));
            let expected = &whole[(row * time + i) * vocab..][..vocab];
            for (a, b) in logits.iter().zip(expected.iter().chain(expected)) {
                assert!((a - b).abs() <= STEP_TOLERANCE * scale, "{case}: step {i} gives {a}, forward {b}");
            }
        }
    }
}
