use std::io::Read;
use std::process::Stdio;

use crate::support::{filter, language_model, run, weft};

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

#[test]
fn a_text_goes_on_from_its_state_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (model, state) = (language_model().join("run"), folder.path().join("save.state"));
    let state = state.to_str().unwrap();
    let generate =
        |more: &[&str]| run(folder.path(), &[&["generate", model.to_str().unwrap(), "--seed", "7"], more].concat());
    let whole = generate(&["--prompt", "eins ", "--max-tokens", "11"]).worked().stdout;
    let first = generate(&["--prompt", "eins ", "--max-tokens", "6", "--state", state]).worked().stdout;
    let second = generate(&["--max-tokens", "5", "--load-state", state, "--state", state]).worked().stdout;
    assert_eq!(first.trim_end_matches('\n').to_owned() + &second, whole);
    let third = generate(&["--prompt", "zwei", "--max-tokens", "2", "--load-state", state]).worked().stdout;
    assert!(third.starts_with("zwei"), "{third}");
    let long = "eins ".repeat(20);
    generate(&["--prompt", &long, "--load-state", state]).failed(&["the state and the prompt have", "at most 32"]);
}

/// `weft generate ... --state FILE | head`
#[test]
fn who_stops_reading_leaves_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let model = language_model().join("run");
    let mut child =
        weft(folder.path(), &["generate", model.to_str().unwrap(), "--prompt", "eins", "--state", "save.state"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4]).unwrap();
    drop(stdout);
    assert!(child.wait().unwrap().success());
    assert!(folder.path().join("save.state").is_file());
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = language_model().join("run");
    let path = folder.path().join("save.state");
    let state = path.to_str().unwrap();
    let generate = |more: &[&str]| run(folder.path(), &[&["generate", model.to_str().unwrap()], more].concat());
    generate(&["--prompt", "eins", "--max-tokens", "2", "--state", state]).worked();
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    generate(&["--load-state", state]).failed(&["cannot go on from", "not a whole state file", "hint: "]);
    let hash = String::from_utf8_lossy(&whole).find("\"model\":\"").unwrap() + 9;
    let mut other = whole.clone();
    other[hash] = if other[hash] == b'0' { b'1' } else { b'0' };
    std::fs::write(&path, other).unwrap();
    generate(&["--load-state", state]).failed(&["it is the state of another model", "hint: "]);
    let weights = model.join("model/model.safetensors");
    generate(&["--load-state", weights.to_str().unwrap()]).failed(&["it names no `model`"]);
    generate(&["--load-state", "absent"]).failed(&["cannot read absent"]);
    generate(&["--prompt", "eins", "--state", "absent/save.state"]).failed(&["there is no folder absent"]);
    generate(&["--prompt", "eins", "--state", "."]).failed(&["is a folder"]);
}
