//! A run that was killed goes on as if it had not been, from the newest checkpoint that is whole.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};
use support::{
    alphabet_text, capitals_corpus, config, finish, is_language_model, resume, resume_with, reversal_corpus, start,
    task_config, trace,
};
use weft_train::{Event, Outcome, Overrides, RunConfig, TrainError, TrainingConfig};

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
fn a_killed_translator_with_two_vocabularies_goes_on_bit_for_bit() {
    for architecture in ["transformer", "rnn_encoder_decoder"] {
        let folder = tempfile::tempdir().unwrap();
        let train = capitals_corpus(folder.path(), "train.tsv", 80, 1);
        let validation = capitals_corpus(folder.path(), "validation.tsv", 10, 2);
        let config = config(architecture, &train, &validation, &[("tokenizer.shared", "false")]);
        check_kills(&config, folder.path(), &[6]);
        let model = folder.path().join("killed-at-6/model");
        let [target, source] = ["tokenizer.json", "source_tokenizer.json"]
            .map(|name| weft_text::Tokenizer::load(model.join(name)).unwrap());
        assert_ne!(source.hash(), target.hash());
        assert!(target.encode("A").unwrap() != source.encode("A").unwrap());
    }
}

#[test]
fn killed_language_models_go_on_bit_for_bit() {
    for architecture in ["gpt", "llama", "recurrent_lm", "mamba", "rwkv4", "mamba2", "rwkv7"] {
        let folder = tempfile::tempdir().unwrap();
        let train = alphabet_text(folder.path(), "train.txt", 40, 1);
        let validation = alphabet_text(folder.path(), "validation.txt", 10, 2);
        let config = config(architecture, &train, &validation, &[("training.accumulate", "3")]);
        check_kills(&config, folder.path(), &[6, 11]);
    }
}

