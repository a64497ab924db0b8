//! What each architecture learns from the same text with the same budget.

use weft_plot::{LineChart, Mark, Panel, Series, XUnit, line_chart};
use weft_train::{ArchitectureKind, ValidationRecord};

use super::super::page::{Csv, Section, escaped, figure, table};
use super::{Ended, Measured};
use crate::commands::inspect::grouped;

/// The section.
pub(super) fn section(all: &[Measured]) -> Section {
    let (claim, verdict) = match all.iter().any(|one| one.architecture.is_translator()) {
        true => (
            "A Transformer, in which all words of a sentence look at each other, learns more from the same pairs than a \
             recurrent network that attends to its source.",
            verdict_of_translators(all),
        ),
        false => (
            "Models that can look back, by attention or through a state that they choose to keep, learn more from the \
             same data than a plain recurrent network.",
            verdict(all),
        ),
    };
    let body = quality_table(all) + &curves(all) + &samples(all);
    Section { title: "Quality", claim, body, verdict, files: vec![quality_csv(all), curves_csv(all)] }
}

/// The mean, the least and the greatest over the seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len() as f64;
        Self {
            mean: values.clone().sum::<f64>() / count,
            least: values.clone().fold(f64::NAN, f64::min),
            most: values.fold(f64::NAN, f64::max),
        }
    }
}

fn losses(one: &Measured) -> Spread {
    Spread::of(one.runs.iter().map(Ended::best_loss))
}

/// Nats a token as bits a byte, of the target where there are two sides.
fn bits(one: &Measured, loss: f64) -> Option<f64> {
    let of_text = one.text.as_ref().and_then(|text| text.bytes_per_token);
    let bytes = of_text.or_else(|| one.pairs.as_ref()?.bytes_per_token)?;
    Some(loss / std::f64::consts::LN_2 / bytes)
}

/// One row for each run.
fn quality_csv(all: &[Measured]) -> Csv {
    let row = |one: &Measured, run: &Ended| {
        let (steps, tokens, seconds) = run.spent();
        vec![
            one.name.clone(),
            run.seed.to_string(),
            one.parameters.to_string(),
            steps.to_string(),
            tokens.to_string(),
            format!("{:.2}", seconds / 60.0),
            format!("{:.0}", tokens as f64 / seconds.max(1e-9)),
            format!("{:.4}", run.best_loss()),
            bits(one, run.best_loss()).map_or_else(String::new, |bits| format!("{bits:.4}")),
        ]
    };
    Csv {
        name: "quality",
        heads: vec![
            "architecture",
            "seed",
            "parameters",
            "steps",
            "tokens",
            "minutes",
            "tokens/s",
            "validation loss",
            "bits per byte",
        ],
        rows: all.iter().flat_map(|one| one.runs.iter().map(move |run| row(one, run))).collect(),
    }
}

fn curves_csv(all: &[Measured]) -> Csv {
    let row = |one: &Measured, run: &Ended, record: &ValidationRecord| {
        vec![
            one.name.clone(),
            run.seed.to_string(),
            record.step.to_string(),
            format!("{:.0}", run.tokens_at(record.step)),
            format!("{:.1}", record.seconds),
            format!("{:.5}", record.loss),
        ]
    };
    let runs = all.iter().flat_map(|one| one.runs.iter().map(move |run| (one, run)));
    Csv {
        name: "curves",
        heads: vec!["architecture", "seed", "step", "tokens", "seconds", "validation loss"],
        rows: runs.flat_map(|(one, run)| run.validations().map(move |record| row(one, run, record))).collect(),
    }
}

