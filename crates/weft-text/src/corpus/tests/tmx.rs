//! TMX, well-formed and not.

use super::*;

const TMX: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="EN-us" segtype="sentence" datatype="plaintext"/>
<body>
  <tu tuid="1">
    <prop type="x">not text</prop>
    <tuv xml:lang="de-DE"><seg>Ein &lt;Hund&gt; &amp; &#x1F989;<ph x="1">{1}</ph></seg></tuv>
    <tuv xml:lang="EN-US"><note>no</note><seg>A <hi type="b">big</hi> dog<bpt i="1">&lt;b<sub>deep</sub>&gt;</bpt>!</seg></tuv>
  </tu>
  <tu><tuv xml:lang="en"><seg>only English</seg></tuv></tu>
  <tu><tuv lang="en_GB"><seg>
     broken
     lines</seg></tuv><tuv xml:lang="de"><seg><![CDATA[<roh> & so]]></seg></tuv><tuv xml:lang="DE-at"><seg>zweitens</seg></tuv></tu>
  <tu><tuv xml:lang="en"><seg/></tuv><tuv xml:lang="de"><seg>leer</seg></tuv></tu>
  <tu><tuv xml:lang="en"><seg> </seg></tuv><tuv xml:lang="de"><seg>leer</seg></tuv></tu>
</body></tmx>
"#;

#[test]
fn tmx_gives_the_text_of_both_languages() {
    let folder = Folder::new();
    let path = folder.file("a.tmx.gz", gzip(format!("\u{feff}{TMX}").as_bytes()));
    let corpus = guessed(path.clone(), Some(("en", "de")));
    let mut pairs = corpus.pairs().unwrap();
    let found: Vec<Pair> = pairs.by_ref().map(Result::unwrap).collect();
    assert_eq!(found, [pair("A big dog!", "Ein <Hund> & 🦉", 5), pair("broken lines", "<roh> & so", 11)]);
    assert_eq!(pairs.skipped().count(SkipReason::MissingLanguage), 2);
    assert_eq!(pairs.skipped().places(SkipReason::MissingLanguage)[0].line, 10);
    assert_eq!(pairs.skipped().count(SkipReason::EmptySide), 1);
    assert_eq!(pairs.hash().unwrap(), hash_file(&path).unwrap());
    // The header names the source language, whatever stands first in a unit.
    let ParallelFiles::Tmx { source_language, target_language, .. } = ParallelFiles::guess(&[path], None).unwrap()
    else {
        panic!("not guessed as TMX")
    };
    assert_eq!((source_language.as_str(), target_language.as_str()), ("EN-US", "de-DE"));
}

#[test]
fn malformed_tmx_is_an_error() {
    let folder = Folder::new();
    let with = |content: &[u8], languages| {
        let path = folder.file("a.tmx", content);
        failure(&ParallelCorpus::new(ParallelFiles::Tmx {
            path,
            source_language: "en".to_owned(),
            target_language: languages,
        }))
    };
    let de = || "de".to_owned();
    assert_eq!(
        with(TMX.as_bytes(), "fr".to_owned()),
        "a.tmx: nothing in languages `en` and `fr`; found `DE-at`, `EN-US`, `de`, `de-DE`, `en`, `en_GB`"
    );
    let cut = TMX.find("only English").unwrap();
    assert_eq!(with(&TMX.as_bytes()[..cut], de()), "a.tmx:10: the file ends inside an element");
    assert!(with(TMX.replace("</hi>", "</hj>").as_bytes(), de()).starts_with("a.tmx:8: malformed XML: "));
    assert_eq!(with(TMX.replace("&amp;", "&nbsp;").as_bytes(), de()), "a.tmx:7: unknown entity `&nbsp;`");
    assert_eq!(
        with(TMX.replace("<tuv lang=\"en_GB\">", "<tuv>").as_bytes(), de()),
        "a.tmx:11: a <tuv> has no xml:lang attribute"
    );
    assert_eq!(with(b"<tmx><body></body></tmx>", de()), "a.tmx:1: the file has no <tu> element");
    assert_eq!(with(b"", de()), "a.tmx is empty");
    let mut bytes = TMX.as_bytes().to_vec();
    bytes[cut] = 0xff;
    let message = with(&bytes, de());
    assert!(message.starts_with("a.tmx:10: malformed UTF-8 at byte "), "{message}");
}
