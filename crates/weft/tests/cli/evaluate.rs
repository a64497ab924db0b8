use crate::support::{folder_with, language_model, run, translator};

#[test]
fn known_scores_with_their_signatures() {
    let folder = folder_with(&[
        ("mine.txt", "The cat sat on the mat.\nIt was raining.\n"),
        ("right.txt", "The cat sat on a mat.\nIt rained.\n"),
    ]);
    let args = ["evaluate", "--hypotheses", "mine.txt", "--reference", "right.txt", "--chrf-word-order", "2"];
    let found = run(folder.path(), &args).worked();
    let wanted = format!(
        "BLEU = 36.87 72.7/44.4/28.6/20.0 (BP = 1.000 ratio = 1.100 hyp_len = 11 ref_len = 10)\n  \
         nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:weft-{0}\n\
         chrF2++ = 58.18\n  nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:weft-{0}\n\
         0.00 % exact (0 of 2)\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(found.stdout, wanted);
    assert_eq!(found.stderr, "");
    let json = run(folder.path(), &[&args[..], &["--json"]].concat()).worked();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(format!("{:.2}", json["bleu"]["score"].as_f64().unwrap()), "36.87");
    assert_eq!(json["exact_match"]["correct"], 0);
}

#[test]
fn a_translator_on_files_equals_its_translations_scored() {
    let folder = translator();
    let output = folder.join("evaluated.de").display().to_string();
    let args = ["evaluate", "run", "--source", "test.en", "--reference", "test.de", "--output", &output];
    let of_model = run(folder, &args).worked();
    let of_files = run(folder, &["evaluate", "--hypotheses", &output, "--reference", "test.de"]).worked();
    assert_eq!(of_model.stdout, of_files.stdout);
    let translated = run(folder, &["translate", "run", "-i", "test.en"]).worked();
    assert_eq!(translated.stdout, std::fs::read_to_string(&output).unwrap());
}

#[test]
fn perplexity_with_its_window() {
    let folder = language_model();
    let found = run(folder, &["evaluate", "run", "--text", "book.txt", "--window", "16", "--stride", "4"]).worked();
    assert!(found.stdout.starts_with("perplexity "), "{found:#?}");
    assert!(found.stdout.contains("window 16, stride 4)"), "{found:#?}");
    let json = |stride: &str| -> serde_json::Value {
        let args = ["evaluate", "run", "--text", "book.txt", "--window", "32", "--stride", stride, "--json"];
        serde_json::from_str(&run(folder, &args).worked().stdout).unwrap()
    };
    let (near, far) = (json("8"), json("32"));
    assert_eq!(near["tokens"], far["tokens"]);
    let bits = |found: &serde_json::Value| found["bits_per_byte"].as_f64().unwrap();
    assert!(bits(&near) > 0.0 && bits(&near) < 8.0 && bits(&far) < 8.0, "{near} {far}");
}
