//! Learning to find again what was read, and measuring it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as the test may")]

mod support;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use support::{finish, start, task_config};
use weft_models::gpt::{Gpt, GptConfig};
use weft_models::{Architecture, LanguageModel, Noise, checkpoint};
use weft_text::{RecallKind, RecallTask, RecallTokens, Tokenizer, TokenizerKind};
use weft_train::{Overrides, Recalling, Task, TrainError, derive, recall_accuracy, survey};

fn tokenizer() -> Tokenizer {
    let alphabet = std::iter::once(Ok(RecallTask::ALPHABET.to_owned()));
    Tokenizer::train(TokenizerKind::Characters, 4096, alphabet).unwrap()
}

fn gpt(max_positions: usize) -> Gpt {
    let config = GptConfig {
        vocab_size: tokenizer().vocab_size(),
        max_positions,
        hidden_size: 24,
        num_layers: 1,
        num_heads: 2,
        ..GptConfig::default()
    };
    Gpt::new(&config, 1, &Device::flex())
}

/// The loss is that of the answers alone, read off the logits of the whole texts.
#[test]
fn only_answers_count() {
    let config = task_config("gpt", "recall", &[("data.pairs", "3")]);
    let task = config.recall_task().unwrap();
    let mut recalling = Recalling::new(&config, task, None).unwrap();
    let model = gpt(24);
    let device = Device::flex();
    assert_eq!(Task::<Gpt>::begin_epoch(&mut recalling, 2).unwrap(), 1000);
    let (loss, tokens) = recalling.loss(&model, 5, &mut Noise::none(), &device).unwrap();
    let texts: Vec<_> = (20_050..20_060).map(|index| task.training_text(config.training.seed, index)).collect();
    let ids: Vec<i32> =
        texts.iter().flat_map(|text| tokenizer().encode(&text.text[..23]).unwrap()).map(|id| id as i32).collect();
    let logits = model.forward(Tensor::<2, Int>::from_data(TensorData::new(ids, [10, 23]), &device));
    let vocabulary = logits.dims()[2];
    let logits: Vec<f32> = logits.into_data().try_to_vec().unwrap();
    let (mut wanted, mut asked) = (0.0, 0);
    for (row, text) in texts.iter().enumerate() {
        for question in &text.questions {
            let answer = tokenizer().encode(&text.text[question.place + 1..question.place + 2]).unwrap()[0];
            let logits = &logits[(row * 23 + question.place) * vocabulary..][..vocabulary];
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            wanted += sum.ln() - f64::from(logits[answer as usize]);
            asked += 1;
        }
    }
    assert_eq!(tokens, asked);
    let found = f64::from(loss.into_data().try_to_vec::<f32>().unwrap()[0]);
    assert!((found / wanted - 1.0).abs() < 1e-5, "{found}, wanted {wanted}");
}

/// A needle a few tokens back is soon found, by the run's own count and by that of fresh questions.
#[test]
fn a_needle_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        ("training.window", "8"),
        ("training.batch_tokens", "512"),
        ("training.steps", "200"),
        ("training.validation_interval", "100"),
        ("training.learning_rate", "1e-2"),
    ];
    let config = task_config("gpt", "needle", &more);
    let task = config.recall_task().unwrap();
    finish(start(&config, &folder.path().join("run")).unwrap());
    let model: Gpt = checkpoint::load(&folder.path().join("run/model"), &Device::flex()).unwrap();
    let found = recall_accuracy(&model, &tokenizer(), &task, &[2, 4, 6], 100).unwrap();
    assert_eq!(
        found.iter().map(|found| (found.distance, found.questions)).collect::<Vec<_>>(),
        [(2, 100), (4, 100), (6, 100)]
    );
    assert!(found.iter().all(|found| found.accuracy() > 3.0 * task.chance()), "{found:?}");
    let untrained = recall_accuracy(&gpt(8), &tokenizer(), &task, &[4], 100).unwrap();
    assert!(untrained[0].accuracy() < 3.0 * task.chance(), "{untrained:?}");
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let task = RecallTask { kind: RecallKind::Recall, pairs: 8, length: 64 };
    let ask = |task: &RecallTask, distances: &[usize]| {
        recall_accuracy(&gpt(64), &tokenizer(), task, distances, 4).unwrap_err().to_string()
    };
    assert_eq!(ask(&task, &[8, 1]), "distance is 1, wanted at least 2, the tokens of a pair");
    let far = "a question 63 tokens after its pair needs 79 tokens, but the model reads at most 64";
    assert_eq!(ask(&task, &[8, 63]), far);
    assert!(ask(&RecallTask { pairs: 27, ..task }, &[8]).starts_with("pairs is 27"));
    assert_eq!(recall_accuracy(&gpt(64), &tokenizer(), &task, &[62], 4).unwrap().len(), 1);
    assert_eq!(recall_accuracy(&gpt(64), &tokenizer(), &task, &[62], 0).unwrap()[0].accuracy(), 0.0);
}

