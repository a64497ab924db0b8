//! Whole models decode what others decode with the same weights: keys and values kept from step to step, hypotheses that
//! change places. `tests/reference/README.md` says what was recorded and how.

use std::path::PathBuf;

use burn::tensor::Device;
use serde_json::Value;
use weft_decode::{BeamConfig, LengthPenalty, Sampler, SamplingConfig};
use weft_models::gpt::Gpt;
use weft_models::search::{Generation, Session, generate, translate};
use weft_models::transformer::Transformer;
use weft_models::{Architecture, checkpoint};

/// CTranslate2 adds log-probabilities in f32 and computes the logits in another order: some roundings of f32 a token.
const SCORE_TOLERANCE: f64 = 1e-5;

fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference").join(case)
}

fn recorded(case: &str) -> Value {
    let text = std::fs::read_to_string(folder(case).join("decoding.json")).expect("a recorded case");
    serde_json::from_str(&text).expect("JSON")
}

fn tokens(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("tokens")
}

#[test]
fn gpt_generates_what_transformers_generates() {
    let model: Gpt = checkpoint::load(&folder("gpt"), &Device::flex()).expect("a whole checkpoint");
    let model = model.for_decoding();
    let greedy = SamplingConfig { temperature: 0.0, ..SamplingConfig::default() };
    let cases = recorded("gpt")["cases"].as_array().expect("cases").clone();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let (prompt, output) = (tokens(&case["prompt"]), tokens(&case["output"]));
        let what = Generation { prompt: &prompt, max_tokens: output.len(), stop: None };
        let mut sampler = Sampler::new(greedy.clone(), 1).expect("a configuration");
        let found = generate(&model, &mut Session::new(&model), &what, &mut sampler, |_| true).expect("logits");
        assert_eq!(found, output, "after {prompt:?}");
    }
}

#[test]
fn the_transformer_translates_what_ctranslate2_translates() {
    let model: Transformer = checkpoint::load(&folder("transformer-post-norm"), &Device::flex()).expect("a checkpoint");
    let model = model.for_decoding();
    let eos = model.config().eos_token_id;
    let recording = recorded("transformer-post-norm");
    let most = recording["options"]["max_decoding_length"].as_u64().expect("a number") as usize;
    let cases = recording["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    // Of different lengths, and in one batch.
    let sources: Vec<Vec<u32>> = cases.iter().map(|case| tokens(&case["source"])).collect();
    for (name, beam_size) in [("greedy", 1), ("beam_4", 4)] {
        let config = BeamConfig {
            num_best: beam_size,
            min_length: 0,
            max_length: most,
            length_penalty: LengthPenalty::Length { alpha: 1.0 },
            ..BeamConfig::ctranslate2(beam_size, eos)
        };
        let found = translate(&model, &sources, &config).expect("logits");
        for (case, found) in cases.iter().zip(found) {
            let wanted = case[name].as_array().expect("hypotheses");
            assert_eq!(found.len(), wanted.len(), "{case}");
            for (found, wanted) in found.iter().zip(wanted) {
                let end = found.finished.then_some(eos);
                let with_end: Vec<u32> = found.tokens.iter().copied().chain(end).collect();
                assert_eq!(with_end, tokens(&wanted["tokens"]), "{name} of {}", case["source"]);
                let score = wanted["score"].as_f64().expect("a number");
                assert!((found.score - score).abs() < SCORE_TOLERANCE, "{} is not {score}", found.score);
            }
        }
    }
}
