use crate::support::{filter, run};

/// A quickstart that is cut short: everything is there, only the models have not learnt enough.
#[test]
fn leaves_data_models_and_what_to_type_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let found = run(path, &["quickstart", "--output", "here", "--minutes", "0.03"]).worked();
    assert_eq!(found.stdout, "");
    for part in [
        "Transformer: ",
        "RNN with attention: ",
        " % exact (",
        "its 0.03 minutes ended after step ",
        " of 2000; to go on: weft train --resume here/transformer --minutes 0.06",
        "weft translate here/transformer",
    ] {
        assert!(found.stderr.contains(part), "{part:?} is not in {found:#?}");
    }
    let lines = |name: &str| std::fs::read_to_string(path.join("here/data").join(name)).unwrap().lines().count();
    assert_eq!([lines("held-out.source"), lines("held-out.target")], [1000, 1000]);
    assert_eq!(lines("train.source"), lines("train.target"));
    for model in ["here/transformer", "here/rnn"] {
        let answer = filter(path, &["translate", model, "--show-attention"], "14 juillet 1789\n").worked();
        assert_eq!(answer.stdout.lines().count(), 1);
        assert!(answer.stderr.contains('⏎'), "{answer:#?}");
    }
    let again = run(path, &["quickstart", "--output", "here"]);
    again.failed(&["here holds a quickstart already", "--output"]);
    run(path, &["quickstart", "--output", "other", "--minutes", "0"]).failed(&["--minutes is 0"]);
}
