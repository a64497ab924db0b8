use proptest::prelude::*;

use super::*;
use crate::argmax;

fn sampler(config: SamplingConfig, seed: u64) -> Sampler {
    Sampler::new(config, seed).unwrap()
}

/// The probabilities of the logits at a temperature, in f64.
fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&x| ((f64::from(x) - f64::from(max)) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// The tokens that the filters keep, in the order of their ids.
fn kept(config: SamplingConfig, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(config, 0);
    let max = block_maxima(logits, 0, &mut sampler.maxima).unwrap();
    exp_all(logits, max, sampler.config.temperature, &mut sampler.weights);
    if !sampler.filter(logits) {
        return (0..logits.len() as u32).collect();
    }
    let mut tokens: Vec<u32> = sampler.kept.iter().map(|token| token.token).collect();
    tokens.sort_unstable();
    tokens
}

fn logits(longest: usize) -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![12 => -12.0..12.0f32, 2 => (-3i8..3).prop_map(f32::from), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(logit, 1..longest)
        .prop_filter("one possible token", |logits| logits.iter().any(|x| x.is_finite()))
}

proptest! {
    #[test]
    fn one_kept_token_is_greedy(logits in logits(300), seed in any::<u64>(), position in any::<u64>(), temperature in 0.1..3.0f32) {
        let greedy = argmax(&logits);
        let base = SamplingConfig { temperature, ..SamplingConfig::default() };
        for config in [
            SamplingConfig::greedy(),
            SamplingConfig { top_k: Some(1), ..base.clone() },
            SamplingConfig { top_p: Some(f32::MIN_POSITIVE), ..base.clone() },
        ] {
            prop_assert_eq!(sampler(config, seed).sample(&logits, &[], position), greedy.clone());
        }
        // Min-p of 1 keeps all that are as likely as the most likely one, to rounding.
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let config = SamplingConfig { min_p: Some(1.0), ..base };
        let token = sampler(config, seed).sample(&logits, &[], position).unwrap();
        prop_assert!(logits[token as usize] >= max - 1e-5);
    }

    #[test]
    fn top_k_keeps_the_k_most_likely(logits in logits(700), k in 1usize..400, temperature in 0.2..3.0f32) {
        let config = SamplingConfig { top_k: Some(k), temperature, ..SamplingConfig::default() };
        let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap().then(a.cmp(&b)));
        sorted.truncate(k);
        sorted.sort_unstable();
        let kept = kept(config, &logits);
        if k < logits.len() {
            // What weighs less than 1e-37 of the most likely token is not told from the impossible.
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            sorted.retain(|&token| (logits[token as usize] - max) / temperature > -87.0);
        }
        prop_assert_eq!(kept, sorted);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_p(logits in logits(700), p in 0.01..1.0f32, temperature in 0.2..3.0f32, k in prop::option::of(2usize..100)) {
        let config = SamplingConfig { top_p: Some(p), top_k: k, temperature, ..SamplingConfig::default() };
        let mut probabilities = probabilities(&logits, f64::from(temperature));
        if let Some(k) = k {
            // Top-p shares out what top-k has left.
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
            order.iter().skip(k).for_each(|&token| probabilities[token] = 0.0);
            let total: f64 = probabilities.iter().sum();
            probabilities.iter_mut().for_each(|probability| *probability /= total);
        }
        let kept = kept(config, &logits);
        let mass: f64 = kept.iter().map(|&token| probabilities[token as usize]).sum();
        let least = kept.iter().map(|&token| probabilities[token as usize]).fold(f64::INFINITY, f64::min);
        prop_assert!(mass >= f64::from(p) - 1e-5, "mass {}", mass);
        prop_assert!(mass - least < f64::from(p) + 1e-5, "mass {} without {}", mass, least);
        let most_dropped = (0..logits.len()).filter(|&token| kept.binary_search(&(token as u32)).is_err())
            .map(|token| probabilities[token]).fold(0.0, f64::max);
        prop_assert!(most_dropped <= least);
    }

    #[test]
    fn min_p_keeps_what_is_likely_enough(logits in logits(700), p in 0.001..1.0f32, temperature in 0.2..3.0f32) {
        let config = SamplingConfig { min_p: Some(p), temperature, ..SamplingConfig::default() };
        let probabilities = probabilities(&logits, f64::from(temperature));
        let most = probabilities.iter().copied().fold(0.0, f64::max);
        let kept = kept(config, &logits);
        for (token, &probability) in probabilities.iter().enumerate() {
            let ratio = probability / most;
            if (ratio / f64::from(p) - 1.0).abs() > 1e-5 {
                prop_assert_eq!(kept.binary_search(&(token as u32)).is_ok(), ratio > f64::from(p), "{}", token);
            }
        }
    }

    #[test]
    fn a_filter_never_keeps_more_than_it_would_alone(logits in logits(400), k in 2usize..60, p in 0.1..1.0f32, min_p in 0.001..0.5f32) {
        let only = SamplingConfig::default();
        let all = kept(SamplingConfig { top_k: Some(k), top_p: Some(p), min_p: Some(min_p), ..only.clone() }, &logits);
        let by_k = kept(SamplingConfig { top_k: Some(k), ..only.clone() }, &logits);
        let by_p = kept(SamplingConfig { top_p: Some(p), ..only.clone() }, &logits);
        let by_min_p = kept(SamplingConfig { min_p: Some(min_p), ..only }, &logits);
        prop_assert!(!all.is_empty());
        for token in all {
            prop_assert!(by_k.contains(&token) && by_p.contains(&token) && by_min_p.contains(&token));
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone(logits in logits(200), seed in any::<u64>(), position in any::<u64>()) {
        for config in [SamplingConfig::default(), SamplingConfig { top_p: Some(0.9), ..SamplingConfig::default() }] {
            let mut used = sampler(config.clone(), seed);
            for other in 0..3 {
                used.sample(&[0.5; 100], &[1, 2], other).unwrap();
            }
            let token = used.sample(&logits, &[], position).unwrap();
            prop_assert!(logits[token as usize].is_finite());
            prop_assert_eq!(sampler(config, seed).sample(&logits, &[], position), Ok(token));
        }
    }
}

/// Draws many times and compares the counts with the probabilities that should be left.
fn assert_frequencies(name: &str, config: SamplingConfig, logits: &[f32], history: &[u32], wanted: &[f64]) {
    const DRAWS: u64 = 200_000;
    let mut sampler = sampler(config, 7);
    let mut counts = vec![0u64; logits.len()];
    for position in 0..DRAWS {
        counts[sampler.sample(logits, history, position).unwrap() as usize] += 1;
    }
    let mut chi_square = 0.0;
    for (token, (&count, &probability)) in counts.iter().zip(wanted).enumerate() {
        let expected = probability * DRAWS as f64;
        assert!(probability > 0.0 || count == 0, "{name}: token {token} should never be drawn");
        if probability > 0.0 {
            chi_square += (count as f64 - expected).powi(2) / expected;
        }
    }
    // At most 5 degrees of freedom: 20.5 is exceeded by chance once in a thousand.
    assert!(chi_square < 20.5, "{name}: chi-square {chi_square}, counts {counts:?}");
}

#[test]
fn frequencies_are_the_probabilities() {
    let logits = [1.0, 0.5, -1.0, 2.0, f32::NEG_INFINITY, 0.0];
    let only = SamplingConfig::default();
    let wanted = probabilities(&logits, 1.0);
    assert_frequencies("plain", only.clone(), &logits, &[], &wanted);
    let half = SamplingConfig { temperature: 0.5, ..only.clone() };
    assert_frequencies("temperature", half, &logits, &[], &probabilities(&logits, 0.5));

    let nothing = f32::NEG_INFINITY;
    let wanted = probabilities(&[1.0, 0.5, nothing, 2.0, nothing, nothing], 1.0);
    assert_frequencies("top_k", SamplingConfig { top_k: Some(3), ..only.clone() }, &logits, &[], &wanted);
    // 0.53 and 0.19 and 0.12 of the whole: 0.8 takes three.
    assert_frequencies("top_p", SamplingConfig { top_p: Some(0.8), ..only.clone() }, &logits, &[], &wanted);
    // exp(-1.5) = 0.22 is at least 0.2 of the most likely token, exp(-2) = 0.14 is not.
    assert_frequencies("min_p", SamplingConfig { min_p: Some(0.2), ..only.clone() }, &logits, &[], &wanted);

    let penalised = probabilities(&[1.0, 0.5, -2.0, 1.0, nothing, 0.0], 1.0);
    let config = SamplingConfig { repetition_penalty: 2.0, ..only };
    assert_frequencies("repetition", config, &logits, &[3, 2, 3, 5], &penalised);
}

#[test]
fn bad_scores_are_errors() {
    for config in [
        SamplingConfig::default(),
        SamplingConfig::greedy(),
        SamplingConfig { top_k: Some(3), ..SamplingConfig::default() },
    ] {
        let mut sampler = sampler(config, 0);
        assert_eq!(sampler.sample(&[], &[], 0), Err(DecodeError::EmptyVocabulary));
        assert_eq!(sampler.sample(&[0.0, f32::NAN], &[], 0), Err(DecodeError::NotANumber { row: 0, token: 1 }));
        assert_eq!(sampler.sample(&[f32::INFINITY, 0.0], &[], 0), Err(DecodeError::Infinite { row: 0, token: 0 }));
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 9], &[], 0), Err(DecodeError::NothingPossible { row: 0 }));
        let outside = DecodeError::TokenOutOfRange { what: "history", token: 2, vocabulary: 2 };
        assert_eq!(sampler.sample(&[0.0, 1.0], &[0, 2], 0), Err(outside));
    }
}

