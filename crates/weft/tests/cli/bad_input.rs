//! Whatever is wrong with the input: one sentence that says what, a hint, exit code 1; never a panic.

use std::path::Path;

use crate::support::{Ran, SMALL, copy_of, filter, folder_with, language_model, run, translation_data, translator};

fn model() -> String {
    translator().join("run").display().to_string()
}

fn translate_with(model: &Path) -> Ran {
    filter(model.parent().unwrap(), &["translate", &model.display().to_string()], "one two\n")
}

#[test]
fn wrong_paths() {
    let folder = folder_with(&[("a.txt", "a\n")]);
    let path = folder.path();
    run(path, &["translate", "nowhere"]).failed(&["cannot open the model nowhere"]);
    run(path, &["translate", "a.txt"]).failed(&["a.txt is a file, not a model's folder"]);
    run(path, &["translate", "."]).failed(&["holds no model", "config.json"]);
    run(path, &["inspect", "nowhere"]).failed(&["nowhere"]);
    run(path, &["translate", &model(), "-i", "none.txt"]).failed(&["cannot open none.txt"]);
    run(path, &["translate", &model(), "-i", "a.txt", "-o", "no/folder.txt"]).failed(&["cannot write no/folder.txt"]);
    run(path, &["translate", &model(), "-i", "a.txt", "--attention", "map.pdf"]).failed(&["map.pdf", ".svg"]);
    run(path, &["evaluate", "--hypotheses", "b.txt", "--reference", "a.txt"]).failed(&["b.txt"]);
    run(path, &["evaluate", "--hypotheses", ".", "--reference", "a.txt"]).failed(&[". is a folder"]);
    run(path, &["generate", &model()]).failed(&["is a translator, not a language model"]);
    let language_model = language_model().join("run").display().to_string();
    run(path, &["translate", &language_model]).failed(&["is a language model, not a translator"]);
    run(path, &["evaluate", &language_model]).failed(&["nothing to measure"]);
    run(path, &["train", "--resume", "nowhere"]).failed(&["nowhere holds no run"]);
    run(path, &["train", "--train", "none.en", "none.de", "--output", "run"]).failed(&["none.en"]);
    run(path, &["average", "nowhere", "--output", "mean"]).failed(&["nowhere"]);
    run(path, &["average", ".", "--output", "mean"]).failed(&["mean: it is . or in it"]);
    std::fs::create_dir(path.join("bare")).unwrap();
    run(path, &["average", "bare", "--output", "mean"]).failed(&["bare"]);
}

#[test]
fn what_is_no_text() {
    let found = filter(translator(), &["translate", "run"], b"one\ntwo \xff\nthree\n");
    found.failed(&["standard input: line 2 is not UTF-8 at its byte 5"]);
    assert_eq!(found.stdout.lines().count(), 1, "what came before is translated: {found:#?}");
    filter(language_model(), &["generate", "run"], b"one\n\xc3").failed(&["standard input: line 2 is not UTF-8"]);
    let folder = folder_with(&[("right.txt", "a\nb\n"), ("short.txt", "a\n"), ("empty.txt", "")]);
    let path = folder.path();
    std::fs::write(path.join("latin.txt"), b"caf\xe9\nb\n").unwrap();
    let score = |file: &str| run(path, &["evaluate", "--hypotheses", file, "--reference", "right.txt"]);
    score("latin.txt").failed(&["latin.txt:1: malformed UTF-8"]);
    score("short.txt").failed(&["short.txt has 1 lines, right.txt has 2"]);
    score("empty.txt").failed(&["empty.txt"]);
}

#[test]
fn corpora_that_do_not_fit() {
    let folder = folder_with(&[("a.en", "a\nb\n"), ("a.de", "a\n"), ("empty.en", "")]);
    let path = folder.path();
    run(path, &["train", "--train", "a.en", "a.de", "--output", "run"]).failed(&["a.en", "a.de"]);
    run(path, &["train", "--train", "a.en", "empty.en", "--output", "run"]).failed(&["empty.en"]);
    assert!(!path.join("run").exists());
}

