use crate::support::{filter, folder_with, run, translator};

#[test]
fn a_line_in_a_line_out() {
    let folder = translator();
    let input = "one two three\n\nfour five six\r\n   \nseven eight nine";
    let together = filter(folder, &["translate", "run"], input).worked();
    let lines: Vec<&str> = together.stdout.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[1].is_empty() && lines[3].is_empty(), "{lines:?}");
    for (line, source) in [(0, "one two three"), (2, "four five six"), (4, "seven eight nine")] {
        let alone = filter(folder, &["translate", "run/model"], source).worked();
        assert_eq!(alone.stdout, format!("{}\n", lines[line]));
        assert!(!lines[line].is_empty());
    }
    assert_eq!(filter(folder, &["translate", "run"], "").worked().stdout, "");
}

#[test]
fn the_small_model_has_learnt_something() {
    let found = filter(translator(), &["translate", "run"], "one two three\nnine eight seven\n").worked();
    let words = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"];
    let known = found.stdout.split_whitespace().filter(|word| words.contains(word)).count();
    assert!(known >= 4, "{found:#?}");
}

#[test]
fn n_best_with_scores() {
    let args = ["translate", "run", "--n-best", "3", "--scores", "--length-penalty", "none"];
    let found = filter(translator(), &args, "one two three\n\nfour\n").worked();
    let rows: Vec<Vec<&str>> = found.stdout.lines().map(|line| line.split('\t').collect()).collect();
    let numbers: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(numbers, ["1", "1", "1", "2", "3", "3", "3"]);
    assert_eq!(rows[3], ["2", ""]);
    let scores: Vec<f64> = rows[..3].iter().map(|row| row[1].parse().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] <= 0.0, "{scores:?}");
    let best = filter(translator(), &["translate", "run", "--length-penalty", "none"], "one two three\n").worked();
    assert_eq!(best.stdout.trim_end(), rows[0][2]);
}

#[test]
fn alignments_are_drawn() {
    let model = translator().join("run").display().to_string();
    let folder = folder_with(&[("one.txt", "one two three\n"), ("two.txt", "one two three\n\nfour\n")]);
    let path = folder.path();
    run(path, &["translate", &model, "-i", "one.txt", "--attention", "map.svg"]).worked();
    let svg = std::fs::read_to_string(path.join("map.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("three"), "{svg}");
    run(path, &["translate", &model, "-i", "two.txt", "--attention", "map.png"]).worked();
    for name in ["map-1.png", "map-3.png"] {
        assert!(std::fs::read(path.join(name)).unwrap().starts_with(b"\x89PNG"), "{name}");
    }
    assert!(!path.join("map.png").exists() && !path.join("map-2.png").exists());
    let shown = run(path, &["translate", &model, "-i", "one.txt", "--show-attention"]).worked();
    assert!(shown.stderr.contains('█') && !shown.stderr.contains('\u{1b}'), "{shown:#?}");
    assert_eq!(shown.stdout.lines().count(), 1);
}

#[test]
fn long_lines_are_an_error_or_left_empty() {
    let long = "one ".repeat(600);
    let input = format!("one two\n{long}\nthree\n");
    let found = filter(translator(), &["translate", "run"], &input);
    found.failed(&["standard input: line 2 has 60", "at most 512", "--skip-long"]);
    assert_eq!(found.stdout.lines().count(), 1, "{found:#?}");
    let found = filter(translator(), &["translate", "run", "--skip-long"], &input).worked();
    let empty: Vec<bool> = found.stdout.lines().map(str::is_empty).collect();
    assert_eq!(empty, [false, true, false]);
    assert!(found.stderr.contains("1 line was too long"), "{found:#?}");
}

#[test]
fn translations_without_an_end_are_counted() {
    let found = filter(translator(), &["translate", "run", "--max-length", "1"], "one two\n\nthree four\n").worked();
    let wanted = "warning: 2 translations were cut off at the longest length, see --max-length (the first is line 1)\n";
    assert_eq!(found.stderr, wanted);
    let args = ["evaluate", "run", "--source", "test.en", "--reference", "test.de", "--max-length", "1"];
    let found = run(translator(), &args).worked();
    assert!(found.stderr.starts_with("warning: 20 translations were cut off"), "{found:#?}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::process::Stdio;
    let folder = folder_with(&[("many.txt", &"one two three\n".repeat(4000))]);
    let model = translator().join("run").display().to_string();
    let args = ["translate", &model, "--beam", "1", "-i", "many.txt"];
    let mut child =
        crate::support::weft(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
