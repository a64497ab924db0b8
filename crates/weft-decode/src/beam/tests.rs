use proptest::prelude::*;

use super::*;
use crate::{LengthPenalty, argmax, uniform};

const EOS: u32 = 0;
const BOS: u32 = 1;

/// The logits of the next token after each token: a model small enough to try every sentence.
#[derive(Debug, Clone)]
struct Markov {
    logits: Vec<Vec<f32>>,
}

impl Markov {
    fn random(vocabulary: usize, spread: f64, seed: u64) -> Self {
        let draw = |row: usize, token: usize| (uniform(seed, (row * vocabulary + token) as u64) - 0.5) * spread;
        let row = |row| (0..vocabulary).map(|token| draw(row, token) as f32).collect();
        Self { logits: (0..vocabulary).map(row).collect() }
    }

    /// Log-probabilities after `last`, eos masked where it is not possible yet.
    fn log_probs(&self, last: u32, eos_possible: bool) -> Vec<f64> {
        let mut logits: Vec<f64> = self.logits[last as usize].iter().map(|&logit| f64::from(logit)).collect();
        if !eos_possible {
            logits[EOS as usize] = f64::NEG_INFINITY;
        }
        let normaliser = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.iter().map(|logit| logit - normaliser).collect()
    }

    /// Every sentence that the settings allow, best first.
    fn enumerate(&self, config: &BeamConfig) -> Vec<Hypothesis> {
        let mut all = Vec::new();
        self.extend(config, BOS, Vec::new(), 0.0, &mut all);
        all.sort_by(|a: &Hypothesis, b| b.score.total_cmp(&a.score));
        all
    }

    fn extend(&self, config: &BeamConfig, last: u32, tokens: Vec<u32>, log_prob: f64, all: &mut Vec<Hypothesis>) {
        let hypothesis = |tokens: &[u32], log_prob, finished| Hypothesis {
            score: config.length_penalty.score(log_prob, tokens.len(), finished),
            tokens: tokens.to_vec(),
            log_prob,
            finished,
        };
        let log_probs = self.log_probs(last, tokens.len() >= config.min_length);
        for (token, &step) in log_probs.iter().enumerate().filter(|(_, step)| step.is_finite()) {
            let log_prob = log_prob + step;
            if token as u32 == EOS {
                all.push(hypothesis(&tokens, log_prob, true));
                continue;
            }
            let longer: Vec<u32> = tokens.iter().copied().chain([token as u32]).collect();
            if longer.len() == config.max_length {
                all.push(hypothesis(&longer, log_prob, false));
            } else {
                self.extend(config, token as u32, longer, log_prob, all);
            }
        }
    }

    fn search(&self, config: &BeamConfig, kind: Scores) -> Vec<Hypothesis> {
        let mut search = BeamSearch::new(config.clone(), BOS).unwrap();
        while !search.is_done() {
            let scores = self.scores(search.live(), kind);
            let before: Vec<Vec<u32>> = (0..search.live().len()).map(|row| search.live_tokens(row).unwrap()).collect();
            let parents = search.advance_by(&scores, kind).unwrap().to_vec();
            assert_eq!(parents.len(), search.live().len());
            for (row, &parent) in parents.iter().enumerate() {
                let tokens = search.live_tokens(row).unwrap();
                assert_eq!(tokens[..tokens.len() - 1], before[parent][..], "a row continues its parent");
                assert_eq!(tokens.last(), Some(&search.live()[row]));
            }
        }
        search.into_hypotheses()
    }

    fn scores(&self, live: &[u32], kind: Scores) -> Vec<f32> {
        let row = |&last: &u32| match kind {
            Scores::Logits => self.logits[last as usize].clone(),
            Scores::LogProbabilities => self.log_probs(last, true).iter().map(|&x| x as f32).collect(),
        };
        live.iter().flat_map(row).collect()
    }
}

fn penalty() -> impl Strategy<Value = LengthPenalty> {
    prop_oneof![
        Just(LengthPenalty::None),
        Just(LengthPenalty::Average),
        (0.0..2.0f64).prop_map(|alpha| LengthPenalty::Wu { alpha }),
        (0.0..2.0f64).prop_map(|alpha| LengthPenalty::Length { alpha }),
    ]
}

fn scores_kind() -> impl Strategy<Value = Scores> {
    prop_oneof![Just(Scores::Logits), Just(Scores::LogProbabilities)]
}

