//! Tiny runs from start to end.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

mod support;

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use support::{alphabet_text, capitals_corpus, config, finish, resume, reversal_corpus, start, trace};
use weft_models::gpt::Gpt;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, checkpoint};
use weft_text::{SkipReason, TextCorpus, TextDataset, Tokenizer};
use weft_train::{Event, Outcome, Record, Run, RunConfig, RunFolder, TextData, TrainError, read_metrics};

fn losses(run: &Run) -> (Vec<f64>, Vec<f64>) {
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for record in run.records() {
        match record {
            Record::Training(record) => training.push(record.loss),
            Record::Validation(record) => validation.push(record.loss),
        }
    }
    (training, validation)
}

fn falls(run: &Run) {
    let (training, validation) = losses(run);
    let architecture = run.config().model.architecture.name();
    let ends = |losses: &[f64]| (losses[0], losses[losses.len() - 1]);
    let ((first, last), (first_validated, last_validated)) = (ends(&training), ends(&validation));
    assert!(last < 0.7 * first, "{architecture}: {training:?}");
    assert!(last_validated < 0.9 * first_validated, "{architecture}: {validation:?}");
}

#[test]
fn a_transformer_learns_and_leaves_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let train = reversal_corpus(folder.path(), "train.tsv", 400, 1);
    let validation = reversal_corpus(folder.path(), "validation.tsv", 40, 2);
    let config =
        config("transformer", &train, &validation, &[("training.steps", "60"), ("training.validation_interval", "20")]);
    let run_folder = folder.path().join("run");
    let mut run = start(&config, &run_folder).unwrap();
    let mut events = Vec::new();
    let outcome = run.run(&AtomicBool::new(false), &mut |event| events.push(event.clone())).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    falls(&run);
    assert_eq!(run.state().step, 60);
    assert!(events.iter().any(|event| matches!(event, Event::Averaged { .. })));
    let translated = events.iter().rev().find_map(|event| match event {
        Event::Validated { translations, .. } => translations.clone(),
        _ => None,
    });
    let translated = translated.unwrap();
    assert_eq!(translated.sentences.len(), 8);
    assert!(translated.sentences.iter().all(|one| one.source.chars().rev().eq(one.reference.chars())));

    let device = Device::flex();
    let model: Transformer = checkpoint::load(&run_folder.join("model"), &device).unwrap();
    let tokenizer = Tokenizer::load(run_folder.join("model/tokenizer.json")).unwrap();
    assert_eq!(model.config().vocab_size, tokenizer.vocab_size());
    for name in ["config.toml", "metrics.jsonl", "curve.svg", "curve.png"] {
        assert!(run_folder.join(name).metadata().unwrap().len() > 0, "{name}");
    }
    let written = std::fs::read_to_string(run_folder.join("config.toml")).unwrap();
    assert_eq!(toml::from_str::<RunConfig>(&written).unwrap(), config);
    let records = read_metrics(&run_folder.join("metrics.jsonl")).unwrap();
    let steps = |records: &[Record]| records.iter().map(Record::step).collect::<Vec<_>>();
    assert_eq!(steps(&records), steps(run.records()));
}

#[test]
fn a_gpt_learns_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 200, 1);
    let validation = alphabet_text(folder.path(), "validation.txt", 20, 2);
    let config = config("gpt", &train, &validation, &[("training.steps", "60")]);
    let run = finish(start(&config, &folder.path().join("whole")).unwrap());
    falls(&run);
    let _: Gpt = checkpoint::load(&folder.path().join("whole/model"), &Device::flex()).unwrap();

    let path = folder.path().join("broken");
    let mut broken = start(&config, &path).unwrap();
    for _ in 0..31 {
        assert_eq!(broken.advance(&AtomicBool::new(false), &mut |_| ()).unwrap(), None);
    }
    drop(broken);
    let (resumed, events) = resume(&path).unwrap();
    assert!(matches!(&events[..], [Event::Resumed { step: 28, .. }]), "{events:?}");
    finish(resumed);
    assert_eq!(trace(&path), trace(&folder.path().join("whole")));
}

/// The steps of a run's checkpoints, the oldest first.
fn checkpoints(folder: &RunFolder) -> Vec<u64> {
    let mut steps: Vec<u64> = folder.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect();
    steps.sort();
    steps
}

