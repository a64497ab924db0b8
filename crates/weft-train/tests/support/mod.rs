//! Tiny corpora and runs that take a second.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use weft_train::{Event, Facts, Overrides, Record, Run, RunConfig, TrainError, TrainingRecord, derive};

/// A pseudo-random sequence without a dependency.
pub fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    }
}

/// A TSV of words and the same reversed.
pub fn reversal_corpus(folder: &Path, name: &str, pairs: usize, seed: u64) -> PathBuf {
    let mut next = numbers(seed);
    let lines: String = (0..pairs)
        .map(|_| {
            let length = 2 + next(5) as usize;
            let letters: Vec<char> = (0..length).map(|_| (b'a' + next(8) as u8) as char).collect();
            let reversed: String = letters.iter().rev().collect();
            format!("{}\t{reversed}\n", letters.iter().collect::<String>())
        })
        .collect();
    let path = folder.join(name);
    std::fs::write(&path, lines).unwrap();
    path
}

/// Text with a simple rule: the alphabet over and over, from random starts.
pub fn alphabet_text(folder: &Path, name: &str, lines: usize, seed: u64) -> PathBuf {
    let mut next = numbers(seed);
    let text: String = (0..lines)
        .map(|_| {
            let start = next(26);
            (0..20).map(|i| (b'a' + ((start + i) % 26) as u8) as char).chain(['\n']).collect::<String>()
        })
        .collect();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A full configuration from `key = value` pairs, on top of what makes a run tiny.
pub fn config(architecture: &str, train: &Path, validation: &Path, more: &[(&str, &str)]) -> RunConfig {
    let mut overrides = Overrides::new();
    let quoted = |path: &Path| format!("[{:?}]", path.display().to_string());
    let mut set = |key: &str, value: &str| overrides.set(key, value, "test").unwrap();
    set("data.train", &quoted(train));
    set("data.validation", &quoted(validation));
    set("model.architecture", architecture);
    set("model.hidden_size", "32");
    set("model.num_layers", "1");
    set("model.dropout", "0.1");
    set("tokenizer.kind", "characters");
    set("training.batch_tokens", "256");
    set("training.learning_rate", "5e-3");
    set("training.warmup_steps", "5");
    set("training.log_interval", "1");
    set("training.validation_interval", "4");
    set("training.steps", "12");
    if matches!(architecture, "gpt" | "recurrent_lm") {
        set("training.window", "16");
    } else {
        set("training.bleu_sentences", "8");
    }
    more.iter().for_each(|(key, value)| set(key, value));
    derive(&overrides, &Facts { examples: 200, bytes: 4000 }).unwrap().0
}

/// Starts a run on the CPU.
pub fn start(config: &RunConfig, folder: &Path) -> Result<Run, TrainError> {
    Run::start(config.clone(), folder, &Device::flex())
}

/// Resumes a run on the CPU and returns the events of that.
pub fn resume(folder: &Path) -> Result<(Run, Vec<Event>), TrainError> {
    let mut events = Vec::new();
    let run = Run::resume(folder, &Overrides::new(), &Device::flex(), &mut |event: &Event| events.push(event.clone()))?;
    Ok((run, events))
}

/// Runs to the end.
pub fn finish(mut run: Run) -> Run {
    run.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    run
}

/// The losses of a run's records with everything that must not differ: the bits.
pub fn trace(records: &[Record]) -> Vec<(u64, u64, u64)> {
    let bits = |record: &Record| match record {
        Record::Training(TrainingRecord { step, loss, gradient_norm, .. }) => {
            (*step, loss.to_bits(), gradient_norm.to_bits())
        }
        Record::Validation(record) => (record.step, record.loss.to_bits(), record.bleu.unwrap_or(-1.0).to_bits()),
    };
    records.iter().map(bits).collect()
}
