use std::path::Path;

use crate::support::{folder_with, language_model, run, translation_data};

/// A comparison that takes a second or two.
const SMALL: [&str; 23] = [
    "compare",
    "--probes",
    "none",
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
    let sections = ["Quality", "Vanishing gradients", "Parallel training", "The quadratic cost", "Attention, seen"];
    for wanted in ["<title>Architectures compared", "rnn writes", "gpt writes", "mamba writes", "layer 1, head 1"] {
        assert!(page.contains(wanted), "{wanted} is not in the page");
    }
    for title in sections {
        let (_, section) = page.split_once(&format!("<h2>{title}</h2>")).unwrap_or_else(|| panic!("no {title}"));
        let section = section.split_once("</section>").unwrap().0;
        assert!(section.contains("class=\"claim\"") && section.contains("<svg"), "{title}");
        let verdict = section.split_once("class=\"verdict\">").unwrap().1.split_once("</p>").unwrap().0.to_lowercase();
        assert!(["borne out", "not tested"].iter().any(|word| verdict.contains(word)), "{title}: {verdict}");
    }
    // Nothing from elsewhere: it opens without a network.
    assert!(!page.contains("src=") && !page.contains("href="));
    let quality = lines(&comparison.join("quality.csv"));
    assert_eq!(quality.len(), 4, "{quality:#?}");
    assert!(quality[1].starts_with("rnn,") && quality[2].starts_with("gpt,") && quality[3].starts_with("mamba,"));
    assert!(quality[1..].iter().all(|line| line.split(',').nth(3) == Some("6")), "{quality:#?}");
    assert_eq!(lines(&comparison.join("curves.csv")).len(), 1 + 3 * 2);
    let training = lines(&comparison.join("training_speed.csv"));
    assert_eq!(training.len(), 1 + 3 * 4);
    let peak = |line: &String| line.rsplit(',').next().unwrap().parse::<u64>().unwrap();
    assert!(training[1..].iter().all(|line| peak(line) > 100_000), "{training:#?}");
    // Stored scores grow with the square of the length, in blocks they do not.
    let layer = lines(&comparison.join("attention_layer.csv"));
    assert_eq!(layer.len(), 1 + 3 * 4);
    assert!(peak(&layer[4]) > 4 * peak(&layer[8]) && peak(&layer[4]) > 4 * peak(&layer[12]), "{layer:#?}");
    // As many distances as a window has tokens, as trained and before training.
    let gradients = lines(&comparison.join("gradients.csv"));
    assert_eq!(gradients.len(), 1 + 3 * 2 * 16);
    let own: Vec<&String> = gradients.iter().filter(|line| line.contains(",0,")).collect();
    assert!(own.len() == 6 && own.iter().all(|line| line.ends_with(",1.0000e0")), "{own:#?}");
    assert!(gradients.iter().skip(1).all(|line| !line.contains("NaN")), "{gradients:#?}");
    assert_eq!(lines(&comparison.join("heads.csv")).len(), 2);
    let generation = lines(&comparison.join("generation.csv"));
    let bytes = |name: &str| -> Vec<u64> {
        let of_name = generation.iter().filter(|line| line.starts_with(name));
        of_name.map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
    };
    assert!(bytes("gpt").is_sorted() && bytes("gpt")[2] > 30 * bytes("gpt")[0]);
    assert!(bytes("mamba").iter().all(|&size| size == bytes("mamba")[0]));

    // What is done is not done again.
    let again = run(folder.path(), &["compare", "--resume", "c"]).worked();
    assert!(!again.stderr.contains("1/6 rnn"), "{again:#?}");
    run(folder.path(), &SMALL).failed(&["c holds a comparison", "--resume c"]);
}

