use crate::support::{filter, language_model, run};

#[test]
fn a_seed_gives_the_same_text_again() {
    let folder = language_model();
    let with_seed = |seed: &str| {
        run(folder, &["generate", "run", "--prompt", "eins ", "--max-tokens", "24", "--seed", seed]).worked()
    };
    let first = with_seed("7");
    assert_eq!(first.stdout, with_seed("7").stdout);
    assert!(first.stdout.starts_with("eins ") && first.stdout.ends_with('\n'), "{first:#?}");
    assert_eq!(first.stderr, "");
    assert!((8..12).any(|seed| with_seed(&seed.to_string()).stdout != first.stdout));
}

#[test]
fn the_most_likely_text_needs_no_seed() {
    let args = ["generate", "run", "--temperature", "0", "--max-tokens", "12", "--only-new"];
    let from_pipe = filter(language_model(), &args, "zwei ").worked();
    let from_flag = run(language_model(), &[&args[..], &["--prompt", "zwei "]].concat()).worked();
    assert_eq!(from_pipe.stdout, from_flag.stdout);
    assert_eq!(from_flag.stderr, "");
    let greedy = run(language_model(), &[&args[..], &["--prompt", "zwei ", "--top-k", "1"]].concat()).worked();
    assert_eq!(greedy.stdout, from_flag.stdout);
}

#[test]
fn a_seed_that_was_drawn_is_named() {
    let args = ["generate", "run", "--prompt", "acht", "--max-tokens", "8"];
    let found = run(language_model(), &args).worked();
    let seed = found.stderr.strip_prefix("seed ").map(str::trim_end).unwrap_or_else(|| panic!("{found:#?}"));
    let again = run(language_model(), &[&args[..], &["--seed", seed]].concat()).worked();
    assert_eq!(found.stdout, again.stdout);
}

#[test]
fn positions_that_are_used_up_are_said() {
    let found = run(language_model(), &["generate", "run", "--prompt", "eins", "--temperature", "0"]).worked();
    assert!(found.stderr.contains("the model reads at most 32 at once"), "{found:#?}");
    let long = "eins ".repeat(20);
    run(language_model(), &["generate", "run", "--prompt", &long]).failed(&["the prompt has 100 tokens", "at most 32"]);
}
