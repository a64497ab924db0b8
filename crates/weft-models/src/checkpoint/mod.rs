//! A model as a folder: `config.json`, `model.safetensors` and, beside them, the tokenizer that other rooms write.

mod error;
mod tensors;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::Architecture;
pub use error::CheckpointError;
use tensors::{fill, stored_tensors};

/// The configuration's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Writes `config.json` and `model.safetensors` into `folder`, which is made if it does not exist.
///
/// Each file is written under another name, synced and renamed, so that a file of these names is always whole.
///
/// # Errors
/// Names the file that could not be written.
pub fn save<M: Architecture>(model: &M, folder: &Path) -> Result<(), CheckpointError> {
    fs::create_dir_all(folder).map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })?;
    let weights = tensors::serialise(&stored_tensors(model)).map_err(|source| CheckpointError::Serialise { source })?;
    write_whole(&folder.join(WEIGHTS_FILE), &weights)?;
    let config = serde_json::to_string_pretty(&config_json(model)).expect("a map of strings and numbers");
    write_whole(&folder.join(CONFIG_FILE), format!("{config}\n").as_bytes())
}

/// Reads a model of the architecture `M` from `folder`.
///
/// # Errors
/// A file that cannot be read, a configuration that cannot be built or asks for what we do not compute, a missing,
/// misshapen, unknown or truncated tensor: named with its file.
pub fn load<M: Architecture>(folder: &Path, device: &Device) -> Result<M, CheckpointError> {
    let config = load_config::<M>(folder)?;
    let path = folder.join(WEIGHTS_FILE);
    let bytes = fs::read(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
    fill(M::new(&config, 0, device), &bytes, &path, device)
}

/// Reads and checks the configuration alone.
///
/// # Errors
/// As [`load`].
pub fn load_config<M: Architecture>(folder: &Path) -> Result<M::Config, CheckpointError> {
    let (path, json) = read_config(folder)?;
    let found = json.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if found != M::MODEL_TYPE {
        return Err(CheckpointError::ModelType { path, found: found.to_owned(), wanted: vec![M::MODEL_TYPE] });
    }
    for (key, only) in M::HONOURED {
        let only: Value = serde_json::from_str(only).expect("constants are JSON");
        if let Some(value) = json.get(*key).filter(|value| **value != only) {
            let (found, wanted) = (value.to_string(), only.to_string());
            return Err(CheckpointError::NotHonoured { path, key, found, wanted });
        }
    }
    let mut known = json;
    for key in M::EXTRA.iter().map(|(key, _)| *key).chain([
        "model_type",
        "architectures",
        "torch_dtype",
        "dtype",
        "transformers_version",
    ]) {
        known.remove(key);
    }
    let config = serde_json::from_value(Value::Object(known))
        .map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
    M::check(&config).map_err(|source| CheckpointError::Config { path, source })?;
    Ok(config)
}

/// The `model_type` that a folder's `config.json` names.
///
/// # Errors
/// A file that cannot be read or is not a JSON object with that key.
pub fn model_type(folder: &Path) -> Result<String, CheckpointError> {
    let (path, json) = read_config(folder)?;
    match json.get("model_type") {
        Some(Value::String(name)) => Ok(name.clone()),
        other => {
            let found = other.map(Value::to_string).unwrap_or_else(|| "nothing".into());
            Err(CheckpointError::ModelType { path, found, wanted: Vec::new() })
        }
    }
}

/// Writes a file under another name, syncs it and renames it, so that `path` never holds half of it.
///
/// # Errors
/// Names the file.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".weft-partial");
    let partial = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        // The rename itself is only safe once its folder is synced.
        match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Ok(()),
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&partial);
        CheckpointError::Write { path: path.to_owned(), source }
    })
}

/// The contents of a folder's `config.json`, and its path.
///
/// # Errors
/// A file that cannot be read or is not a JSON object.
pub fn read_config(folder: &Path) -> Result<(PathBuf, Map<String, Value>), CheckpointError> {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
    match serde_json::from_slice(&without_infinities(&text)) {
        Ok(Value::Object(json)) => Ok((path, json)),
        Ok(other) => Err(CheckpointError::NotAnObject { path, found: other.to_string().chars().take(40).collect() }),
        Err(source) => Err(CheckpointError::Json { path, source }),
    }
}

/// `null` in place of the infinities and NaN that Python writes as names and JSON does not have.
fn without_infinities(text: &[u8]) -> Vec<u8> {
    let (mut json, mut rest, mut quoted) = (Vec::with_capacity(text.len()), text, false);
    while let Some(&byte) = rest.first() {
        let names: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
        let name = names.into_iter().find(|name| !quoted && rest.starts_with(name));
        let width = match (name, byte) {
            (Some(name), _) => name.len(),
            // What follows a backslash does not end the text.
            (None, b'\\') => 2.min(rest.len()),
            (None, _) => 1,
        };
        quoted ^= byte == b'"';
        json.extend_from_slice(if name.is_some() { b"null" } else { &rest[..width] });
        rest = &rest[width..];
    }
    json
}

fn config_json<M: Architecture>(model: &M) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("model_type".into(), M::MODEL_TYPE.into());
    for (key, value) in M::EXTRA {
        json.insert((*key).into(), serde_json::from_str(value).expect("constants are JSON"));
    }
    match serde_json::to_value(model.config()) {
        Ok(Value::Object(config)) => json.extend(config),
        _ => unreachable!("a configuration is a struct of plain values"),
    }
    json
}
