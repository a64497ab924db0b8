//! What the quickstart trains, and on what.

use std::path::{Path, PathBuf};

use weft_train::{Facts, Overrides, RunConfig, derive};

use super::task::{TaskPair, train_and_held_out};
use crate::cli::QuickstartArgs;
use crate::error::{Error, Result};

/// Pairs to learn from: the models see each two or three times.
const TRAINING_PAIRS: usize = 40_000;
/// Pairs whose values no training pair has shown.
const HELD_OUT_PAIRS: usize = 1000;
/// Held-out pairs that are answered at each validation.
pub(super) const WATCHED_PAIRS: i64 = 200;

/// One of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contestant {
    Transformer,
    Recurrent,
}

impl Contestant {
    pub(super) const BOTH: [Self; 2] = [Self::Transformer, Self::Recurrent];

    /// What it is called on the screen.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transformer => "Transformer",
            Self::Recurrent => "RNN with attention",
        }
    }

    /// Its run's folder.
    pub(super) fn folder(self, output: &Path) -> PathBuf {
        output.join(match self {
            Self::Transformer => "transformer",
            Self::Recurrent => "rnn",
        })
    }
}

/// The generated data on disk, so that every command can be tried on them.
pub(super) struct Data {
    pub(super) train: [PathBuf; 2],
    pub(super) held_out: [PathBuf; 2],
    pub(super) held_out_pairs: Vec<TaskPair>,
    facts: Facts,
}

impl Data {
    /// Generates the pairs and writes them.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn write(output: &Path, seed: u64) -> Result<Self> {
        let (train, held_out) = train_and_held_out(seed, TRAINING_PAIRS, HELD_OUT_PAIRS);
        let folder = output.join("data");
        std::fs::create_dir_all(&folder).map_err(|error| Error::file("make the folder", &folder, &error))?;
        let write = |name: &str, pairs: &[TaskPair]| -> Result<[PathBuf; 2]> {
            let sides: [fn(&TaskPair) -> &str; 2] = [|pair| &pair.source, |pair| &pair.target];
            let mut paths = ["source", "target"].map(|side| folder.join(format!("{name}.{side}")));
            for (path, side) in paths.iter_mut().zip(sides) {
                let text: String = pairs.iter().flat_map(|pair| [side(pair), "\n"]).collect();
                std::fs::write(&*path, text).map_err(|error| Error::file("write", path, &error))?;
            }
            Ok(paths)
        };
        let bytes = train.iter().map(|pair| pair.source.len() + pair.target.len()).sum();
        Ok(Self {
            train: write("train", &train)?,
            held_out: write("held-out", &held_out)?,
            held_out_pairs: held_out,
            facts: Facts { examples: train.len(), bytes, characters: None },
        })
    }
}

/// The configuration of a model's run: as `weft train` would derive it, with what suits this task.
///
/// # Errors
/// None in practice: the values are ours.
pub(super) fn config(contestant: Contestant, data: &Data, args: &QuickstartArgs) -> Result<RunConfig> {
    let mut all = Overrides::new();
    let from = "quickstart";
    for (key, paths) in [("data.train", &data.train), ("data.validation", &data.held_out)] {
        let text = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        all.set_value(key, paths.iter().map(text).collect::<Vec<String>>(), from)?;
    }
    let seed =
        i64::try_from(args.seed).map_err(|_| Error::new(format!("--seed is {}, which is too large", args.seed)))?;
    all.set_value("training.seed", seed, from)?;
    if let Some(minutes) = args.minutes {
        if !(minutes > 0.0 && minutes.is_finite()) {
            return Err(Error::new(format!("--minutes is {minutes}, wanted a number above 0")));
        }
        all.set_value("training.minutes", minutes, from)?;
    }
    all.set_value("tokenizer.vocab_size", 800, from)?;
    all.set_value("training.schedule", "cosine", from)?;
    all.set_value("training.label_smoothing", 0.0, from)?;
    all.set_value("training.validation_interval", 100, from)?;
    all.set_value("training.checkpoint_interval", 100, from)?;
    all.set_value("training.bleu_sentences", WATCHED_PAIRS, from)?;
    all.set_value("training.batch_sentences", 64, from)?;
    all.set_value("training.keep_best", 1, from)?;
    all.set_value("training.average", 0, from)?;
    all.set_value("model.dropout", 0.0, from)?;
    all.set_value("model.num_layers", if contestant == Contestant::Transformer { 2 } else { 1 }, from)?;
    match contestant {
        Contestant::Transformer => {
            all.set_value("model.architecture", "transformer", from)?;
            all.set_value("model.hidden_size", 128, from)?;
            all.set_value("model.num_heads", 4, from)?;
            all.set_value("model.normalize_before", true, from)?;
            all.set_value("training.steps", 2000, from)?;
            all.set_value("training.warmup_steps", 100, from)?;
            all.set_value("training.learning_rate", 2e-3, from)?;
        }
        Contestant::Recurrent => {
            all.set_value("model.architecture", "rnn_encoder_decoder", from)?;
            all.set_value("model.hidden_size", 256, from)?;
            all.set_value("training.steps", 1000, from)?;
            all.set_value("training.warmup_steps", 50, from)?;
            all.set_value("training.learning_rate", 3e-3, from)?;
        }
    }
    Ok(derive(&all, &data.facts)?.0)
}