fn assert_same(found: &[Hypothesis], wanted: &[Hypothesis]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found.score - wanted.score).abs() < 1e-5, "{found:?} {wanted:?}");
        assert!((found.log_prob - wanted.log_prob).abs() < 1e-5, "{found:?} {wanted:?}");
        assert_eq!((&found.tokens, found.finished), (&wanted.tokens, wanted.finished));
    }
}

proptest! {
    #[test]
    fn a_beam_as_large_as_the_space_finds_the_best_sentences(
        vocabulary in 2usize..5, max_length in 1usize..5, min_length in 0usize..3, num_best in 1usize..6,
        penalty in penalty(), kind in scores_kind(), spread in 0.5..6.0f64, seed in any::<u64>(),
    ) {
        let model = Markov::random(vocabulary, spread, seed);
        let beam_size = vocabulary.pow(max_length as u32).max(num_best);
        let config = BeamConfig {
            num_best, min_length: min_length.min(max_length), length_penalty: penalty,
            ..BeamConfig::new(beam_size, max_length, EOS)
        };
        let mut wanted = model.enumerate(&config);
        // Equal scores, to rounding, may come in another order.
        prop_assume!(wanted.windows(2).take(num_best).all(|pair| pair[0].score - pair[1].score > 1e-5));
        wanted.truncate(num_best);
        assert_same(&model.search(&config, kind), &wanted);
    }

    #[test]
    fn a_beam_of_one_is_greedy(
        vocabulary in 2usize..40, max_length in 1usize..30, kind in scores_kind(), spread in 0.5..10.0f64, seed in any::<u64>(),
    ) {
        let model = Markov::random(vocabulary, spread, seed);
        let config = BeamConfig { stop: StopRule::EnoughFinished, ..BeamConfig::new(1, max_length, EOS) };
        let mut tokens = Vec::new();
        let mut last = BOS;
        while tokens.len() < max_length {
            last = argmax(&model.logits[last as usize]).unwrap();
            if last == EOS {
                break;
            }
            tokens.push(last);
        }
        let found = &model.search(&config, kind)[0];
        prop_assert_eq!(found.finished, last == EOS);
        prop_assert_eq!(&found.tokens, &tokens);
    }

    #[test]
    fn the_exact_stop_changes_nothing(
        vocabulary in 2usize..12, beam_size in 1usize..6, max_length in 1usize..20, num_best in 1usize..6,
        penalty in penalty(), spread in 0.5..8.0f64, seed in any::<u64>(),
    ) {
        let model = Markov::random(vocabulary, spread, seed);
        let num_best = num_best.min(beam_size);
        let config = BeamConfig { num_best, length_penalty: penalty, ..BeamConfig::new(beam_size, max_length, EOS) };
        let stopped = model.search(&config, Scores::Logits);
        // The same search, told never to stop early.
        let mut search = BeamSearch::new(config, BOS).unwrap();
        search.never_stops = true;
        while !search.is_done() {
            search.advance_logits(&model.scores(search.live(), Scores::Logits)).unwrap();
        }
        prop_assert_eq!(stopped, search.into_hypotheses());
    }

    #[test]
    fn hypotheses_are_what_they_say(
        vocabulary in 2usize..30, beam_size in 1usize..8, max_length in 1usize..12, min_length in 0usize..4,
        penalty in penalty(), early in any::<bool>(), kind in scores_kind(), seed in any::<u64>(),
    ) {
        let model = Markov::random(vocabulary, 4.0, seed);
        let min_length = min_length.min(max_length);
        let config = BeamConfig {
            num_best: beam_size, min_length, length_penalty: penalty,
            stop: if early { StopRule::EnoughFinished } else { StopRule::Exact },
            ..BeamConfig::new(beam_size, max_length, EOS)
        };
        let found = model.search(&config, kind);
        prop_assert!(!found.is_empty() && found.len() <= beam_size);
        prop_assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        for hypothesis in &found {
            prop_assert!(!hypothesis.tokens.contains(&EOS));
            let length = hypothesis.tokens.len();
            prop_assert!(length >= min_length && length <= max_length);
            prop_assert!(hypothesis.finished || length == max_length);
            let ending = hypothesis.finished.then_some(EOS);
            let (mut last, mut log_prob) = (BOS, 0.0);
            for (step, &token) in hypothesis.tokens.iter().chain(&ending).enumerate() {
                log_prob += model.log_probs(last, step >= min_length)[token as usize];
                last = token;
            }
            prop_assert!((log_prob - hypothesis.log_prob).abs() < 1e-5, "{} {:?}", log_prob, hypothesis);
            prop_assert_eq!(hypothesis.score, penalty.score(hypothesis.log_prob, length, hypothesis.finished));
        }
        let different: std::collections::HashSet<_> = found.iter().map(|h| (&h.tokens, h.finished)).collect();
        prop_assert_eq!(different.len(), found.len());
    }

    /// Large rows exercise the skipping of blocks; the reference sorts everything.
    #[test]
    fn candidates_are_those_of_a_full_sort(
        vocabulary in 2usize..500, beam_size in 1usize..7, coarse in any::<bool>(), seed in any::<u64>(),
    ) {
        let step_of = if coarse { 0.5 } else { 1e-9 };
        let mut position = 0;
        let mut row = |_| (0..vocabulary).map(|_| {
            position += 1;
            let logit = uniform(seed, position) * 4.0;
            if logit < 0.4 { f32::NEG_INFINITY } else { ((logit / step_of).round() * step_of) as f32 }
        }).chain([]).collect::<Vec<f32>>();
        let config = BeamConfig { stop: StopRule::EnoughFinished, ..BeamConfig::new(beam_size, 10, EOS) };
        let mut search = BeamSearch::new(config, BOS).unwrap();
        for _ in 0..3 {
            let rows: Vec<Vec<f32>> = (0..search.live().len()).map(&mut row).collect();
            prop_assume!(rows.iter().all(|row| row.iter().any(|score| score.is_finite())));
            let mut all = Vec::new();
            for (index, scores) in rows.iter().enumerate() {
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let normaliser = crate::scan::log_sum_exp(scores, max);
                for (token, &score) in scores.iter().enumerate().filter(|(_, score)| score.is_finite()) {
                    let log_prob = search.live_log_probs[index] + (f64::from(score) - normaliser).min(0.0);
                    all.push(Candidate { log_prob, token: token as u32, row: index });
                }
            }
            all.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then(a.token.cmp(&b.token)).then(a.row.cmp(&b.row)));
            all.truncate(2 * beam_size);
            search.advance_logits(&rows.concat()).unwrap();
            let bits = |c: &Candidate| (c.log_prob.to_bits(), c.token, c.row);
            prop_assert_eq!(search.candidates.iter().map(bits).collect::<Vec<_>>(), all.iter().map(bits).collect::<Vec<_>>());
            if search.is_done() {
                break;
            }
        }
    }
}

