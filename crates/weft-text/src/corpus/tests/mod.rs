//! Readers of parallel corpora, compression, and what all readers share.

mod text;
mod tmx;

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::TextError;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

fn pair(source: &str, target: &str, line: usize) -> Pair {
    Pair { source: source.to_owned(), target: target.to_owned(), line }
}

fn lines(source: &Path, target: &Path) -> ParallelCorpus {
    ParallelCorpus::new(ParallelFiles::Lines { source: source.to_owned(), target: target.to_owned() })
}

fn guessed(path: PathBuf, languages: Option<(&str, &str)>) -> ParallelCorpus {
    ParallelCorpus::new(ParallelFiles::guess(&[path], languages).unwrap())
}

fn all(corpus: &ParallelCorpus) -> Result<Vec<Pair>, TextError> {
    corpus.pairs()?.collect()
}

/// The message of the error that reading a corpus ends with, without the folder's name.
fn failure(corpus: &ParallelCorpus) -> String {
    shown(all(corpus).unwrap_err())
}

fn shown(error: TextError) -> String {
    let mut message = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    let names: Vec<String> = message
        .split(' ')
        .map(|word| match word.rsplit_once('/') {
            Some((before, name)) if before.starts_with('/') => name.to_owned(),
            _ => word.to_owned(),
        })
        .collect();
    names.join(" ")
}

#[test]
fn aligned_files_give_pairs_and_count_empty_sides() {
    let folder = Folder::new();
    let source = folder.file("a.en", "\u{feff}one\r\n\r\n three \nfour\nfive\n");
    let target = folder.file("a.de", "eins\nzwei\ndrei\n \t\nfünf");
    let corpus = lines(&source, &target);
    let mut pairs = corpus.pairs().unwrap();
    assert_eq!(pairs.hash(), None);
    let found: Vec<Pair> = pairs.by_ref().map(Result::unwrap).collect();
    assert_eq!(found, [pair("one", "eins", 1), pair(" three ", "drei", 3), pair("five", "fünf", 5)]);
    assert_eq!(pairs.skipped().count(SkipReason::EmptySide), 2);
    let places: Vec<String> = pairs.skipped().places(SkipReason::EmptySide).iter().map(ToString::to_string).collect();
    assert_eq!(places, [format!("{}:2", source.display()), format!("{}:4", target.display())]);
    assert!(pairs.skipped().to_string().starts_with("2 skipped: 2 with an empty side (/"));
    assert_eq!(pairs.hash().unwrap().len(), 64);
}

