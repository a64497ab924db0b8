//! Whole runs of any architecture, from a configuration alone.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, LanguageModel, Translator};
use weft_text::{SkipReport, Tokenizer};

use crate::build::Buildable;
use crate::checkpoint::{RunFolder, RunState, STATE_FILE};
use crate::config::{ArchitectureKind, Origin, Overrides, RunConfig};
use crate::dial::check_budget;
use crate::error::TrainError;
use crate::event::Outcome;
use crate::metrics::Record;
use crate::prepare::{TextData, TranslationData};
use crate::task::{LanguageModelling, Recalling, SOURCE_TOKENIZER_FILE, TOKENIZER_FILE, Task, Translating};
use crate::trainer::{Observer, Trainer};

/// A run of an architecture that is known only at run time.
pub struct Run {
    trainer: Box<dyn AnyTrainer>,
    skipped: [SkipReport; 2],
    vocab_sizes: [usize; 2],
}

/// What a [`Trainer`] does whatever it trains.
trait AnyTrainer: Send {
    fn run(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome, TrainError>;
    fn advance(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Option<Outcome>, TrainError>;
    fn num_parameters(&self) -> usize;
    fn state(&self) -> &RunState;
    fn config(&self) -> &RunConfig;
    fn folder(&self) -> &RunFolder;
    fn records(&self) -> &[Record];
}

impl<M: Architecture + Send> AnyTrainer for Trainer<M> {
    fn run(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome, TrainError> {
        Self::run(self, stop, observer)
    }

    fn advance(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Option<Outcome>, TrainError> {
        Self::advance(self, stop, observer)
    }

    fn num_parameters(&self) -> usize {
        self.model().num_params()
    }

    fn state(&self) -> &RunState {
        Self::state(self)
    }

    fn config(&self) -> &RunConfig {
        Self::config(self)
    }

    fn folder(&self) -> &RunFolder {
        Self::folder(self)
    }

    fn records(&self) -> &[Record] {
        Self::records(self)
    }
}

/// What a run learns from, read or made.
enum Data {
    Translation(Box<TranslationData>),
    Text(Box<TextData>),
    Recall(Box<Recalling>),
}

impl Data {
    fn prepare(config: &RunConfig, given: Option<(Tokenizer, Tokenizer)>) -> Result<Self, TrainError> {
        let given_target = || given.as_ref().map(|(_, target)| target.clone());
        Ok(if let Some(task) = config.recall_task() {
            Self::Recall(Box::new(Recalling::new(config, task, given_target())?))
        } else if config.model.architecture.is_translator() {
            Self::Translation(Box::new(TranslationData::prepare(config, given)?))
        } else {
            Self::Text(Box::new(TextData::prepare(config, given_target())?))
        })
    }

    fn skipped(&self) -> [SkipReport; 2] {
        match self {
            Self::Translation(data) => [data.train.skipped.clone(), data.validation.skipped.clone()],
            Self::Text(data) => data.skipped.clone(),
            Self::Recall(_) => [SkipReport::default(), SkipReport::default()],
        }
    }

    fn vocab_sizes(&self) -> [usize; 2] {
        match self {
            Self::Translation(data) => [data.source_tokenizer.vocab_size(), data.target_tokenizer.vocab_size()],
            Self::Text(data) => [data.tokenizer.vocab_size(); 2],
            Self::Recall(task) => [task.tokenizer().vocab_size(); 2],
        }
    }
}

impl Run {
    /// Prepares the data, builds the model and begins a run in a new folder.
    ///
    /// # Errors
    /// Errors of the corpora; a model that cannot be built; a folder that cannot be written or that holds a run.
    pub fn start(config: RunConfig, folder: &Path, device: &Device) -> Result<Self, TrainError> {
        RunFolder::check_free(folder)?;
        let data = Data::prepare(&config, None)?;
        let begin = Begin::New { folder, device };
        Self::build(config, data, begin)
    }

    /// Goes on with a run from its newest whole checkpoint. `overrides` may change the budget (`training.steps`,
    /// `.epochs`, `.minutes`), `training.patience`, and where the data lie (`data.train`, `.validation`), nothing else.
    ///
    /// # Errors
    /// No run, or no whole checkpoint in it; a corpus, a tokenizer or a setting that is not the one the run began with;
    /// a budget that is used up already.
    pub fn resume(
        folder: &Path,
        overrides: &Overrides,
        device: &Device,
        observer: Observer<'_>,
    ) -> Result<Self, TrainError> {
        let folder = RunFolder::open(folder)?;
        let (path, state, _) = folder.newest_whole()?;
        let config = resumed_config(&folder, &path, &state, overrides)?;
        let target = Tokenizer::load(path.join(TOKENIZER_FILE))?;
        let source = path.join(SOURCE_TOKENIZER_FILE);
        let source = if source.exists() { Tokenizer::load(source)? } else { target.clone() };
        let data = Data::prepare(&config, Some((source, target)))?;
        let begin = Begin::Again { folder: &folder, device, observer };
        let run = Self::build(config.clone(), data, begin)?;
        folder.write_config(&config)?;
        Ok(run)
    }

    fn build(config: RunConfig, data: Data, begin: Begin<'_>) -> Result<Self, TrainError> {
        let (skipped, vocab_sizes) = (data.skipped(), data.vocab_sizes());
        let trainer = match config.model.architecture {
            ArchitectureKind::Transformer => translator::<Transformer>(config, data, begin),
            ArchitectureKind::RnnEncoderDecoder => translator::<RnnEncoderDecoder>(config, data, begin),
            ArchitectureKind::Gpt => language_model::<Gpt>(config, data, begin),
            ArchitectureKind::RecurrentLm => language_model::<RecurrentLm>(config, data, begin),
            ArchitectureKind::Llama => language_model::<Llama>(config, data, begin),
            ArchitectureKind::Mamba => language_model::<Mamba>(config, data, begin),
            ArchitectureKind::Rwkv4 => language_model::<Rwkv4>(config, data, begin),
            ArchitectureKind::Mamba2 => language_model::<Mamba2>(config, data, begin),
            ArchitectureKind::Rwkv7 => language_model::<Rwkv7>(config, data, begin),
        }?;
        Ok(Self { trainer, skipped, vocab_sizes })
    }

    /// Runs to the end, or until `stop` becomes true: then what is half done is dropped and a checkpoint is saved.
    /// `observer` is called from one of the kernels' threads, which the run keeps all the time; several runs side by side
    /// go by [`Run::advance`].
    ///
    /// # Errors
    /// A loss or gradient that is not finite, files that cannot be written; the last checkpoint stays.
    pub fn run(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome, TrainError> {
        self.trainer.run(stop, observer)
    }

    /// Does one step and what is due after it; the outcome once the run has ended.
    ///
    /// # Errors
    /// As [`Run::run`].
    pub fn advance(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Option<Outcome>, TrainError> {
        self.trainer.advance(stop, observer)
    }

    /// What was left out of the training and of the validation data.
    pub fn skipped(&self) -> &[SkipReport; 2] {
        &self.skipped
    }

    /// Entries of the source's and the target's vocabulary.
    pub fn vocab_sizes(&self) -> [usize; 2] {
        self.vocab_sizes
    }

    /// Parameters of the model.
    pub fn num_parameters(&self) -> usize {
        self.trainer.num_parameters()
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        self.trainer.state()
    }

    /// The full configuration.
    pub fn config(&self) -> &RunConfig {
        self.trainer.config()
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        self.trainer.folder()
    }

    /// The records of `metrics.jsonl`.
    pub fn records(&self) -> &[Record] {
        self.trainer.records()
    }
}

/// A new run, or an old one.
enum Begin<'a> {
    New { folder: &'a Path, device: &'a Device },
    Again { folder: &'a RunFolder, device: &'a Device, observer: Observer<'a> },
}

fn translator<M: Translator + Buildable + Send + 'static>(
    config: RunConfig,
    data: Data,
    begin: Begin<'_>,
) -> Result<Box<dyn AnyTrainer>, TrainError> {
    let Data::Translation(data) = data else { return Err(task_of_no_translator(&config)) };
    let task = Box::new(Translating::new(&config, *data));
    trainer::<M>(config, task, begin)
}

fn language_model<M: LanguageModel + Buildable + Send + 'static>(
    config: RunConfig,
    data: Data,
    begin: Begin<'_>,
) -> Result<Box<dyn AnyTrainer>, TrainError> {
    let task: Box<dyn Task<M>> = match data {
        Data::Text(data) => Box::new(LanguageModelling::new(&config, *data)),
        Data::Recall(task) => task,
        Data::Translation(_) => unreachable!("language models are given text"),
    };
    trainer::<M>(config, task, begin)
}

/// A configuration that was not derived may ask a translator for what only language models do.
fn task_of_no_translator(config: &RunConfig) -> TrainError {
    let (origin, key) = (Origin::Flag(RunConfig::FILE.to_owned()), "data.task".to_owned());
    TrainError::NotApplicable { origin, key, architecture: config.model.architecture.name() }
}

fn trainer<M: Buildable + Send + 'static>(
    config: RunConfig,
    task: Box<dyn Task<M>>,
    begin: Begin<'_>,
) -> Result<Box<dyn AnyTrainer>, TrainError> {
    Ok(Box::new(match begin {
        Begin::New { folder, device } => {
            let (target, source) = task.tokenizers();
            let model = M::checked_config(&config, target, source)?;
            let model = M::new(&model, config.training.seed, &device.clone().autodiff());
            Trainer::start(config, model, task, folder, device)?
        }
        Begin::Again { folder, device, observer } => Trainer::resume(config, task, folder, device, observer)?,
    }))
}

/// The settings that may change when a run is resumed; the data may move, but their hashes must stay what they were.
const CHANGEABLE: [&str; 6] =
    ["training.steps", "training.epochs", "training.minutes", "training.patience", "data.train", "data.validation"];

/// The configuration of a run's newest checkpoint, with the budget and the paths that `config.toml` and `overrides`
/// give it.
fn resumed_config(
    folder: &RunFolder,
    checkpoint: &Path,
    state: &RunState,
    overrides: &Overrides,
) -> Result<RunConfig, TrainError> {
    let written = folder.config()?;
    // Checkpoints of older versions do not say.
    let saved = match state.config.as_str() {
        "" => written.clone(),
        text => toml::from_str(text)
            .map_err(|source| TrainError::Toml { path: checkpoint.join(STATE_FILE), source: Box::new(source) })?,
    };
    // `config.toml` has the budget and the paths of the last time the run was resumed, which may be newer than the
    // checkpoint.
    let keys: Vec<String> =
        saved.differences(&written).into_iter().filter(|key| !CHANGEABLE.contains(&key.as_str())).collect();
    if !keys.is_empty() {
        return Err(TrainError::EditedConfig { path: folder.config_path(), keys });
    }
    let mut config = written;
    for key in overrides.keys() {
        let next = overrides.apply(&config, key)?;
        if next != config && !CHANGEABLE.contains(&key) {
            return Err(TrainError::FixedSetting { origin: overrides.origin_or(key, key), key: key.to_owned() });
        }
        config = next;
    }
    let training = &config.training;
    check_budget(training.steps, training.epochs, training.minutes, overrides)?;
    check_reached(&saved, &config, state, overrides)?;
    Ok(config)
}

/// Checks that a budget that changed does not end before where the run stands.
fn check_reached(
    saved: &RunConfig,
    config: &RunConfig,
    state: &RunState,
    overrides: &Overrides,
) -> Result<(), TrainError> {
    let (training, changed) = (&config.training, saved.differences(config));
    let check = |key: &str, found: Option<f64>, least: f64, what: &str| match found.filter(|&found| found < least) {
        Some(found) if changed.iter().any(|changed| changed == key) => Err(TrainError::SettingRange {
            origin: overrides.origin_or(key, RunConfig::FILE),
            key: key.to_owned(),
            found: found.to_string(),
            wanted: format!("at least {least}, the {what}"),
        }),
        _ => Ok(()),
    };
    check("training.steps", training.steps.map(|steps| steps as f64), state.step as f64, "steps done")?;
    // An epoch that has begun counts: a run does not go back.
    let epochs = state.epoch + u64::from(state.position > 0);
    check("training.epochs", training.epochs.map(|epochs| epochs as f64), epochs as f64, "epochs begun")?;
    check("training.minutes", training.minutes, (state.seconds / 0.6).ceil() / 100.0, "minutes spent")
}
