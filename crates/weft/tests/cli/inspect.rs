use crate::support::{language_model, run, translator};

#[test]
fn everything_about_a_run() {
    let found = run(translator(), &["inspect", "run"]).worked();
    for part in [
        "run/model: translator, marian\n",
        "\nparameters\n  model.shared ",
        "  model.decoder.layers.0 ",
        "  total ",
        "\nconfiguration\n  model_type = \"marian\"",
        "  d_model = 32\n",
        "\ntokenizer\n  tokenizer.json: ",
        "\nhistory\n  training loss ",
        "  validation loss ",
        " best ",
        "\norigin\n",
        "\n  sha256\n    train = ",
        "\n  weft_version = ",
        "learning_rate = 0.005\n",
    ] {
        assert!(found.stdout.contains(part), "{part:?} is not in {}", found.stdout);
    }
    assert_eq!(found.stderr, "");
}

#[test]
fn constants_are_no_parameters() {
    let found = run(translator(), &["inspect", "run", "--tensors"]).worked();
    assert!(found.stdout.contains("model.shared.weight") && !found.stdout.contains("final_logits_bias"), "{found:#?}");
}

#[test]
fn the_parts_add_up() {
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&run(language_model(), args).worked().stdout).unwrap()
    };
    let modules = json(&["inspect", "run", "--json"]);
    let tensors = json(&["inspect", "run", "--json", "--tensors"]);
    assert_eq!(modules["parameters"]["total"], tensors["parameters"]["total"]);
    let size = |part: &serde_json::Value| -> u64 {
        part["shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap()).product()
    };
    let parts = tensors["parameters"]["parts"].as_array().unwrap();
    assert_eq!(parts.iter().map(size).sum::<u64>(), tensors["parameters"]["total"].as_u64().unwrap());
    // What the file holds is what is listed.
    let weights = std::fs::metadata(language_model().join("run/model/model.safetensors")).unwrap().len();
    let total = 4 * tensors["parameters"]["total"].as_u64().unwrap();
    assert!(weights > total && weights < total + 8192, "{weights} bytes for {total}");
}
