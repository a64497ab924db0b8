//! The report: what the runs left, measured, drawn and judged.

mod attention;
mod cost;
mod gradients;
mod pairs;
mod parallel;
mod quality;
mod recall;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use weft_decode::{Sampler, SamplingConfig};
use weft_models::checkpoint::write_whole;
use weft_models::search::Generation;
use weft_plot::HeadMaps;
use weft_text::Tokenizer;
use weft_train::{
    ArchitectureKind, AttentionCost, GenerationSpeed, GradientReach, Record, RunConfig, RunFolder, TextData,
    TrainingSpeed, ValidationRecord, measure_attention, measure_gradients, measure_speed, read_metrics,
};

use super::page::{Section, page};
use super::plan::{Plan, Planned};
use super::{is_done, run_path};
use crate::error::Result;
use crate::model::{TextModel, open_language_model, open_translator};
use pairs::OfPairs;
use recall::{QUESTIONS, Recalled};

/// Sequence lengths at which training is timed.
const LENGTHS: [usize; 4] = [64, 256, 1024, 2048];
/// Text lengths after which generation is timed.
const POSITIONS: [usize; 3] = [100, 1000, 4000];
/// Samples of each model, and tokens of a sample.
const SAMPLES: u64 = 2;
const SAMPLE_TOKENS: usize = 200;

/// What is measured, and with what.
pub(super) struct Measurer<'a> {
    pub(super) plan: &'a Plan,
    pub(super) folder: &'a Path,
    pub(super) device: &'a Device,
    /// Whether the tensors are in the memory that this process allocates.
    pub(super) counts_memory: bool,
}

/// A competitor whose runs have ended.
pub(super) struct Measured {
    name: String,
    architecture: ArchitectureKind,
    /// Whether each token looks at all before it.
    attends_to_all: bool,
    parameters: usize,
    /// One for each seed.
    runs: Vec<Ended>,
    /// Of language models.
    text: Option<OfText>,
    /// Of translators.
    pairs: Option<OfPairs>,
    /// What it finds again of what it has read, by task.
    recalled: Vec<Recalled>,
}

/// A run that has ended.
struct Ended {
    seed: u64,
    records: Vec<Record>,
}

/// What only language models have: measured with the first seed.
struct OfText {
    /// None if the text is no longer there.
    bytes_per_token: Option<f64>,
    gradients: Option<GradientReach>,
    training: Vec<TrainingSpeed>,
    generation: Vec<GenerationSpeed>,
    /// Of those that attend: the maps, and one layer's costs as the equation has it and in blocks.
    heads: Option<HeadMaps>,
    attention: Option<[Vec<AttentionCost>; 3]>,
    samples: Vec<String>,
}

