//! What a longer context costs, in training and in generation.

use weft_plot::{LineChart, Panel, Series, line_chart};
use weft_train::{ATTENTION_WINDOW, AttentionCost, GenerationSpeed};

use super::super::page::{Csv, Section, figure, table};
use super::{LENGTHS, Measured, OfText, POSITIONS, listed, texts};

/// Ways to compute attention, as [`weft_train::measure_attention`] returns them.
const WAYS: [&str; 3] = ["attention, scores stored", "attention, in blocks", "attention, a window of 128"];
const _: () = assert!(ATTENTION_WINDOW == 128, "its name says so");
/// Growth from the shortest to the longest that is none: what is rounded up or kept beside the rest.
const STEADY: f64 = 1.5;
/// The time of a token after a long text, by that after a short one, above which it is no disturbance of the clock.
const SLOWER: f64 = 1.2;
/// How much stored scores grow at least where the length grows from the first to the last of [`LENGTHS`].
const GROWN: f64 = 3.0;

/// The section; none of translators.
pub(super) fn section(all: &[Measured]) -> Option<Section> {
    let texts = texts(all);
    if texts.is_empty() {
        return None;
    }
    let attention = texts.iter().find_map(|(_, text)| text.attention.as_ref());
    let mut body = format!(
        "<p>Training: a forward and a backward pass over a batch of about {} tokens, cut into sequences of one length. What \
         grows here grows with the length, not with the number of tokens.</p>\n",
        LENGTHS[LENGTHS.len() - 1]
    );
    body += &training_table(&texts, attention);
    body += &training_charts(&texts, attention);
    body += "<p>Generation: one more token after a text of some length, and what is kept of that text.</p>\n";
    body += &generation_table(&texts);
    body += &generation_chart(&texts);
    let mut files = vec![generation_csv(&texts)];
    files.extend(attention.map(attention_csv));
    Some(Section {
        title: "The quadratic cost",
        claim: "Attention looks at all that came before: its scores grow with the square of the length, unless they are never \
                stored; each new token costs more, and its cache grows. A recurrent state is of one size after any text.",
        body,
        verdict: verdict(&texts, attention),
        files,
    })
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Peak memory and time of each architecture, and of a layer of attention each way, by the length.
fn training_table(texts: &[(&Measured, &OfText)], attention: Option<&[Vec<AttentionCost>; 3]>) -> String {
    let heads: Vec<String> = LENGTHS.iter().map(|length| format!("{length} tokens")).collect();
    let heads_of =
        |first: &'static str| std::iter::once(first).chain(heads.iter().map(String::as_str)).collect::<Vec<&str>>();
    let (mut memory, mut time) = (Vec::new(), Vec::new());
    let mut add = |name: &str, costs: &mut dyn Iterator<Item = (Option<usize>, f64)>| {
        let (mut bytes, mut micros) = (vec![name.to_owned()], vec![name.to_owned()]);
        for (peak, seconds) in costs {
            bytes.push(peak.map_or_else(|| "unknown".to_owned(), |peak| format!("{:.1}", mebibytes(peak))));
            micros.push(format!("{:.1}", seconds * 1e6));
        }
        memory.push(bytes);
        time.push(micros);
    };
    for (one, text) in texts {
        let costs = text.training.iter();
        add(&one.name, &mut costs.map(|speed| (speed.peak_bytes, 1.0 / speed.tokens_per_second)));
    }
    for (name, costs) in WAYS.iter().zip(attention.into_iter().flatten()) {
        add(&format!("one layer: {name}"), &mut costs.iter().map(|cost| (cost.peak_bytes, cost.seconds_per_token)));
    }
    table(&heads_of("peak memory, MiB"), &memory) + &table(&heads_of("microseconds a token"), &time)
}

/// The memory of the architectures, and that of a layer of attention: charts of their own, so that no colour means two
/// things.
fn training_charts(texts: &[(&Measured, &OfText)], attention: Option<&[Vec<AttentionCost>; 3]>) -> String {
    let chart = |label: &str, series| {
        let panel = Panel::new(label, series).logarithmic();
        figure(&line_chart(&LineChart::new("sequence length in tokens", vec![panel]).logarithmic()))
    };
    let of_text = |(one, text): &(&Measured, &OfText)| {
        let points = text.training.iter().filter_map(|speed| Some((speed.length as f64, mebibytes(speed.peak_bytes?))));
        Series::new(&one.name, points.collect())
    };
    let mut charts = chart("peak memory in training, MiB", texts.iter().map(of_text).collect());
    if let Some(ways) = attention {
        let of_way = |(name, costs): (&&str, &Vec<AttentionCost>)| {
            let points = costs.iter().filter_map(|cost| Some((cost.length as f64, mebibytes(cost.peak_bytes?))));
            Series::new(*name, points.collect())
        };
        charts += &chart("peak memory of one layer, MiB", WAYS.iter().zip(ways).map(of_way).collect());
    }
    charts
}

fn generation_table(texts: &[(&Measured, &OfText)]) -> String {
    let heads: Vec<String> = POSITIONS.iter().map(|position| format!("after {position}")).collect();
    let heads_of =
        |first: &'static str| std::iter::once(first).chain(heads.iter().map(String::as_str)).collect::<Vec<&str>>();
    let rows = |cell: fn(&GenerationSpeed) -> String| -> Vec<Vec<String>> {
        let row = |(one, text): &(&Measured, &OfText)| {
            std::iter::once(one.name.clone()).chain(text.generation.iter().map(cell)).collect()
        };
        texts.iter().map(row).collect()
    };
    let micros = rows(|speed| format!("{:.0}", speed.seconds_per_token * 1e6));
    let bytes = rows(|speed| format!("{:.1}", speed.state_bytes as f64 / 1024.0));
    table(&heads_of("microseconds a token"), &micros) + &table(&heads_of("KiB kept"), &bytes)
}

fn generation_chart(texts: &[(&Measured, &OfText)]) -> String {
    let panel = |label: &str, y: fn(&GenerationSpeed) -> f64| {
        let points = |text: &OfText| text.generation.iter().map(|speed| (speed.position as f64, y(speed))).collect();
        Panel::new(label, texts.iter().map(|(one, text)| Series::new(&one.name, points(text))).collect()).logarithmic()
    };
    // Charts of their own: colours run on through the panels of one.
    let chart = |panel| figure(&line_chart(&LineChart::new("tokens before", vec![panel]).logarithmic()));
    chart(panel("microseconds a token", |speed| speed.seconds_per_token * 1e6))
        + &chart(panel("KiB kept", |speed| speed.state_bytes as f64 / 1024.0))
}

fn generation_csv(texts: &[(&Measured, &OfText)]) -> Csv {
    let row = |one: &Measured, speed: &GenerationSpeed| {
        let micros = format!("{:.0}", speed.seconds_per_token * 1e6);
        vec![one.name.clone(), speed.position.to_string(), micros, speed.state_bytes.to_string()]
    };
    Csv {
        name: "generation",
        heads: vec!["architecture", "tokens before", "microseconds a token", "bytes of state"],
        rows: texts.iter().flat_map(|(one, text)| text.generation.iter().map(move |speed| row(one, speed))).collect(),
    }
}

fn attention_csv(attention: &[Vec<AttentionCost>; 3]) -> Csv {
    let row = |way: &str, cost: &AttentionCost| {
        let bytes = cost.peak_bytes.map_or_else(String::new, |bytes| bytes.to_string());
        vec![way.to_owned(), cost.length.to_string(), format!("{:.3}", cost.seconds_per_token * 1e6), bytes]
    };
    let costs = WAYS.iter().zip(attention);
    Csv {
        name: "attention_layer",
        heads: vec!["one layer", "sequence length", "microseconds a token", "peak bytes"],
        rows: costs.flat_map(|(way, costs)| costs.iter().map(move |cost| row(way, cost))).collect(),
    }
}

/// How many times as much the last takes as the first.
fn growth(first: usize, last: usize) -> f64 {
    last as f64 / first.max(1) as f64
}

/// Attention to all that came before is to grow, a state of one size is not; attention with a window is neither.
fn verdict(texts: &[(&Measured, &OfText)], attention: Option<&[Vec<AttentionCost>; 3]>) -> String {
    let grown = texts.iter().filter_map(|(one, text)| {
        let (first, last) = (text.generation.first()?, text.generation.last()?);
        let time = last.seconds_per_token / first.seconds_per_token;
        Some((*one, time, growth(first.state_bytes, last.state_bytes)))
    });
    let grown: Vec<(&Measured, f64, f64)> = grown.collect();
    let (first, last) = (POSITIONS[0], POSITIONS[POSITIONS.len() - 1]);
    let attending: Vec<_> = grown.iter().filter(|(one, ..)| one.attends_to_all).collect();
    let keeps = grown.iter().all(|(one, _, kept)| match one.architecture.attends() {
        true => *kept > STEADY || !one.attends_to_all,
        false => *kept <= STEADY,
    });
    let costs_more = attending.iter().all(|(_, time, _)| *time > SLOWER);
    let word = match (keeps, costs_more) {
        _ if attending.is_empty() => "not tested, nothing here attends to the whole text",
        (true, true) => "borne out",
        (true, false) => "borne out in part, the memory is as claimed, but a new token hardly costs more",
        (false, _) => "not borne out",
    };
    let list: Vec<String> = grown
        .iter()
        .map(|(one, time, kept)| format!("{} {time:.1}x the time, {kept:.1}x the memory", one.name))
        .collect();
    let mut said =
        format!("Generation: {word}. After {last} tokens, by what it is after {first}: {}.", list.join("; "));
    let apart = grown.iter().filter(|(one, ..)| one.architecture.attends() && !one.attends_to_all);
    let apart: Vec<&str> = apart.map(|(one, ..)| one.name.as_str()).collect();
    if !apart.is_empty() {
        said += &format!(" Not judged: {}, whose attention has a window or a pattern.", listed(&apart));
    }
    let peaks = |costs: &[AttentionCost]| Some(growth(costs.first()?.peak_bytes?, costs.last()?.peak_bytes?));
    if let Some((stored, in_blocks)) = attention.and_then(|[stored, blocks, _]| Some((peaks(stored)?, peaks(blocks)?)))
    {
        let holds = stored > GROWN && in_blocks < STEADY;
        said += &format!(
            " Training: {}. From {} to {} tokens in a sequence, of as many in all, the memory of a layer of attention grows \
             {stored:.1}-fold where its scores are stored, {in_blocks:.1}-fold where they are made in blocks.",
            if holds { "borne out" } else { "not borne out" },
            LENGTHS[0],
            LENGTHS[LENGTHS.len() - 1]
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use weft_train::ArchitectureKind;

    use super::*;

    /// One whose token takes so many times as long after a long text as after a short one, and keeps as many times as much.
    fn grown(name: &str, architecture: ArchitectureKind, time: f64, kept: usize) -> Measured {
        let speed = |(position, micros, state_bytes): (usize, f64, usize)| {
            let seconds_per_token = micros / 1e6;
            GenerationSpeed { position, seconds_per_token, state_bytes }
        };
        let text = OfText {
            bytes_per_token: None,
            gradients: None,
            training: Vec::new(),
            generation: [(100, 100.0, 1000), (4000, 100.0 * time, 1000 * kept)].map(speed).into(),
            heads: None,
            attention: None,
            samples: Vec::new(),
        };
        Measured { text: Some(text), ..Measured::blank(name, architecture) }
    }

    fn said(all: &[Measured]) -> String {
        verdict(&texts(all), None)
    }

    #[test]
    fn the_verdict_follows_time_and_memory() {
        let gru = |kept| grown("gru", ArchitectureKind::RecurrentLm, 1.0, kept);
        let with_gpt = |time, kept, state| said(&[grown("gpt", ArchitectureKind::Gpt, time, kept), gru(state)]);
        let found = with_gpt(5.0, 40, 1);
        let numbers = "After 4000 tokens, by what it is after 100: gpt 5.0x the time, 40.0x the memory; gru 1.0x the time, \
                       1.0x the memory.";
        assert_eq!(found, format!("Generation: borne out. {numbers}"));
        assert!(with_gpt(1.1, 40, 1).starts_with("Generation: borne out in part, the memory is as claimed"));
        assert!(with_gpt(5.0, 1, 1).starts_with("Generation: not borne out."));
        assert!(with_gpt(5.0, 40, 2).starts_with("Generation: not borne out."));
        let alone = said(&[gru(1)]);
        assert!(alone.starts_with("Generation: not tested"), "{alone}");
    }

    #[test]
    fn a_window_is_not_judged() {
        let window = Measured { attends_to_all: false, ..grown("llama", ArchitectureKind::Llama, 1.0, 1) };
        let found = said(&[grown("gpt", ArchitectureKind::Gpt, 5.0, 40), window]);
        assert!(found.starts_with("Generation: borne out. "), "{found}");
        assert!(found.ends_with("Not judged: llama, whose attention has a window or a pattern."), "{found}");
    }
}
