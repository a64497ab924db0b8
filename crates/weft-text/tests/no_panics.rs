//! Whatever the bytes of a file, every reader returns: a value or an error, never a panic and never without end.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use weft_text::{
    ParallelCorpus, ParallelDataset, ParallelFiles, TextCorpus, TextDataset, TextFormat, Tokenizer, TokenizerKind,
    hash_file,
};

const SENTENCES: &str = "one small step\nfor a man\none giant leap\nfor mankind\n";
const JSON: &str =
    "{\"translation\": {\"en\": \"one\", \"de\": \"eins\"}}\n{\"en\": \"two\", \"de\": \"zwei\", \"text\": \"x\"}\n";
const TMX: &str = "<?xml version=\"1.0\"?><tmx version=\"1.4\"><header srclang=\"en\"/><body><tu><tuv xml:lang=\"en\"><seg>a &lt; <ph>1</ph>b</seg></tuv><tuv xml:lang=\"de\"><seg>&#228; <![CDATA[x]]></seg></tuv></tu></body></tmx>";

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

static TRAINED: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    [TokenizerKind::Bpe, TokenizerKind::Unigram, TokenizerKind::ByteBpe, TokenizerKind::Characters]
        .map(|kind| Tokenizer::train(kind, 300, SENTENCES.lines().map(|line| Ok(line.to_owned()))).unwrap())
        .to_vec()
});

/// Reads a file in every way there is; the results do not matter.
fn read_in_every_way(path: &Path) {
    let languages = || ("en".to_owned(), "de".to_owned());
    let (source_language, target_language) = languages();
    let json = ParallelFiles::JsonLines { path: path.to_owned(), source_language, target_language };
    let (source_language, target_language) = languages();
    let tmx = ParallelFiles::Tmx { path: path.to_owned(), source_language, target_language };
    let tsv = ParallelFiles::Tsv { path: path.to_owned() };
    let lines = ParallelFiles::Lines { source: path.to_owned(), target: path.to_owned() };
    for files in [json, tmx, tsv, lines] {
        let corpus = ParallelCorpus::new(files);
        let _ = ParallelDataset::build(&corpus, &TRAINED[0], &TRAINED[1], 50);
    }
    for format in [TextFormat::Plain, TextFormat::JsonLines, TextFormat::ByName] {
        let corpus = TextCorpus { format, ..TextCorpus::new([path]) };
        let _ = TextDataset::build(&corpus, &TRAINED[2]);
    }
    let _ = ParallelFiles::guess(&[path.to_owned()], None);
    let _ = hash_file(path);
    if let Ok(tokenizer) = Tokenizer::load(path) {
        use_in_every_way(&tokenizer);
    }
}

fn use_in_every_way(tokenizer: &Tokenizer) {
    let ids: Vec<u32> = (0..300).chain([tokenizer.vocab_size() as u32, u32::MAX]).collect();
    let _ = tokenizer.decode(&ids);
    let mut stream = tokenizer.text_stream();
    for &id in &ids {
        let _ = stream.push(id);
        let _ = tokenizer.token_text(id);
    }
    let _ = stream.finish();
    for text in [SENTENCES, "", "</s> 🦉\u{301} <0x41>", JSON] {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids);
        }
    }
}

fn whole_files() -> Vec<Vec<u8>> {
    let mut files = vec![SENTENCES.into(), JSON.into(), TMX.into(), b"a\tb\nc\td\n".to_vec()];
    files.push(gzip(JSON.as_bytes()));
    files.push([gzip(b"a\n"), gzip(TMX.as_bytes())].concat());
    files.push(zstd(SENTENCES.repeat(50).as_bytes()));
    files.push([&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd(JSON.as_bytes())].concat());
    files
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<prop::sample::Index>(), 1u8..).prop_map(|(place, bits)| Damage::Flip(place, bits)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(place, bytes)| Damage::Insert(place, bytes)),
        (any::<prop::sample::Index>(), 1usize..8).prop_map(|(place, count)| Damage::Remove(place, count)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Flip(place, bits) => {
                let place = place.index(bytes.len());
                bytes[place] ^= bits;
            }
            Damage::Cut(place) => bytes.truncate(place.index(bytes.len())),
            Damage::Insert(place, new) => {
                let place = place.index(bytes.len());
                bytes.splice(place..place, new.iter().copied());
            }
            Damage::Remove(place, count) => {
                let place = place.index(bytes.len());
                let end = (place + count).min(bytes.len());
                bytes.drain(place..end);
            }
        }
    }
    bytes
}

fn write(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    path
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0usize..5) {
        let folder = tempfile::tempdir().unwrap();
        let magic: [&[u8]; 5] = [b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"<tmx><body><tu>", b"{\"translation\": "];
        read_in_every_way(&write(&folder, &[magic[start], &bytes].concat()));
    }

    #[test]
    fn damaged_files(which in 0usize..8, damages in prop::collection::vec(damage(), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        read_in_every_way(&write(&folder, &damaged(whole_files()[which].clone(), &damages)));
    }

    #[test]
    fn damaged_tokenizers(which in 0usize..4, damages in prop::collection::vec(damage(), 1..4)) {
        let json = damaged(TRAINED[which].to_json().as_bytes().to_vec(), &damages);
        if let Ok(tokenizer) = Tokenizer::from_json(json) {
            use_in_every_way(&tokenizer);
        }
    }

    #[test]
    fn tokenizers_with_other_values(which in 0usize..4, line in any::<prop::sample::Index>(), value in 0usize..9) {
        // Whole lines of the indented file get another value, which keeps it JSON and so gets deeper.
        let values = ["null", "-1", "1e9", "\"\"", "[]", "{}", "true", "\"</s>\"", "[[\"a\", \"b\"], \"c\"]"];
        let mut lines: Vec<String> = TRAINED[which].to_json().lines().map(str::to_owned).collect();
        let line = line.index(lines.len());
        let comma = if lines[line].ends_with(',') { "," } else { "" };
        if let Some((key, _)) = lines[line].clone().split_once(": ") {
            lines[line] = format!("{key}: {}{comma}", values[value]);
        } else if !lines[line].ends_with(['[', ']', '{', '}']) {
            lines[line] = format!("{}{comma}", values[value]);
        }
        if let Ok(tokenizer) = Tokenizer::from_json(lines.join("\n")) {
            use_in_every_way(&tokenizer);
        }
    }
}

#[test]
fn undamaged_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (which, bytes) in whole_files().into_iter().enumerate() {
        let path = write(&folder, &bytes);
        let text = TextCorpus { format: TextFormat::Plain, ..TextCorpus::new([&path]) };
        assert!(TextDataset::build(&text, &TRAINED[2]).is_ok(), "file {which}");
    }
    TRAINED.iter().for_each(use_in_every_way);
}
