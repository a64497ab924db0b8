//! What is compared: each run with its full configuration, so that a comparison can go on without its command line.
//!
//! Every competitor learns the text and, if it is a language model, the probes: tasks that ask for what was read.

use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_models::checkpoint::write_whole;
use weft_text::RecallKind;
use weft_train::{ArchitectureKind, Overrides, RunConfig, derive, survey};

use super::check::check;
use crate::cli::CompareArgs;
use crate::commands::train::settings::{choose_architecture, data_flags, layered, training_flags};
use crate::error::{Error, Result, range_hint};
use crate::files::shell;
use crate::output::say;

/// The plan's file in the comparison's folder.
const PLAN_FILE: &str = "plan.json";

/// The recurrent cells, each of which is a competitor of its own.
const CELLS: [&str; 3] = ["rnn", "lstm", "gru"];

/// A comparison.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) runs: Vec<Planned>,
}

/// One run of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) name: String,
    /// Who is compared: the runs of a competitor differ in their seeds.
    pub(super) competitor: String,
    pub(super) config: RunConfig,
}

/// Settings over which those of the command line win.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Of the runs that learn the text.
    pub(super) text: Overrides,
    /// The same, of attention alone.
    pub(super) attention: Overrides,
    /// Of the probes.
    pub(super) probe: Overrides,
}

/// What of the command line holds for the probes too; what else suits them follows from the task.
const BUDGET: [&str; 3] = ["training.steps", "training.minutes", "training.seed"];

/// What of a model follows from the task that it learns, not from what is set for the text.
const OF_TASK: [&str; 4] =
    ["model.dropout", "model.attention_dropout", "model.max_positions", "model.initializer_range"];

/// An architecture as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Competitor {
    name: String,
    architecture: ArchitectureKind,
    cell: Option<&'static str>,
}

/// A competitor as it learns the text.
#[derive(Debug)]
struct TextRun {
    name: String,
    /// What is set.
    overrides: Overrides,
    /// What follows.
    config: RunConfig,
}

impl Plan {
    /// From the command line, whose settings win over those of `base`; every configuration is derived and checked before
    /// anything is trained.
    ///
    /// # Errors
    /// A name that nobody knows, settings that do not fit, data that cannot be read.
    pub(super) fn make(args: &CompareArgs, base: Base) -> Result<Self> {
        check_seeds(args.seeds)?;
        let mut flags = data_flags(&args.data)?;
        flags.merge(training_flags(&args.training)?);
        if let Some(size) = &args.size {
            flags.set_value("model.size", size.as_str(), "--size")?;
        }
        let fixed = layered(args.config.as_deref(), flags, &args.set)?;
        let Base { text: mut shared, attention, probe: mut of_probes } = base;
        for key in BUDGET {
            if let Some(value) = fixed.get::<toml::Value>(key)? {
                of_probes.set_value(key, value, key)?;
            }
        }
        shared.merge(fixed.clone());
        if shared.get::<RecallKind>("data.task")?.is_some() {
            return Err(Error::new("--task is not for a comparison, in which all learn a text or pairs")
                .hint("choose with --probes recall,needle what they learn besides"));
        }
        let competitors = competitors(args, &shared)?;
        let probes = probes(args, &competitors)?;
        let mut texts = Vec::new();
        let mut facts = None;
        for competitor in competitors {
            let mut overrides = shared.clone();
            if competitor.architecture.attends() {
                overrides.merge(attention.clone());
                overrides.merge(fixed.clone());
            }
            overrides.set_value("model.architecture", competitor.architecture.name(), "--architectures")?;
            if let Some(cell) = competitor.cell {
                overrides.set_value("model.cell", cell, "--architectures")?;
            }
            // All read the same data in the same way: it is counted once.
            let known = match facts {
                Some(facts) => facts,
                None => survey(&overrides)?,
            };
            facts = Some(known);
            let (config, _) = derive(&overrides, &known)?;
            check(&competitor.name, &config)?;
            let (layers, hidden) = (config.model.num_layers, config.model.hidden_size);
            say!(
                "{:20} {layers} layers, {hidden} wide, learning rate {}",
                competitor.name,
                config.training.learning_rate
            );
            texts.push(TextRun { name: competitor.name, overrides, config });
        }
        let mut runs = Vec::new();
        let mut add = |name: &str, config: &RunConfig| {
            runs.extend((0..args.seeds).map(|seed| planned(name, config, seed)));
        };
        texts.iter().for_each(|text| add(&text.name, &text.config));
        for kind in probes {
            for text in &texts {
                add(&text.name, &probe(kind, text, &of_probes)?);
            }
        }
        Ok(Self { runs })
    }

