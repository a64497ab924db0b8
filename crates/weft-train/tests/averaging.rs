//! The mean of models.

mod support;

use burn::tensor::Device;
use support::{alphabet_text, config, finish, start};
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::{checkpoint, named_parameters};
use weft_train::{TrainError, average};

#[test]
fn an_average_is_the_mean_of_every_weight() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 100, 1);
    let config = config("recurrent_lm", &train, &train, &[("training.steps", "9"), ("training.average", "0")]);
    let run = finish(start(&config, &folder.path().join("run")).unwrap());
    let checkpoints: Vec<_> = run.folder().checkpoints().unwrap().into_iter().map(|(_, path)| path).collect();
    assert_eq!(checkpoints.len(), 3);
    let output = folder.path().join("averaged");
    average(&checkpoints, &output).unwrap();
    let read =
        |path: &std::path::Path| named_parameters(&checkpoint::load::<RecurrentLm>(path, &Device::flex()).unwrap());
    let models: Vec<_> = checkpoints.iter().map(|path| read(path)).collect();
    for (index, mean) in read(&output).iter().enumerate() {
        for (at, &found) in mean.values.iter().enumerate() {
            let sum: f64 = models.iter().map(|model| f64::from(model[index].values[at])).sum();
            assert_eq!(found, (sum / 3.0) as f32, "{}[{at}]", mean.name);
        }
    }
    assert!(output.join("tokenizer.json").exists());
    // Averaging into the same folder again replaces it.
    average(&checkpoints[..1], &output).unwrap();
    assert_eq!(read(&output)[0].values, models[0][0].values);
}

#[test]
fn strangers_are_not_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 100, 1);
    let run = |name: &str, more: &[(&str, &str)]| {
        let more = [more, &[("training.steps", "1")]].concat();
        finish(start(&config("recurrent_lm", &train, &train, &more), &folder.path().join(name)).unwrap());
        folder.path().join(name).join("model")
    };
    let (one, wider, other) = (run("one", &[]), run("wider", &[("model.hidden_size", "48")]), run("other", &[]));
    let output = folder.path().join("averaged");
    let error = average(&[one.clone(), wider], &output).unwrap_err();
    assert!(error.to_string().ends_with("their config.json differ"), "{error}");
    std::fs::write(other.join("tokenizer.json"), "{}").unwrap();
    let error = average(&[one.clone(), other.clone()], &output).unwrap_err();
    assert!(error.to_string().ends_with("their tokenizer.json differ"), "{error}");
    std::fs::copy(one.join("tokenizer.json"), other.join("tokenizer.json")).unwrap();
    std::fs::write(other.join("model.safetensors"), "short").unwrap();
    let error = average(&[one, other], &output).unwrap_err();
    assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
    assert!(matches!(average(&[], &output), Err(TrainError::NothingToAverage)));
    assert!(!output.exists());
}

#[test]
fn damaged_or_incomplete_models_are_not_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let train = alphabet_text(folder.path(), "train.txt", 100, 1);
    let config = config("recurrent_lm", &train, &train, &[("training.steps", "1")]);
    finish(start(&config, &folder.path().join("run")).unwrap());
    let (model, output) = (folder.path().join("run/model"), folder.path().join("averaged"));
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    let mut flipped = weights.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(model.join("model.safetensors"), flipped).unwrap();
    let error = average(std::slice::from_ref(&model), &output).unwrap_err();
    assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    std::fs::write(bare.join("model.safetensors"), weights).unwrap();
    let error = average(&[bare], &output).unwrap_err();
    assert!(error.to_string().ends_with("bare is no model: there is no config.json in it"), "{error}");
    assert!(!output.exists());
}

#[test]
fn an_average_replaces_nothing_but_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let train = alphabet_text(folder.path(), "train.txt", 100, 1);
    let config = config("recurrent_lm", &train, &train, &[("training.steps", "1")]);
    finish(start(&config, &path("run")).unwrap());
    std::fs::create_dir(path("notes")).unwrap();
    std::fs::write(path("notes/note.txt"), "mine").unwrap();
    std::fs::write(path("file"), "mine").unwrap();
    let refused = |output: &str, wanted: &str| {
        let error = average(&[path("run/model")], &path(output)).unwrap_err();
        assert!(matches!(error, TrainError::AverageOutput { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    };
    refused("notes", "it holds note.txt");
    refused("file", "is no folder");
    refused("run", "no part of a model");
    refused("run/model", "which is averaged");
    refused("run/model/inside", "which is averaged");
    refused("run/checkpoints/../model", "which is averaged");
    assert_eq!(std::fs::read_to_string(path("notes/note.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "mine");
    average(&[path("run/model")], &path("mean")).unwrap();
    average(&[path("run/model")], &path("mean")).unwrap();
}
