//! The report: what the runs left, measured, drawn and judged.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use weft_decode::{Sampler, SamplingConfig};
use weft_models::checkpoint::write_whole;
use weft_models::search::Generation;
use weft_plot::{LineChart, Mark, Panel, Series, XUnit, line_chart};
use weft_text::{TextCorpus, TextDataset};
use weft_train::{
    ArchitectureKind, GenerationSpeed, Record, RunFolder, TrainingSpeed, ValidationRecord, measure_speed, read_metrics,
};

use super::page::{Section, csv, escaped, page, table};
use super::plan::{Plan, Planned};
use super::run_path;
use crate::commands::inspect::grouped;
use crate::error::Result;
use crate::model::{TextModel, open_language_model};
use crate::output::say;

/// Sequence lengths at which training is timed.
const LENGTHS: [usize; 3] = [64, 256, 1024];
/// Text lengths after which generation is timed.
const POSITIONS: [usize; 3] = [100, 1000, 4000];
/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 300;

/// A finished run.
struct Measured {
    name: String,
    architecture: ArchitectureKind,
    parameters: usize,
    records: Vec<Record>,
    /// Of language models.
    text: Option<OfText>,
}

/// What only language models have.
struct OfText {
    /// None if the text is no longer there.
    bytes_per_token: Option<f64>,
    training: Vec<TrainingSpeed>,
    generation: Vec<GenerationSpeed>,
    sample: String,
}

/// Measures the finished runs and writes `report.html` and its CSV files; returns the page's path.
///
/// # Errors
/// A run that cannot be read, a file that cannot be written.
pub(super) fn write(plan: &Plan, folder: &Path, device: &Device) -> Result<PathBuf> {
    let mut all = Vec::new();
    for planned in &plan.runs {
        let path = run_path(folder, planned);
        if path.join("model").exists() {
            say!("measuring {}", planned.name);
            all.push(Measured::of(planned, &path, device)?);
        }
    }
    let mut files =
        vec![("quality", QUALITY_HEADS.as_slice(), quality_rows(&all)), ("curves", &CURVE_HEADS, curve_rows(&all))];
    let mut sections = vec![quality(&all)];
    let texts: Vec<(&Measured, &OfText)> = all.iter().filter_map(|run| Some((run, run.text.as_ref()?))).collect();
    if !texts.is_empty() {
        files.push(("training_speed", &TRAINING_HEADS, training_rows(&texts)));
        files.push(("generation", &GENERATION_HEADS, generation_rows(&texts)));
        sections.extend([parallel_training(&texts), cost_of_length(&texts)]);
    }
    for (name, heads, rows) in files {
        write_whole(&folder.join(format!("{name}.csv")), csv(heads, &rows).as_bytes())?;
    }
    let config = plan.runs.first().map(|planned| &planned.config);
    let data = config.map_or_else(String::new, |config| {
        let names = config.data.train.iter().filter_map(|path| path.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
    });
    let lead = format!("{} architectures, trained on {data} with the same budget each.", all.len());
    let notes = format!(
        "weft {}; {} threads.",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let path = folder.join("report.html");
    write_whole(&path, page("Architectures compared", &lead, &sections, &notes).as_bytes())?;
    Ok(path)
}

impl Measured {
    fn of(planned: &Planned, path: &Path, device: &Device) -> Result<Self> {
        let records = read_metrics(&RunFolder::open(path)?.metrics_path())?;
        let architecture = planned.config.model.architecture;
        let (parameters, text) = if architecture.is_translator() {
            let model = crate::model::open_translator(path, device)?;
            (count(&model.model.shapes()), None)
        } else {
            let model = open_language_model(path, device)?;
            (count(&model.model.shapes()), Some(OfText::of(planned, &model, device)?))
        };
        Ok(Self { name: planned.name.clone(), architecture, parameters, records, text })
    }

    fn validations(&self) -> impl Iterator<Item = &ValidationRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Validation(record) => Some(record),
            Record::Training(_) => None,
        })
    }

    /// The lowest validation loss; NaN if there was none.
    fn best_loss(&self) -> f64 {
        self.validations().map(|record| record.loss).fold(f64::NAN, f64::min)
    }

    /// Steps, tokens and seconds of the whole run.
    fn spent(&self) -> (u64, u64, f64) {
        let trained = self.records.iter().rev().find_map(|record| match record {
            Record::Training(record) => Some((record.step, record.tokens, record.seconds)),
            Record::Validation(_) => None,
        });
        trained.unwrap_or((0, 0, 0.0))
    }

    /// Tokens learned from after `step` steps: all steps are of one size, nearly.
    fn tokens_at(&self, step: u64) -> f64 {
        let (steps, tokens, _) = self.spent();
        tokens as f64 * step as f64 / steps.max(1) as f64
    }

    fn is_recurrent(&self) -> bool {
        self.architecture == ArchitectureKind::RecurrentLm
    }
}

