//! The search finds what CTranslate2 4.8.5 finds, with the same scores.
//!
//! `tests/reference/record_ctranslate2_beam.py` recorded the cases: six models whose logits depend on the last token
//! alone, each searched under many settings.

use weft_decode::{BeamConfig, BeamSearch, LengthPenalty};

/// CTranslate2 adds log-probabilities in f32: half a unit of f32's rounding per token, for sums up to 64.
const SCORE_TOLERANCE: f64 = 1e-4;

fn number(value: &serde_json::Value) -> usize {
    value.as_u64().expect("a number") as usize
}

#[test]
fn finds_what_ctranslate2_finds() {
    let file: serde_json::Value = serde_json::from_str(include_str!("data/ctranslate2_beam.json")).unwrap();
    let (bos, eos) = (number(&file["bos"]) as u32, number(&file["eos"]) as u32);
    let mut num_cases = 0;
    for model in file["models"].as_array().unwrap() {
        let table: Vec<Vec<f32>> = serde_json::from_value(model["logits"].clone()).unwrap();
        for case in model["cases"].as_array().unwrap() {
            let alpha = case["length_penalty"].as_f64().unwrap();
            let config = BeamConfig {
                num_best: number(&case["num_hypotheses"]),
                min_length: number(&case["min_decoding_length"]),
                max_length: number(&case["max_decoding_length"]),
                length_penalty: LengthPenalty::Length { alpha },
                ..BeamConfig::ctranslate2(number(&case["beam_size"]), eos)
            };
            let mut search = BeamSearch::new(config, bos).unwrap();
            while !search.is_done() {
                let logits: Vec<f32> = search.live().iter().flat_map(|&last| table[last as usize].clone()).collect();
                search.advance_logits(&logits).unwrap();
            }
            let found = search.into_hypotheses();
            let tokens: Vec<Vec<u32>> = serde_json::from_value(case["hypotheses"].clone()).unwrap();
            let scores: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
            let found_tokens: Vec<Vec<u32>> = found.iter().map(|hypothesis| hypothesis.tokens.clone()).collect();
            assert_eq!(found_tokens, tokens, "{case}");
            for (hypothesis, score) in found.iter().zip(&scores) {
                assert!((hypothesis.score - score).abs() < SCORE_TOLERANCE, "{} {case}", hypothesis.score);
            }
            num_cases += 1;
        }
    }
    assert!(num_cases > 200);
}
