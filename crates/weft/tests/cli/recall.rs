//! Tasks: trained without files, asked at distances; and texts that are read in one stream.

use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::{folder_with, language_model, run, translator};

/// A network that learns needles, trained once: its folder holds `run`.
fn needle() -> &'static std::path::Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let args = ["train", "--task", "needle", "--architecture", "recurrent-lm", "--cell", "gru"];
        let more = ["--hidden-size", "32", "--layers", "1", "--window", "12", "--batch-tokens", "240", "--steps", "20"];
        let found = run(folder.path(), &[&args[..], &more, &["--output", "run"]].concat()).worked();
        assert!(found.stderr.contains("right answers "), "{found:#?}");
        assert!(found.stderr.contains("weft evaluate run --task needle"), "{found:#?}");
        folder
    });
    folder.path()
}

#[test]
fn a_model_of_a_task_is_asked_as_it_was_trained() {
    let folder = needle();
    let found = run(folder, &["evaluate", "run", "--task", "needle", "--questions", "20"]).worked();
    let lines: Vec<&str> = found.stdout.lines().collect();
    assert_eq!(lines[0], "needle, 1 pair a text: 20 questions at each distance, 3.8 % right by guessing");
    assert_eq!(lines[1], "distance    right");
    // Four lengths of the texts, since nothing limits the model.
    let distances: Vec<&str> = lines[2..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(distances, ["4", "8", "16", "32"]);
    assert!(lines[2..].iter().all(|line| line.ends_with(" %")), "{found:#?}");
    let args =
        ["evaluate", "run", "--task", "recall", "--pairs", "3", "--distances", "6,500", "--questions=8", "--json"];
    let json: serde_json::Value = serde_json::from_str(&run(folder, &args).worked().stdout).unwrap();
    assert_eq!((json["pairs"].as_u64(), json["questions"].as_u64()), (Some(3), Some(8)));
    assert!((json["chance"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    let distances = json["distances"].as_array().unwrap();
    assert_eq!(distances.iter().map(|row| row["distance"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 500]);
    assert!(distances.iter().all(|row| row["correct"].as_f64().unwrap() / 8.0 == row["accuracy"].as_f64().unwrap()));
    let inspected = run(folder, &["inspect", "run"]).worked().stdout;
    assert!(inspected.contains("right answers") && inspected.contains("task = needle"), "{inspected}");
}

#[test]
fn any_language_model_is_asked() {
    let ask = |more: &[&str]| {
        run(language_model(), &[&["evaluate", "run", "--task", "recall", "--questions=8"], more].concat())
    };
    let found = ask(&["--pairs", "2"]).worked();
    let distances: Vec<&str> =
        found.stdout.lines().skip(2).map(|line| line.split_whitespace().next().unwrap()).collect();
    // As far as its 32 positions reach.
    assert_eq!(distances, ["4", "8", "16"], "{found:#?}");
    ask(&["--distances", "8,64"])
        .failed(&["--distances: 64 needs a text of 72 tokens, but the model reads at most 32"]);
    ask(&["--pairs", "9"]).failed(&["a text that asks for 9 pairs needs 36 tokens, but the model reads at most 32"]);
    ask(&["--distances", "1"]).failed(&["distance is 1, wanted at least 2"]);
    ask(&["--pairs", "27"]).failed(&["pairs is 27, wanted 1 to 26"]);
    run(language_model(), &["evaluate", "run", "--task", "needle", "--questions", "0"]).failed(&["--questions is 0"]);
    run(language_model(), &["evaluate", "run", "--task", "needle", "--pairs", "2"]).failed(&["pairs is 2, wanted 1"]);
    run(translator(), &["evaluate", "run", "--task", "recall"]).failed(&["run is a translator"]);
}

#[test]
fn a_task_takes_no_files() {
    let folder = folder_with(&[("a.txt", "some text\n")]);
    let train = |more: &[&str]| run(folder.path(), &[&["train", "--task", "recall", "--output", "run"], more].concat());
    train(&["--train", "a.txt"]).failed(&["--train: `data.train` is set, but `data.task` makes the texts"]);
    train(&["--epochs", "2"]).failed(&["--epochs: `training.epochs` is set"]);
    train(&["--architecture", "transformer"])
        .failed(&["--task: `data.task` is no setting of the architecture transformer"]);
    train(&["--pairs", "30"]).failed(&["--pairs: `data.pairs` is 30, wanted 1 to 26"]);
    train(&["--window", "12"]).failed(&["--window: `training.window` is 12, wanted at least 4 tokens for each pair"]);
    run(folder.path(), &["train", "--train", "a.txt", "--pairs", "3", "--output", "run"])
        .failed(&["wanted a `data.task`"]);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_stream_is_one_long_forward() {
    let book = std::fs::read_to_string(language_model().join("book.txt")).unwrap();
    let part: String = book.chars().take(1500).collect();
    let folder = folder_with(&[("book.txt", &book), ("part.txt", &part)]);
    let shape = ["--hidden-size", "32", "--layers", "1", "--window", "32", "--batch-tokens", "512", "--steps", "10"];
    let train =
        ["train", "--train", "book.txt", "--tokenizer", "characters", "--architecture", "mamba", "--output", "run"];
    run(folder.path(), &[&train[..], &shape].concat()).worked();
    let evaluate = |more: &[&str]| run(folder.path(), &[&["evaluate", "run", "--text", "part.txt"], more].concat());
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&evaluate(&[more, &["--json"]].concat()).worked().stdout).unwrap()
    };
    let (stream, whole) = (json(&["--streaming"]), json(&["--window", "5000"]));
    let nats = |found: &serde_json::Value| found["nats_per_token"].as_f64().unwrap();
    assert!((nats(&stream) / nats(&whole) - 1.0).abs() < 1e-5, "{stream} {whole}");
    assert_eq!(
        (&stream["tokens"], &stream["streaming"], &stream["window"]),
        (&whole["tokens"], &true.into(), &().into())
    );
    // Windows begin anew each time.
    assert!((nats(&stream) / nats(&json(&["--window", "8"])) - 1.0).abs() > 1e-4);
    assert!(evaluate(&["--streaming"]).worked().stdout.contains(" bytes, in one stream)"));
    run(language_model(), &["evaluate", "run", "--text", "book.txt", "--streaming"]).failed(&[
        "--streaming: the text has",
        "the model has 32 positions",
        "read in windows",
    ]);
}