#[test]
fn truncated_checkpoints() {
    let (_folder, copy) = copy_of(&translator().join("run/model"));
    let weights = copy.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        translate_with(&copy).failed(&["model.safetensors"]);
    }
    std::fs::remove_file(&weights).unwrap();
    translate_with(&copy).failed(&["model.safetensors: it is missing", "copy the model again"]);
    std::fs::write(&weights, &bytes).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        let text = std::fs::read(copy.join(name)).unwrap();
        for length in [0, 1, text.len() / 2] {
            std::fs::write(copy.join(name), &text[..length]).unwrap();
            translate_with(&copy).failed(&[name]);
        }
        std::fs::write(copy.join(name), text).unwrap();
    }
    translate_with(&copy).worked();
}

#[test]
fn flipped_bits() {
    let (_folder, copy) = copy_of(&translator().join("run/model"));
    let weights = copy.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    // The header's length, the header, and a weight.
    for (at, bit) in [(0, 1), (1, 6), (7, 7), (9, 2), (40, 3), (90, 0), (bytes.len() - 2, 6)] {
        let mut broken = bytes.clone();
        broken[at] ^= 1 << bit;
        std::fs::write(&weights, &broken).unwrap();
        let found = translate_with(&copy);
        assert!(!found.stderr.contains("panicked"), "byte {at}: {found:#?}");
        found.failed(&["model.safetensors"]);
    }
}

