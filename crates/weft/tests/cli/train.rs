//! Every kind of data that `weft train` takes, by the command that its help shows.

use std::path::Path;

use serde_json::{Value, json};
use weft_train::{RunConfig, RunFolder};

use crate::support::{Ran, folder_with, pairs, run};

/// Options of any model that is trained in no time.
const TINY: [&str; 12] = [
    "--hidden-size",
    "32",
    "--layers",
    "1",
    "--heads",
    "2",
    "--batch-tokens",
    "256",
    "--steps",
    "2",
    "--output",
    "run",
];

/// What the screen says where text was recognised.
const IS_TEXT: &str = "the training data are text, not pairs";

/// Trains on `data`, paths and the flags that go with them.
fn train(folder: &Path, data: &[&str]) -> Ran {
    run(folder, &[&["train", "--train"][..], data, &TINY].concat())
}

/// Trains a language model that nobody named.
fn train_on_text(folder: &Path, data: &[&str]) -> RunConfig {
    let found = train(folder, &[data, &["--window", "16"]].concat()).worked();
    assert!(found.stderr.contains(IS_TEXT), "{found:#?}");
    config_of(folder, "gpt")
}

/// Trains a translator that nobody named.
fn train_on_pairs(folder: &Path, data: &[&str]) -> RunConfig {
    let found = train(folder, &[data, &["--vocab-size", "340"]].concat()).worked();
    assert!(!found.stderr.contains(IS_TEXT), "{found:#?}");
    config_of(folder, "transformer")
}

fn config_of(folder: &Path, architecture: &str) -> RunConfig {
    let config = RunFolder::open(&folder.join("run")).unwrap().config().unwrap();
    assert_eq!(config.model.architecture.name(), architecture);
    config
}

/// JSON lines, a record for each line of a short text.
fn records(record: impl Fn(&str) -> Value) -> String {
    let lines = &pairs(60, 0)[1];
    lines.lines().map(|line| record(line).to_string() + "\n").collect()
}

/// JSON lines of pairs.
fn json_pairs(record: impl Fn(&str, &str) -> Value) -> String {
    let [sources, targets] = pairs(60, 0);
    sources.lines().zip(targets.lines()).map(|(source, target)| record(source, target).to_string() + "\n").collect()
}

fn tsv() -> String {
    let [sources, targets] = pairs(60, 0);
    sources.lines().zip(targets.lines()).map(|(source, target)| format!("{source}\t{target}\n")).collect()
}