impl Measurer<'_> {
    /// Measures a competitor; None if none of its runs has ended.
    ///
    /// # Errors
    /// A run that cannot be read.
    pub(super) fn measure(&self, competitor: &str) -> Result<Option<Measured>> {
        let planned: Vec<(&Planned, PathBuf)> = self
            .plan
            .runs
            .iter()
            .filter(|run| run.competitor == competitor)
            .map(|run| (run, run_path(self.folder, run)))
            .filter(|(_, path)| is_done(path))
            .collect();
        let (planned, probes): (Vec<_>, Vec<_>) =
            planned.into_iter().partition(|(run, _)| run.config.data.task.is_none());
        let Some((first, path)) = planned.first() else { return Ok(None) };
        let ended = |(run, path): &(&Planned, PathBuf)| -> Result<Ended> {
            let records = read_metrics(&RunFolder::open(path)?.metrics_path())?;
            Ok(Ended { seed: run.config.training.seed, records })
        };
        let architecture = first.config.model.architecture;
        let (shapes, text, pairs) = if architecture.is_translator() {
            let model = open_translator(path, self.device)?;
            (model.model.shapes(), None, Some(pairs::measure(&first.config, &model)?))
        } else {
            let model = open_language_model(path, self.device)?;
            (model.model.shapes(), Some(self.measure_text(&first.config, path, &model)?), None)
        };
        Ok(Some(Measured {
            name: competitor.to_owned(),
            architecture,
            attends_to_all: first.config.model.attends_to_all(),
            parameters: numbers_in(&shapes),
            runs: planned.iter().map(ended).collect::<Result<_>>()?,
            text,
            pairs,
            recalled: self.recalled(&probes)?,
        }))
    }

    /// Asks the models that learned to find things again.
    fn recalled(&self, probes: &[(&Planned, PathBuf)]) -> Result<Vec<Recalled>> {
        let mut all: Vec<Recalled> = Vec::new();
        for (run, path) in probes {
            let Some(task) = run.config.recall_task() else { continue };
            let TextModel { model, tokenizer } = open_language_model(path, self.device)?;
            let fits = |distance: &usize| model.max_length().is_none_or(|limit| task.length_at(*distance) <= limit);
            let distances = recall::distances(task.length);
            let asked: Vec<usize> = distances.iter().copied().filter(fits).collect();
            let found = model.recall_accuracy(&tokenizer, &task, &asked, QUESTIONS)?;
            let of_seed = (run.config.training.seed, found);
            match all.iter_mut().find(|recalled| recalled.kind == task.kind) {
                Some(recalled) => recalled.seeds.push(of_seed),
                None => {
                    let (kind, chance, length) = (task.kind, task.chance(), task.length);
                    let parameters = numbers_in(&model.shapes());
                    all.push(Recalled { kind, chance, length, parameters, distances, seeds: vec![of_seed] });
                }
            }
        }
        Ok(all)
    }

    fn measure_text(&self, config: &RunConfig, path: &Path, model: &TextModel) -> Result<OfText> {
        let TextModel { model: trained, tokenizer } = model;
        let meter = |work: &mut dyn FnMut()| match self.counts_memory {
            true => Some(weft_allocator::peak_of(work)),
            false => {
                work();
                None
            }
        };
        // Where the text is gone, there is still much to say.
        let validation = TextData::prepare(config, Some(tokenizer.clone())).map(|data| data.validation).ok();
        let validation = validation.unwrap_or_default();
        let (training, generation) = measure_speed(config, tokenizer, &LENGTHS, &POSITIONS, &meter, self.device)?;
        let heads = attention::heads_of(model, &validation)?;
        let shape = config.model.num_heads.map(|heads| (config.model.hidden_size, heads));
        let attention = shape.filter(|_| config.model.architecture.attends());
        let attention =
            attention.map(|(hidden, heads)| measure_attention(hidden, heads, &LENGTHS, &meter, self.device));
        let samples = (0..SAMPLES).map(|seed| {
            let mut sampler = Sampler::new(SamplingConfig { temperature: 0.8, ..Default::default() }, seed)?;
            let prompt = tokenizer.encode("\n")?;
            let what = Generation { prompt: &prompt, max_tokens: SAMPLE_TOKENS, stop: Some(tokenizer.eos_id()) };
            Ok(tokenizer.decode(&trained.begin().generate(&what, &mut sampler, &mut |_| true)?)?)
        });
        Ok(OfText {
            bytes_per_token: bytes_per_token(tokenizer, &validation)?,
            gradients: measure_gradients(config, &path.join("model"), tokenizer, &validation, self.device)?,
            training,
            generation,
            heads,
            attention,
            samples: samples.collect::<Result<_>>()?,
        })
    }

    /// Writes `report.html` and its CSV files; returns the page's path. `failed` is what was not trained or not measured.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(&self, all: &[Measured], failed: &[String]) -> Result<PathBuf> {
        let sections: Vec<Section> = [
            Some(quality::section(all)),
            gradients::section(all),
            recall::section(all),
            parallel::section(all),
            cost::section(all),
            attention::section(all),
        ]
        .into_iter()
        .flatten()
        .collect();
        for file in sections.iter().flat_map(|section| &section.files) {
            write_whole(&self.folder.join(format!("{}.csv", file.name)), file.text().as_bytes())?;
        }
        let lead = self.plan.runs.first().map_or_else(String::new, |first| lead(&first.config, all, failed));
        let notes = format!(
            "weft {}; {} threads.",
            env!("CARGO_PKG_VERSION"),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        let path = self.folder.join("report.html");
        write_whole(&path, page("Architectures compared", &lead, &sections, &notes).as_bytes())?;
        Ok(path)
    }
}

/// What was compared, on what and with which budget; what of it is of one seed only, and what is missing.
fn lead(config: &RunConfig, all: &[Measured], failed: &[String]) -> String {
    let names = config.data.train.iter().filter_map(|path| path.file_name());
    let data = names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ");
    let size = config.model.size.as_ref().map_or_else(String::new, |size| format!(" of about {size} parameters"));
    let training = &config.training;
    let limits = [
        training.minutes.map(|minutes| format!("{minutes} minutes")),
        training.steps.map(|steps| format!("{steps} steps")),
        training.epochs.map(|epochs| format!("{epochs} epochs")),
    ];
    let budget = limits.into_iter().flatten().collect::<Vec<_>>().join(" or ");
    let seeds = all.iter().map(|one| one.runs.len()).max().unwrap_or(0);
    let (seeds, of_one) = match seeds {
        0 | 1 => (String::new(), ""),
        _ => (
            format!(", from {seeds} seeds"),
            " Quality and recall are measured with every seed, all else, and what the models write, with the first.",
        ),
    };
    let missing = match failed {
        [] => String::new(),
        names => format!(
            " Failed, and missing here: {}. Whoever has not learned {data} is left out everywhere.",
            listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
        ),
    };
    format!("{} architectures{size}, each trained on {data} for {budget}{seeds}.{of_one}{missing}", all.len())
}

/// All numbers of tensors of these shapes.
fn numbers_in(shapes: &[(String, Vec<usize>)]) -> usize {
    shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

fn bytes_per_token(tokenizer: &Tokenizer, text: &[u32]) -> Result<Option<f64>> {
    match text.len() {
        0 => Ok(None),
        count => Ok(Some(tokenizer.byte_count(text)? as f64 / count as f64)),
    }
}

impl Ended {
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
}

impl Measured {
    fn is_recurrent(&self) -> bool {
        self.architecture == ArchitectureKind::RecurrentLm
    }
}

/// The language models among them.
fn texts(all: &[Measured]) -> Vec<(&Measured, &OfText)> {
    all.iter().filter_map(|one| Some((one, one.text.as_ref()?))).collect()
}

/// "a, b and c".
fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
impl Measured {
    /// One of which nothing but its kind is known.
    fn blank(name: &str, architecture: ArchitectureKind) -> Self {
        Self {
            name: name.to_owned(),
            architecture,
            attends_to_all: architecture.attends(),
            parameters: 1,
            runs: Vec::new(),
            text: None,
            pairs: None,
            recalled: Vec::new(),
        }
    }
}
