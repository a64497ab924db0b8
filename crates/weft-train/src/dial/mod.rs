//! The one dial: a preset or a size, and everything else follows, with the reason.

mod recall;
mod sizes;
#[cfg(test)]
mod tests;
mod training;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_models::CellKind;
use weft_models::rnn_encoder_decoder::{AttentionKind, GruReset};
use weft_text::{RecallKind, RecallTask, TokenizerKind};

use crate::config::{ArchitectureKind, DataConfig, ModelConfig, Origin, Overrides, RunConfig, TokenizerConfig};
use crate::error::TrainError;
use sizes::{Shape, parse_size};
pub(crate) use training::check_budget;

/// What is known of the training data before a tokenizer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Pairs of sentences; for text, its pieces.
    pub examples: usize,
    /// Bytes of text, of both sides together.
    pub bytes: usize,
    /// Different characters, where they were counted.
    pub characters: Option<usize>,
}

/// Tokens beside those of the text's characters: padding, unknown, start and end, and the 256 bytes.
const OTHER_TOKENS: usize = 260;

/// A value that the user did not fix, and why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The key, such as `training.learning_rate`.
    pub name: String,
    /// The value as in TOML.
    pub value: String,
    /// The reason.
    pub because: String,
}

/// Fills in what the user left open.
///
/// The dial is `model.preset` (`tiny`, `small`, `base`, `big`) or `model.size` (a number of parameters such as `3M`);
/// without either, the preset follows from the amount of data.
///
/// # Errors
/// A value of the wrong type or out of range, with its origin; a setting that the architecture does not have; no
/// training data.
///
/// ```
/// use weft_train::{Facts, Overrides, derive};
///
/// let mut overrides = Overrides::new();
/// overrides.set_value("data.train", vec!["train.en", "train.de"], "--train")?;
/// overrides.set("model.size", "3M", "--size")?;
/// let (config, derived) = derive(&overrides, &Facts { examples: 29_000, bytes: 4_000_000, characters: None })?;
/// assert!(derived.iter().any(|value| value.name == "model.hidden_size"));
/// assert_eq!(config.training.betas, [0.9, 0.98]);
/// # Ok::<(), weft_train::TrainError>(())
/// ```
pub fn derive(overrides: &Overrides, facts: &Facts) -> Result<(RunConfig, Vec<Derived>), TrainError> {
    let dial = Dial { overrides, derived: RefCell::default(), used: RefCell::default() };
    let (architecture, why) = match dial.fixed::<RecallKind>("data.task")? {
        Some(_) => (ArchitectureKind::Gpt, "attention finds again what it has read"),
        None => (ArchitectureKind::Transformer, "pairs are translated best by it, and it is the default"),
    };
    let architecture = dial.value("model.architecture", architecture, why)?;
    let data = dial.data(architecture)?;
    let tokenizer = dial.tokenizer(architecture, facts, &data)?;
    let model = dial.model(architecture, facts, &tokenizer, &data)?;
    let training = dial.training(architecture, facts, &data, &model)?;
    let used = dial.used.into_inner();
    if let Some(key) = overrides.keys().find(|key| !used.contains(*key)) {
        let origin = overrides.origin(key).cloned().unwrap_or(Origin::Flag(key.to_owned()));
        return Err(TrainError::NotApplicable { origin, key: key.to_owned(), architecture: architecture.name() });
    }
    let config = RunConfig { data, tokenizer, model, training };
    recall::check_texts(&config, overrides)?;
    Ok((config, dial.derived.into_inner()))
}

fn range(overrides: &Overrides, key: &str, found: String, wanted: String) -> TrainError {
    TrainError::SettingRange { origin: overrides.origin_or(key, "derived"), key: key.to_owned(), found, wanted }
}

struct Dial<'a> {
    overrides: &'a Overrides,
    derived: RefCell<Vec<Derived>>,
    used: RefCell<BTreeSet<String>>,
}