#[test]
fn ties_go_to_the_lowest_token_then_the_lowest_row() {
    let mut search = BeamSearch::new(BeamConfig::new(3, 5, EOS), BOS).unwrap();
    assert_eq!(search.advance_logits(&[-9.0, 1.0, 1.0, 1.0, 1.0]).unwrap(), [0, 0, 0]);
    assert_eq!(search.live(), [1, 2, 3]);
    let row = [-9.0, 0.0, 2.0, 2.0, 0.0];
    assert_eq!(search.advance_logits(&[row, row, row].concat()).unwrap(), [0, 1, 2]);
    assert_eq!(search.live(), [2, 2, 2]);
}

#[test]
fn a_later_row_wins_ties_with_a_lower_token() {
    let row = |tokens: &[usize]| {
        let mut scores = vec![-9.0f32; 200];
        tokens.iter().for_each(|&token| scores[token] = -1.0);
        scores
    };
    let mut search = BeamSearch::new(BeamConfig::new(2, 5, EOS), BOS).unwrap();
    search.advance(&row(&[1, 2])).unwrap();
    assert_eq!(search.live(), [1, 2]);
    // The first row fills all four places of the candidates with tokens of its third block.
    let scores = [row(&[150, 151, 152, 153]), row(&[5])].concat();
    assert_eq!(search.advance(&scores).unwrap(), [1, 0]);
    assert_eq!(search.live(), [5, 150]);
}