    /// Who is compared, in order.
    pub(super) fn competitors(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.competitor.as_str()) {
                names.push(&run.competitor);
            }
        }
        names
    }

    /// The plan that a folder holds.
    ///
    /// # Errors
    /// No plan, or a damaged one.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(PLAN_FILE);
        let bytes = std::fs::read(&path).map_err(|error| Error::file("read", &path, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::because(format!("{} is no plan of a comparison", path.display()), &error)
                .hint("begin again with another --output")
        })
    }

    /// Checks that a folder holds no comparison.
    ///
    /// # Errors
    /// One that does.
    pub(super) fn check_free(folder: &Path) -> Result {
        match folder.join(PLAN_FILE).exists() {
            false => Ok(()),
            true => Err(Error::new(format!("{} holds a comparison", folder.display()))
                .hint(format!("go on with `weft compare --resume {}`, or name another folder", shell(folder)))),
        }
    }

    /// Writes the plan into a new folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result {
        let path = folder.join(PLAN_FILE);
        std::fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, &error))?;
        let text = serde_json::to_string_pretty(self).expect("a plan is plain values");
        Ok(write_whole(&path, text.as_bytes())?)
    }
}

/// The most seeds: their runs are folders, and their spread is known long before.
const MOST_SEEDS: u64 = 100;

fn check_seeds(seeds: u64) -> Result {
    match (1..=MOST_SEEDS).contains(&seeds) {
        true => Ok(()),
        false => {
            let wanted = format!("1 to {MOST_SEEDS}");
            Err(Error::new(format!("--seeds is {seeds}, wanted {wanted}")).hint(range_hint(&wanted)))
        }
    }
}

/// A competitor's run number `seed`, from 0.
fn planned(competitor: &str, config: &RunConfig, seed: u64) -> Planned {
    let mut config = config.clone();
    config.training.seed = config.training.seed.wrapping_add(seed);
    let task = config.data.task.map_or_else(String::new, |task| format!("{}-", task.name()));
    let seed = if seed == 0 { String::new() } else { format!("-seed{}", seed + 1) };
    let name = format!("{task}{competitor}{seed}");
    Planned { name, competitor: competitor.to_owned(), config }
}

/// The probes that are named, or all that the competitors can learn.
fn probes(args: &CompareArgs, competitors: &[Competitor]) -> Result<Vec<RecallKind>> {
    let translates = competitors.iter().any(|competitor| competitor.architecture.is_translator());
    let chosen = match &args.probes[..] {
        [] if translates => Vec::new(),
        [] => vec![RecallKind::Recall, RecallKind::Needle],
        named => named.iter().filter_map(|name| name.kind()).collect(),
    };
    match translates && !chosen.is_empty() {
        false => Ok(chosen),
        true => Err(Error::new("--probes: translators do not learn them").hint("leave --probes out")),
    }
}

/// The configuration in which a competitor learns a task: the model that learns the text, but for what the task decides.
/// A size is met anew, since the task has another vocabulary.
fn probe(kind: RecallKind, text: &TextRun, settings: &Overrides) -> Result<RunConfig> {
    let mut overrides = settings.clone();
    let from = "--probes";
    overrides.set_value("data.task", kind.name(), from)?;
    for key in text.overrides.keys().filter(|key| key.starts_with("model.") && !OF_TASK.contains(key)) {
        if let Some(value) = text.overrides.get::<toml::Value>(key)? {
            overrides.set_value(key, value, from)?;
        }
    }
    let model = &text.config.model;
    if model.size.is_none() {
        overrides.set_value("model.hidden_size", model.hidden_size as i64, from)?;
        overrides.set_value("model.num_layers", model.num_layers as i64, from)?;
    }
    let (config, _) = derive(&overrides, &survey(&overrides)?)?;
    check(&format!("{}-{}", kind.name(), text.name), &config)?;
    Ok(config)
}