/// A gzip file that holds its content as it is.
fn gzip(content: &str) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let step = |remainder: u32, _: u32| (remainder >> 1) ^ ((remainder & 1) * 0xedb8_8320);
    let checksum = !content.bytes().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(byte), step));
    // The header, and that of the only block.
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(content.bytes());
    file.extend(checksum.to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

/// A zstd file that holds its content as it is.
fn zstd(content: &str) -> Vec<u8> {
    let length = u32::from(u16::try_from(content.len()).unwrap());
    // One segment, whose length has four bytes; then the header of the last block, which is raw.
    let mut file = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    file.extend(length.to_le_bytes());
    file.extend(&((length << 3) | 1).to_le_bytes()[..3]);
    file.extend(content.bytes());
    file
}

#[test]
fn json_lines_of_text() {
    let shapes: [fn(&str) -> Value; 3] = [
        |line| json!({ "text": line }),
        |line| json!({ "text": line, "url": "https://example.org" }),
        |line| json!({ "id": "7", "text": line, "url": "https://example.org" }),
    ];
    for record in shapes {
        let folder = folder_with(&[("book.jsonl", &records(record))]);
        train_on_text(folder.path(), &["book.jsonl"]);
        // The text alone was read.
        let tokenizer = std::fs::read_to_string(folder.path().join("run/model/tokenizer.json")).unwrap();
        assert!(tokenizer.contains("\"f\"") && !tokenizer.contains("\"{\""), "{tokenizer}");
    }
}

#[test]
fn json_lines_with_their_text_in_another_field() {
    let content = records(|line| json!({ "content": line, "title": "none" }));
    let plain: String = pairs(60, 0)[1].lines().collect();
    let folder = folder_with(&[("book.jsonl", &content), ("other.jsonl", &records(|line| json!({ "text": line })))]);
    let path = folder.path();
    let missing = train(path, &["book.jsonl", "--architecture", "gpt", "--window", "16"]);
    missing.failed(&["book.jsonl:1: wanted a string in field `text`", "`content`, `title`", "--set data.field=NAME"]);
    assert!(!missing.stderr.contains("--languages"), "{missing:#?}");
    train(path, &["book.jsonl", "--set", "data.field=contents"]).failed(&["`contents`", "--set data.field=NAME"]);
    assert!(!path.join("run").exists());
    let config = train_on_text(path, &["book.jsonl", "--set", "data.field=content"]);
    assert_eq!(config.data.field, "content");

    // What the model was trained on is what it is measured on.
    let evaluate = |file: &str| run(path, &["evaluate", "run", "--text", file, "--json"]);
    let found: Value = serde_json::from_str(&evaluate("book.jsonl").worked().stdout).unwrap();
    // A token for each character, and one between two records; the first is not scored.
    assert_eq!(found["tokens"], plain.chars().count() + 59 - 1);
    evaluate("other.jsonl").failed(&["other.jsonl:1: wanted a string in field `content`", "in its field `content`"]);
}

#[test]
fn json_lines_that_say_too_little() {
    let title = records(|line| json!({ "title": line }));
    let three = records(|line| json!({ "title": line, "body": line, "url": line }));
    let folder = folder_with(&[
        ("title.jsonl", &title),
        ("three.jsonl", &three),
        ("book.json", &records(|line| json!({ "text": line, "url": line }))),
    ]);
    let remedies = ["--languages SOURCE TARGET", "--architecture gpt --set data.field=NAME"];
    for (name, found) in [("title.jsonl", "found `title`"), ("three.jsonl", "found `title`, `body`, `url`")] {
        train(folder.path(), &[name]).failed(&["cannot tell the two languages", found, remedies[0], remedies[1]]);
    }
    train(folder.path(), &["book.json"]).failed(&["book.json: its records hold text", "rename it to .jsonl"]);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn several_texts() {
    let text = &pairs(60, 0)[1];
    let folder = folder_with(&[("ch1.txt", text), ("ch2.txt", text), ("ch3.txt", text)]);
    let path = folder.path();
    train(path, &["ch1.txt", "ch2.txt", "ch3.txt", "--architecture", "transformer"])
        .failed(&["a corpus is one file or two", "--architecture gpt"]);
    let config = train_on_text(path, &["ch1.txt", "ch2.txt", "ch3.txt"]);
    assert_eq!(config.data.train.len(), 3);
}

#[test]
fn folders_of_text() {
    for paths in [&["book"][..], &["book", "letters"]] {
        let folder = tempfile::tempdir().unwrap();
        for name in ["book", "letters"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("1.txt"), &pairs(60, 0)[1]).unwrap();
        }
        train_on_text(folder.path(), paths);
    }
}

#[test]
fn pairs_stay_pairs() {
    let [sources, targets] = pairs(60, 0);
    let named = json_pairs(|source, target| json!({ "text": source, "url": target }));
    let files = [("a.en", &*sources), ("a.de", &*targets), ("named.jsonl", &*named)];
    for data in [&["a.en", "a.de"][..], &["named.jsonl", "--languages", "text", "url"]] {
        let folder = folder_with(&files);
        train_on_pairs(folder.path(), data);
    }
    let nested = json_pairs(|source, target| json!({ "translation": { "en": source, "de": target }, "text": "none" }));
    let flat = json_pairs(|source, target| json!({ "en": source, "de": target }));
    for content in [nested, flat] {
        let folder = folder_with(&[("a.jsonl", &content)]);
        train_on_pairs(folder.path(), &["a.jsonl"]);
    }
}

#[test]
fn translation_memories() {
    let [sources, targets] = pairs(60, 0);
    let unit = |(source, target): (&str, &str)| {
        let variant = |language: &str, text: &str| format!("<tuv xml:lang=\"{language}\"><seg>{text}</seg></tuv>");
        format!("<tu>{}{}</tu>\n", variant("en", source), variant("de", target))
    };
    let units: String = sources.lines().zip(targets.lines()).map(unit).collect();
    let header = "<?xml version=\"1.0\"?>\n<tmx version=\"1.4\"><header srclang=\"en\"/>\n";
    let folder = folder_with(&[("a.tmx", &format!("{header}<body>\n{units}</body></tmx>\n"))]);
    train_on_pairs(folder.path(), &["a.tmx"]);
}

#[test]
fn compressed_data() {
    let text = &pairs(60, 0)[1];
    for packed in [gzip(text), zstd(text)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("book.txt.packed"), packed).unwrap();
        train_on_text(folder.path(), &["book.txt.packed"]);
    }
    let json = records(|line| json!({ "text": line, "url": line }));
    for (name, packed) in [("book.jsonl.gz", gzip(&json)), ("book.jsonl.zst", zstd(&json))] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), packed).unwrap();
        train_on_text(folder.path(), &[name]);
    }
    for (name, packed) in [("a.tsv.gz", gzip(&tsv())), ("a.tsv.zst", zstd(&tsv()))] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), packed).unwrap();
        train_on_pairs(folder.path(), &[name]);
    }
}

