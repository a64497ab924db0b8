//! `--device`: what was not built in is refused, and a graphics card gives what the processor gives.

use crate::support::{run, translator};

#[test]
#[cfg(not(any(feature = "gpu", feature = "cuda")))]
fn a_device_that_was_not_built_in() {
    run(translator(), &["translate", "run", "--device", "gpu"]).failed(&["without a GPU feature", "--features gpu"]);
}

#[test]
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn a_graphics_card_reads_what_a_processor_trained() {
    use crate::support::{filter, language_model};

    let sentences = std::fs::read(translator().join("test.en")).unwrap();
    let translated = |device| {
        filter(translator(), &["translate", "run", "--device", device, "--beam", "2"], &sentences).worked().stdout
    };
    assert_eq!(translated("gpu"), translated("cpu"));
    let written = |device| {
        let args = ["generate", "run", "--prompt", "eins ", "--temperature", "0", "--max-tokens", "16"];
        run(language_model(), &[&args[..], &["--device", device]].concat()).worked().stdout
    };
    assert_eq!(written("gpu"), written("cpu"));
}

#[test]
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn a_graphics_card_trains() {
    use crate::support::{SMALL, translation_data};

    let folder = translation_data();
    let first_loss = |device| {
        run(folder.path(), &[&SMALL[..], &["--steps", "10", "--output", device, "--device", device]].concat()).worked();
        let metrics = std::fs::read_to_string(folder.path().join(device).join("metrics.jsonl")).unwrap();
        let record: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        record["loss"].as_f64().unwrap()
    };
    let (on_gpu, on_cpu) = (first_loss("gpu"), first_loss("cpu"));
    assert!((on_gpu - on_cpu).abs() < 1e-3 * on_cpu, "{on_gpu} and {on_cpu}");
    let resumed = run(folder.path(), &["train", "--resume", "gpu", "--steps", "20", "--device", "gpu"]).worked();
    assert!(resumed.stderr.contains("going on from step 10"), "{resumed:#?}");
    let scores = |device| {
        let args = ["evaluate", "gpu", "--source", "test.en", "--reference", "test.de", "--json", "--device", device];
        run(folder.path(), &args).worked().stdout
    };
    assert_eq!(scores("gpu"), scores("cpu"));
}