#[test]
fn a_comparison_goes_on_without_those_that_fail() {
    let folder = data();
    run(folder.path(), &SMALL).worked();
    let comparison = folder.path().join("c");
    let [gpt, mamba] = ["gpt", "mamba"].map(|name| comparison.join("runs").join(name));
    std::fs::remove_dir_all(&gpt).unwrap();
    std::fs::remove_dir_all(&mamba).unwrap();
    // Where a file lies no run can begin; that of mamba comes after it.
    std::fs::write(&gpt, "").unwrap();
    let found = run(folder.path(), &["compare", "--resume", "c"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    assert!(found.stderr.contains("error: 1 of 3 failed: gpt\n") && mamba.join("ended").exists(), "{found:#?}");
    let quality = || lines(&comparison.join("quality.csv"));
    assert!(quality().len() == 3 && quality()[2].starts_with("mamba,"), "{:#?}", quality());
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    assert!(page.contains("Failed, and missing here: gpt. Whoever has not learned book.txt"), "{page}");
    std::fs::remove_file(&gpt).unwrap();
    run(folder.path(), &["compare", "--resume", "c"]).worked();
    assert_eq!(quality().len(), 4);
    assert!(!std::fs::read_to_string(comparison.join("report.html")).unwrap().contains("Failed, and missing"));
}

#[test]
fn a_model_that_cannot_be_measured_is_named_and_the_others_are_reported() {
    let folder = data();
    run(folder.path(), &SMALL).worked();
    let comparison = folder.path().join("c");
    std::fs::remove_file(comparison.join("runs/gpt/model/model.safetensors")).unwrap();
    let found = run(folder.path(), &["compare", "--resume", "c"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    for wanted in ["measuring gpt: error: ", "the report is c/report.html", "error: 1 of 3 failed: measuring gpt\n"] {
        assert!(found.stderr.contains(wanted), "{wanted:?} is not in {found:#?}");
    }
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    assert!(page.contains("Failed, and missing here: measuring gpt."), "{page}");
    let quality = lines(&comparison.join("quality.csv"));
    assert!(quality[1].starts_with("rnn,") && quality[2].starts_with("mamba,"), "{quality:#?}");
}

#[test]
fn seeds_are_runs_of_their_own_with_their_spread() {
    let folder = data();
    run(folder.path(), &[&SMALL[..22], &["rnn,gru", "--seeds", "2"]].concat()).worked();
    let comparison = folder.path().join("c");
    let quality = lines(&comparison.join("quality.csv"));
    let loss = |line: usize| -> f64 { quality[line].split(',').nth(7).unwrap().parse().unwrap() };
    assert_eq!(quality.len(), 5, "{quality:#?}");
    let starts = ["rnn,42,", "rnn,43,", "gru,42,", "gru,43,"];
    assert!(quality[1..].iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{quality:#?}");
    assert!(loss(1) != loss(2) && comparison.join("runs/gru-seed2/model").exists());
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    let (least, most) = (loss(1).min(loss(2)), loss(1).max(loss(2)));
    assert!(page.contains(&format!("{least:.4} to {most:.4}")), "{least} {most}");
    assert!(page.contains("for 6 steps, from 2 seeds. Quality and recall are measured with every seed, all else"));
}

#[test]
fn translators_are_compared_on_the_same_sentence() {
    let folder = translation_data();
    let args = "compare --train train.en train.de --validation test.en test.de --output c --steps 4 --validate-every 4 \
                --vocab-size 340 --batch-tokens 256 --set model.hidden_size=16 --set model.num_layers=1 --architectures \
                transformer,rnn_encoder_decoder";
    run(folder.path(), &args.split_whitespace().collect::<Vec<_>>()).worked();
    let comparison = folder.path().join("c");
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    assert!(page.contains("Attention, seen") && page.matches("<svg").count() == 4, "{}", page.matches("<svg").count());
    // A claim of their own, by bits a byte, and translations of three sentences.
    assert!(page.contains("A Transformer, in which all words") && page.contains("in bits a byte: "), "{page}");
    assert!(page.contains("transformer writes") && page.matches("\n→ ").count() == 6, "{page}");
    let quality = lines(&comparison.join("quality.csv"));
    assert!(quality[1..].iter().all(|line| !line.ends_with(',')), "{quality:#?}");
    let alignments = lines(&comparison.join("alignments.csv"));
    let total = |name: &str| -> f64 {
        let of = alignments.iter().filter(|line| line.starts_with(name) && line.split(',').nth(1) == Some("0"));
        of.map(|line| line.rsplit(',').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert!((total("transformer") - 1.0).abs() < 0.01 && (total("rnn_encoder_decoder") - 1.0).abs() < 0.01);
}

#[test]
fn a_run_that_was_stopped_is_not_taken_for_done() {
    let folder = data();
    run(folder.path(), &SMALL).worked();
    // As if it had been stopped after its first validation, which left a model.
    let gpt = folder.path().join("c/runs/gpt");
    std::fs::remove_file(gpt.join("ended")).unwrap();
    assert!(gpt.join("model").exists());
    let again = run(folder.path(), &["compare", "--resume", "c"]).worked();
    assert!(again.stderr.contains("2/6 gpt") && !again.stderr.contains("1/6 rnn"), "{again:#?}");
    assert!(gpt.join("ended").exists());
}

#[test]
fn the_quick_comparison_needs_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let args = "compare --quick --output c --architectures gru,gpt --steps 2 --window 32 --batch-tokens 64 --set \
                model.hidden_size=16 --set model.num_layers=1";
    run(folder.path(), &args.split_whitespace().collect::<Vec<_>>()).worked();
    let comparison = folder.path().join("c");
    assert_eq!(lines(&comparison.join("quality.csv")).len(), 3);
    assert!(std::fs::read_to_string(comparison.join("data/stories.txt")).unwrap().lines().count() > 1000);
    // Each learned both tasks; attention is asked only where it has positions.
    let recall = lines(&comparison.join("recall.csv"));
    let of = |start: &str| recall.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(["gru,recall,", "gru,needle,", "gpt,recall,", "gpt,needle,"].map(of), [7, 7, 5, 5], "{recall:#?}");
    let parameters = recall[1..].iter().map(|line| line.split(',').nth(3).unwrap().parse::<usize>().unwrap());
    assert!(parameters.min().unwrap() > 1000, "{recall:#?}");
    let page = std::fs::read_to_string(comparison.join("report.html")).unwrap();
    let (_, section) = page.split_once("<h2>How far back</h2>").unwrap();
    assert!(section.contains("Recall: not borne out") || section.contains("Recall: borne out"), "{section}");
    run(folder.path(), &args.split_whitespace().collect::<Vec<_>>()).failed(&["c holds a comparison"]);
}

#[test]
fn what_cannot_be_compared_is_said_before_anything_is_trained() {
    let folder = data();
    let compare =
        |more: &[&str]| run(folder.path(), &[&["compare", "--train", "book.txt", "--output", "c"], more].concat());
    compare(&["--architectures", "gptt"]).failed(&["there is no gptt", "known: "]);
    compare(&["--architectures", "gpt,transformer"]).failed(&["translators and language models"]);
    compare(&["--architectures", "transformer", "--probes", "recall"]).failed(&["translators do not learn them"]);
    run(folder.path(), &["compare", "--task", "recall", "--output", "c"]).failed(&["--task is not for a comparison"]);
    compare(&["--architectures", "gpt", "--seeds", "0"]).failed(&["--seeds is 0, wanted 1 to 100"]);
    compare(&["--architectures", "gpt", "--steps", "0"]).failed(&["`training.steps` is 0"]);
    compare(&["--architectures", "gpt", "--minutes", "0"]).failed(&["`training.minutes` is 0"]);
    let heads = ["--architectures", "gpt,llama", "--set", "model.hidden_size=16", "--set", "model.num_heads=5"];
    compare(&heads).failed(&["gpt cannot be built", "`n_head` is 5", "numbers of heads that divide 16"]);
    run(folder.path(), &["compare", "--resume", "absent"]).failed(&["cannot read absent/plan.json"]);
    assert!(!folder.path().join("c").exists());
}

#[test]
fn what_was_planned_is_not_planned_again() {
    let folder = tempfile::tempdir().unwrap();
    let beside = |flag: &str, values: &[&str]| {
        let found = run(folder.path(), &[&["compare", "--resume", "c", flag], values].concat());
        assert_eq!(found.code, Some(2), "{found:#?}");
        let (first, second) = found.stderr.split_once(" cannot be used with ").unwrap_or_else(|| panic!("{found:#?}"));
        assert!(first.contains("'--resume <FOLDER>'") && second.contains(flag), "{found:#?}");
    };
    for (flag, value) in [
        ("--output", "d"),
        ("--architectures", "gpt"),
        ("--size", "3M"),
        ("--probes", "recall"),
        ("--seeds", "2"),
        ("--config", "a.toml"),
        ("--set", "model.dropout=0"),
        ("--train", "book.txt"),
        ("--tokenizer", "characters"),
        ("--minutes", "30"),
        ("--seed", "1"),
    ] {
        beside(flag, &[value]);
    }
    beside("--quick", &[]);
    run(folder.path(), &["compare", "--resume", "c", "--device", "cpu"]).failed(&["cannot read c/plan.json"]);
}