impl Dial<'_> {
    /// What the user fixed, or else the derived value, which is noted with its reason.
    fn value<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        derived: T,
        because: impl Into<String>,
    ) -> Result<T, TrainError> {
        if let Some(fixed) = self.fixed(key)? {
            return Ok(fixed);
        }
        let value = toml::Value::try_from(&derived).map(|value| value.to_string()).unwrap_or_default();
        self.derived.borrow_mut().push(Derived { name: key.to_owned(), value, because: because.into() });
        Ok(derived)
    }

    fn fixed<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TrainError> {
        self.used.borrow_mut().insert(key.to_owned());
        self.overrides.get(key)
    }

    /// A number within bounds, whoever chose it.
    fn within<T: Serialize + DeserializeOwned + PartialOrd + Copy + Debug>(
        &self,
        key: &str,
        derived: T,
        bounds: (T, T),
        because: impl Into<String>,
    ) -> Result<T, TrainError> {
        let value = self.value(key, derived, because)?;
        self.check(key, value, bounds)?;
        Ok(value)
    }

    fn check<T: PartialOrd + Debug>(&self, key: &str, value: T, bounds: (T, T)) -> Result<(), TrainError> {
        if value >= bounds.0 && value <= bounds.1 {
            return Ok(());
        }
        // The form for debugging writes small and large numbers with an exponent.
        let number = |value: &T| {
            let text = format!("{value:?}");
            text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
        };
        let wanted = format!("{} to {}", number(&bounds.0), number(&bounds.1));
        Err(self.range(key, number(&value), wanted))
    }

    fn range(&self, key: &str, found: String, wanted: String) -> TrainError {
        range(self.overrides, key, found, wanted)
    }

    fn data(&self, architecture: ArchitectureKind) -> Result<DataConfig, TrainError> {
        let task = self.recall_kind(architecture)?;
        let train: Vec<std::path::PathBuf> = self.fixed("data.train")?.unwrap_or_default();
        if train.is_empty() && task.is_none() {
            let translates = architecture.is_translator();
            let what = if translates { "the parallel corpus to learn from" } else { "the text to learn from" };
            return Err(TrainError::MissingSetting { key: "data.train", what });
        }
        let validation = self.fixed("data.validation")?.unwrap_or_default();
        let languages: Vec<String> = self.fixed("data.languages")?.unwrap_or_default();
        if !languages.is_empty() && languages.len() != 2 {
            let wanted = "two languages: the source's and the target's".to_owned();
            return Err(self.range("data.languages", format!("{languages:?}"), wanted));
        }
        Ok(DataConfig {
            train,
            validation,
            task,
            pairs: self.recall_pairs(task)?,
            languages,
            field: self.fixed("data.field")?.unwrap_or_else(|| "text".into()),
            max_length: self.within("data.max_length", 200, (1, 1 << 20), "longer sentences are rarely clean")?,
            validation_ratio: self.within("data.validation_ratio", 0.1, (0.0, 0.9), "a tenth is set aside")?,
        })
    }

    fn tokenizer(
        &self,
        architecture: ArchitectureKind,
        facts: &Facts,
        data: &DataConfig,
    ) -> Result<TokenizerConfig, TrainError> {
        let megabytes = facts.bytes as f64 / 1e6;
        let kind = match (architecture.is_translator(), facts.bytes < 5_000_000) {
            _ if data.task.is_some() => self.recall_tokenizer()?,
            (true, _) => self.value("tokenizer.kind", TokenizerKind::Bpe, "subwords translate rare words")?,
            (false, true) => self.value(
                "tokenizer.kind",
                TokenizerKind::Characters,
                format!("{megabytes:.1} MB of text teach a model letters sooner than words"),
            )?,
            (false, false) => self.value("tokenizer.kind", TokenizerKind::ByteBpe, "bytes can spell every text")?,
        };
        // Heaps' law: the words of a text grow with about the root of its length.
        let by_root = ((4.0 * (facts.bytes as f64).sqrt() / 100.0).round() as usize * 100).clamp(600, 32_000);
        let (vocab_size, because) = match kind {
            TokenizerKind::Characters => (4096, "at most; every character of the text has its own token".to_owned()),
            _ => (by_root, format!("4 times the root of {} bytes of text", facts.bytes)),
        };
        let vocab_size = self.within("tokenizer.vocab_size", vocab_size, (261, 1 << 20), because)?;
        let shared = if architecture == ArchitectureKind::RnnEncoderDecoder {
            self.value("tokenizer.shared", false, "this network has two embedding tables anyway")?
        } else if architecture.is_translator() {
            self.value("tokenizer.shared", true, "one table learns from both languages")?
        } else {
            self.fixed("tokenizer.shared")?.unwrap_or(true)
        };
        Ok(TokenizerConfig { kind, vocab_size, shared })
    }

    fn model(
        &self,
        architecture: ArchitectureKind,
        facts: &Facts,
        tokenizer: &TokenizerConfig,
        data: &DataConfig,
    ) -> Result<ModelConfig, TrainError> {
        let size: Option<String> = self.fixed("model.size")?;
        let fixed_preset: Option<String> = self.fixed("model.preset")?;
        let (preset, shape, because) = match (&size, &fixed_preset) {
            (Some(size), None) => {
                let wanted = parse_size(size).ok_or_else(|| {
                    self.range("model.size", size.clone(), "a number of parameters such as 500k, 3M or 1.5B".into())
                })?;
                let entries = match (tokenizer.kind, facts.characters) {
                    (TokenizerKind::Characters, Some(count)) => tokenizer.vocab_size.min(count + OTHER_TOKENS),
                    _ => tokenizer.vocab_size,
                };
                let vocab_size = entries * if tokenizer.shared { 1 } else { 2 };
                let cell = self.fixed("model.cell")?.unwrap_or(CellKind::Lstm);
                let shape = Shape::of_size(architecture, cell, wanted, vocab_size);
                (None, shape, format!("size {size} at a vocabulary of {vocab_size}"))
            }
            (Some(_), Some(_)) => {
                let wanted = "one of `model.preset` and `model.size`, not both".to_owned();
                return Err(self.range("model.preset", fixed_preset.unwrap_or_default(), wanted));
            }
            (None, _) => {
                let (by_data, because) = match facts.bytes {
                    _ if data.task.is_some() => ("tiny", "the task asks little of a model's size"),
                    0..400_000 => ("tiny", "little data"),
                    400_000..50_000_000 => ("small", "some megabytes of data"),
                    _ => ("base", "plenty of data"),
                };
                let preset = self.value("model.preset", by_data.to_owned(), because)?;
                let Some(shape) = Shape::of_preset(architecture, &preset) else {
                    let wanted = format!("one of {}", sizes::PRESETS.join(", "));
                    return Err(self.range("model.preset", preset, wanted));
                };
                let because = format!("preset {preset}");
                (Some(preset), shape, because)
            }
        };
        let most = 1 << 16;
        let hidden_size = self.within("model.hidden_size", shape.hidden_size, (1, most), because.clone())?;
        let num_layers = self.within("model.num_layers", shape.num_layers, (1, 1024), because.clone())?;
        let (dropout, why) = match (architecture.is_translator(), facts.bytes) {
            _ if data.task.is_some() => (0.0, "no text comes twice"),
            (_, ..2_000_000) if !architecture.is_translator() => (0.2, "little text is soon known by heart"),
            (true, 1_000_000..20_000_000) => (0.3, "a small corpus is soon known by heart"),
            (true, 20_000_000..200_000_000) => (0.2, "a middling corpus"),
            _ => (0.1, "the papers' value"),
        };
        let dropout = self.within("model.dropout", dropout, (0.0, 0.99), why)?;
        let mut model = ModelConfig {
            architecture,
            preset,
            size,
            hidden_size,
            num_layers,
            dropout,
            tie_embeddings: None,
            num_heads: None,
            intermediate_size: None,
            attention_dropout: None,
            activation_dropout: None,
            normalize_before: None,
            max_positions: None,
            initializer_range: None,
            cell: None,
            embedding_size: None,
            attention: None,
            bidirectional: None,
            gru_reset: None,
            encoder_hidden_size: None,
            attention_size: None,
            maxout_size: None,
            num_kv_heads: None,
            sliding_window: None,
            attention_pattern: None,
            rope_theta: None,
            state_size: None,
        };
        let like_hidden = format!("as wide as the hidden size, {hidden_size}");
        match architecture {
            ArchitectureKind::Transformer | ArchitectureKind::Gpt => {
                let heads = sizes::heads(hidden_size);
                let why = format!("heads of {}", hidden_size / heads);
                model.num_heads = Some(self.within("model.num_heads", heads, (1, most), why)?);
                let why = "four times the hidden size";
                let inner = self.within("model.intermediate_size", 4 * hidden_size, (1, most << 3), why)?;
                model.intermediate_size = Some(inner);
                model.tie_embeddings = Some(self.value("model.tie_embeddings", true, "fewer parameters, as good")?);
                let is_gpt = architecture == ArchitectureKind::Gpt;
                let (rate, why) =
                    if is_gpt { (dropout, "the same as model.dropout") } else { (0.0, "off, as in the paper") };
                model.attention_dropout = Some(self.within("model.attention_dropout", rate, (0.0, 0.99), why)?);
                let (positions, why) = if is_gpt {
                    let window = data.task.map_or(sizes::WINDOW, |kind| RecallTask::new(kind).length);
                    (self.overrides.get("training.window")?.unwrap_or(window), "one window".to_owned())
                } else {
                    let longest = data.max_length + 1;
                    (longest.max(512), "the longest sentence and its end, at least 512".to_owned())
                };
                model.max_positions = Some(self.within("model.max_positions", positions, (1, 1 << 20), why)?);
                if is_gpt {
                    let (deviation, why) = match data.task {
                        Some(_) => recall::deviation(hidden_size),
                        None => (0.02, "GPT-2's"),
                    };
                    let key = "model.initializer_range";
                    model.initializer_range = Some(self.within(key, deviation, (1e-6, 10.0), why)?);
                } else {
                    let key = "model.activation_dropout";
                    model.activation_dropout = Some(self.within(key, 0.0, (0.0, 0.99), "off, as in the paper")?);
                    let key = "model.normalize_before";
                    model.normalize_before = Some(self.value(key, false, "post-norm, as in the paper")?);
                    let positions = model.max_positions.unwrap_or_default();
                    self.check("model.max_positions", positions, (data.max_length + 1, 1 << 20))?;
                }
            }
            ArchitectureKind::RecurrentLm => {
                model.cell = Some(self.value("model.cell", CellKind::Lstm, "it remembers longest")?);
                let embedding = self.within("model.embedding_size", hidden_size, (1, most), like_hidden)?;
                model.embedding_size = Some(embedding);
                let tied = embedding == hidden_size;
                model.tie_embeddings = Some(self.value("model.tie_embeddings", tied, "fewer parameters, as good")?);
            }
            ArchitectureKind::Mamba => {
                let inner =
                    self.within("model.intermediate_size", 2 * hidden_size, (1, most << 3), "the paper's twice")?;
                model.intermediate_size = Some(inner);
                model.state_size = Some(self.within("model.state_size", 16, (1, 1 << 12), "the paper's")?);
                model.tie_embeddings = Some(self.value("model.tie_embeddings", true, "fewer parameters, as good")?);
            }
            ArchitectureKind::Rwkv4 => {
                let why = "the paper's four times the hidden size";
                let inner = self.within("model.intermediate_size", 4 * hidden_size, (1, most << 3), why)?;
                model.intermediate_size = Some(inner);
                model.tie_embeddings = Some(self.value("model.tie_embeddings", false, "the paper's two tables")?);
            }
            ArchitectureKind::Mamba2 => {
                let heads = sizes::heads(2 * hidden_size);
                let why = format!("heads of {} in twice the hidden size", 2 * hidden_size / heads);
                model.num_heads = Some(self.within("model.num_heads", heads, (1, most), why)?);
                model.state_size = Some(self.within("model.state_size", 64, (1, 1 << 12), "the paper's smallest")?);
                model.tie_embeddings = Some(self.value("model.tie_embeddings", true, "fewer parameters, as good")?);
            }
            ArchitectureKind::Rwkv7 => {
                let heads = sizes::heads(hidden_size);
                let why = format!("heads of {}", hidden_size / heads);
                model.num_heads = Some(self.within("model.num_heads", heads, (1, most), why)?);
                let why = "four times the hidden size";
                let inner = self.within("model.intermediate_size", 4 * hidden_size, (1, most << 3), why)?;
                model.intermediate_size = Some(inner);
            }
            ArchitectureKind::Llama => {
                let heads = sizes::heads(hidden_size);
                let why = format!("heads of {}", hidden_size / heads);
                let heads = self.within("model.num_heads", heads, (1, most), why)?;
                model.num_heads = Some(heads);
                let fewer = if heads.is_multiple_of(2) { heads / 2 } else { heads };
                model.num_kv_heads = Some(self.within("model.num_kv_heads", fewer, (1, most), "two ask each")?);
                // In whole vectors.
                let inner = (8 * hidden_size / 3).next_multiple_of(32);
                let why = "eight thirds of the hidden size: three matrices as large as the usual two";
                model.intermediate_size = Some(self.within("model.intermediate_size", inner, (1, most << 3), why)?);
                model.tie_embeddings = Some(self.value("model.tie_embeddings", true, "fewer parameters, as good")?);
                let rate = self.within("model.attention_dropout", dropout, (0.0, 0.99), "the same as model.dropout")?;
                model.attention_dropout = Some(rate);
                let window = data.task.map_or(sizes::WINDOW, |kind| RecallTask::new(kind).length);
                let positions = self.overrides.get("training.window")?.unwrap_or(window);
                model.max_positions =
                    Some(self.within("model.max_positions", positions, (1, 1 << 20), "one window")?);
                model.rope_theta = Some(self.within("model.rope_theta", 10_000.0, (1.0, 1e9), "the paper's")?);
                model.sliding_window = self.fixed("model.sliding_window")?;
                model.attention_pattern = self.fixed("model.attention_pattern")?;
                let (deviation, why) = match data.task {
                    Some(_) => recall::deviation(hidden_size),
                    None => (0.02, "GPT-2's"),
                };
                let key = "model.initializer_range";
                model.initializer_range = Some(self.within(key, deviation, (1e-6, 10.0), why)?);
            }
            ArchitectureKind::RnnEncoderDecoder => {
                model.cell = Some(self.value("model.cell", CellKind::Gru, "the paper's")?);
                let half = (hidden_size / 2).max(1);
                let of_half = format!("half the hidden size, {hidden_size}");
                let width = |key: &str, because: &str| self.within(key, half, (1, most), because).map(Some);
                model.embedding_size = width("model.embedding_size", &of_half)?;
                model.attention =
                    Some(self.value("model.attention", AttentionKind::Additive, "as in arXiv 1409.0473")?);
                model.bidirectional = Some(self.value("model.bidirectional", true, "as in the paper")?);
                model.gru_reset =
                    Some(self.value("model.gru_reset", GruReset::After, "one product fewer for each step")?);
                model.encoder_hidden_size = width("model.encoder_hidden_size", &of_half)?;
                model.attention_size = width("model.attention_size", &of_half)?;
                model.maxout_size = width("model.maxout_size", &of_half)?;
            }
        }
        Ok(model)
    }
}