#[test]
fn compression_is_told_by_content_and_does_not_change_the_hash() {
    let folder = Folder::new();
    let text = "eins\nzwei\ndrei\n".repeat(5000);
    let (start, end) = text.as_bytes().split_at(30_001);
    let plain = folder.file("plain.gz", &text);
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(start), &zstd(end)].concat();
    let wanted = hash_file(&plain).unwrap();
    for content in [gzip(text.as_bytes()), [gzip(start), gzip(end)].concat(), zstd(text.as_bytes()), skippable] {
        let packed = folder.file("packed.txt", content);
        assert_eq!(hash_file(&packed).unwrap(), wanted);
        let corpus = lines(&packed, &plain);
        assert_eq!(all(&corpus).unwrap().len(), 15_000);
    }
    // sha256sum of "abc"
    let known = hash_file(folder.file("abc", "abc")).unwrap();
    assert_eq!(known, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn damaged_archives_are_errors() {
    let folder = Folder::new();
    let noise: String = (0..40_000u64).map(|i| format!("{:x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let text = folder.file("text", &noise);
    for packed in [gzip(noise.as_bytes()), zstd(noise.as_bytes())] {
        let length = packed.len();
        for cut in [length - 1, length / 2, 12] {
            let path = folder.file("cut", &packed[..cut]);
            let error = all(&lines(&path, &text)).unwrap_err();
            assert!(matches!(&error, TextError::Read { path, .. } if path.ends_with("cut")), "{error:?}");
        }
        for place in [length / 3, length - 3] {
            let mut flipped = packed.clone();
            flipped[place] ^= 0x10;
            let path = folder.file("flipped", flipped);
            assert!(all(&lines(&path, &text)).is_err(), "bit flip at {place} of {length}");
        }
    }
}

#[test]
fn malformed_aligned_files_are_named_with_line_and_byte() {
    let folder = Folder::new();
    let good = folder.file("good", "a\nb\nc\n");
    let bad = folder.file("bad", b"\xef\xbb\xbfa\nb \xff\nc\n");
    assert_eq!(failure(&lines(&good, &bad)), "bad:2: malformed UTF-8 at byte 7 of the file");
    let short = folder.file("short", "a\nb");
    assert_eq!(failure(&lines(&short, &good)), "short has 2 lines, but good has 3");
    assert_eq!(failure(&lines(&good, &short)), "good has 3 lines, but short has 2");
    let empty = folder.file("empty", "");
    assert_eq!(failure(&lines(&good, &empty)), "empty is empty");
    assert_eq!(failure(&lines(&folder.file("mark", "\u{feff}"), &good)), "mark is empty");
    assert_eq!(failure(&lines(&folder.file("empty.gz", gzip(b"")), &good)), "empty.gz is empty");
    let missing = folder.path().join("missing");
    let error = all(&lines(&good, &missing)).unwrap_err();
    assert!(error.hint().unwrap().contains("spelling"));
    assert!(shown(error).starts_with("cannot open missing: No such file"));
    assert!(failure(&lines(folder.path(), &good)).contains("is a directory"));
    let utf16 = folder.file("utf16", b"\xff\xfea\0\n\0");
    let error = all(&lines(&utf16, &good)).unwrap_err();
    assert!(error.hint().unwrap().contains("iconv"));
    assert_eq!(shown(error), "utf16: found UTF-16, wanted UTF-8 text, plain or compressed as .gz or .zst");
    assert!(failure(&lines(&folder.file("a.xz", b"\xfd7zXZ\0\0\0"), &good)).contains("an xz file"));
}

#[test]
fn an_error_ends_the_pairs() {
    let folder = Folder::new();
    let bad = folder.file("bad", b"a\n\xff\nb\n");
    let mut pairs = lines(&bad, &bad).pairs().unwrap();
    assert!(pairs.next().unwrap().is_ok());
    assert!(pairs.next().unwrap().is_err());
    assert!(pairs.next().is_none());
    assert_eq!(pairs.hash(), None);
}

#[test]
fn tsv_takes_two_columns() {
    let folder = Folder::new();
    let path = folder.file("a.tsv", "one\teins\r\ntwo\t\nthree\tdrei\n");
    assert_eq!(
        ParallelFiles::guess(std::slice::from_ref(&path), None).unwrap(),
        ParallelFiles::Tsv { path: path.clone() }
    );
    assert_eq!(all(&guessed(path, None)).unwrap(), [pair("one", "eins", 1), pair("three", "drei", 3)]);
    let columns = |content| failure(&guessed(folder.file("a.tsv", content), None));
    assert_eq!(columns("one\teins\nbad\n"), "a.tsv:2: found 1 tab-separated columns, wanted 2");
    assert_eq!(columns("one\teins\t0.9\n"), "a.tsv:1: found 3 tab-separated columns, wanted 2");
}

#[test]
fn json_lines_take_both_shapes() {
    let folder = Folder::new();
    let content = concat!(
        "{\"translation\": {\"en\": \"one \\u00e9 \\ud83e\\udd89\", \"de\": \"eins\"}}\n",
        "\n",
        "{\"de\": \"zwei\", \"id\": 7, \"en\": \"two\"}\n"
    );
    let path = folder.file("a.jsonl", content);
    let wanted = [pair("one é 🦉", "eins", 1), pair("two", "zwei", 3)];
    assert_eq!(all(&guessed(path.clone(), None)).unwrap(), wanted);
    let turned = all(&guessed(path.clone(), Some(("de", "en")))).unwrap();
    assert_eq!(turned[0], pair("eins", "one é 🦉", 1));
    assert_eq!(
        failure(&guessed(path, Some(("en", "fr")))),
        "a.jsonl:1: wanted a string in field `fr`, found no such field, but strings in `en`, `de`"
    );
}

#[test]
fn malformed_json_is_named_with_its_line() {
    let folder = Folder::new();
    let with = |second: &str| {
        let path = folder.file("a.jsonl", format!("{{\"en\": \"one\", \"de\": \"eins\"}}\n{second}\n"));
        failure(&guessed(path, Some(("en", "de"))))
    };
    assert!(with("{\"en\": \"two\", ").starts_with("a.jsonl:2: not a JSON record: EOF while parsing"));
    assert_eq!(with("{\"en\": 2, \"de\": \"b\"}"), "a.jsonl:2: wanted a string in field `en`, found a number");
    assert_eq!(with("{\"en\": null, \"de\": \"b\"}"), "a.jsonl:2: wanted a string in field `en`, found null");
    assert_eq!(with("[1]"), "a.jsonl:2: wanted a string in field `en`, found no such field");
    assert!(with(&"[".repeat(100_000)).contains("recursion limit"));
    let three = folder.file("three.jsonl", "{\"a\": \"x\", \"b\": \"y\", \"c\": \"z\"}\n");
    let error = ParallelFiles::guess(&[three], None).unwrap_err();
    assert_eq!(shown(error), "three.jsonl: cannot tell the two languages; found `a`, `b`, `c`");
}

#[test]
fn formats_are_guessed_or_refused() {
    let folder = Folder::new();
    let text = folder.file("a.txt", "no tab\n");
    let array = folder.file("a.json", "[\n{}]\n");
    let refused = |paths: &[PathBuf]| shown(ParallelFiles::guess(paths, None).unwrap_err());
    assert!(
        refused(std::slice::from_ref(&text)).starts_with("cannot tell the format of a.txt: its first line has no tab")
    );
    assert!(refused(&[array]).contains("JSON array"));
    assert!(refused(&[]).contains("one file or two"));
    assert!(refused(&[folder.file("empty", "")]).contains("is empty"));
    let two = ParallelFiles::guess(&[text.clone(), text.clone()], None).unwrap();
    assert_eq!(two, ParallelFiles::Lines { source: text.clone(), target: text });
}

#[test]
fn reports_count_all_and_keep_the_first_places() {
    let mut report = SkipReport::default();
    assert!(report.is_empty());
    (1..=7).for_each(|line| report.add(SkipReason::TooLong, Path::new("a.en"), line));
    let mut other = SkipReport::default();
    other.add(SkipReason::TooLong, Path::new("b.en"), 1);
    other.add(SkipReason::EmptySide, Path::new("b.en"), 2);
    report.merge(&other);
    assert_eq!((report.total(), report.count(SkipReason::TooLong)), (9, 8));
    assert_eq!(
        report.to_string(),
        "9 skipped: 1 with an empty side (b.en:2), 8 over the length limit (a.en:1, a.en:2, a.en:3, a.en:4, a.en:5, ...)"
    );
}

#[test]
fn texts_are_those_of_the_side_asked_for() {
    let folder = Folder::new();
    let corpus = guessed(folder.file("a.tsv", "one\teins\ntwo\tzwei\nbad\n"), None);
    let texts = |side| -> Vec<String> { corpus.texts(side).unwrap().map_while(Result::ok).collect() };
    assert_eq!(texts(Side::Source), ["one", "two"]);
    assert_eq!(texts(Side::Target), ["eins", "zwei"]);
    assert_eq!(texts(Side::Both), ["one", "eins", "two", "zwei"]);
    assert!(corpus.texts(Side::Both).unwrap().last().unwrap().is_err());
}
