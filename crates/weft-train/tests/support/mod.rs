//! Tiny corpora and runs that take a second.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use weft_train::{ArchitectureKind, Event, Facts, Overrides, Run, RunConfig, TrainError, derive};

/// A pseudo-random sequence without a dependency.
pub(crate) fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    }
}

/// A TSV of words and the same reversed.
pub(crate) fn reversal_corpus(folder: &Path, name: &str, pairs: usize, seed: u64) -> PathBuf {
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

/// A TSV of letters with spaces between and the same reversed in capitals: sentences of words, in two alphabets.
pub(crate) fn capitals_corpus(folder: &Path, name: &str, pairs: usize, seed: u64) -> PathBuf {
    let mut next = numbers(seed);
    let lines: String = (0..pairs)
        .map(|_| {
            let letters: Vec<String> = (0..4 + next(3)).map(|_| ((b'a' + next(4) as u8) as char).to_string()).collect();
            let reversed: Vec<String> = letters.iter().rev().map(|letter| letter.to_uppercase()).collect();
            format!("{}\t{}\n", letters.join(" "), reversed.join(" "))
        })
        .collect();
    let path = folder.join(name);
    std::fs::write(&path, lines).unwrap();
    path
}

/// Text with a simple rule: the alphabet over and over, from random starts.
pub(crate) fn alphabet_text(folder: &Path, name: &str, lines: usize, seed: u64) -> PathBuf {
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

/// Whether an architecture learns from text, not from pairs.
pub(crate) fn is_language_model(architecture: &str) -> bool {
    ArchitectureKind::ALL.into_iter().any(|kind| kind.name() == architecture && !kind.is_translator())
}

/// A full configuration from `key = value` pairs, on top of what makes a run tiny.
pub(crate) fn config(architecture: &str, train: &Path, validation: &Path, more: &[(&str, &str)]) -> RunConfig {
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
    if is_language_model(architecture) {
        set("training.window", "16");
    } else {
        set("training.bleu_sentences", "8");
    }
    more.iter().for_each(|(key, value)| set(key, value));
    derive(&overrides, &Facts { examples: 200, bytes: 4000, characters: None }).unwrap().0
}

/// The same for a task that makes its own texts.
pub(crate) fn task_config(architecture: &str, task: &str, more: &[(&str, &str)]) -> RunConfig {
    let mut overrides = Overrides::new();
    let tiny = [
        ("data.task", task),
        ("model.architecture", architecture),
        ("model.hidden_size", "32"),
        ("model.num_layers", "1"),
        ("training.window", "24"),
        ("training.batch_tokens", "240"),
        ("training.warmup_steps", "5"),
        ("training.log_interval", "1"),
        ("training.validation_interval", "4"),
        ("training.steps", "12"),
    ];
    tiny.iter().chain(more).for_each(|(key, value)| overrides.set(key, value, "test").unwrap());
    derive(&overrides, &weft_train::survey(&overrides).unwrap()).unwrap().0
}

/// Starts a run on the CPU.
pub(crate) fn start(config: &RunConfig, folder: &Path) -> Result<Run, TrainError> {
    Run::start(config.clone(), folder, &Device::flex())
}

/// Resumes a run on the CPU and returns the events of that.
pub(crate) fn resume(folder: &Path) -> Result<(Run, Vec<Event>), TrainError> {
    let mut events = Vec::new();
    let run = Run::resume(folder, &Overrides::new(), &Device::flex(), &mut |event: &Event| events.push(event.clone()))?;
    Ok((run, events))
}

/// Resumes a run on the CPU with `key = value` pairs from a flag, as far as it is allowed.
pub(crate) fn resume_with(folder: &Path, pairs: &[(&str, &str)]) -> Result<Run, TrainError> {
    let mut overrides = Overrides::new();
    pairs.iter().for_each(|(key, value)| overrides.set(key, value, "--flag").unwrap());
    Run::resume(folder, &overrides, &Device::flex(), &mut |_| ())
}

/// Runs to the end.
pub(crate) fn finish(mut run: Run) -> Run {
    run.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    run
}

/// The lines of a run's metrics without their timings: what must not differ in a single digit.
pub(crate) fn trace(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let strip = |line: &str| {
        let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        json.remove("seconds");
        json.remove("tokens_per_second");
        // The numbers as they are written: a reader may round the last digit.
        let written = |key: &String| {
            let at = line.find(&format!("\"{key}\":")).unwrap();
            line[at..].split([',', '}']).next().unwrap().to_owned()
        };
        json.keys().map(written).collect::<Vec<_>>().join(",")
    };
    text.lines().map(strip).collect()
}
