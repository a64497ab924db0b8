//! What a user fixed: from a TOML file, from flags, or from code. Everything else is derived.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::RunConfig;
use crate::error::TrainError;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A flag or a call, as the user knows it.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// Values of some keys of a [`RunConfig`], such as `training.learning_rate`, each with its origin.
///
/// ```
/// use weft_train::Overrides;
///
/// let mut overrides = Overrides::new();
/// overrides.set("model.preset", "small", "--preset")?;
/// let error = overrides.set("training.learning_rat", "1e-3", "--set").unwrap_err();
/// assert_eq!(error.to_string(), "--set: there is no setting `training.learning_rat`");
/// assert_eq!(error.hint().unwrap(), "did you mean `training.learning_rate`?");
/// # Ok::<(), weft_train::TrainError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    values: BTreeMap<String, (Value, Origin)>,
}

impl Overrides {
    /// Nothing fixed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML; a key that does not exist, with its line and the nearest one that
    /// does.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads TOML from text; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Overrides::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        let bad = |source: toml::de::Error| TrainError::Toml { path: path.to_owned(), source: Box::new(source) };
        let spans = DeTable::parse(text).map_err(bad)?.into_inner();
        let table: toml::Table = text.parse().map_err(bad)?;
        let origin = |offset: usize| {
            let line = text[..offset.min(text.len())].bytes().filter(|&byte| byte == b'\n').count() + 1;
            Origin::File { path: path.to_owned(), line }
        };
        let mut overrides = Self::new();
        for (section, spanned) in &spans {
            let name = section.get_ref();
            let DeValue::Table(keys) = spanned.get_ref() else {
                return Err(unknown(name.as_ref(), origin(section.span().start)));
            };
            let known = known_keys();
            if !known.iter().any(|key| key.split('.').next() == Some(name.as_ref())) {
                return Err(unknown(name.as_ref(), origin(section.span().start)));
            }
            for key in keys.keys() {
                let value = table[name.as_ref()][key.get_ref().as_ref()].clone();
                overrides.insert(&format!("{name}.{}", key.get_ref()), value, origin(key.span().start))?;
            }
        }
        Ok(overrides)
    }

    /// Fixes a key to a value written as in TOML; what is not TOML is a string. `origin` is what errors call it, such
    /// as the flag.
    ///
    /// # Errors
    /// A key that does not exist.
    pub fn set(&mut self, key: &str, text: &str, origin: &str) -> Result<(), TrainError> {
        let parsed = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        let value = parsed.unwrap_or_else(|| Value::String(text.to_owned()));
        self.insert(key, value, Origin::Flag(origin.to_owned()))
    }

    /// Fixes a key to a value.
    ///
    /// # Errors
    /// A key that does not exist.
    pub fn set_value(&mut self, key: &str, value: impl Into<Value>, origin: &str) -> Result<(), TrainError> {
        self.insert(key, value.into(), Origin::Flag(origin.to_owned()))
    }

    /// Takes over all values of another, which win.
    pub fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
    }

    /// The keys that are fixed, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of a key, if it is fixed.
    ///
    /// # Errors
    /// A value of the wrong type, with its origin.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TrainError> {
        let Some((value, origin)) = self.values.get(key) else { return Ok(None) };
        // A whole number will do where a fraction may stand.
        let widened = match value {
            Value::Integer(number) => Some(Value::Float(*number as f64)),
            _ => None,
        };
        let read = |value: &Value| T::deserialize(value.clone());
        match (read(value), widened.as_ref().map(read)) {
            (Ok(found), _) | (Err(_), Some(Ok(found))) => Ok(Some(found)),
            (Err(source), _) => Err(TrainError::SettingType {
                origin: origin.clone(),
                key: key.to_owned(),
                found: value.to_string(),
                source: Box::new(source),
            }),
        }
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// Where the value of a key comes from, or what to call it if it is not fixed here.
    pub(crate) fn origin_or(&self, key: &str, otherwise: &str) -> Origin {
        self.origin(key).cloned().unwrap_or_else(|| Origin::Flag(otherwise.to_owned()))
    }

    /// A configuration with the value that one of these keys is fixed to.
    ///
    /// # Errors
    /// A value of the wrong type, with its origin.
    pub(crate) fn apply(&self, config: &RunConfig, key: &str) -> Result<RunConfig, TrainError> {
        let (Some((value, origin)), Some((section, name))) = (self.values.get(key), key.split_once('.')) else {
            return Ok(config.clone());
        };
        let table = toml::Table::try_from(config).expect("plain values");
        let with = |value: Value| {
            let mut table = table.clone();
            if let Some(section) = table.get_mut(section).and_then(Value::as_table_mut) {
                section.insert(name.to_owned(), value);
            }
            RunConfig::deserialize(table)
        };
        // A whole number will do where a fraction may stand.
        let found = match (with(value.clone()), value.as_integer()) {
            (Err(error), Some(number)) => with(Value::Float(number as f64)).map_err(|_| error),
            (found, _) => found,
        };
        found.map_err(|source| TrainError::SettingType {
            origin: origin.clone(),
            key: key.to_owned(),
            found: value.to_string(),
            source: Box::new(source),
        })
    }

    fn insert(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), TrainError> {
        if !known_keys().iter().any(|known| known == key) {
            return Err(unknown(key, origin));
        }
        self.values.insert(key.to_owned(), (value, origin));
        Ok(())
    }
}

/// A known name that is less like an unknown one than this, 0 to 1, is not what was meant.
const LIKE_ENOUGH: f64 = 0.5;

/// Every key of a configuration, dotted.
pub(crate) fn known_keys() -> Vec<String> {
    let table = toml::Table::try_from(RunConfig::full_example()).expect("plain values");
    let sections = table.iter().filter_map(|(section, value)| Some((section, value.as_table()?)));
    sections.flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}"))).collect()
}

fn unknown(key: &str, origin: Origin) -> TrainError {
    let known = known_keys();
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let name_likeness = |candidate: &String| strsim::normalized_damerau_levenshtein(&last(key), &last(candidate));
    let likeness = |candidate: &String| {
        // A right name in a wrong section is near, too.
        let whole = strsim::normalized_damerau_levenshtein(key, candidate);
        whole.max(name_likeness(candidate) - 0.05)
    };
    let sections = ["data", "tokenizer", "model", "training"].map(str::to_owned);
    let candidates: Vec<String> = if key.contains('.') { known } else { [known, sections.to_vec()].concat() };
    let near = candidates.into_iter().filter(|candidate| name_likeness(candidate) >= LIKE_ENOUGH);
    let nearest = near.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    TrainError::UnknownSetting { origin, key: key.to_owned(), nearest }
}

/// What a key's value may look like.
pub(crate) fn example_value(key: &str) -> Option<String> {
    let table = toml::Table::try_from(RunConfig::full_example()).expect("plain values");
    let (section, name) = key.split_once('.')?;
    Some(table.get(section)?.get(name)?.to_string())
}
