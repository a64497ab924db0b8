//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use crate::ConfigError;

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Weights that cannot be put into the format.
    #[error("cannot serialise the weights")]
    Serialise {
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// Not JSON, or a value of the wrong type.
    #[error("{} is not a configuration", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but no object.
    #[error("{} holds {found}, not an object of settings", path.display())]
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// Another architecture.
    #[error("{}: `model_type` is \"{found}\"{}", path.display(), wanted_types(wanted))]
    ModelType {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What was asked for.
        wanted: Vec<&'static str>,
    },
    /// A setting of the format that we do not compute.
    #[error("{}: `{key}` is {found}, but only {wanted} is computed here", path.display())]
    NotHonoured {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// The value that we compute.
        wanted: String,
    },
    /// A configuration that cannot be built.
    #[error("{} cannot be built", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{} is not a whole safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration asks for.
    #[error("{}: tensor `{name}` is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The most similar name in the file.
        nearest: Option<String>,
    },
    /// A tensor that the configuration does not ask for.
    #[error("{}: tensor `{name}` is no part of the model that config.json describes", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{}: tensor `{name}` is {found:?}, but config.json makes it {wanted:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// Its shape in the model.
        wanted: Vec<usize>,
    },
    /// A tensor of a type that we do not read.
    #[error("{}: tensor `{name}` holds {found}, not F32, F16, BF16 or F64", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
}

impl CheckpointError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, path } if source.kind() == std::io::ErrorKind::NotFound => Some(format!(
                "a model is a folder with config.json, model.safetensors and tokenizer.json; {} has no such file",
                path.parent().map(|folder| folder.display().to_string()).unwrap_or_default()
            )),
            Self::Write { .. } => Some("check that the disk has space and that you may write there".into()),
            Self::Format { .. } => {
                Some("the file is damaged or was cut short: copy it again, or use an earlier checkpoint".into())
            }
            Self::Missing { nearest: Some(nearest), .. } => Some(format!("the file has a tensor `{nearest}`")),
            Self::Missing { .. } | Self::Unknown { .. } | Self::Shape { .. } => {
                Some("config.json and model.safetensors must come from the same model".into())
            }
            Self::Config { source, .. } => source.hint(),
            Self::ModelType { wanted, .. } if wanted.is_empty() => {
                let known =
                    "gpt2, mamba, mamba2, marian, mistral, rwkv, rwkv7, weft_recurrent_lm, weft_rnn_encoder_decoder";
                Some(format!("known: {known}"))
            }
            _ => None,
        }
    }
}

fn wanted_types(wanted: &[&str]) -> String {
    if wanted.is_empty() { String::new() } else { format!(", not \"{}\"", wanted.join("\" or \"")) }
}
