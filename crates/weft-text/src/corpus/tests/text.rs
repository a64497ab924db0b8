//! Files, folders and JSON lines of text.

use std::path::PathBuf;

use super::*;

fn joined(corpus: &TextCorpus) -> Result<Vec<String>, TextError> {
    let mut documents = vec![String::new()];
    for piece in corpus.pieces()? {
        let piece = piece?;
        documents.last_mut().unwrap().push_str(&piece.text);
        if piece.ends_document {
            documents.push(String::new());
        }
    }
    assert_eq!(documents.pop().unwrap(), "");
    Ok(documents)
}

#[test]
fn folders_are_walked_in_order_and_what_is_left_out_is_counted() {
    let folder = Folder::new();
    folder.file("b.txt", "\u{feff}second\r\n\r\nline");
    folder.file("a/z.txt.gz", gzip(b"first\n"));
    folder.file("c.jsonl", "{\"text\": \"third\\n\"}\n\n{\"text\": \"fourth\"}\n");
    folder.file("d.json", "{\"text\": 1}\n");
    folder.file("e.txt", "");
    folder.file(".hidden", "x");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("f")).unwrap();
    let corpus = TextCorpus::new([folder.path()]);
    let wanted = ["first\n", "second\n\nline", "third\n", "fourth", "{\"text\": 1}\n"];
    assert_eq!(joined(&corpus).unwrap(), wanted);
    let mut pieces = corpus.pieces().unwrap();
    assert_eq!(pieces.by_ref().count(), 5);
    assert_eq!(pieces.skipped().count(SkipReason::EmptyFile), 1);
    assert_eq!(pieces.skipped().count(SkipReason::HiddenFile), 1);
    #[cfg(unix)]
    assert_eq!(pieces.skipped().count(SkipReason::NotAFile), 1);
    assert_eq!(pieces.hash().unwrap().len(), 64);
    let plain = TextCorpus { format: TextFormat::Plain, ..corpus };
    assert_eq!(joined(&plain).unwrap()[2], "{\"text\": \"third\\n\"}\n\n{\"text\": \"fourth\"}\n");
}

#[test]
fn large_files_come_in_pieces_that_join_to_the_file() {
    let folder = Folder::new();
    let text = "  indented\n\n\nA line.\nAnother one\n".repeat(40_000);
    let path = folder.file("a.txt", &text);
    let pieces: Vec<TextPiece> = TextCorpus::new([&path]).pieces().unwrap().map(Result::unwrap).collect();
    assert!(pieces.len() > 3);
    assert!(pieces[1..].iter().all(|piece| piece.text.starts_with('A')));
    let mut line = 1;
    for piece in &pieces {
        assert_eq!(piece.line, line);
        line += piece.text.matches('\n').count();
    }
    assert_eq!(joined(&TextCorpus::new([&path])).unwrap(), [text]);
}

#[test]
fn malformed_text_corpora_are_errors() {
    let folder = Folder::new();
    let failure = |corpus: TextCorpus| shown(joined(&corpus).unwrap_err());
    let bad = folder.file("x/bad.txt", b"good\nba\xc3");
    assert_eq!(failure(TextCorpus::new([&bad])), "bad.txt:2: malformed UTF-8 at byte 7 of the file");
    let empty = folder.file("y/empty.txt", "");
    assert_eq!(failure(TextCorpus::new([&empty])), "empty.txt is empty");
    let message = failure(TextCorpus::new([empty.parent().unwrap()]));
    assert!(message.starts_with("nothing is left of y: 1 skipped: 1 empty ("), "{message}");
    let json = folder.file("z.jsonl", "{\"text\": \"a\"}\n{\"content\": \"b\"}\n");
    assert_eq!(
        failure(TextCorpus::new([&json])),
        "z.jsonl:2: wanted a string in field `text`, found no such field, but strings in `content`"
    );
    assert!(failure(TextCorpus::new([folder.path().join("none")])).starts_with("cannot open none: "));
    let corpus = TextCorpus { json_field: "content".to_owned(), ..TextCorpus::new([&json]) };
    assert!(failure(corpus).starts_with("z.jsonl:1: wanted"));
    assert!(TextCorpus::new(Vec::<PathBuf>::new()).pieces().is_err());
}

#[test]
fn text_is_told_from_pairs() {
    let folder = Folder::new();
    let plain = folder.file("a.txt", "{ no record\n");
    let pairs = folder.file("a.tsv", "one\teins\n");
    let translations = folder.file("translations.jsonl", "{\"translation\": {\"en\": \"a\"}, \"text\": \"a\"}\n");
    let languages = folder.file("languages.jsonl", "{\"en\": \"one\", \"de\": \"eins\"}\n");
    let text = folder.file("text.jsonl.gz", gzip(b"\n{\"text\": \"a\", \"url\": \"b\"}\n"));
    let number = folder.file("number.jsonl", "{\"text\": 1, \"url\": \"b\"}\n");
    let is_text = |paths: &[&PathBuf]| TextCorpus::new(paths.iter().copied()).looks_like_text().unwrap();
    let directory = folder.path().to_owned();
    for paths in [&[&text][..], &[&text, &text], &[&directory], &[&directory, &plain], &[&plain, &pairs, &text]] {
        assert!(is_text(paths), "{paths:?}");
    }
    assert!(!is_text(&[]));
    let absent = folder.path().join("absent");
    for paths in [&[&pairs][..], &[&translations], &[&languages], &[&number], &[&plain, &plain], &[&absent]] {
        assert!(!is_text(paths), "{paths:?}");
    }
    let corpus = TextCorpus { json_field: "de".to_owned(), ..TextCorpus::new([&languages]) };
    assert!(corpus.looks_like_text().unwrap());
    let unnamed = folder.file("text.json", "{\"text\": \"a\"}\n");
    let error = TextCorpus::new([&plain, &plain, &unnamed]).looks_like_text().unwrap_err();
    assert!(shown(error).ends_with("its records hold text, but its name does not end in .jsonl or .ndjson"));
}
