//! A run that was killed goes on as if it had not been, from the newest checkpoint that is whole.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{alphabet_text, config, finish, resume, reversal_corpus, start, trace};
use weft_train::{Event, Outcome, Overrides, RunConfig, TrainError};

/// Eighteen steps of two micro-batches each over three epochs and more; checkpoints every four steps.
fn translating(folder: &Path, architecture: &str) -> RunConfig {
    let train = reversal_corpus(folder, "train.tsv", 120, 1);
    let validation = reversal_corpus(folder, "validation.tsv", 20, 2);
    let more = [("training.steps", "18"), ("training.accumulate", "2"), ("training.batch_tokens", "128")];
    config(architecture, &train, &validation, &more)
}

fn check_kills(config: &RunConfig, folder: &Path, kills: &[u64]) {
    finish(start(config, &folder.join("whole")).unwrap());
    let model = |name: &str| std::fs::read(folder.join(name).join("model/model.safetensors")).unwrap();
    for &kill in kills {
        let name = format!("killed-at-{kill}");
        let path = folder.join(&name);
        let mut run = start(config, &path).unwrap();
        for _ in 0..kill {
            assert_eq!(run.advance(&AtomicBool::new(false), &mut |_| ()).unwrap(), None);
        }
        // No farewell: as after kill -9.
        drop(run);
        let (run, events) = resume(&path).unwrap();
        let expected = kill / 4 * 4;
        assert!(matches!(events[..], [Event::Resumed { step, .. }] if step == expected), "{events:?}");
        drop(finish(run));
        assert_eq!(trace(&path), trace(&folder.join("whole")), "killed after step {kill}");
        assert!(model(&name) == model("whole"), "killed after step {kill}: other weights");
    }
}

#[test]
fn a_killed_transformer_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    check_kills(&config, folder.path(), &[0, 3, 4, 9, 17]);
}

#[test]
fn a_killed_recurrent_translator_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "rnn_encoder_decoder");
    check_kills(&config, folder.path(), &[7]);
}

#[test]
fn killed_language_models_go_on_bit_for_bit() {
    for architecture in ["gpt", "recurrent_lm"] {
        let folder = tempfile::tempdir().unwrap();
        let train = alphabet_text(folder.path(), "train.txt", 40, 1);
        let validation = alphabet_text(folder.path(), "validation.txt", 10, 2);
        let config = config(architecture, &train, &validation, &[("training.accumulate", "3")]);
        check_kills(&config, folder.path(), &[6, 11]);
    }
}

/// The stop comes in the middle of a step; the whole step is done again.
#[test]
fn an_interrupted_run_saves_and_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let whole = folder.path().join("whole");
    finish(start(&config, &whole).unwrap());
    let path = folder.path().join("interrupted");
    for stop_at in [6, 7, 11] {
        let mut run = if path.exists() { resume(&path).unwrap().0 } else { start(&config, &path).unwrap() };
        let stop = AtomicBool::new(false);
        let mut saved = None;
        let outcome = run.run(&stop, &mut |event| match event {
            Event::Stepped(progress) if progress.step == stop_at => stop.store(true, Ordering::Relaxed),
            Event::Saved { step, .. } => saved = Some(*step),
            _ => (),
        });
        assert_eq!(outcome.unwrap(), Outcome::Interrupted);
        assert_eq!(saved, Some(stop_at));
    }
    let (run, events) = resume(&path).unwrap();
    assert!(matches!(events[..], [Event::Resumed { step: 11, .. }]), "{events:?}");
    finish(run);
    assert_eq!(trace(&path), trace(&whole));
}

/// Bits flipped, files cut, the manifest gone: the checkpoint before it is taken, and the reason said.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let whole = folder.path().join("whole");
    finish(start(&config, &whole).unwrap());
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 4] = [
        ("flip", |checkpoint| change(&checkpoint.join("model.safetensors"), |bytes| bytes[5000] ^= 4), "SHA-256"),
        (
            "cut",
            |checkpoint| change(&checkpoint.join("optimizer.safetensors"), |bytes| bytes.truncate(1000)),
            "it has 1000 bytes",
        ),
        ("bare", |checkpoint| std::fs::remove_file(checkpoint.join("manifest.json")).unwrap(), "cannot read"),
        (
            "torn",
            |checkpoint| change(&checkpoint.join("manifest.json"), |bytes| bytes.truncate(30)),
            "no list of files",
        ),
    ];
    for (name, damage, reason) in cases {
        let path = folder.path().join(name);
        let mut run = start(&config, &path).unwrap();
        while run.state().step < 13 {
            run.advance(&AtomicBool::new(false), &mut |_| ()).unwrap();
        }
        drop(run);
        let newest = path.join("checkpoints/step-00000012");
        damage(&newest);
        // A folder that was being written when the machine went down.
        std::fs::create_dir(path.join("checkpoints/step-00000013.partial")).unwrap();
        let (run, events) = resume(&path).unwrap();
        match &events[..] {
            [Event::PassedOver(item), Event::Resumed { step: 8, path: from }] => {
                assert_eq!(item.path, newest);
                assert!(item.reason.contains(reason), "{name}: {item}");
                assert!(from.ends_with("step-00000008"));
            }
            other => panic!("{name}: {other:?}"),
        }
        finish(run);
        assert_eq!(trace(&path), trace(&whole), "{name}");
    }
}

#[test]
fn without_a_whole_checkpoint_the_error_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    drop(start(&config, &path).unwrap());
    change(&path.join("checkpoints/step-00000000/config.json"), |bytes| bytes.clear());
    let error = resume(&path).err().unwrap();
    assert!(matches!(&error, TrainError::NoCheckpoint { passed_over, .. } if passed_over.len() == 1), "{error}");
    assert!(error.to_string().contains("config.json: it has 0 bytes"), "{error}");
    let error = resume(&folder.path().join("nothing")).err().unwrap();
    assert!(error.to_string().ends_with("holds no run: there is no config.toml"), "{error}");
}

#[test]
fn a_changed_corpus_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    drop(start(&config, &path).unwrap());
    change(&folder.path().join("train.tsv"), |bytes| bytes.extend(b"abc\tcba\n"));
    let error = resume(&path).err().unwrap();
    assert!(error.to_string().starts_with("the training corpus changed since the run began"), "{error}");
    assert!(error.hint().is_some());
}

/// A tokenizer that was exchanged, manifest and all, still has another hash than the run's state.
#[test]
fn a_changed_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    drop(start(&config, &path).unwrap());
    let checkpoint = path.join("checkpoints/step-00000000");
    change(&checkpoint.join("tokenizer.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (at, _) = text.match_indices("\"a\"").next().unwrap();
        bytes[at + 1] = b'Q';
    });
    let error = resume(&path).err().unwrap();
    assert!(error.to_string().contains("tokenizer.json: its SHA-256 is not the manifest's"), "{error}");
}

#[test]
fn a_budget_may_grow_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    assert_eq!(finish(start(&config, &path).unwrap()).state().step, 18);
    let device = burn::tensor::Device::flex();
    let again = |key: &str, value: &str| {
        let mut overrides = Overrides::new();
        overrides.set(key, value, "--steps").unwrap();
        weft_train::Run::resume(&path, &overrides, &device, &mut |_| ())
    };
    let error = again("training.seed", "3").err().unwrap();
    assert_eq!(error.to_string(), "--steps: `training.seed` cannot change when a run is resumed");
    assert_eq!(finish(again("training.steps", "21").unwrap()).state().step, 21);
    assert_eq!(finish(resume(&path).unwrap().0).state().step, 21);
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}