/// A step whose loss was finite may break the weights. They never reach a checkpoint, and the one before stays.
#[test]
fn broken_weights_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let train = reversal_corpus(folder.path(), "train.tsv", 40, 1);
    let mut config = config("transformer", &train, &train, &[("training.metric", "bleu")]);
    // What no configuration file may say: a parameter without a gradient becomes 0 / 0.
    config.training.epsilon = 0.0;
    let cases = [
        ((1, 1000), "step 1: the parameter `"),
        ((1, 1), "step 1: the validation loss is NaN, and the first parameter at fault, `"),
        ((1000, 1000), "step 2: the loss is NaN, and the first parameter at fault, `"),
    ];
    for (index, (intervals, message)) in cases.into_iter().enumerate() {
        (config.training.checkpoint_interval, config.training.validation_interval) = intervals;
        let mut run = start(&config, &folder.path().join(index.to_string())).unwrap();
        let error = run.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
        assert!(error.to_string().starts_with(message) && error.to_string().ends_with(" is NaN"), "{error}");
        assert!(error.hint().unwrap().starts_with("start a new run"));
        assert_eq!(checkpoints(run.folder()), [0]);
        assert_eq!(run.folder().newest_whole().unwrap().1.step, 0);
    }
}

/// Untrained for want of a learning rate, so no validation is better than the first.
#[test]
fn patience_ends_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let train = reversal_corpus(folder.path(), "train.tsv", 40, 1);
    let more = [
        ("training.learning_rate", "1e-12"),
        ("training.metric", "bleu"),
        ("training.patience", "2"),
        ("training.steps", "40"),
    ];
    let path = folder.path().join("run");
    let mut run = start(&config("transformer", &train, &train, &more), &path).unwrap();
    let outcome = run.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    // The best at step 4, and two more.
    assert_eq!((outcome, run.state().step), (Outcome::EarlyStopped, 12));
    assert_eq!(run.state().best[0].step, 4);
    assert!(path.join("model/model.safetensors").exists());
    let mut run = resume(&path).unwrap().0;
    assert_eq!(run.run(&AtomicBool::new(false), &mut |_| ()).unwrap(), Outcome::EarlyStopped);
    assert_eq!(run.state().step, 12);
}

/// The best by loss and by BLEU, the newest besides, and the very best as the model.
#[test]
fn the_best_checkpoints_are_kept() {
    for metric in ["loss", "bleu"] {
        let folder = tempfile::tempdir().unwrap();
        let train = capitals_corpus(folder.path(), "train.tsv", 100, 1);
        let validation = capitals_corpus(folder.path(), "validation.tsv", 20, 2);
        let more = [
            ("training.metric", metric),
            ("training.keep_best", "2"),
            ("training.average", "0"),
            ("training.steps", "60"),
            ("training.validation_interval", "6"),
            // Too high to get better all the time.
            ("training.learning_rate", "3e-2"),
        ];
        let run =
            finish(start(&config("transformer", &train, &validation, &more), &folder.path().join("run")).unwrap());
        let mut scores: Vec<(u64, f64)> = Vec::new();
        for record in run.records() {
            if let Record::Validation(record) = record {
                // Turned round, so that lower is better in both.
                scores.push((record.step, if metric == "loss" { record.loss } else { -record.bleu.unwrap() }));
            }
        }
        // Stable: among equals the older is the better.
        scores.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert!(scores[0].1 < scores[9].1, "{metric}: {scores:?}");
        let best: Vec<u64> = run.state().best.iter().map(|best| best.step).collect();
        assert_eq!(best, [scores[0].0, scores[1].0], "{metric}: {scores:?}");
        let mut kept = [&best[..], &[60]].concat();
        kept.sort();
        kept.dedup();
        assert_eq!(checkpoints(run.folder()), kept, "{metric}");
        let weights = |path: std::path::PathBuf| std::fs::read(path.join("model.safetensors")).unwrap();
        let (model, first) = (run.folder().model_path(), run.folder().checkpoint_path(best[0]));
        assert!(weights(model) == weights(first), "{metric}");
    }
}

/// A file that failed a checksum would be empty in TensorBoard.
#[test]
fn a_run_writes_events_for_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 40, 1);
    let run = finish(start(&config("recurrent_lm", &train, &train, &[]), &folder.path().join("run")).unwrap());
    let files = std::fs::read_dir(run.folder().path()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.to_string_lossy().contains("events.out.tfevents.")).collect();
    let bytes = std::fs::read(&files[0]).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let size = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked_checksum(&rest[..8]).to_le_bytes());
        let record = &rest[12..12 + size];
        assert_eq!(rest[12 + size..16 + size], masked_checksum(record).to_le_bytes());
        records.push(record);
        rest = &rest[16 + size..];
    }
    let holds = |record: &[u8], text: &str| record.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(records[0], "brain.Event:2"));
    assert_eq!(records.iter().filter(|record| holds(record, "loss/training")).count(), 12);
    assert_eq!(records.iter().filter(|record| holds(record, "loss/validation")).count(), 3);
}