impl OfText {
    fn of(planned: &Planned, model: &TextModel, device: &Device) -> Result<Self> {
        let (training, generation) = measure_speed(&planned.config, &model.tokenizer, &LENGTHS, &POSITIONS, device)?;
        let mut sampler = Sampler::new(SamplingConfig { temperature: 0.8, ..Default::default() }, 1)?;
        let prompt = model.tokenizer.encode("\n")?;
        let what = Generation { prompt: &prompt, max_tokens: SAMPLE_TOKENS, stop: Some(model.tokenizer.eos_id()) };
        let tokens = model.model.begin().generate(&what, &mut sampler, &mut |_| true)?;
        Ok(Self {
            bytes_per_token: bytes_per_token(planned, model).ok(),
            training,
            generation,
            sample: model.tokenizer.decode(&tokens)?,
        })
    }
}

/// In the validation text or, where it was set aside, in all of it.
fn bytes_per_token(planned: &Planned, model: &TextModel) -> Result<f64> {
    let data = &planned.config.data;
    let paths = if data.validation.is_empty() { &data.train } else { &data.validation };
    let dataset = TextDataset::build(&TextCorpus::new(paths), &model.tokenizer)?;
    Ok(model.tokenizer.byte_count(&dataset.ids)? as f64 / dataset.ids.len().max(1) as f64)
}

