//! Tokens a second in training, by the length of the sequences.

use weft_plot::{LineChart, Panel, Series, line_chart};
use weft_train::TrainingSpeed;

use super::super::page::{Csv, Section, figure, table};
use super::{LENGTHS, Measured, OfText, texts};
use crate::commands::inspect::grouped;

/// The section; none of translators.
pub(super) fn section(all: &[Measured]) -> Option<Section> {
    let texts = texts(all);
    if texts.is_empty() {
        return None;
    }
    let points = |text: &OfText| {
        text.training.iter().map(|speed| (speed.length as f64, speed.tokens_per_second)).collect::<Vec<_>>()
    };
    let series = texts.iter().map(|(one, text)| Series::new(&one.name, points(text))).collect();
    let panel = Panel::new("tokens/s in training", series).logarithmic();
    let chart = LineChart::new("sequence length in tokens", vec![panel]).logarithmic();
    let heads: Vec<String> = LENGTHS.iter().map(|length| format!("{length} tokens")).collect();
    let heads: Vec<&str> = std::iter::once("tokens/s").chain(heads.iter().map(String::as_str)).collect();
    let row = |(one, text): &(&Measured, &OfText)| {
        let speeds = text.training.iter().map(|speed| grouped(speed.tokens_per_second as usize));
        std::iter::once(one.name.clone()).chain(speeds).collect()
    };
    let rows: Vec<Vec<String>> = texts.iter().map(row).collect();
    Some(Section {
        title: "Parallel training",
        claim: "A recurrent network takes one token after the other, so it trains slowly; attention and scans take all tokens of \
                a sequence at once.",
        body: table(&heads, &rows) + &figure(&line_chart(&chart)),
        verdict: verdict(&texts),
        files: vec![training_csv(&texts)],
    })
}

fn training_csv(texts: &[(&Measured, &OfText)]) -> Csv {
    let row = |one: &Measured, speed: &TrainingSpeed| {
        let bytes = speed.peak_bytes.map_or_else(String::new, |bytes| bytes.to_string());
        vec![one.name.clone(), speed.length.to_string(), format!("{:.0}", speed.tokens_per_second), bytes]
    };
    Csv {
        name: "training_speed",
        heads: vec!["architecture", "sequence length", "tokens/s", "peak bytes"],
        rows: texts.iter().flat_map(|(one, text)| text.training.iter().map(move |speed| row(one, speed))).collect(),
    }
}

fn verdict(texts: &[(&Measured, &OfText)]) -> String {
    let fastest = |recurrent: bool| {
        let speed = |text: &OfText| text.training.last().map_or(0.0, |speed| speed.tokens_per_second);
        let of_kind = texts.iter().filter(|(one, _)| one.is_recurrent() == recurrent);
        of_kind.map(|(one, text)| (one.name.as_str(), speed(text))).max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let length = LENGTHS[LENGTHS.len() - 1];
    match (fastest(true), fastest(false)) {
        (Some((slow, slowly)), Some((fast, quickly))) => {
            let word = if quickly > 1.2 * slowly { "Borne out here" } else { "Not borne out on this machine" };
            format!(
                "{word}: at {length} tokens {fast}, the fastest of the parallel ones, takes {} tokens a second, {slow}, the \
                 fastest recurrent network, {}. The fewer cores there are, the less there is to gain.",
                grouped(quickly as usize),
                grouped(slowly as usize)
            )
        }
        _ => "Not tested: only one of the two kinds was trained.".to_owned(),
    }
}
