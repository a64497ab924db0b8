use std::path::Path;

use super::overrides::known_keys;
use super::*;
use crate::error::TrainError;

fn parse(text: &str) -> Result<Overrides, TrainError> {
    Overrides::parse(text, Path::new("run.toml"))
}

#[test]
fn a_full_configuration_is_read_back_as_it_was_written() {
    let config = RunConfig::full_example();
    assert_eq!(toml::from_str::<RunConfig>(&config.to_toml()).unwrap(), config);
    let overrides = parse(&config.to_toml()).unwrap();
    assert_eq!(overrides.keys().collect::<Vec<_>>(), known_keys());
    assert_eq!(overrides.get::<[f64; 2]>("training.betas").unwrap(), Some([0.9, 0.98]));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let cases = [
        (
            "[training]\nsteps = 3\nlearningrate = 0.1\n",
            "run.toml:3",
            "training.learningrate",
            "training.learning_rate",
        ),
        ("[model]\n\n# a comment\nhiden_size = 3\n", "run.toml:4", "model.hiden_size", "model.hidden_size"),
        ("[model]\nlearning_rate = 3.0\n", "run.toml:2", "model.learning_rate", "training.learning_rate"),
        ("steps = 3\n", "run.toml:1", "steps", "training.steps"),
        ("[data]\n[trainings]\nsteps = 1\n", "run.toml:2", "trainings", "training"),
        ("tokenizer.vocabsize = 300\n", "run.toml:1", "tokenizer.vocabsize", "tokenizer.vocab_size"),
    ];
    for (text, origin, key, nearest) in cases {
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), format!("{origin}: there is no setting `{key}`"));
        assert_eq!(error.hint().unwrap(), format!("did you mean `{nearest}`?"), "{text}");
    }
}

#[test]
fn what_is_like_no_key_gets_no_suggestion() {
    for text in ["bananas = 3\n", "[training]\nxyzzy = 1\n", "[zoo]\nanimals = 1\n"] {
        let error = parse(text).unwrap_err();
        assert!(error.to_string().contains("there is no setting `"), "{error}");
        assert_eq!(error.hint(), None, "{text}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line() {
    let overrides = parse("[training]\nsteps = \"many\"\nseed = -3\nlearning_rate = 1\n").unwrap();
    let error = overrides.get::<u64>("training.steps").unwrap_err();
    assert_eq!(error.to_string(), "run.toml:2: `training.steps` cannot be \"many\"");
    assert_eq!(error.hint().unwrap(), "for example `training.steps = 1000`");
    assert!(overrides.get::<u64>("training.seed").is_err());
    // A whole number may stand where a fraction is wanted.
    assert_eq!(overrides.get::<f64>("training.learning_rate").unwrap(), Some(1.0));
}

#[test]
fn what_is_not_toml_is_an_error_with_its_cause() {
    let error = parse("[training\nsteps = 3").unwrap_err();
    assert_eq!(error.to_string(), "run.toml is not TOML");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("line 1"));
    let error = Overrides::read(Path::new("/no/such/file.toml")).unwrap_err();
    assert!(error.hint().is_some());
}

#[test]
fn flags_win_over_the_file_and_need_no_quotes() {
    let mut overrides = parse("[model]\npreset = \"base\"\nnum_layers = 2\n").unwrap();
    let mut flags = Overrides::new();
    flags.set("model.preset", "small", "--preset").unwrap();
    flags.set("data.train", "[\"a.en\", \"a.de\"]", "--train").unwrap();
    overrides.merge(flags);
    assert_eq!(overrides.get::<String>("model.preset").unwrap().unwrap(), "small");
    assert_eq!(overrides.get::<usize>("model.num_layers").unwrap(), Some(2));
    assert_eq!(overrides.origin("model.preset"), Some(&Origin::Flag("--preset".into())));
    assert_eq!(overrides.get::<Vec<PathBuf>>("data.train").unwrap().unwrap().len(), 2);
}

mod anything {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", key in "[a-z_.]{0,20}") {
            let _ = parse(&text);
            let _ = parse(&format!("[training]\n{text} = 1"));
            let _ = Overrides::new().set(&key, &text, "--set");
        }
    }
}