fn count(shapes: &[(String, Vec<usize>)]) -> usize {
    shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

const QUALITY_HEADS: [&str; 8] =
    ["architecture", "parameters", "steps", "tokens", "minutes", "tokens/s", "validation loss", "bits per byte"];

fn quality_rows(all: &[Measured]) -> Vec<Vec<String>> {
    all.iter()
        .map(|run| {
            let (steps, tokens, seconds) = run.spent();
            let bytes_per_token = run.text.as_ref().and_then(|text| text.bytes_per_token);
            let bits = bytes_per_token.map(|bytes| run.best_loss() / std::f64::consts::LN_2 / bytes);
            vec![
                run.name.clone(),
                run.parameters.to_string(),
                steps.to_string(),
                tokens.to_string(),
                format!("{:.2}", seconds / 60.0),
                format!("{:.0}", tokens as f64 / seconds.max(1e-9)),
                format!("{:.4}", run.best_loss()),
                bits.map_or_else(String::new, |bits| format!("{bits:.4}")),
            ]
        })
        .collect()
}

const CURVE_HEADS: [&str; 5] = ["architecture", "step", "tokens", "seconds", "validation loss"];

fn curve_rows(all: &[Measured]) -> Vec<Vec<String>> {
    let row = |run: &Measured, record: &ValidationRecord| {
        let tokens = format!("{:.0}", run.tokens_at(record.step));
        let (seconds, loss) = (format!("{:.1}", record.seconds), format!("{:.5}", record.loss));
        vec![run.name.clone(), record.step.to_string(), tokens, seconds, loss]
    };
    all.iter().flat_map(|run| run.validations().map(move |record| row(run, record))).collect()
}

fn quality(all: &[Measured]) -> Section {
    let series = |x: &dyn Fn(&Measured, &ValidationRecord) -> f64| -> Vec<Series> {
        let points = |run: &Measured| run.validations().map(|record| (x(run, record), record.loss)).collect();
        all.iter().map(|run| Series::new(&run.name, points(run)).marked(Mark::Lowest)).collect()
    };
    let by_tokens = series(&|run, record| run.tokens_at(record.step) / 1e6);
    let by_tokens = LineChart::new("million tokens", vec![Panel::new("validation loss", by_tokens)]);
    let by_seconds = vec![Panel::new("validation loss", series(&|_, record| record.seconds))];
    let by_seconds = LineChart { x_unit: XUnit::Seconds, ..LineChart::new("time in training", by_seconds) };
    let mut rows = quality_rows(all);
    for row in &mut rows {
        for cell in &mut row[1..4] {
            *cell = cell.parse().map(grouped).unwrap_or_default();
        }
    }
    let mut body = table(&QUALITY_HEADS, &rows) + &line_chart(&by_tokens) + &line_chart(&by_seconds);
    for run in all {
        if let Some(text) = &run.text {
            body += &format!("<h3>{} writes</h3>\n<pre>{}</pre>\n", escaped(&run.name), escaped(text.sample.trim()));
        }
    }
    Section {
        title: "Quality",
        claim: "Models that can look back, by attention or through a state that they choose to keep, learn more from the same text \
                than a plain recurrent network.",
        body,
        verdict: quality_verdict(all),
    }
}

fn quality_verdict(all: &[Measured]) -> String {
    let mut ranked: Vec<(&str, f64)> = all.iter().map(|run| (run.name.as_str(), run.best_loss())).collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    let list: Vec<String> = ranked.iter().map(|(name, loss)| format!("{name} {loss:.3}")).collect();
    let list = list.join(", ");
    let (Some(plain), Some(best)) = (all.iter().find(|run| run.name == "rnn"), ranked.first()) else {
        return format!("From the best: {list}. There is no plain recurrent network to compare with.");
    };
    let gain = plain.best_loss() - best.1;
    match ranked.last().is_some_and(|last| last.0 == "rnn") && ranked.len() > 1 {
        true => format!(
            "Borne out here: the plain network is last, {gain:.3} nats a token behind {}. From the best: {list}.",
            best.0
        ),
        false => format!("Not borne out here, with this text and this budget. From the best: {list}."),
    }
}

const TRAINING_HEADS: [&str; 3] = ["architecture", "sequence length", "tokens/s"];

fn training_rows(texts: &[(&Measured, &OfText)]) -> Vec<Vec<String>> {
    let row = |run: &Measured, speed: &TrainingSpeed| {
        vec![run.name.clone(), speed.length.to_string(), format!("{:.0}", speed.tokens_per_second)]
    };
    texts.iter().flat_map(|(run, text)| text.training.iter().map(move |speed| row(run, speed))).collect()
}

fn parallel_training(texts: &[(&Measured, &OfText)]) -> Section {
    let points = |text: &OfText| {
        text.training.iter().map(|speed| (speed.length as f64, speed.tokens_per_second)).collect::<Vec<_>>()
    };
    let series = texts.iter().map(|(run, text)| Series::new(&run.name, points(text))).collect();
    let chart =
        LineChart::new("sequence length in tokens", vec![Panel::new("tokens/s in training", series).logarithmic()]);
    let heads: Vec<String> = LENGTHS.iter().map(|length| format!("{length} tokens")).collect();
    let heads: Vec<&str> = std::iter::once("tokens/s").chain(heads.iter().map(String::as_str)).collect();
    let row = |(run, text): &(&Measured, &OfText)| {
        let speeds = text.training.iter().map(|speed| grouped(speed.tokens_per_second as usize));
        std::iter::once(run.name.clone()).chain(speeds).collect()
    };
    let rows: Vec<Vec<String>> = texts.iter().map(row).collect();
    Section {
        title: "Parallel training",
        claim: "A recurrent network takes one token after the other, so it trains slowly; attention and scans take all tokens of \
                a sequence at once.",
        body: table(&heads, &rows) + &line_chart(&chart),
        verdict: parallel_verdict(texts),
    }
}

fn parallel_verdict(texts: &[(&Measured, &OfText)]) -> String {
    let fastest = |recurrent: bool| {
        let speed = |text: &OfText| text.training.last().map_or(0.0, |speed| speed.tokens_per_second);
        let of_kind = texts.iter().filter(|(run, _)| run.is_recurrent() == recurrent);
        of_kind.map(|(run, text)| (run.name.as_str(), speed(text))).max_by(|a, b| a.1.total_cmp(&b.1))
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
        _ => "Nothing to compare: only one of the two kinds was trained.".to_owned(),
    }
}

const GENERATION_HEADS: [&str; 4] = ["architecture", "tokens before", "microseconds a token", "bytes of state"];

fn generation_rows(texts: &[(&Measured, &OfText)]) -> Vec<Vec<String>> {
    let row = |run: &Measured, speed: &GenerationSpeed| {
        let micros = format!("{:.0}", speed.seconds_per_token * 1e6);
        vec![run.name.clone(), speed.position.to_string(), micros, speed.state_bytes.to_string()]
    };
    texts.iter().flat_map(|(run, text)| text.generation.iter().map(move |speed| row(run, speed))).collect()
}

fn cost_of_length(texts: &[(&Measured, &OfText)]) -> Section {
    let chart = |label: &str, y: fn(&GenerationSpeed) -> f64| {
        let points = |text: &OfText| text.generation.iter().map(|speed| (speed.position as f64, y(speed))).collect();
        Panel::new(label, texts.iter().map(|(run, text)| Series::new(&run.name, points(text))).collect()).logarithmic()
    };
    let panels = vec![
        chart("microseconds a token", |speed| speed.seconds_per_token * 1e6),
        chart("KiB of state", |speed| speed.state_bytes as f64 / 1024.0),
    ];
    Section {
        title: "The cost of length",
        claim: "Attention looks at all that came before: each new token costs more, and its cache grows. A recurrent state is of \
                one size after any text.",
        body: table(&GENERATION_HEADS, &generation_rows(texts)) + &line_chart(&LineChart::new("tokens before", panels)),
        verdict: length_verdict(texts),
    }
}

fn length_verdict(texts: &[(&Measured, &OfText)]) -> String {
    let growth = |(run, text): &(&Measured, &OfText)| {
        let (first, last) = (text.generation.first()?, text.generation.last()?);
        let memory = last.state_bytes as f64 / first.state_bytes.max(1) as f64;
        Some((run.name.clone(), last.seconds_per_token / first.seconds_per_token, memory))
    };
    let grown: Vec<(String, f64, f64)> = texts.iter().filter_map(growth).collect();
    let list: Vec<String> = grown
        .iter()
        .map(|(name, time, memory)| format!("{name} {time:.1}x the time, {memory:.1}x the memory"))
        .collect();
    let (first, last) = (POSITIONS[0], POSITIONS[POSITIONS.len() - 1]);
    let holds = grown.iter().all(|(name, _, memory)| (name == "gpt") == (*memory > 1.5));
    let word = if holds { "Borne out" } else { "Not borne out" };
    format!("{word}. After {last} tokens, measured by those after {first}: {}.", list.join("; "))
}