/// Those that are named, or all that the data suit.
fn competitors(args: &CompareArgs, shared: &Overrides) -> Result<Vec<Competitor>> {
    let known: Vec<Competitor> = ArchitectureKind::ALL.into_iter().flat_map(competitors_of).collect();
    if args.architectures.is_empty() {
        let translates = choose_architecture(&mut shared.clone())?.is_none();
        return Ok(known.into_iter().filter(|known| known.architecture.is_translator() == translates).collect());
    }
    let mut chosen = Vec::new();
    for name in &args.architectures {
        let Some(found) = known.iter().find(|known| known.name == name.replace('-', "_").to_lowercase()) else {
            let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
            return Err(
                Error::new(format!("--architectures: there is no {name}")).hint(format!("known: {}", names.join(", ")))
            );
        };
        if !chosen.contains(found) {
            chosen.push(found.clone());
        }
    }
    let translators = chosen.iter().filter(|competitor| competitor.architecture.is_translator()).count();
    if translators != 0 && translators != chosen.len() {
        return Err(Error::new("--architectures: translators and language models cannot be compared with each other")
            .hint("name only translators (transformer, rnn_encoder_decoder) or only language models"));
    }
    Ok(chosen)
}

fn competitors_of(architecture: ArchitectureKind) -> Vec<Competitor> {
    let one = |name: &str, cell| Competitor { name: name.to_owned(), architecture, cell };
    match architecture {
        ArchitectureKind::RecurrentLm => CELLS.map(|cell| one(cell, Some(cell))).into(),
        other => vec![one(other.name(), None)],
    }
}

#[cfg(test)]
mod tests {
    use weft_train::Facts;

    use super::*;

    /// A competitor that learns a megabyte of text.
    fn text_run(settings: &[(&str, &str)]) -> TextRun {
        let mut overrides = Overrides::new();
        overrides.set_value("data.train", vec!["book.txt"], "--train").unwrap();
        for (key, value) in settings {
            overrides.set(key, value, "--set").unwrap();
        }
        let facts = Facts { examples: 1, bytes: 1_000_000, characters: Some(100) };
        let (config, _) = derive(&overrides, &facts).unwrap();
        TextRun { name: "one".to_owned(), overrides, config }
    }

    fn probe_of(text: &TextRun) -> RunConfig {
        probe(RecallKind::Recall, text, &Overrides::new()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn probes_are_of_the_model_that_learns_the_text() {
        let text = text_run(&[
            ("model.architecture", "llama"),
            ("model.sliding_window", "16"),
            ("model.num_kv_heads", "1"),
            ("model.rope_theta", "5000.0"),
            ("model.tie_embeddings", "false"),
            ("model.dropout", "0.3"),
            ("model.max_positions", "512"),
        ]);
        let (model, known) = (probe_of(&text).model, &text.config.model);
        assert_eq!((model.hidden_size, model.num_layers), (known.hidden_size, known.num_layers));
        assert_eq!((model.sliding_window, model.num_kv_heads, model.rope_theta), (Some(16), Some(1), Some(5000.0)));
        assert_eq!(model.tie_embeddings, Some(false));
        // The task's own.
        assert_eq!((model.dropout, model.max_positions), (0.0, Some(32)));
    }

    #[test]
    fn probes_meet_the_size_with_their_own_vocabulary() {
        let set = [("model.architecture", "gpt"), ("model.size", "300K"), ("tokenizer.kind", "byte-bpe")];
        let text = text_run(&set);
        let probe = probe_of(&text);
        assert!(text.config.tokenizer.vocab_size > 1000 && probe.model.size == text.config.model.size);
        assert!(probe.model.hidden_size > text.config.model.hidden_size, "{:?}", probe.model);
        // Unless the shape is set.
        let text = text_run(&[&set[..], &[("model.hidden_size", "48"), ("model.num_layers", "2")]].concat());
        let model = probe_of(&text).model;
        assert_eq!((model.hidden_size, model.num_layers), (48, 2));
    }

    #[test]
    fn a_shape_that_an_architecture_cannot_have_is_refused() {
        for architecture in ArchitectureKind::ALL {
            let fits = text_run(&[("model.architecture", architecture.name())]).config;
            check("one", &fits).unwrap_or_else(|error| panic!("{architecture:?}: {error}"));
        }
        let odd = text_run(&[("model.architecture", "gpt"), ("model.num_heads", "5")]).config;
        let said = check("one", &odd).map_or_else(|error| error.to_string(), |()| String::new());
        assert!(said.starts_with("error: one cannot be built") && said.contains("hint: numbers of heads"), "{said}");
    }
}