#[test]
fn a_task_sets_the_dial() {
    let derived = |fixed: &[(&str, &str)]| {
        let mut overrides = Overrides::new();
        fixed.iter().for_each(|(key, value)| overrides.set(key, value, "--set").unwrap());
        derive(&overrides, &survey(&overrides)?)
    };
    for task in ["recall", "needle"] {
        let (config, reasons) = derived(&[("data.task", task)]).unwrap();
        let length = RecallTask::new(config.data.task.unwrap()).length;
        assert_eq!((config.training.window, config.model.max_positions), (Some(length), Some(length)));
        assert_eq!((config.model.architecture.name(), config.model.dropout), ("gpt", 0.0));
        assert!(reasons.iter().any(|value| value.name == "data.pairs"));
        // What is written derives to itself.
        let again = Overrides::parse(&config.to_toml(), std::path::Path::new("config.toml")).unwrap();
        assert_eq!(derive(&again, &survey(&again).unwrap()).unwrap().0, config);
    }
    let recall = ("data.task", "recall");
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[recall, ("data.train", "[\"a.txt\"]")], "--set: `data.train` is set, but `data.task` makes the texts"),
        (&[recall, ("training.epochs", "3")], "--set: `training.epochs` is set, but `data.task` makes the texts"),
        (
            &[recall, ("model.architecture", "transformer")],
            "--set: `data.task` is no setting of the architecture transformer",
        ),
        (&[recall, ("data.pairs", "27")], "--set: `data.pairs` is 27, wanted 1 to 26, the letters that there are"),
        (
            &[recall, ("training.window", "15")],
            "--set: `training.window` is 15, wanted at least 4 tokens for each pair",
        ),
        (&[recall, ("tokenizer.kind", "bpe")], "--set: `tokenizer.kind` is bpe, wanted `characters` for a task"),
        (&[("data.task", "sort")], "--set: `data.task` cannot be \"sort\""),
        (
            &[("data.train", "[\"a.txt\"]"), ("data.pairs", "3"), ("model.architecture", "gpt")],
            "--set: `data.pairs` is 3, wanted a `data.task` besides",
        ),
    ];
    for (fixed, wanted) in cases {
        let error = match fixed[0].0 {
            "data.train" => {
                let mut overrides = Overrides::new();
                fixed.iter().for_each(|(key, value)| overrides.set(key, value, "--set").unwrap());
                let facts = weft_train::Facts { examples: 1, bytes: 1000, characters: None };
                derive(&overrides, &facts).unwrap_err()
            }
            _ => derived(fixed).unwrap_err(),
        };
        assert!(error.to_string().starts_with(wanted), "{error}");
        assert!(error.hint().is_some() || matches!(error, TrainError::SettingRange { .. }), "{error}");
    }
}

/// Letters that have no token of their own cannot be asked.
#[test]
fn texts_are_the_same_for_every_model() {
    let task = RecallTask::new(RecallKind::Recall);
    let texts: Vec<_> = (0..4).map(|index| task.test_text(16, index)).collect();
    let bytes =
        Tokenizer::train(TokenizerKind::ByteBpe, 400, ["aQ aQ bZ bZ"].map(|text| Ok(text.to_owned())).into_iter());
    let [one, other] = [tokenizer(), bytes.unwrap()].map(|tokenizer| {
        let batch = RecallTokens::new(&tokenizer).unwrap().collate(&texts);
        let ids: Vec<u32> = batch.inputs.iter().map(|&id| id as u32).collect();
        (tokenizer.decode(&ids).unwrap(), batch.time)
    });
    assert_eq!(one, other);
}