#[test]
fn a_finished_hypothesis_does_not_narrow_the_beam() {
    let mut search = BeamSearch::new(BeamConfig::new(2, 5, EOS), BOS).unwrap();
    search.advance_logits(&[3.0, 2.0, 1.0, 0.0]).unwrap();
    assert_eq!(search.live(), [1, 2]);
    // Eos was the best candidate; it comes back as the best hypothesis, the live ones as unfinished.
    let config = BeamConfig { num_best: 2, ..BeamConfig::new(2, 5, EOS) };
    let mut search = BeamSearch::new(config, BOS).unwrap();
    search.advance_logits(&[3.0, 2.0, 1.0, 0.0]).unwrap();
    let found = search.into_hypotheses();
    assert_eq!(
        found.iter().map(|h| (h.tokens.as_slice(), h.finished)).collect::<Vec<_>>(),
        [(&[][..], true), (&[1][..], false)]
    );
}

#[test]
fn bad_scores_are_errors_and_change_nothing() {
    let config = BeamConfig { min_length: 1, ..BeamConfig::new(2, 5, EOS) };
    let mut search = BeamSearch::new(config, BOS).unwrap();
    let nothing = f32::NEG_INFINITY;
    assert_eq!(search.advance(&[]), Err(DecodeError::EmptyVocabulary));
    assert_eq!(search.advance(&[-1.0, f32::NAN]), Err(DecodeError::NotANumber { row: 0, token: 1 }));
    assert_eq!(search.advance(&[f32::NAN, -1.0]), Err(DecodeError::NotANumber { row: 0, token: 0 }));
    assert_eq!(search.advance(&[-1.0, f32::INFINITY]), Err(DecodeError::Infinite { row: 0, token: 1 }));
    assert_eq!(search.advance(&[-1.0, 2.0]), Err(DecodeError::NotALogProbability { row: 0, token: 1, found: 2.0 }));
    assert_eq!(search.advance(&[nothing, nothing]), Err(DecodeError::NothingPossible { row: 0 }));
    assert_eq!(search.advance(&[0.0, nothing]), Err(DecodeError::DeadEnd { step: 0 }));
    assert_eq!((search.live(), search.step()), (&[BOS][..], 0));
    search.advance(&[-2.0, -1.0, -1.0]).unwrap();
    assert_eq!(search.advance(&[-1.0; 5]), Err(DecodeError::Shape { found: 5, rows: 2 }));
    assert_eq!(search.advance(&[-1.0; 4]), Err(DecodeError::VocabularyChanged { found: 2, wanted: 3 }));
    let mut scores = [-1.0; 6];
    scores[4] = f32::NAN;
    assert_eq!(search.advance(&scores), Err(DecodeError::NotANumber { row: 1, token: 1 }));
    assert_eq!((search.live(), search.step()), (&[1, 2][..], 1));

    let mut search = BeamSearch::new(BeamConfig::new(1, 5, 7), BOS).unwrap();
    let outside = DecodeError::TokenOutOfRange { what: "eos", token: 7, vocabulary: 2 };
    assert_eq!(search.advance(&[-1.0, -1.0]), Err(outside));
    let mut search = BeamSearch::new(BeamConfig::new(1, 1, EOS), BOS).unwrap();
    assert_eq!(search.advance(&[-1.0, -1.0]), Ok(&[][..]));
    assert_eq!(search.advance(&[-1.0, -1.0]), Err(DecodeError::Done));
}

#[test]
fn impossible_settings_name_the_field() {
    let good = BeamConfig::new(4, 10, EOS);
    let wrong = [
        ("beam_size", BeamConfig { beam_size: 0, ..good.clone() }),
        ("num_best", BeamConfig { num_best: 0, ..good.clone() }),
        ("num_best", BeamConfig { num_best: 5, ..good.clone() }),
        ("max_length", BeamConfig { max_length: 0, ..good.clone() }),
        ("min_length", BeamConfig { min_length: 11, ..good.clone() }),
        ("length_penalty", BeamConfig { length_penalty: LengthPenalty::Wu { alpha: f64::NAN }, ..good.clone() }),
    ];
    for (wanted, config) in wrong {
        match BeamSearch::new(config, BOS) {
            Err(DecodeError::Config { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn a_search_that_has_not_begun_has_one_empty_hypothesis() {
    for length_penalty in [LengthPenalty::None, LengthPenalty::Average, LengthPenalty::Wu { alpha: 0.6 }] {
        let search = BeamSearch::new(BeamConfig { length_penalty, ..BeamConfig::new(2, 5, EOS) }, BOS).unwrap();
        let wanted = Hypothesis { tokens: vec![], score: 0.0, log_prob: 0.0, finished: false };
        assert_eq!(search.into_hypotheses(), [wanted]);
    }
}
