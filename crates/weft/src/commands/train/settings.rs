//! From flags to the values that they fix.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use weft_text::{RecallKind, TextCorpus, TextError};
use weft_train::{ArchitectureKind, Overrides, RunFolder};

use crate::cli::{ArchitectureName, DataFlags, ModelFlags, TokenizerName, TrainArgs, TrainingFlags};
use crate::error::{Error, Result};
use crate::files::shell;

/// The field of a JSON record that holds text where nothing else is said.
const TEXT_FIELD: &str = "text";

/// Everything that the user fixed: the TOML file, over it the flags, over them `--set`.
///
/// # Errors
/// A file that cannot be read, a key that does not exist, data of the run to resume that are gone.
pub(crate) fn overrides(args: &TrainArgs) -> Result<Overrides> {
    let mut flags = data_flags(&args.data)?;
    flags.merge(model_flags(&args.model)?);
    flags.merge(training_flags(&args.training)?);
    let all = layered(args.config.as_deref(), flags, &args.set)?;
    if let Some(run) = &args.resume {
        check_data(run, &all)?;
    }
    Ok(all)
}

/// Checks that a run's data are where they were; where they are not, the user can say where they are now.
fn check_data(run: &Path, all: &Overrides) -> Result {
    let data = RunFolder::open(run)?.config()?.data;
    let mut gone = Vec::new();
    for (key, flag, paths) in
        [("data.train", "--train", data.train), ("data.validation", "--validation", data.validation)]
    {
        let is_named_anew = all.keys().any(|fixed| fixed == key);
        for path in paths.into_iter().filter(|_| !is_named_anew) {
            if let Err(error) = std::fs::metadata(&path)
                && error.kind() == ErrorKind::NotFound
            {
                gone.push((flag, path, error));
            }
        }
    }
    let Some((_, path, error)) = gone.first() else { return Ok(()) };
    let mut flags: Vec<&str> = gone.iter().map(|(flag, ..)| *flag).collect();
    flags.dedup();
    let renamed = format!("weft train --resume {} {} NEW", shell(run), flags.join(" NEW "));
    Err(Error::file("open", path, error).hint(format!("if the data have moved, name them anew: {renamed}")))
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

/// Where nobody named an architecture, text is for a language model, and so is a task.
///
/// # Errors
/// As [`learns_text`].
pub(crate) fn choose_architecture(all: &mut Overrides) -> Result<Option<&'static str>> {
    let named: Option<ArchitectureKind> = all.get("model.architecture")?;
    let flag = if all.get::<RecallKind>("data.task")?.is_some() {
        "--task"
    } else if learns_text(all, named)? {
        "--train"
    } else {
        return Ok(None);
    };
    if named.is_some() {
        return Ok(None);
    }
    all.set_value("model.architecture", "gpt", flag)?;
    Ok(Some("gpt"))
}

/// Whether text is learned from, not pairs: the architecture decides; else languages say that the data are pairs, a
/// field of their own says that they are text; else they are looked at.
///
/// # Errors
/// JSON records of text that lack its field, or in a file that is not read as JSON lines.
fn learns_text(all: &Overrides, architecture: Option<ArchitectureKind>) -> Result<bool> {
    let mut corpus = TextCorpus::new(all.get::<Vec<PathBuf>>("data.train")?.unwrap_or_default());
    corpus.json_field = all.get("data.field")?.unwrap_or_else(|| TEXT_FIELD.to_owned());
    let languages: Vec<String> = all.get("data.languages")?.unwrap_or_default();
    let is_text = match architecture {
        Some(architecture) => !architecture.is_translator(),
        None if !languages.is_empty() => false,
        None => {
            let looks_like_text = corpus.looks_like_text().map_err(|error| {
                Error::from(error)
                    .hint("rename it to .jsonl, or name the languages of pairs: --languages SOURCE TARGET")
            })?;
            looks_like_text || corpus.json_field != TEXT_FIELD
        }
    };
    // Whatever else may be wrong is said when all is read.
    if is_text
        && let Ok(mut pieces) = corpus.pieces()
        && let Some(Err(error @ TextError::JsonField { .. })) = pieces.next()
    {
        return Err(Error::from(error).hint("name the field that holds the text: --set data.field=NAME"));
    }
    Ok(is_text)
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