/// One row for each competitor, means over its seeds.
fn quality_table(all: &[Measured]) -> String {
    let several = all.iter().any(|one| one.runs.len() > 1);
    let mut heads = vec!["architecture", "validation loss"];
    heads.extend(several.then_some("least to greatest"));
    heads.extend(["bits per byte", "parameters", "tokens", "tokens/s", "minutes"]);
    let row = |one: &Measured| {
        let mean = |value: fn(&Ended) -> f64| Spread::of(one.runs.iter().map(value)).mean;
        let loss = losses(one);
        let mut row = vec![one.name.clone(), format!("{:.4}", loss.mean)];
        row.extend(several.then(|| format!("{:.4} to {:.4}", loss.least, loss.most)));
        row.extend([
            bits(one, loss.mean).map_or_else(String::new, |bits| format!("{bits:.4}")),
            grouped(one.parameters),
            grouped(mean(|run| run.spent().1 as f64) as usize),
            grouped(mean(|run| run.spent().1 as f64 / run.spent().2.max(1e-9)) as usize),
            format!("{:.2}", mean(|run| run.spent().2 / 60.0)),
        ]);
        row
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let note = if several { "<p>Means over the seeds; so are the curves.</p>\n" } else { "" };
    table(&heads, &rows) + note
}

/// Validation loss against tokens and against seconds.
fn curves(all: &[Measured]) -> String {
    let series = |x: &dyn Fn(&Ended, &ValidationRecord) -> f64| -> Vec<Series> {
        let points = |run: &Ended| run.validations().map(|record| (x(run, record), record.loss)).collect();
        let of = |one: &Measured| mean_curve(&one.runs.iter().map(points).collect::<Vec<_>>());
        all.iter().map(|one| Series::new(&one.name, of(one)).marked(Mark::Lowest)).collect()
    };
    let by_tokens = series(&|run, record| run.tokens_at(record.step) / 1e6);
    let by_tokens = LineChart::new("million tokens", vec![Panel::new("validation loss", by_tokens)]);
    let by_seconds = vec![Panel::new("validation loss", series(&|_, record| record.seconds))];
    let by_seconds = LineChart { x_unit: XUnit::Seconds, ..LineChart::new("time in training", by_seconds) };
    figure(&line_chart(&by_tokens)) + &figure(&line_chart(&by_seconds))
}

/// The mean of curves at the places of the first, between its points a straight line; only where all of them are.
fn mean_curve(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let [first, others @ ..] = curves else { return Vec::new() };
    let mean = |&(x, y): &(f64, f64)| {
        let heights = others.iter().map(|curve| height_at(curve, x)).collect::<Option<Vec<f64>>>()?;
        Some((x, (y + heights.iter().sum::<f64>()) / curves.len() as f64))
    };
    first.iter().filter_map(mean).collect()
}

/// A curve's height at `x`, if it goes there.
fn height_at(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = curve.iter().position(|point| point.0 >= x)?;
    let (right, left) = (curve[after], curve[after.saturating_sub(1)]);
    if right.0 == x {
        return Some(right.1);
    }
    (left.0 < right.0).then(|| left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0))
}

/// What each writes: by itself, or as translations.
fn samples(all: &[Measured]) -> String {
    let mut html = match all.iter().any(|one| one.pairs.is_some()) {
        true => "<p>Validation sentences, each with its translation (→) and its reference (=):</p>\n".to_owned(),
        false => String::new(),
    };
    for one in all {
        let samples: Vec<String> = match (&one.text, &one.pairs) {
            (Some(text), _) => text.samples.iter().map(|sample| sample.trim().to_owned()).collect(),
            (None, Some(pairs)) => pairs
                .translations
                .iter()
                .map(|pair| format!("{}\n→ {}\n= {}", pair.source, pair.hypothesis, pair.reference))
                .collect(),
            (None, None) => continue,
        };
        html += &format!("<h3>{} writes</h3>\n", escaped(&one.name));
        html.extend(samples.iter().map(|sample| format!("<pre>{}</pre>\n", escaped(sample))));
    }
    html
}

fn verdict(all: &[Measured]) -> String {
    let mut ranked: Vec<(&str, Spread)> = all.iter().map(|one| (one.name.as_str(), losses(one))).collect();
    ranked.sort_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    let list: Vec<String> = ranked.iter().map(|(name, loss)| format!("{name} {:.3}", loss.mean)).collect();
    let list = format!("From the best: {}.", list.join(", "));
    let (Some(plain), Some(best)) = (ranked.iter().find(|(name, _)| *name == "rnn"), ranked.first()) else {
        return format!("Not tested: there is no plain recurrent network to compare with. {list}");
    };
    let better: Vec<&str> =
        ranked.iter().filter(|(_, loss)| loss.most < plain.1.least).map(|(name, _)| *name).collect();
    let gain = plain.1.mean - best.1.mean;
    match better.len() {
        _ if ranked.len() == 1 => format!("Not tested: only the plain network was trained. {list}"),
        0 => format!("Not borne out here, with these data and this budget. {list}"),
        all if all == ranked.len() - 1 => {
            format!("Borne out here: the plain network is last, {gain:.3} nats a token behind {}. {list}", best.0)
        }
        _ => format!(
            "Borne out in part: {} did better than the plain network, others did not. {list}",
            super::listed(&better)
        ),
    }
}