#[test]
fn a_third_column_is_refused() {
    let folder = folder_with(&[("a.tsv", "one\teins\t0.9\ntwo\tzwei\t0.8\n")]);
    train(folder.path(), &["a.tsv"]).failed(&["a.tsv:1: found 3 tab-separated columns, wanted 2", "cut -f 1,2"]);
}

#[test]
fn what_is_left_out_of_the_validation_is_said_there() {
    let text = &pairs(60, 0)[1];
    let folder = folder_with(&[("book.txt", text)]);
    std::fs::create_dir(folder.path().join("held-out")).unwrap();
    std::fs::write(folder.path().join("held-out/1.txt"), text).unwrap();
    std::fs::write(folder.path().join("held-out/.hidden"), text).unwrap();
    let found = train(folder.path(), &["book.txt", "--validation", "held-out", "--window", "16"]).worked();
    assert!(found.stderr.contains("validation data: 1 skipped: 1 hidden ("), "{found:#?}");
    assert!(!found.stderr.contains("training data: "), "{found:#?}");
}

#[test]
fn data_that_have_moved_are_named_anew() {
    let ([sources, targets], [held_out_sources, held_out_targets]) = (pairs(60, 0), pairs(10, 100));
    let names = ["train.en", "train.de", "test.en", "test.de"];
    let texts = [sources, targets, held_out_sources, held_out_targets];
    let folder = folder_with(&[0, 1, 2, 3].map(|index| (names[index], &*texts[index])));
    let path = folder.path();
    train_on_pairs(path, &["train.en", "train.de", "--validation", "test.en", "test.de"]);
    std::fs::create_dir(path.join("new")).unwrap();
    for name in names {
        std::fs::rename(path.join(name), path.join("new").join(name)).unwrap();
    }
    let resume = |more: &[&str]| run(path, &[&["train", "--resume", "run"][..], more].concat());
    resume(&[]).failed(&[
        "cannot open ",
        "train.en",
        "name them anew: weft train --resume run --train NEW --validation NEW\n",
    ]);
    let validation = ["--validation", "new/test.en", "new/test.de"];
    let anew = |files: [&'static str; 2]| [&["--train"][..], &files, &validation].concat();
    resume(&anew(["new/train.en", "new/test.de"])).failed(&["new/train.en has 60 lines", "new/test.de has 10"]);
    resume(&anew(["new/train.de", "new/train.en"])).failed(&["the training corpus changed since the run began"]);
    resume(&["--train", "new/train.en", "new/train.de"]).failed(&["test.en", "--resume run --validation NEW"]);
    resume(&[&anew(["new/train.en", "new/train.de"])[..], &["--steps", "4"]].concat()).worked();
    resume(&["--steps", "5"]).worked();
}
