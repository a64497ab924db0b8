//! From flags to the values that they fix.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use weft_text::{ParallelFiles, RecallKind, TextError};
use weft_train::Overrides;

use crate::cli::{ArchitectureName, DataFlags, ModelFlags, TokenizerName, TrainArgs, TrainingFlags};
use crate::error::{Error, Result};

/// Everything that the user fixed: the TOML file, over it the flags, over them `--set`.
///
/// # Errors
/// A file that cannot be read, a key that does not exist.
pub(crate) fn overrides(args: &TrainArgs) -> Result<Overrides> {
    let mut flags = data_flags(&args.data)?;
    flags.merge(model_flags(&args.model)?);
    flags.merge(training_flags(&args.training)?);
    layered(args.config.as_deref(), flags, &args.set)
}

/// Settings from a TOML file, over them flags, over them `KEY=VALUE`.
///
/// # Errors
/// A file that cannot be read, a key that does not exist.
pub(crate) fn layered(config: Option<&Path>, flags: Overrides, set: &[String]) -> Result<Overrides> {
    let mut all = match config {
        Some(path) => Overrides::read(path)?,
        None => Overrides::new(),
    };
    all.merge(flags);
    for setting in set {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Error::new(format!("--set {setting}: there is no `=`"))
                .hint("for example --set training.clip_norm=0.5"));
        };
        all.set(key.trim(), value.trim(), "--set")?;
    }
    Ok(all)
}

/// What the flags of the data fix.
///
/// # Errors
/// A path that cannot be written into a configuration.
pub(crate) fn data_flags(data: &DataFlags) -> Result<Overrides> {
    let mut all = Overrides::new();
    for (key, flag, paths) in
        [("data.train", "--train", &data.train), ("data.validation", "--validation", &data.validation)]
    {
        if !paths.is_empty() {
            let paths: Vec<String> = paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?;
            all.set_value(key, paths, flag)?;
        }
    }
    if !data.languages.is_empty() {
        all.set_value("data.languages", data.languages.clone(), "--languages")?;
    }
    set_text(&mut all, "data.task", "--task", data.task.map(|task| RecallKind::from(task).name()))?;
    set_count(&mut all, "data.pairs", "--pairs", data.pairs)?;
    set_text(&mut all, "tokenizer.kind", "--tokenizer", data.tokenizer.map(tokenizer_name))?;
    set_count(&mut all, "data.max_length", "--max-sentence", data.max_sentence)?;
    set_count(&mut all, "tokenizer.vocab_size", "--vocab-size", data.vocab_size)?;
    set_number(&mut all, "data.validation_ratio", "--validation-ratio", data.validation_ratio)?;
    if let Some(shared) = data.shared_vocabulary {
        all.set_value("tokenizer.shared", shared, "--shared-vocabulary")?;
    }
    Ok(all)
}

fn model_flags(model: &ModelFlags) -> Result<Overrides> {
    let mut all = Overrides::new();
    set_text(&mut all, "model.architecture", "--architecture", model.architecture.map(architecture_name))?;
    set_text(&mut all, "model.preset", "--preset", model.preset.as_deref())?;
    set_text(&mut all, "model.size", "--size", model.size.as_deref())?;
    set_text(&mut all, "model.cell", "--cell", model.cell.as_deref())?;
    set_text(&mut all, "model.attention", "--attention", model.attention.as_deref())?;
    set_count(&mut all, "model.hidden_size", "--hidden-size", model.hidden_size)?;
    set_count(&mut all, "model.num_layers", "--layers", model.layers)?;
    set_count(&mut all, "model.num_heads", "--heads", model.heads)?;
    set_count(&mut all, "model.intermediate_size", "--intermediate-size", model.intermediate_size)?;
    set_number(&mut all, "model.dropout", "--dropout", model.dropout)?;
    Ok(all)
}

