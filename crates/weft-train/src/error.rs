//! What can go wrong before, during and after a run.

use std::path::{Path, PathBuf};

use weft_models::{CheckpointError, ConfigError};
use weft_text::TextError;

use crate::config::Origin;
use crate::tensorboard::EventFileError;

/// An error of this crate: facts in the message, causes as sources, remedies in [`TrainError::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A configuration file that is not TOML.
    #[error("{} is not TOML", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no setting `{key}`")]
    UnknownSetting {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The most similar one that exists.
        nearest: Option<String>,
    },
    /// A value of the wrong type.
    #[error("{origin}: `{key}` cannot be {found}")]
    SettingType {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// What was expected.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value outside its range.
    #[error("{origin}: `{key}` is {found}, wanted {wanted}")]
    SettingRange {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// What would be right.
        wanted: String,
    },
    /// A setting that the chosen architecture does not have.
    #[error("{origin}: `{key}` is no setting of the architecture {architecture}")]
    NotApplicable {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The architecture.
        architecture: &'static str,
    },
    /// A setting that has no meaning where a task makes the texts.
    #[error("{origin}: `{key}` is set, but `data.task` makes the texts")]
    NotOfTask {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
    },
    /// A distance between a pair and its question that a model cannot be asked at.
    #[error("a question {distance} tokens after its pair needs {needed} tokens, but the model reads at most {limit}")]
    Distance {
        /// The distance.
        distance: usize,
        /// Tokens of the text that asks.
        needed: usize,
        /// The model's positions.
        limit: usize,
    },
    /// A setting without which there is no run.
    #[error("`{key}` is not set: {what}")]
    MissingSetting {
        /// The key.
        key: &'static str,
        /// What it is for.
        what: &'static str,
    },
    /// A model that cannot be built.
    #[error("this model cannot be built")]
    Model(#[source] ConfigError),
    /// Corpora and tokenizers.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Model files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// TensorBoard files.
    #[error(transparent)]
    Events(#[from] EventFileError),
    /// Translations for validation.
    #[error("the validation sentences cannot be translated")]
    Decode(#[source] weft_decode::DecodeError),
    /// Scores of translations.
    #[error("the translations of the validation sentences cannot be scored")]
    Score(#[source] weft_metrics::MetricError),
    /// The curve.
    #[error("the picture of the losses cannot be made")]
    Plot(#[source] weft_plot::PlotError),
    /// A loss or a gradient that is NaN or infinite.
    #[error("step {step}: {what} is {found}")]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The first tensor at fault.
        what: String,
        /// What it holds.
        found: String,
    },
    /// A folder that holds a run already, or what a run would write over.
    #[error("{} holds a run already, or files with the names of its own", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder without a run.
    #[error("{} holds no run: there is no {}", path.display(), missing)]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A run without a whole checkpoint.
    #[error("{} has no whole checkpoint{}", path.display(), listed(passed_over))]
    NoCheckpoint {
        /// The run folder.
        path: PathBuf,
        /// Those there are, and why each cannot be used.
        passed_over: Vec<crate::PassedOver>,
    },
    /// A checkpoint whose files are not those its manifest lists.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Data or tokenizer are not those that the run began with.
    #[error("the {what} changed since the run began: its SHA-256 was {was} and is {is}")]
    Changed {
        /// Which.
        what: &'static str,
        /// The hash that the checkpoint has.
        was: String,
        /// The hash now.
        is: String,
    },
    /// A setting that a resumed run may not change.
    #[error("{origin}: `{key}` cannot change when a run is resumed")]
    FixedSetting {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
    },
    /// A configuration that is no longer the one of the run's newest checkpoint.
    #[error("{} was edited since the run began: {} differ from the newest checkpoint", path.display(), quoted(keys))]
    EditedConfig {
        /// The file.
        path: PathBuf,
        /// The keys that differ.
        keys: Vec<String>,
    },
    /// Too little data to train or to validate on.
    #[error("{}: {found} {unit} to {purpose}, wanted at least {wanted}", files(paths))]
    TooLittle {
        /// The files.
        paths: Vec<PathBuf>,
        /// How much there is.
        found: usize,
        /// How much is needed.
        wanted: usize,
        /// Of what.
        unit: &'static str,
        /// What for.
        purpose: &'static str,
        /// What the user can do about it.
        remedy: String,
    },
    /// Models that cannot be averaged.
    #[error("{} cannot be averaged with {}: {problem}", path.display(), first.display())]
    Average {
        /// The model at fault.
        path: PathBuf,
        /// The first model.
        first: PathBuf,
        /// Why.
        problem: String,
    },
    /// A folder that is no model.
    #[error("{} is no model: there is no {missing} in it", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// Something that must not be replaced by an average.
    #[error("the average cannot go to {}: {problem}", path.display())]
    AverageOutput {
        /// Where it was to go.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// Nothing to average.
    #[error("there is no checkpoint to average")]
    NothingToAverage,
}

fn listed(passed_over: &[crate::PassedOver]) -> String {
    let items: Vec<String> = passed_over.iter().map(|item| format!("; {item}")).collect();
    items.concat()
}

fn quoted(keys: &[String]) -> String {
    let items: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    items.join(", ")
}

fn files(paths: &[PathBuf]) -> String {
    let items: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    items.join(", ")
}

impl TrainError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        use std::io::ErrorKind;
        match self {
            Self::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                Some("check the spelling of the path".into())
            }
            Self::Write { source, .. } if source.kind() == ErrorKind::StorageFull => {
                Some("free some space; the last whole checkpoint stays, so the run can be resumed".into())
            }
            Self::Write { .. } => Some("check that the disk has space and that you may write there".into()),
            Self::UnknownSetting { nearest, .. } => nearest.as_ref().map(|name| format!("did you mean `{name}`?")),
            Self::SettingType { key, .. } => Some(format!("for example `{key} = {}`", example(key))),
            Self::NotApplicable { .. } => Some("leave it out, or choose another architecture".into()),
            Self::Model(source) => source.hint(),
            Self::Text(source) => source.hint(),
            Self::Checkpoint(source) => source.hint(),
            Self::Events(source) => source.hint(),
            Self::Decode(source) => source.hint(),
            Self::Score(source) => source.hint(),
            Self::Plot(source) => source.hint(),
            Self::NotFinite { .. } => Some(
                "start a new run with a lower training.learning_rate, a longer training.warmup_steps or a smaller \
                 training.clip_norm; the last checkpoint of this one stays"
                    .into(),
            ),
            Self::EditedConfig { .. } => Some(
                "write the old values back, or start a new run; steps, epochs, minutes, patience and the paths of the data \
                 may change, by flags"
                    .into(),
            ),
            Self::NotOfTask { .. } => Some("leave it out, or leave the task out".into()),
            Self::Distance { .. } => Some("ask at smaller distances, or train with a longer training.window".into()),
            Self::TooLittle { remedy, .. } => Some(remedy.clone()),
            Self::RunExists { .. } => Some("resume it, or choose another folder".into()),
            Self::NoRun { .. } => Some("name the folder that was the output of a training run".into()),
            Self::NoCheckpoint { .. } => Some("start the run again".into()),
            Self::Damaged { .. } => Some("use another checkpoint".into()),
            Self::Changed { .. } => Some("restore the file as it was, or start a new run".into()),
            Self::FixedSetting { .. } => {
                Some(
                    "only training.steps, .epochs, .minutes and .patience may change, and the paths of the data; start a \
                     new run instead"
                        .into(),
                )
            }
            Self::Average { .. } => Some("average checkpoints of one run".into()),
            Self::NoModel { .. } => {
                Some("a model is a folder with config.json, model.safetensors and tokenizer.json".into())
            }
            Self::AverageOutput { .. } => {
                Some("choose a path where nothing is yet; only a model that is none of the inputs is replaced".into())
            }
            _ => None,
        }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

/// A value that the setting could have.
fn example(key: &str) -> String {
    crate::config::example_value(key).unwrap_or_default()
}
