use std::path::Path;

use crate::support::{folder_with, language_model, run};

/// A comparison that takes a second or two.
const SMALL: [&str; 21] = [
    "compare",
    "--train",
    "book.txt",
    "--output",
    "c",
    "--tokenizer",
    "characters",
    "--steps",
    "6",
    "--validate-every",
    "3",
    "--window",
    "16",
    "--batch-tokens",
    "128",
    "--set",
    "model.hidden_size=16",
    "--set",
    "model.num_layers=1",
    "--architectures",
    "rnn,gpt,mamba",
];

fn data() -> tempfile::TempDir {
    let book = std::fs::read_to_string(language_model().join("book.txt")).unwrap();
    folder_with(&[("book.txt", &book)])
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_report_has_every_architecture_and_its_numbers() {
    let folder = data();
    let found = run(folder.path(), &SMALL).worked();
    assert!(found.stderr.contains("the report is c/report.html"), "{found:#?}");
    let comparison = folder.path().join("c");
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    for wanted in
        ["<title>Architectures compared", "rnn writes", "gpt writes", "mamba writes", "Parallel training", "<svg"]
    {
        assert!(page.contains(wanted), "{wanted} is not in the page");
    }
    // Nothing from elsewhere: it opens without a network.
    assert!(!page.contains("src=") && !page.contains("href="));
    let quality = lines(&comparison.join("quality.csv"));
    assert_eq!(quality.len(), 4, "{quality:#?}");
    assert!(quality[1].starts_with("rnn,") && quality[2].starts_with("gpt,") && quality[3].starts_with("mamba,"));
    assert!(quality[1..].iter().all(|line| line.split(',').nth(2) == Some("6")), "{quality:#?}");
    assert_eq!(lines(&comparison.join("curves.csv")).len(), 1 + 3 * 2);
    assert_eq!(lines(&comparison.join("training_speed.csv")).len(), 1 + 3 * 3);
    let generation = lines(&comparison.join("generation.csv"));
    let bytes = |name: &str| -> Vec<u64> {
        let of_name = generation.iter().filter(|line| line.starts_with(name));
        of_name.map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
    };
    assert!(bytes("gpt").is_sorted() && bytes("gpt")[2] > 30 * bytes("gpt")[0]);
    assert!(bytes("mamba").iter().all(|&size| size == bytes("mamba")[0]));

    // What is done is not done again.
    let again = run(folder.path(), &["compare", "--resume", "c"]).worked();
    assert!(!again.stderr.contains("1/3"), "{again:#?}");
    run(folder.path(), &SMALL).failed(&["c holds a comparison", "--resume c"]);
}

#[test]
fn a_comparison_goes_on_without_those_that_fail() {
    let folder = data();
    run(folder.path(), &[&SMALL[..], &["gru"]].concat()).worked();
    let comparison = folder.path().join("c");
    std::fs::remove_dir_all(comparison.join("runs/gru")).unwrap();
    std::fs::rename(folder.path().join("book.txt"), folder.path().join("moved.txt")).unwrap();
    let found = run(folder.path(), &["compare", "--resume", "c"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    assert!(found.stderr.contains("error: 1 of 4 failed: gru"), "{found:#?}");
    std::fs::rename(folder.path().join("moved.txt"), folder.path().join("book.txt")).unwrap();
    run(folder.path(), &["compare", "--resume", "c"]).worked();
    assert_eq!(lines(&comparison.join("quality.csv")).len(), 5);
}

#[test]
fn what_cannot_be_compared_is_said_before_anything_is_trained() {
    let folder = data();
    let compare =
        |more: &[&str]| run(folder.path(), &[&["compare", "--train", "book.txt", "--output", "c"], more].concat());
    compare(&["--architectures", "gptt"]).failed(&["there is no gptt", "known: "]);
    compare(&["--architectures", "gpt,transformer"]).failed(&["translators and language models"]);
    compare(&["--architectures", "gpt", "--steps", "0"]).failed(&["`training.steps` is 0"]);
    compare(&["--architectures", "gpt", "--minutes", "0"]).failed(&["`training.minutes` is 0"]);
    run(folder.path(), &["compare", "--resume", "absent"]).failed(&["cannot read absent/plan.json"]);
    assert!(!folder.path().join("c").exists());
}