/// What the flags of the training fix.
///
/// # Errors
/// A count that is too large.
pub(crate) fn training_flags(training: &TrainingFlags) -> Result<Overrides> {
    let mut all = Overrides::new();
    set_text(&mut all, "training.schedule", "--schedule", training.schedule.as_deref())?;
    set_text(&mut all, "training.metric", "--metric", training.metric.as_deref())?;
    let counts = [
        ("training.steps", "--steps", training.steps),
        ("training.epochs", "--epochs", training.epochs),
        ("training.batch_tokens", "--batch-tokens", training.batch_tokens.map(|value| value as u64)),
        ("training.accumulate", "--accumulate", training.accumulate.map(|value| value as u64)),
        ("training.window", "--window", training.window.map(|value| value as u64)),
        ("training.warmup_steps", "--warmup", training.warmup),
        ("training.patience", "--patience", training.patience),
        ("training.validation_interval", "--validate-every", training.validate_every),
        ("training.checkpoint_interval", "--save-every", training.save_every),
        ("training.seed", "--seed", training.seed),
    ];
    for (key, flag, value) in counts {
        set_count(&mut all, key, flag, value)?;
    }
    let numbers = [
        ("training.minutes", "--minutes", training.minutes),
        ("training.learning_rate", "--learning-rate", training.learning_rate),
        ("training.weight_decay", "--weight-decay", training.weight_decay),
        ("training.label_smoothing", "--label-smoothing", training.label_smoothing),
    ];
    for (key, flag, value) in numbers {
        set_number(&mut all, key, flag, value)?;
    }
    Ok(all)
}

fn set_text(all: &mut Overrides, key: &str, flag: &str, value: Option<&str>) -> Result {
    value.map_or(Ok(()), |value| Ok(all.set_value(key, value, flag)?))
}

fn set_count(all: &mut Overrides, key: &str, flag: &str, value: Option<impl TryInto<i64> + Display + Copy>) -> Result {
    let Some(count) = value else { return Ok(()) };
    let too_large = |_| Error::new(format!("{flag} is {count}, which is too large"));
    Ok(all.set_value(key, count.try_into().map_err(too_large)?, flag)?)
}

fn set_number(all: &mut Overrides, key: &str, flag: &str, value: Option<f64>) -> Result {
    value.map_or(Ok(()), |value| Ok(all.set_value(key, value, flag)?))
}

/// Where nobody named an architecture, data that hold no pairs are text for a language model, and so is a task.
///
/// # Errors
/// Files that cannot be read.
pub(crate) fn choose_architecture(all: &mut Overrides) -> Result<Option<&'static str>> {
    if all.keys().any(|key| key == "model.architecture") {
        return Ok(None);
    }
    if all.get::<RecallKind>("data.task")?.is_some() {
        all.set_value("model.architecture", "gpt", "--task")?;
        return Ok(Some("gpt"));
    }
    let paths: Vec<PathBuf> = all.get("data.train")?.unwrap_or_default();
    let [path] = &paths[..] else { return Ok(None) };
    let is_text = path.is_dir() || {
        let languages: Vec<String> = all.get("data.languages")?.unwrap_or_default();
        let languages = match &languages[..] {
            [source, target] => Some((source.as_str(), target.as_str())),
            _ => None,
        };
        matches!(ParallelFiles::guess(&paths, languages), Err(TextError::UnknownFormat { .. }))
    };
    if is_text {
        all.set_value("model.architecture", "gpt", "--train")?;
        return Ok(Some("gpt"));
    }
    Ok(None)
}

/// A path that means the same wherever the run is resumed.
fn absolute(path: &Path) -> Result<String> {
    let whole = std::path::absolute(path).map_err(|error| Error::file("find", path, &error))?;
    match whole.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::new(format!("{} is not UTF-8, so config.toml cannot name it", whole.display()))
            .hint("rename the file")),
    }
}

fn tokenizer_name(name: TokenizerName) -> &'static str {
    match name {
        TokenizerName::Bpe => "bpe",
        TokenizerName::Unigram => "unigram",
        TokenizerName::ByteBpe => "byte-bpe",
        TokenizerName::Characters => "characters",
    }
}

fn architecture_name(name: ArchitectureName) -> &'static str {
    match name {
        ArchitectureName::Transformer => "transformer",
        ArchitectureName::RnnEncoderDecoder => "rnn_encoder_decoder",
        ArchitectureName::Gpt => "gpt",
        ArchitectureName::RecurrentLm => "recurrent_lm",
        ArchitectureName::Llama => "llama",
        ArchitectureName::Mamba => "mamba",
        ArchitectureName::Rwkv4 => "rwkv4",
        ArchitectureName::Mamba2 => "mamba2",
        ArchitectureName::Rwkv7 => "rwkv7",
    }
}
