//! Corpora become token ids: streamed in chunks, the same as sentence by sentence, nothing lost without a count.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::path::{Path, PathBuf};

use weft_text::{
    ParallelCorpus, ParallelDataset, ParallelFiles, SkipReason, TextCorpus, TextDataset, TextError, Tokenizer,
    TokenizerKind, hash_file,
};

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn characters(text: &str) -> Tokenizer {
    Tokenizer::train(TokenizerKind::Characters, 1000, std::iter::once(Ok(text.to_owned()))).unwrap()
}

#[test]
fn pairs_keep_their_order_and_long_or_empty_ones_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    // More than two chunks; every 1000th line is too long on one side, every 1500th is empty on the other.
    let (mut source, mut target) = (String::new(), String::new());
    for line in 1..=20_000 {
        source.push_str(&if line % 1000 == 0 { "x".repeat(21) } else { format!("s{line}") });
        target.push_str(&if line % 1500 == 0 { String::new() } else { format!("t{line}") });
        source.push('\n');
        target.push('\n');
    }
    let source_path = write(folder.path(), "a", &source);
    let target_path = write(folder.path(), "b", &target);
    let corpus = ParallelCorpus::new(ParallelFiles::guess(&[source_path, target_path.clone()], None).unwrap());
    let (source_tokenizer, target_tokenizer) = (characters(&source), characters(&target));
    let build = |limit| ParallelDataset::build(&corpus, &source_tokenizer, &target_tokenizer, limit);
    let dataset = build(20).unwrap();
    // Lines 3000, 6000, ... are both: an empty side is seen first.
    assert_eq!(dataset.skipped.count(SkipReason::EmptySide), 13);
    assert_eq!(dataset.skipped.count(SkipReason::TooLong), 20 - 6);
    assert_eq!(dataset.skipped.places(SkipReason::TooLong)[0].line, 1000);
    assert_eq!((dataset.len(), dataset.target.len(), dataset.lines.len()), (19_973, 19_973, 19_973));
    let lines: Vec<&str> = target.lines().collect();
    for index in 0..dataset.len() {
        let line = dataset.lines[index] as usize;
        assert_eq!(source_tokenizer.decode(dataset.source.get(index)).unwrap(), format!("s{line}"));
        assert_eq!(target_tokenizer.decode(dataset.target.get(index)).unwrap(), lines[line - 1]);
    }
    let (first_source, first_target) = dataset.lengths()[0];
    assert_eq!((first_source, first_target), (2, 3));
    assert_eq!(dataset.source.iter().map(<[u32]>::len).sum::<usize>(), dataset.source.num_tokens());
    assert!(dataset.source.get(dataset.len()).is_empty() && dataset.source.get(usize::MAX).is_empty());

    let all = build(21).unwrap();
    assert_eq!(all.len(), 20_000 - 13);
    assert_eq!(all.hash, dataset.hash);
    write(folder.path(), "b", &target.replace("t77\n", "t78\n"));
    assert_ne!(build(21).unwrap().hash, dataset.hash);

    let error = build(1).unwrap_err();
    assert!(matches!(&error, TextError::NothingLeft { skipped, .. } if skipped.count(SkipReason::TooLong) == 19_987));
    assert!(error.hint().unwrap().contains("length limit"));
    write(folder.path(), "b", "t1\n");
    assert!(matches!(build(20), Err(TextError::UnequalLines { source_lines: 20_000, target_lines: 1, .. })));
}

#[test]
fn documents_are_joined_by_the_end_token_and_split_by_position() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1.txt", "one\ntwo\n");
    write(folder.path(), "2.jsonl", "{\"text\": \"three\"}\n{\"text\": \"\"}\n{\"text\": \"four\"}\n");
    let tokenizer = characters("one two three four\n");
    let dataset = TextDataset::build(&TextCorpus::new([folder.path()]), &tokenizer).unwrap();
    let shown: String = dataset.ids.iter().map(|&id| tokenizer.token_text(id)).collect();
    assert_eq!(shown, "one↵two↵</s>three</s></s>four");
    assert_eq!((dataset.num_documents, dataset.num_bytes), (4, 17));
    assert_eq!(tokenizer.byte_count(&dataset.ids).unwrap(), 17);
    let (train, validation) = dataset.split(0.9);
    assert_eq!((train.len(), validation.len()), (18, 2));
    assert_eq!([train, validation].concat(), dataset.ids);
    assert_eq!((dataset.split(0.0).0.len(), dataset.split(7.0).1.len(), dataset.split(f64::NAN).0.len()), (0, 0, 0));
}

#[test]
fn large_text_is_the_same_in_pieces_as_whole() {
    let folder = tempfile::tempdir().unwrap();
    let verse = "Twice two is four,\n  and four\tis more\n\nthan three   by one.\n";
    let text = verse.repeat(12_000);
    let path = write(folder.path(), "verse.txt", &text);
    for kind in [TokenizerKind::Bpe, TokenizerKind::Unigram, TokenizerKind::ByteBpe, TokenizerKind::Characters] {
        let tokenizer = Tokenizer::train(kind, 400, std::iter::once(Ok(verse.repeat(3)))).unwrap();
        let dataset = TextDataset::build(&TextCorpus::new([&path]), &tokenizer).unwrap();
        assert_eq!(dataset.num_documents, 1);
        assert!(tokenizer.decode(&dataset.ids).unwrap() == text, "{kind:?}");
        assert!(dataset.ids == tokenizer.encode(&text).unwrap(), "{kind:?}");
        assert_eq!(dataset.hash, hash_file(&path).unwrap());
    }
}