/// Without a manifest nobody can tell a flipped weight, but whatever cannot be read must be an error.
#[test]
fn flipped_bits_without_a_manifest() {
    let (_folder, copy) = copy_of(&translator().join("run/model"));
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let path = copy.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let header = bytes.len().min(2500);
        for draw in 0..32usize {
            let mut broken = bytes.clone();
            broken[draw.wrapping_mul(2_654_435_761) % header] ^= 1 << (draw % 8);
            std::fs::write(&path, &broken).unwrap();
            let found = translate_with(&copy);
            assert!(!found.stderr.contains("panicked"), "{name}, draw {draw}: {found:#?}");
            if found.code != Some(0) {
                found.failed(&[]);
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn another_models_tokenizer() {
    let (_folder, copy) = copy_of(&translator().join("run/model"));
    let other = language_model().join("run/model/tokenizer.json");
    std::fs::copy(other, copy.join("tokenizer.json")).unwrap();
    translate_with(&copy).failed(&["tokenizer.json"]);
}

#[test]
fn misshapen_and_impossible_models() {
    let (_folder, copy) = copy_of(&translator().join("run/model"));
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    let config = copy.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, wanted) in [
        ("\"d_model\": 32", "\"d_model\": 64", "model.safetensors: tensor `"),
        ("\"d_model\": 32", "\"d_model\": 0", "`d_model` is 0"),
        ("\"d_model\": 32", "\"d_model\": 1000000000000", "parameters or more"),
        ("\"d_model\": 32", "\"d_model\": -3", "config.json"),
        ("\"encoder_layers\": 1", "\"encoder_layers\": 2", "layers.1"),
        ("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 4000000000000", "sinusoids"),
        ("\"encoder_layers\": 1", "\"encoder_layers\": 4000000000", "parameters or more"),
        ("\"encoder_attention_heads\": 2", "\"encoder_attention_heads\": 3", "does not divide `d_model` = 32"),
        ("\"activation_function\": \"relu\"", "\"activation_function\": \"swish\"", "swish"),
        ("\"model_type\": \"marian\"", "\"model_type\": \"bert\"", "bert"),
        ("\"dropout\": 0.0", "\"dropout\": 1.5", "`dropout` is 1.5"),
        ("\"eos_token_id\": 3", "\"eos_token_id\": 2", "end token"),
    ] {
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let found = translate_with(&copy);
        assert!(!found.stderr.contains("panicked"), "{to}: {found:#?}");
        found.failed(&[wanted]);
    }
}

#[test]
fn a_recurrent_translator_checks_its_special_tokens() {
    let data = translation_data();
    let rnn = ["--architecture", "rnn-encoder-decoder", "--steps", "1", "--output", "run"];
    let shape =
        ["train", "--train", "train.en", "train.de", "--validation", "test.en", "test.de", "--hidden-size", "16"];
    run(data.path(), &[&shape[..], &rnn].concat()).worked();
    let model = data.path().join("run/model");
    std::fs::remove_file(model.join("manifest.json")).unwrap();
    let config = model.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, after) = text.split_once("\"decoder_start_token_id\": ").unwrap();
    let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    std::fs::write(&config, format!("{before}\"decoder_start_token_id\": 99999{after}")).unwrap();
    translate_with(&model).failed(&["decoder_start_token_id", "99999", "below the size of the vocabulary"]);
}

#[test]
fn impossible_settings() {
    let data = translation_data();
    let folder = data.path();
    let train = |more: &[&str]| run(folder, &[&SMALL[..], &["--steps", "2", "--output", "run"], more].concat());
    train(&["--set", "training.learning_rat=1"])
        .failed(&["--set: there is no setting `training.learning_rat`", "did you mean `training.learning_rate`?"]);
    train(&["--set", "learning"]).failed(&["there is no `=`"]);
    train(&["--set", "model.num_heads=3"]).failed(&["3, which does not divide"]);
    train(&["--set", "model.hidden_size=0"]).failed(&["`model.hidden_size` is 0"]);
    train(&["--set", "training.seed=many"]).failed(&["`training.seed` cannot be"]);
    train(&["--label-smoothing", "-1"]).failed(&["`training.label_smoothing` is -1", "hint: set it to 0 to "]);
    train(&["--preset", "huge"]).failed(&["huge", "tiny"]);
    train(&["--cell", "lstm"]).failed(&["--cell: `model.cell` is no setting of the architecture transformer"]);
    train(&["--metric", "rouge"]).failed(&["--metric"]);
    std::fs::write(folder.join("bad.toml"), "[training]\nlearning_rate = 0.1\nwarmup = 5\n").unwrap();
    train(&["--config", "bad.toml"]).failed(&["bad.toml:3: there is no setting `training.warmup`"]);
    std::fs::write(folder.join("bad.toml"), "[training\n").unwrap();
    train(&["--config", "bad.toml"]).failed(&["bad.toml is not TOML"]);
    assert!(!folder.join("run").exists());
    let path = translator();
    run(path, &["translate", "run", "--beam", "0"]).failed(&["--beam is 0"]);
    run(path, &["translate", "run", "--beam", "100000"]).failed(&["--beam is 100000, wanted at most "]);
    run(path, &["translate", "run", "--max-length", "5000"]).failed(&["--max-length is 5000", "at most 512 tokens"]);
    run(path, &["translate", "run", "--n-best", "9"]).failed(&["--n-best is 9"]);
    run(path, &["translate", "run", "--max-length", "0"]).failed(&["--max-length is 0"]);
    let generate = |more: &[&str]| run(language_model(), &[&["generate", "run", "--prompt", "eins"], more].concat());
    generate(&["--temperature", "-1"]).failed(&["--temperature is -1", "hint: set it to a finite number"]);
    generate(&["--top-p", "0"]).failed(&["--top-p is 0"]);
    let text = |more: &[&str]| run(language_model(), &[&["evaluate", "run", "--text", "book.txt"], more].concat());
    text(&["--window", "64"]).failed(&["--window is 64", "at most 32"]);
    text(&["--stride", "0"]).failed(&["--stride is 0", "hint: set it to 1 up to"]);
    text(&["--window", "0"]).failed(&["--window is 0, wanted at least 1"]);
}

#[test]
fn models_that_no_memory_holds() {
    let data = translation_data();
    let folder = data.path();
    let too_large = "but this machine has ";
    for (more, wanted) in [
        (&["--hidden-size", "65536", "--heads", "1"][..], too_large),
        (&["--hidden-size", "65536", "--heads", "1", "--layers", "1024"], too_large),
        (&["--architecture", "rnn-encoder-decoder", "--hidden-size", "65536", "--layers", "64"], too_large),
        (&["--batch-tokens", "60000000", "--hidden-size", "1024"], "a batch of 60000000 tokens in this model takes"),
        (&["--hidden-size", "4000000"], "`model.hidden_size` is 4000000, wanted 1 to 65536"),
        (&["--layers", "1000000000000"], "`model.num_layers` is 1000000000000, wanted 1 to 1024"),
        (&["--set", "model.max_positions=10000000000000"], "`model.max_positions` is 10000000000000, wanted 1 to"),
    ] {
        let shape =
            ["train", "--train", "train.en", "train.de", "--validation", "test.en", "test.de", "--output", "run"];
        run(folder, &[&shape[..], more].concat()).failed(&[wanted]);
        assert!(!folder.join("run").exists());
    }
}

#[test]
fn hints_name_the_remedy() {
    let folder = folder_with(&[("a.jsonl", "{\"xx\": \"a\", \"yy\": \"b\"}\n"), ("a.txt", "a\n")]);
    let path = folder.path();
    let train = ["train", "--train", "a.jsonl", "--languages", "en", "de", "--output", "run"];
    run(path, &train).failed(&["--languages SOURCE TARGET"]);
    run(path, &["translate", &model(), "-i", "."]).failed(&["cannot read .", "name a file, not a folder"]);
    let output = run(path, &["average", &model(), "--output", "a.txt/mean"]);
    output.failed(&["hint: a part of the path is a file, not a folder"]);
    let (_copied, copy) = copy_of(&translator().join("run/model"));
    std::fs::remove_file(copy.join("run.toml")).unwrap();
    translate_with(&copy).failed(&["run.toml: it is missing", "copy the model again"]);
    let run_copy = copy.with_file_name("run");
    std::fs::create_dir(&run_copy).unwrap();
    std::fs::copy(translator().join("run/config.toml"), run_copy.join("config.toml")).unwrap();
    std::fs::write(run_copy.join("metrics.jsonl"), "no record\n").unwrap();
    let (_second, model) = copy_of(&translator().join("run/model"));
    std::fs::rename(model, run_copy.join("model")).unwrap();
    run(path, &["inspect", &run_copy.display().to_string()])
        .failed(&["metrics.jsonl: line 1", "mend or remove that line"]);
}

/// A link to itself cannot be read by anybody, unlike a folder without permissions, which root can read.
#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_not_called_empty() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("config.json", folder.path().join("config.json")).unwrap();
    run(folder.path(), &["translate", "."]).failed(&["cannot read ./config.json"]);
}

#[test]
fn usage_is_another_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for args in
        [&["translate"][..], &["dance"], &["translate", "m", "--length-penalty", "wu"], &["train", "--train", "a"]]
    {
        let found = run(folder.path(), args);
        assert_eq!(found.code, Some(2), "{found:#?}");
        assert!(found.stderr.starts_with("error: "), "{found:#?}");
    }
}

#[test]
fn a_run_is_not_written_over() {
    let folder = translator();
    let found = run(folder, &[&SMALL[..], &["--steps", "2", "--output", "run"]].concat());
    found.failed(&["run holds a run already"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = translator();
    run(folder, &["translate", "run", "-i", "test.en", "-o", "/dev/full"]).failed(&["cannot write /dev/full"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = crate::support::weft(folder, &["inspect", "run"]).stdout(full).output().unwrap();
    Ran::of(output).failed(&["cannot write to standard output"]);
    let data = translation_data();
    run(data.path(), &[&SMALL[..], &["--steps", "2", "--output", "/dev/full/run"]].concat()).failed(&["/dev/full"]);
}
