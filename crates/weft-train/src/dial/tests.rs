use super::*;

const MULTI30K: Facts = Facts { examples: 29_000, bytes: 4_000_000, characters: None };

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    let mut overrides = Overrides::new();
    overrides.set("data.train", "[\"train.tsv\"]", "--train").unwrap();
    for (key, value) in pairs {
        overrides.set(key, value, "--set").unwrap();
    }
    overrides
}

#[test]
fn every_architecture_derives_from_its_name_alone() {
    for architecture in ArchitectureKind::ALL {
        for facts in [
            MULTI30K,
            Facts { examples: 1, bytes: 10, ..MULTI30K },
            Facts { examples: 1 << 24, bytes: 1 << 34, ..MULTI30K },
        ] {
            let (config, derived) = derive(&overrides(&[("model.architecture", architecture.name())]), &facts).unwrap();
            assert_eq!(config.model.architecture, architecture);
            assert!(derived.iter().all(|value| !value.because.is_empty() && !value.value.is_empty()), "{derived:?}");
            // What is written is a configuration that derives to itself.
            let again = Overrides::parse(&config.to_toml(), std::path::Path::new("config.toml")).unwrap();
            let (same, left) = derive(&again, &facts).unwrap();
            assert_eq!(same, config);
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[test]
fn what_is_fixed_is_not_derived_and_moves_the_rest() {
    let fixed = [("model.preset", "base"), ("model.hidden_size", "320"), ("training.warmup_steps", "100")];
    let (config, derived) = derive(&overrides(&fixed), &MULTI30K).unwrap();
    assert_eq!((config.model.hidden_size, config.model.num_layers, config.model.num_heads), (320, 6, Some(5)));
    assert_eq!(config.model.intermediate_size, Some(1280));
    assert!(!derived.iter().any(|value| value.name == "model.hidden_size"));
    let rate = derived.iter().find(|value| value.name == "training.learning_rate").unwrap();
    assert_eq!(rate.value, "0.002");
    assert!(rate.because.contains("hidden^-0.5"));
}

#[test]
fn a_size_is_met_within_a_quarter() {
    for architecture in ArchitectureKind::ALL {
        for (text, wanted) in [("1M", 1e6), ("3M", 3e6), ("10m", 1e7), ("60M", 6e7), ("200M", 2e8)] {
            let fixed =
                [("model.architecture", architecture.name()), ("model.size", text), ("tokenizer.vocab_size", "2000")];
            let (config, _) = derive(&overrides(&fixed), &MULTI30K).unwrap();
            let shape = Shape { hidden_size: config.model.hidden_size, num_layers: config.model.num_layers };
            let tables = if config.tokenizer.shared { 1 } else { 2 };
            let found = shape.parameters(architecture, CellKind::Lstm, 2000 * tables);
            assert!((found / wanted).ln().abs() < 0.25, "{architecture:?} {text}: {shape:?} has {found}");
        }
    }
}

#[test]
fn a_size_is_met_whatever_the_cell() {
    for (name, cell) in [("rnn", CellKind::Rnn), ("gru", CellKind::Gru), ("lstm", CellKind::Lstm)] {
        let fixed = [("model.architecture", "recurrent_lm"), ("model.size", "3M"), ("model.cell", name)];
        let (config, _) = derive(&overrides(&fixed), &MULTI30K).unwrap();
        let shape = Shape { hidden_size: config.model.hidden_size, num_layers: config.model.num_layers };
        let found = shape.parameters(ArchitectureKind::RecurrentLm, cell, config.tokenizer.vocab_size);
        assert!((found / 3e6).ln().abs() < 0.25, "{name}: {shape:?} has {found}");
    }
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let read = ["3M", " 1.5b", "500k", "12345", "3X", "", "-3M", "1", "nanM"].map(parse_size);
    assert_eq!(read, [Some(3e6), Some(1.5e9), Some(5e5), Some(12345.0), None, None, None, None, None]);
}

#[test]
fn impossible_values_are_named_with_their_origin() {
    let cases: [(&[(&str, &str)], &str); 15] = [
        (&[("model.preset", "huge")], "--set: `model.preset` is huge, wanted one of tiny, small, base, big"),
        (&[("model.preset", "base"), ("model.size", "3M")], "--set: `model.preset` is base, wanted one of"),
        (&[("model.hidden_size", "0")], "--set: `model.hidden_size` is 0, wanted 1 to"),
        (&[("model.dropout", "1.5")], "--set: `model.dropout` is 1.5, wanted 0 to"),
        (&[("training.learning_rate", "nan")], "--set: `training.learning_rate` is NaN, wanted"),
        (&[("training.learning_rate", "20")], "--set: `training.learning_rate` is 20, wanted 1e-12 to 10"),
        (&[("training.epsilon", "0")], "--set: `training.epsilon` is 0, wanted 1e-16 to 1"),
        (&[("training.steps", "0")], "--set: `training.steps` is 0, wanted at least 1"),
        (&[("training.epochs", "0")], "--set: `training.epochs` is 0, wanted at least 1"),
        (&[("training.minutes", "0")], "--set: `training.minutes` is 0, wanted above 0"),
        (&[("training.minutes", "nan")], "--set: `training.minutes` is NaN, wanted above 0"),
        (
            &[("training.metric", "bleu"), ("training.bleu_sentences", "0")],
            "--set: `training.bleu_sentences` is 0, wanted at least 1",
        ),
        (&[("training.metric", "bleu"), ("model.architecture", "gpt")], "--set: `training.metric` is bleu, wanted"),
        (
            &[("model.num_heads", "4"), ("model.architecture", "recurrent_lm")],
            "--set: `model.num_heads` is no setting of the architecture recurrent_lm",
        ),
        (&[("model.architecture", "hyena")], "--set: `model.architecture` cannot be \"hyena\""),
    ];
    for (fixed, message) in cases {
        let error = derive(&overrides(fixed), &MULTI30K).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
    }
    let error = derive(&Overrides::new(), &MULTI30K).unwrap_err();
    assert!(error.to_string().starts_with("`data.train` is not set"));
}

#[test]
fn minutes_alone_say_how_long_a_run_is() {
    for architecture in ArchitectureKind::ALL {
        for (minutes, interval) in [("10", 30), ("600", 1000), ("0.1", 10)] {
            let fixed = [("model.architecture", architecture.name()), ("training.minutes", minutes)];
            let (config, _) = derive(&overrides(&fixed), &MULTI30K).unwrap();
            assert_eq!(config.training.validation_interval, interval, "{minutes}");
            assert!(config.training.warmup_steps <= 60 || minutes == "600", "{minutes}");
            assert_eq!((config.training.steps, config.training.epochs), (None, None));
        }
    }
}

#[test]
fn long_budgets_do_not_overflow() {
    let most = i64::MAX.to_string();
    for key in ["training.epochs", "training.steps"] {
        let facts = Facts { examples: 1 << 40, bytes: 1 << 50, ..MULTI30K };
        let (config, _) = derive(&overrides(&[(key, &most)]), &facts).unwrap();
        assert_eq!(config.training.warmup_steps, 4000);
    }
}

#[test]
fn heads_divide_the_width() {
    for hidden_size in 1..2000 {
        let heads = sizes::heads(hidden_size);
        assert!(heads >= 1 && hidden_size % heads == 0, "{hidden_size}: {heads}");
    }
}

#[test]
fn a_size_counts_the_characters_that_there_are() {
    let settings = |characters| {
        let fixed = [("model.architecture", "gpt"), ("model.size", "300K"), ("tokenizer.kind", "characters")];
        let facts = Facts { examples: 1, bytes: 100_000, characters };
        derive(&overrides(&fixed), &facts).expect("a size that fits").0.model
    };
    let (known, unknown) = (settings(Some(60)), settings(None));
    assert!(known.hidden_size * known.num_layers > unknown.hidden_size * unknown.num_layers, "{known:?} {unknown:?}");
}
