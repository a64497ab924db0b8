//! What is compared: each run with its full configuration, so that a comparison can go on without its command line.

use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_models::checkpoint::write_whole;
use weft_train::{ArchitectureKind, Overrides, RunConfig, derive, survey};

use crate::cli::CompareArgs;
use crate::commands::train::settings::{choose_architecture, data_flags, layered, training_flags};
use crate::error::{Error, Result};
use crate::files::shell;
use crate::model::check_training;
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
    pub(super) config: RunConfig,
}

/// An architecture as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Competitor {
    name: String,
    architecture: ArchitectureKind,
    cell: Option<&'static str>,
}

impl Plan {
    /// From the command line; every configuration is derived and checked before anything is trained.
    ///
    /// # Errors
    /// A name that nobody knows, settings that do not fit, data that cannot be read.
    pub(super) fn make(args: &CompareArgs) -> Result<Self> {
        let mut flags = data_flags(&args.data)?;
        flags.merge(training_flags(&args.training)?);
        if let Some(size) = &args.size {
            flags.set_value("model.size", size.as_str(), "--size")?;
        }
        let shared = layered(args.config.as_deref(), flags, &args.set)?;
        let competitors = competitors(args, &shared)?;
        let mut runs: Vec<Planned> = Vec::new();
        let mut facts = None;
        for competitor in competitors {
            let mut overrides = shared.clone();
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
            check_training(&config)?;
            let (layers, hidden) = (config.model.num_layers, config.model.hidden_size);
            say!(
                "{:20} {layers} layers, {hidden} wide, learning rate {}",
                competitor.name,
                config.training.learning_rate
            );
            runs.push(Planned { name: competitor.name, config });
        }
        Ok(Self { runs })
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

    /// Writes the plan into a new folder.
    ///
    /// # Errors
    /// A folder that cannot be written, or that has a plan.
    pub(super) fn write(&self, folder: &Path) -> Result {
        let path = folder.join(PLAN_FILE);
        if path.exists() {
            return Err(Error::new(format!("{} holds a comparison", folder.display()))
                .hint(format!("go on with `weft compare --resume {}`, or name another folder", shell(folder))));
        }
        std::fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, &error))?;
        let text = serde_json::to_string_pretty(self).expect("a plan is plain values");
        Ok(write_whole(&path, text.as_bytes())?)
    }
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