#[test]
fn killed_runs_of_a_task_go_on_bit_for_bit() {
    let three = [("data.pairs", "3"), ("training.accumulate", "3"), ("model.dropout", "0.1")];
    for config in [task_config("gpt", "recall", &three), task_config("rwkv7", "needle", &[])] {
        let folder = tempfile::tempdir().unwrap();
        check_kills(&config, folder.path(), &[3, 6]);
        let whole = trace(&folder.path().join("whole"));
        assert_eq!(whole.iter().filter(|line| line.contains("\"accuracy\"")).count(), 3, "{whole:#?}");
        let written: RunConfig =
            toml::from_str(&std::fs::read_to_string(folder.path().join("whole/config.toml")).unwrap()).unwrap();
        assert_eq!(written.recall_task(), config.recall_task());
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
    renew_manifest(&checkpoint);
    let error = resume(&path).err().unwrap();
    assert!(error.to_string().starts_with("the tokenizer changed since the run began"), "{error}");
}

/// The moments of every trained parameter, and no others.
#[test]
fn an_optimizer_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    let mut run = start(&config, &path).unwrap();
    while run.state().step < 4 {
        run.advance(&AtomicBool::new(false), &mut |_| ()).unwrap();
    }
    drop(run);
    let checkpoint = path.join("checkpoints/step-00000004");
    let file = checkpoint.join("optimizer.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = whole.names();
    names.sort();
    let last = names[names.len() - 1];
    let tensor = whole.tensor(last).unwrap();
    let all = || whole.iter().filter(|(name, _)| *name != last);
    let refused = |tensors: Vec<(&str, TensorView<'_>)>| {
        std::fs::write(&file, safetensors::serialize(tensors, None).unwrap()).unwrap();
        renew_manifest(&checkpoint);
        resume(&path).err().unwrap().to_string()
    };
    let error = refused(all().collect());
    assert!(error.ends_with(&format!("optimizer.safetensors: tensor `{last}` is missing")), "{error}");
    let strangers = [(last, tensor.clone()), ("stranger.exp_avg", tensor)];
    let error = refused(all().chain(strangers).collect());
    assert!(error.ends_with("tensor `stranger.exp_avg` belongs to no parameter of the model"), "{error}");
    std::fs::write(&file, &bytes).unwrap();
    renew_manifest(&checkpoint);
    finish(resume(&path).unwrap().0);
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let text = alphabet_text(folder.path(), "train.txt", 60, 1);
    for architecture in ["transformer", "rnn_encoder_decoder", "gpt", "rwkv7", "mamba2"] {
        let config = match is_language_model(architecture) {
            true => config(architecture, &text, &text, &[("training.steps", "6")]),
            false => translating(folder.path(), architecture),
        };
        let traces = [1, 3].map(|threads| {
            let path = folder.path().join(format!("{architecture}-{threads}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| drop(finish(start(&config, &path).unwrap())));
            trace(&path)
        });
        assert_eq!(traces[0], traces[1], "{architecture}");
    }
}

/// No kind of model has trained parameters without gradients, which would be missed in the optimizer's file.
#[test]
fn every_kind_of_model_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = reversal_corpus(folder.path(), "train.tsv", 40, 1);
    let text = alphabet_text(folder.path(), "train.txt", 20, 1);
    let cases: [(&str, &[(&str, &str)]); 12] = [
        ("transformer", &[("model.normalize_before", "true"), ("model.tie_embeddings", "false")]),
        ("rnn_encoder_decoder", &[("model.bidirectional", "false"), ("model.cell", "lstm")]),
        ("rnn_encoder_decoder", &[("model.attention", "none"), ("model.cell", "gru")]),
        ("rnn_encoder_decoder", &[("model.cell", "rnn"), ("model.num_layers", "2")]),
        ("rnn_encoder_decoder", &[("model.cell", "gru"), ("model.gru_reset", "before")]),
        ("gpt", &[("model.tie_embeddings", "false")]),
        ("rwkv4", &[("model.tie_embeddings", "true")]),
        ("recurrent_lm", &[("model.tie_embeddings", "false"), ("model.cell", "gru")]),
        ("recurrent_lm", &[("model.cell", "lstm"), ("model.num_layers", "2")]),
        ("recurrent_lm", &[("model.embedding_size", "16"), ("model.tie_embeddings", "false")]),
        ("rwkv7", &[("model.num_heads", "2"), ("model.num_layers", "2")]),
        ("llama", &[("model.sliding_window", "5"), ("model.attention_pattern", "strided:4:2")]),
    ];
    for (index, (architecture, more)) in cases.into_iter().enumerate() {
        let data = if is_language_model(architecture) { &text } else { &pairs };
        let more = [more, &[("training.steps", "1")]].concat();
        let path = folder.path().join(index.to_string());
        finish(start(&config(architecture, data, data, &more), &path).unwrap());
        assert_eq!(finish(resume_with(&path, &[("training.steps", "2")]).unwrap()).state().step, 2, "{more:?}");
    }
}

/// What a run computes is what its checkpoint says, not what somebody wrote into `config.toml` since.
#[test]
fn an_edited_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    drop(start(&config, &path).unwrap());
    let edited = RunConfig {
        training: TrainingConfig { learning_rate: 0.5, beam: None, ..config.training.clone() },
        ..config.clone()
    };
    std::fs::write(path.join("config.toml"), edited.to_toml()).unwrap();
    let error = resume(&path).err().unwrap();
    let wanted = "config.toml was edited since the run began: `training.beam`, `training.learning_rate` differ from the newest checkpoint";
    assert!(error.to_string().ends_with(wanted), "{error}");
    assert_eq!(std::fs::read_to_string(path.join("config.toml")).unwrap(), edited.to_toml());
    std::fs::write(path.join("config.toml"), config.to_toml()).unwrap();
    finish(resume(&path).unwrap().0);
}

#[test]
fn a_budget_may_grow_the_data_may_move_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = translating(folder.path(), "transformer");
    let path = folder.path().join("run");
    assert_eq!(finish(start(&config, &path).unwrap()).state().step, 18);
    let again = |key: &str, value: &str| resume_with(&path, &[(key, value)]);
    let error = again("training.seed", "3").err().unwrap();
    assert_eq!(error.to_string(), "--flag: `training.seed` cannot change when a run is resumed");
    assert_eq!(finish(again("training.steps", "21").unwrap()).state().step, 21);
    assert_eq!(finish(resume(&path).unwrap().0).state().step, 21);
    // A longer budget outlives a kill before the next checkpoint.
    drop(again("training.steps", "23").unwrap());
    assert_eq!(finish(resume(&path).unwrap().0).state().step, 23);
    for (key, value, message) in [
        ("training.steps", "22", "--flag: `training.steps` is 22, wanted at least 23, the steps done"),
        ("training.steps", "0", "--flag: `training.steps` is 0, wanted at least 1"),
        ("training.epochs", "1", "--flag: `training.epochs` is 1, wanted at least"),
        ("training.epochs", "0", "--flag: `training.epochs` is 0, wanted at least 1"),
        ("training.minutes", "0", "--flag: `training.minutes` is 0, wanted above 0"),
        ("training.minutes", "nan", "--flag: `training.minutes` is NaN, wanted above 0"),
        ("training.minutes", "0.000001", "--flag: `training.minutes` is 0.000001, wanted at least"),
        ("training.steps", "\"many\"", "--flag: `training.steps` cannot be \"many\""),
    ] {
        let error = again(key, value).err().unwrap();
        assert!(error.to_string().starts_with(message), "{error}");
    }
    // The same values again are no change, from a flag or from the run's own file.
    assert_eq!(finish(again("training.seed", "42").unwrap()).state().step, 23);
    let own = Overrides::read(&path.join("config.toml")).unwrap();
    let run = weft_train::Run::resume(&path, &own, &burn::tensor::Device::flex(), &mut |_| ()).unwrap();
    assert_eq!(finish(run).state().step, 23);
    // The same data may lie elsewhere, under other names.
    let moved = ["train.tsv", "validation.tsv"].map(|name| {
        let (from, to) = (folder.path().join(name), folder.path().join(name).with_extension("moved"));
        std::fs::rename(from, &to).unwrap();
        format!("[{:?}]", to.display().to_string())
    });
    let [train, validation] = moved.each_ref().map(String::as_str);
    let error = again("training.steps", "25").err().unwrap();
    assert!(error.to_string().starts_with("cannot open ") && error.to_string().ends_with("train.tsv"), "{error}");
    let error = resume_with(&path, &[("data.train", validation), ("data.validation", validation)]).err().unwrap();
    assert!(error.to_string().starts_with("the training corpus changed since the run began"), "{error}");
    let error = resume_with(&path, &[("data.train", train), ("data.validation", train)]).err().unwrap();
    assert!(error.to_string().starts_with("the validation corpus changed since the run began"), "{error}");
    // Where they lie outlives a kill, too.
    let found = [("data.train", train), ("data.validation", validation), ("training.steps", "25")];
    drop(resume_with(&path, &found).unwrap());
    assert_eq!(finish(resume(&path).unwrap().0).state().step, 25);
}

/// Makes a checkpoint whole again after its files were changed on purpose.
fn renew_manifest(checkpoint: &Path) {
    change(&checkpoint.join("manifest.json"), |manifest| {
        let mut json: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        for (name, entry) in json["files"].as_object_mut().unwrap() {
            let bytes = std::fs::read(checkpoint.join(name)).unwrap();
            entry["bytes"] = bytes.len().into();
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            entry["sha256"] = hash.into();
        }
        *manifest = serde_json::to_vec(&json).unwrap();
    });
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}