#[test]
fn extreme_temperatures_are_harmless() {
    for temperature in [f32::MIN_POSITIVE, 1e-45, 1e-10, 1e10, f32::MAX] {
        let config = SamplingConfig { temperature, top_p: Some(0.9), ..SamplingConfig::default() };
        let token = sampler(config, 3).sample(&[1.0, 3.0, 2.0], &[], 0).unwrap();
        assert!(temperature > 1.0 || token == 1);
    }
}

#[test]
fn impossible_settings_name_the_field() {
    let good = SamplingConfig::default();
    let wrong = [
        ("temperature", SamplingConfig { temperature: -0.1, ..good.clone() }),
        ("temperature", SamplingConfig { temperature: f32::NAN, ..good.clone() }),
        ("top_k", SamplingConfig { top_k: Some(0), ..good.clone() }),
        ("top_p", SamplingConfig { top_p: Some(0.0), ..good.clone() }),
        ("top_p", SamplingConfig { top_p: Some(1.1), ..good.clone() }),
        ("min_p", SamplingConfig { min_p: Some(-0.1), ..good.clone() }),
        ("min_p", SamplingConfig { min_p: Some(1.5), ..good.clone() }),
        ("repetition_penalty", SamplingConfig { repetition_penalty: 0.0, ..good.clone() }),
    ];
    for (wanted, config) in wrong {
        let error = Sampler::new(config, 0).unwrap_err();
        assert!(matches!(&error, DecodeError::Config { field, .. } if *field == wanted), "{error}");
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
}
