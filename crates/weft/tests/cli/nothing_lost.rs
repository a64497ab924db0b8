//! Commands that write replace only what they may.

use crate::support::{copy_of, filter, folder_with, run, translator};

fn model() -> String {
    translator().join("run").display().to_string()
}

#[test]
fn an_input_is_never_the_output() {
    let folder = folder_with(&[("in.en", "one two\n"), ("right.de", "eins zwei\n")]);
    let path = folder.path();
    let (model, whole) = (model(), path.join("in.en").display().to_string());
    for output in ["in.en", "./in.en", &whole] {
        run(path, &["translate", &model, "-i", "in.en", "-o", output]).failed(&["is the input"]);
    }
    let evaluate =
        |output| run(path, &["evaluate", &model, "--source", "in.en", "--reference", "right.de", "-o", output]);
    evaluate("in.en").failed(&["in.en is the input"]);
    evaluate("right.de").failed(&["right.de is the input"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("in.en", path.join("link")).unwrap();
        std::fs::hard_link(path.join("in.en"), path.join("twin")).unwrap();
        for output in ["link", "twin"] {
            run(path, &["translate", &model, "-i", "in.en", "-o", output]).failed(&["is the input"]);
        }
        let mut piped = crate::support::weft(path, &["translate", &model, "-o", "in.en"]);
        let input = std::fs::File::open(path.join("in.en")).unwrap();
        crate::support::Ran::of(piped.stdin(input).output().unwrap()).failed(&["is the input"]);
    }
    assert_eq!(std::fs::read_to_string(path.join("in.en")).unwrap(), "one two\n");
    assert_eq!(std::fs::read_to_string(path.join("right.de")).unwrap(), "eins zwei\n");
    run(path, &["translate", &model, "-i", "in.en", "-o", "out.de"]).worked();
}

#[test]
fn an_average_replaces_only_a_model() {
    let (folder, copy) = copy_of(&translator().join("run/model"));
    let path = folder.path();
    std::fs::create_dir(path.join("notes")).unwrap();
    std::fs::write(path.join("notes/note.txt"), "mine").unwrap();
    let average = |output: &str| run(path, &["average", "model", "--output", output]);
    average("notes").failed(&["the average cannot go to notes: it holds note.txt"]);
    average("model").failed(&["is averaged"]);
    let run_folder = model();
    run(path, &["average", &run_folder, "--output", &format!("{run_folder}/model")]).failed(&["is averaged"]);
    run(path, &["average", "model", "--output", &run_folder]).failed(&["no part of a model"]);
    assert_eq!(std::fs::read_to_string(path.join("notes/note.txt")).unwrap(), "mine");
    average("mean").worked();
    average("mean").worked();
    std::fs::remove_file(copy.join("tokenizer.json")).unwrap();
    average("mean").failed(&["model is no model: there is no tokenizer.json in it"]);
}

/// As a kill between the two renames leaves a run.
#[test]
fn a_model_whose_replacement_was_cut_off_is_found() {
    let (folder, copy) = copy_of(&translator().join("run/model"));
    std::fs::rename(copy, folder.path().join(".model.weft-old")).unwrap();
    for path in [".", "model"] {
        let found = filter(folder.path(), &["translate", path], "one two\n").worked();
        assert_eq!(found.stdout.lines().count(), 1);
    }
}