/// The Transformer against the recurrent network, by bits a byte where they are known: their tokens are not the same.
fn verdict_of_translators(all: &[Measured]) -> String {
    let by_byte = all.iter().all(|one| bits(one, 0.0).is_some());
    let spread = |one: &Measured| match by_byte {
        true => Spread::of(one.runs.iter().map(|run| bits(one, run.best_loss()).unwrap_or(f64::NAN))),
        false => losses(one),
    };
    let unit = if by_byte { "bits a byte" } else { "nats a token" };
    let mut ranked: Vec<(&Measured, Spread)> = all.iter().map(|one| (one, spread(one))).collect();
    ranked.sort_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    let list: Vec<String> = ranked.iter().map(|(one, loss)| format!("{} {:.3}", one.name, loss.mean)).collect();
    let list = format!("From the best, in {unit}: {}.", list.join(", "));
    let of = |kind: ArchitectureKind| ranked.iter().find(|(one, _)| one.architecture == kind).map(|(_, loss)| *loss);
    let (Some(transformer), Some(recurrent)) =
        (of(ArchitectureKind::Transformer), of(ArchitectureKind::RnnEncoderDecoder))
    else {
        return format!("Not tested: only one of the two was trained. {list}");
    };
    let gain = recurrent.mean - transformer.mean;
    if transformer.most < recurrent.least {
        format!("Borne out here: the Transformer is {gain:.3} {unit} ahead. {list}")
    } else if recurrent.most < transformer.least {
        let behind = -gain;
        format!("Not borne out here, with this budget: the Transformer is {behind:.3} {unit} behind. {list}")
    } else {
        format!("Not borne out here: the two do not differ by more than their seeds do. {list}")
    }
}

#[cfg(test)]
mod tests {
    use weft_train::Record;

    use super::super::pairs::OfPairs;
    use super::*;

    /// A translator with these losses, a seed each.
    fn translator(architecture: ArchitectureKind, losses: &[f64], bytes_per_token: Option<f64>) -> Measured {
        let ended = |(seed, &loss): (usize, &f64)| {
            let record = ValidationRecord { step: 1, loss, bleu: None, accuracy: None, best: true, seconds: 1.0 };
            Ended { seed: seed as u64, records: vec![Record::Validation(record)] }
        };
        Measured {
            runs: losses.iter().enumerate().map(ended).collect(),
            pairs: Some(OfPairs { bytes_per_token, ..OfPairs::default() }),
            ..Measured::blank(architecture.name(), architecture)
        }
    }

    #[test]
    fn translators_are_judged_by_what_a_byte_costs() {
        let said = |transformer: &[f64], recurrent: &[f64], bytes: [Option<f64>; 2]| {
            section(&[
                translator(ArchitectureKind::Transformer, transformer, bytes[0]),
                translator(ArchitectureKind::RnnEncoderDecoder, recurrent, bytes[1]),
            ])
            .verdict
        };
        // Longer tokens cost more each, and less a byte.
        let longer = said(&[2.0], &[1.8], [Some(4.0), Some(3.0)]);
        assert!(longer.starts_with("Borne out here: the Transformer is 0.144 bits a byte ahead."), "{longer}");
        let unknown = said(&[2.0], &[1.8], [Some(4.0), None]);
        assert!(unknown.contains("the Transformer is 0.200 nats a token behind"), "{unknown}");
        let close = said(&[2.0, 1.7], &[1.8, 1.9], [None, None]);
        assert!(close.starts_with("Not borne out here: the two do not differ"), "{close}");
        let alone = section(&[translator(ArchitectureKind::Transformer, &[2.0], None)]).verdict;
        assert!(alone.starts_with("Not tested: only one of the two"), "{alone}");
    }

    #[test]
    fn translations_stand_between_their_source_and_their_reference() {
        let mut one = translator(ArchitectureKind::Transformer, &[2.0], None);
        let [source, hypothesis, reference] = ["two & two", "zwei", "zwei und zwei"].map(str::to_owned);
        let translations = vec![weft_train::Translated { source, hypothesis, reference }];
        one.pairs = Some(OfPairs { translations, ..OfPairs::default() });
        let html = samples(&[one]);
        assert!(html.ends_with("<pre>two &amp; two\n→ zwei\n= zwei und zwei</pre>\n"), "{html}");
    }

    #[test]
    fn the_mean_of_curves_lies_between_them() {
        let curves = [vec![(0.0, 4.0), (10.0, 2.0), (20.0, 1.0)], vec![(0.0, 2.0), (8.0, 4.0), (12.0, 2.0)]];
        assert_eq!(mean_curve(&curves), [(0.0, 3.0), (10.0, 2.5)]);
        assert_eq!(mean_curve(&curves[..1]), curves[0]);
        assert!(mean_curve(&[]).is_empty());
    }

    #[test]
    fn a_spread_knows_its_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Spread { mean: 2.0, least: 1.0, most: 3.0 });
    }
}
