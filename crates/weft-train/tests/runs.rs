//! Tiny runs from start to end.

mod support;

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use support::{alphabet_text, config, finish, resume, reversal_corpus, start, trace};
use weft_models::gpt::Gpt;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, checkpoint};
use weft_text::Tokenizer;
use weft_train::{Event, Outcome, Record, Run, RunConfig, read_metrics};

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
