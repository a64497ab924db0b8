//! BLEU and chrF equal sacrebleu 2.6.0, as printed and to 1e-9.
//!
//! `tests/reference/record_sacrebleu.py` recorded the scores of its invented corpora under its settings.

use serde_json::Value;
use weft_metrics::{Bleu, BleuTokenizer, Chrf, Smoothing};

const TOLERANCE: f64 = 1e-9;

fn recorded() -> Value {
    serde_json::from_str(include_str!("data/sacrebleu.json")).expect("valid JSON")
}

fn lines(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).expect("a list of lines")
}

fn bleu(setting: &Value) -> Bleu {
    let method = setting["smooth_method"].as_str().unwrap_or("exp");
    let smoothing = match setting["smooth_value"].as_f64() {
        Some(value) => format!("{method}:{value}"),
        None => method.to_string(),
    };
    Bleu {
        tokenizer: setting["tokenize"].as_str().expect("a name").parse::<BleuTokenizer>().expect("a tokenizer"),
        lowercase: setting["lowercase"].as_bool().unwrap_or(false),
        smoothing: smoothing.parse::<Smoothing>().expect("a smoothing"),
        effective_order: setting["effective_order"].as_bool().unwrap_or(false),
    }
}

fn chrf(setting: &Value) -> Chrf {
    let number = |key: &str, default: usize| setting[key].as_u64().map_or(default, |number| number as usize);
    Chrf {
        character_order: number("char_order", 6),
        word_order: number("word_order", 0),
        beta: number("beta", 2) as u32,
        lowercase: setting["lowercase"].as_bool().unwrap_or(false),
        whitespace: setting["whitespace"].as_bool().unwrap_or(false),
        eps_smoothing: setting["eps_smoothing"].as_bool().unwrap_or(false),
    }
}

/// The score, the printed line, the line with ten digits, the signature.
fn score(setting: &Value, hypotheses: &[String], references: &[Vec<String>]) -> (f64, String, String, String) {
    if setting["metric"] == "BLEU" {
        let score = bleu(setting).corpus(hypotheses, references).expect("a score");
        (score.score, score.to_string(), format!("{score:.10}"), score.signature)
    } else {
        let score = chrf(setting).corpus(hypotheses, references).expect("a score");
        (score.score, score.to_string(), format!("{score:.10}"), score.signature)
    }
}

#[test]
fn scores_equal_sacrebleu() {
    let file = recorded();
    assert_eq!(file["sacrebleu"], "2.6.0");
    let mut num_scores = 0;
    for corpus in file["corpora"].as_array().unwrap() {
        let hypotheses = lines(&corpus["hypotheses"]);
        let references: Vec<Vec<String>> = corpus["references"].as_array().unwrap().iter().map(lines).collect();
        let results = corpus["results"].as_array().unwrap();
        for (setting, result) in file["settings"].as_array().unwrap().iter().zip(results) {
            let name = format!("{} under {setting}", corpus["name"]);
            let wanted = result[0].as_f64().unwrap();
            let (found, line, long_line, signature) = score(setting, &hypotheses, &references);
            assert!((found - wanted).abs() < TOLERANCE, "{name}: {found}, wanted {wanted}");
            assert_eq!(line, result[1].as_str().unwrap(), "{name}");
            let printed: f64 = long_line.split(" = ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!((printed - wanted).abs() < 1.5e-10, "{name}: {long_line}, wanted {wanted:.10}");
            if let Some(wanted) = setting["signatures"][references.len().to_string()].as_str() {
                let ours = concat!("version:weft-", env!("CARGO_PKG_VERSION"));
                assert_eq!(signature, wanted.replace("version:2.6.0", ours), "{name}");
            }
            num_scores += 1;
            for (index, wanted) in result[2].as_array().unwrap().iter().enumerate() {
                let references: Vec<Vec<String>> = references.iter().map(|lines| vec![lines[index].clone()]).collect();
                let (found, ..) = score(setting, &hypotheses[index..=index], &references);
                let wanted = wanted.as_f64().unwrap();
                assert!((found - wanted).abs() < TOLERANCE, "{name}, sentence {index}: {found}, wanted {wanted}");
            }
        }
    }
    assert!(num_scores >= 500, "only {num_scores} scores were recorded");
}

#[test]
fn tokens_equal_sacrebleu() {
    for corpus in recorded()["corpora"].as_array().unwrap() {
        for (tokenizer, wanted) in corpus["tokenized"].as_object().unwrap() {
            let tokenizer: BleuTokenizer = tokenizer.parse().unwrap();
            for (line, wanted) in lines(&corpus["hypotheses"]).iter().zip(lines(wanted)) {
                let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
                let tokenized = tokenizer.tokenize(line);
                let words: Vec<&str> = tokenized.split(is_space).filter(|word| !word.is_empty()).collect();
                assert_eq!(words.join(" "), wanted, "{tokenizer}: {line}");
            }
        }
    }
}

#[test]
fn sentence_bleu_takes_the_effective_order() {
    let bleu = Bleu::default();
    let score = bleu.sentence("two words", &["two words"]).unwrap();
    assert!((score.score - 100.0).abs() < TOLERANCE);
    assert!(score.signature.contains("|eff:yes|"));
    assert!(bleu.corpus(&["two words"], &[["two words"]]).unwrap().score < TOLERANCE);
}
