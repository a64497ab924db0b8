use burn::tensor::Device;
use proptest::prelude::*;

use super::*;
use crate::gpt::{Gpt, GptConfig};
use crate::named_parameters;

fn tiny() -> GptConfig {
    GptConfig { vocab_size: 11, max_positions: 6, hidden_size: 8, num_layers: 1, num_heads: 2, ..GptConfig::default() }
}

fn saved() -> (tempfile::TempDir, Gpt) {
    let folder = tempfile::tempdir().unwrap();
    let model = Gpt::new(&tiny(), 7, &Device::flex());
    save(&model, folder.path()).unwrap();
    (folder, model)
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit() {
    let (folder, model) = saved();
    let again: Gpt = load(folder.path(), &Device::flex()).unwrap();
    assert_eq!(again.config(), model.config());
    for (a, b) in named_parameters(&model).iter().zip(named_parameters(&again)) {
        assert_eq!((&a.name, &a.shape, &a.values), (&b.name, &b.shape, &b.values));
    }
}

#[test]
fn pythons_infinities_are_read() {
    let text = r#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "Infinity \\\" NaN": "-Infinity"}"#;
    let json: Value = serde_json::from_slice(&without_infinities(text.as_bytes())).unwrap();
    assert_eq!(json, serde_json::json!({"a": [0.0, null, null], "b": null, "Infinity \\\" NaN": "-Infinity"}));
}

#[test]
fn files_of_another_model_are_refused_by_name() {
    let (folder, _) = saved();
    let message = |edit: &dyn Fn(&mut Map<String, Value>)| {
        let path = folder.path().join(CONFIG_FILE);
        let original = fs::read(&path).unwrap();
        let mut json: Map<String, Value> = serde_json::from_slice(&original).unwrap();
        edit(&mut json);
        fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
        let error = load::<Gpt>(folder.path(), &Device::flex()).unwrap_err();
        fs::write(&path, original).unwrap();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    };
    let set = |key: &'static str, value: Value| {
        move |json: &mut Map<String, Value>| {
            json.insert(key.into(), value.clone());
        }
    };
    assert!(message(&set("n_head", 3.into())).contains("`n_head` is 3, which does not divide `n_embd` = 8"));
    assert!(message(&set("n_embd", 0.into())).contains("`n_embd` is 0"));
    assert!(message(&set("n_layer", 2.into())).contains("`transformer.h.1.ln_1.weight` is missing"));
    assert!(
        message(&set("vocab_size", 12.into()))
            .contains("`transformer.wte.weight` is [11, 8], but config.json makes it [12, 8]")
    );
    assert!(message(&set("activation_function", "relu".into())).contains("`activation_function` is \"relu\""));
    assert!(message(&set("scale_attn_by_inverse_layer_idx", true.into())).contains("scale_attn_by_inverse_layer_idx"));
    assert!(message(&set("model_type", "bert".into())).contains("\"bert\""));
    assert!(message(&set("n_layer", "two".into())).contains("invalid type"));
}

#[test]
fn a_file_written_whole_leaves_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let neighbour = folder.path().join("config.partial");
    fs::write(&neighbour, "mine").unwrap();
    write_whole(&folder.path().join("config.json"), b"{}").unwrap();
    assert_eq!(fs::read_to_string(neighbour).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_missing_folder_says_what_a_model_is() {
    let error = load::<Gpt>(Path::new("no/such/folder"), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"));
    assert!(error.hint().unwrap().contains("config.json"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_weights_are_an_error_or_other_numbers_but_never_a_panic(at in 0usize..1400, bit in 0u8..8, cut in 0usize..3000) {
        let (folder, _) = saved();
        let path = folder.path().join(WEIGHTS_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let _ = load::<Gpt>(folder.path(), &Device::flex());
        bytes[at] ^= 1 << bit;
        let keep = cut % bytes.len();
        fs::write(&path, &bytes[..keep]).unwrap();
        prop_assert!(load::<Gpt>(folder.path(), &Device::flex()).is_err(), "{} of {} bytes", keep, bytes.len());
    }

    #[test]
    fn any_bytes_as_configuration_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (folder, _) = saved();
        fs::write(folder.path().join(CONFIG_FILE), bytes).unwrap();
        let _ = load::<Gpt>(folder.path(), &Device::flex());
    }
}