/// CRC-32C, masked as TFRecord has it.
fn masked_checksum(bytes: &[u8]) -> u32 {
    let step = |remainder: u32, _: u32| (remainder >> 1) ^ ((remainder & 1) * 0x82f6_3b78);
    let crc = !bytes.iter().fold(u32::MAX, |remainder, &byte| (0..8).fold(remainder ^ u32::from(byte), step));
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A run that ends with the clock falls with the clock, not right after its warm-up.
#[test]
fn a_schedule_follows_the_minutes() {
    for schedule in ["cosine", "linear"] {
        let folder = tempfile::tempdir().unwrap();
        let train = alphabet_text(folder.path(), "train.txt", 40, 1);
        let mut config = config("recurrent_lm", &train, &train, &[("training.schedule", schedule)]);
        (config.training.steps, config.training.minutes) = (None, Some(1000.0));
        let mut run = start(&config, &folder.path().join("run")).unwrap();
        let mut rates = Vec::new();
        for _ in 0..10 {
            let mut note = |event: &Event| {
                if let Event::Stepped(progress) = event {
                    rates.push(progress.learning_rate);
                }
            };
            run.advance(&AtomicBool::new(false), &mut note).unwrap();
        }
        let peak = config.training.learning_rate;
        assert!(rates[0] < 0.3 * peak && rates[9] > 0.9 * peak && rates[9] < peak, "{schedule}: {rates:?}");
    }
}

#[test]
fn the_end_of_a_text_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 40, 1);
    let mut config = config("gpt", &train, &train, &[("data.validation_ratio", "0.25")]);
    config.data.validation.clear();
    let data = TextData::prepare(&config, None).unwrap();
    let whole = TextDataset::build(&TextCorpus::new([&train]), &data.tokenizer).unwrap();
    assert_eq!(data.train.len(), 3 * data.validation.len());
    assert_eq!([data.train, data.validation].concat(), whole.ids);
    assert_eq!(data.train_hash, whole.hash);
}

#[test]
fn what_is_left_out_is_counted_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 40, 1);
    let validation = folder.path().join("validation");
    std::fs::create_dir(&validation).unwrap();
    alphabet_text(&validation, "validation.txt", 10, 2);
    std::fs::write(validation.join(".hidden"), "x").unwrap();
    let run = start(&config("gpt", &train, &validation, &[]), &folder.path().join("run")).unwrap();
    let [of_train, of_validation] = run.skipped();
    assert!(of_train.is_empty(), "{of_train}");
    assert_eq!(of_validation.count(SkipReason::HiddenFile), 1, "{of_validation}");
}

#[test]
fn too_little_data_leave_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let (long, short) = (folder.path().join("long.txt"), folder.path().join("short.txt"));
    std::fs::write(&long, "abcdefghij".repeat(20)).unwrap();
    std::fs::write(&short, "abc").unwrap();
    let refused = |config: &RunConfig| {
        let error = start(config, &path).err().unwrap();
        assert!(!path.exists(), "{error}");
        (error.to_string(), error.hint().unwrap())
    };
    let (error, hint) = refused(&config("gpt", &short, &long, &[]));
    let found = error.split_once("short.txt: ").unwrap().1;
    assert!(found.ends_with("tokens to train on, wanted at least 17"), "{error}");
    assert!(hint.contains("training.window"), "{hint}");
    let mut cut = config("gpt", &long, &long, &[("data.validation_ratio", "0")]);
    cut.data.validation.clear();
    let (error, hint) = refused(&cut);
    assert!(error.ends_with("long.txt: 0 tokens to validate on, wanted at least 2"), "{error}");
    assert!(hint.contains("data.validation_ratio, which is 0,"), "{hint}");
    let pair = folder.path().join("one.tsv");
    std::fs::write(&pair, "a\tb\n").unwrap();
    let mut one = config("transformer", &pair, &pair, &[]);
    one.data.validation.clear();
    let (error, _) = refused(&one);
    assert!(error.ends_with("one.tsv: 1 pairs to train and validate on, wanted at least 2"), "{error}");
    start(&config("gpt", &long, &long, &[]), &path).unwrap();
}

/// A run that was ended before its first checkpoint is begun anew; a run, or another's file, stays.
#[test]
fn a_failed_start_does_not_occupy_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 40, 1);
    let config = config("recurrent_lm", &train, &train, &[]);
    let path = folder.path().join("run");
    drop(start(&config, &path).unwrap());
    let occupied = |path: &std::path::Path| matches!(start(&config, path), Err(TrainError::RunExists { .. }));
    assert!(occupied(&path));
    let first = path.join("checkpoints/step-00000000");
    std::fs::rename(&first, first.with_extension("partial")).unwrap();
    finish(start(&config, &path).unwrap());
    assert!(occupied(&path));
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("config.toml"), "mine").unwrap();
    assert!(occupied(&other));
    assert_eq!(std::fs::read_to_string(other.join("config.toml")).unwrap(), "mine");
    // A folder `model` that no run has written.
    let foreign = folder.path().join("foreign");
    std::fs::create_dir_all(foreign.join("model")).unwrap();
    std::fs::write(foreign.join("model/mine"), "mine").unwrap();
    assert!(occupied(&foreign));
    assert_eq!(std::fs::read_to_string(foreign.join("model/mine")).unwrap(), "mine");
}
