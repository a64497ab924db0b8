//! The folder of a run and its checkpoints.
//!
//! ```text
//! run/config.toml            the full configuration
//! run/metrics.jsonl          one JSON object a line
//! run/events.out.tfevents.*  the same for TensorBoard
//! run/curve.svg, curve.png   the losses as a picture
//! run/checkpoints/step-00001200/{config.json, model.safetensors, tokenizer.json, (source_tokenizer.json),
//!                            optimizer.safetensors, state.json, manifest.json}
//! run/model/                 the best model, ready to use
//! ```
//!
//! A checkpoint is written under a temporary name, its files are synced, the manifest is added, and the folder is
//! renamed. So a folder named `step-...` is whole unless the disk lost it, and the manifest says if it did.

mod manifest;
mod state;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use weft_models::checkpoint::write_whole;

pub use manifest::weights_hash;
pub(crate) use manifest::{MANIFEST_FILE, Manifest};
pub(crate) use state::STATE_FILE;
pub use state::{Best, DataHashes, RunState};

use crate::config::RunConfig;
use crate::error::TrainError;

/// A checkpoint that cannot be resumed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path.display(), self.reason)
    }
}

/// The folder of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run and writes its configuration.
    ///
    /// # Errors
    /// A folder that cannot be written, or that holds a run.
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self, TrainError> {
        Self::check_free(path)?;
        let folder = Self { path: path.to_owned() };
        let checkpoints = folder.checkpoints_path();
        std::fs::create_dir_all(&checkpoints).map_err(TrainError::write(&checkpoints))?;
        write_whole(&folder.config_path(), config.to_toml().as_bytes())?;
        Ok(folder)
    }

    /// Checks that a folder holds no run. One that ended before its first checkpoint was there is none: it is begun anew.
    pub(crate) fn check_free(path: &Path) -> Result<(), TrainError> {
        let folder = Self { path: path.to_owned() };
        let (config, checkpoints) = (folder.config_path(), folder.checkpoints_path());
        let is_free = match (config.exists(), checkpoints.exists()) {
            // Nor a model that lies where the run's own would go.
            (false, false) => !folder.model_path().exists(),
            // Somebody's own file of that name is not written over.
            (true, false) => false,
            (_, true) => !folder.model_path().exists() && folder.checkpoints()?.is_empty(),
        };
        if is_free { Ok(()) } else { Err(TrainError::RunExists { path: path.to_owned() }) }
    }

    /// The folder of a run that was there before.
    ///
    /// # Errors
    /// A folder without a run.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let folder = Self { path: path.to_owned() };
        match folder.config_path().is_file() {
            true => Ok(folder),
            false => Err(TrainError::NoRun { path: path.to_owned(), missing: RunConfig::FILE }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the full configuration stands.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(RunConfig::FILE)
    }

    /// Where the metrics stand.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where the best model stands.
    pub fn model_path(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Where the checkpoints stand.
    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The checkpoint of a step.
    pub fn checkpoint_path(&self, step: u64) -> PathBuf {
        self.checkpoints_path().join(format!("step-{step:08}"))
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// A file that cannot be read or is no full configuration.
    pub fn config(&self) -> Result<RunConfig, TrainError> {
        let path = self.config_path();
        let text = std::fs::read_to_string(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| TrainError::Toml { path, source: Box::new(source) })
    }

    /// Writes the configuration anew.
    pub(crate) fn write_config(&self, config: &RunConfig) -> Result<(), TrainError> {
        Ok(write_whole(&self.config_path(), config.to_toml().as_bytes())?)
    }

    /// The checkpoints by step, the newest first; those half-written are not among them.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let folder = self.checkpoints_path();
        let failed = |source| TrainError::Read { path: folder.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
            found.extend(step.map(|step: u64| (step, entry.path())));
        }
        found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        Ok(found)
    }

    /// The newest checkpoint that is whole, its state, and the newer ones that are not.
    ///
    /// # Errors
    /// No whole checkpoint.
    pub fn newest_whole(&self) -> Result<(PathBuf, RunState, Vec<PassedOver>), TrainError> {
        let mut passed_over = Vec::new();
        for (step, path) in self.checkpoints()? {
            let whole = Manifest::verify(&path).and_then(|_| RunState::read(&path)).and_then(|state| {
                let problem = format!("it says that it is step {}", state.step);
                if state.step == step { Ok(state) } else { Err(TrainError::Damaged { path: path.clone(), problem }) }
            });
            match whole {
                Ok(state) => return Ok((path, state, passed_over)),
                Err(error) => passed_over.push(PassedOver { path, reason: with_cause(&error) }),
            }
        }
        Err(TrainError::NoCheckpoint { path: self.path.clone(), passed_over })
    }

    /// Writes a checkpoint: `fill` puts the files into the folder it is given.
    pub(crate) fn write_checkpoint(
        &self,
        step: u64,
        fill: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        let path = self.checkpoint_path(step);
        replace_folder(&path, fill)?;
        Ok(path)
    }

    /// Removes all checkpoints but those of some steps; what cannot be removed stays.
    pub(crate) fn keep_only(&self, steps: &[u64]) -> Result<(), TrainError> {
        for (step, path) in self.checkpoints()? {
            if !steps.contains(&step) {
                // The manifest goes first: what is left half-removed is no checkpoint.
                let _ = std::fs::remove_file(path.join(MANIFEST_FILE));
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }

    /// Makes the model of a checkpoint the run's model.
    pub(crate) fn publish(&self, checkpoint: &Path) -> Result<(), TrainError> {
        replace_folder(&self.model_path(), |partial| {
            for name in ["config.json", "model.safetensors", "tokenizer.json", "source_tokenizer.json", STATE_FILE] {
                let (from, to) = (checkpoint.join(name), partial.join(name));
                if from.exists() {
                    std::fs::copy(&from, &to).map_err(TrainError::write(&to))?;
                    File::open(&to).and_then(|file| file.sync_all()).map_err(TrainError::write(&to))?;
                }
            }
            let (from, to) = (self.config_path(), partial.join("run.toml"));
            std::fs::copy(&from, &to).map(|_| ()).map_err(TrainError::write(&to))
        })
    }
}

/// Checks that a model's folder holds what the manifest in it lists. Models of other projects have none.
///
/// # Errors
/// Names the first file that is missing or is not the one that was saved.
pub fn verify_model(folder: &Path) -> Result<(), TrainError> {
    if folder.join(MANIFEST_FILE).exists() { Manifest::verify(folder).map(|_| ()) } else { Ok(()) }
}

/// Makes a folder of files at once: filled under another name, synced, given its manifest, renamed over what was there.
/// Killed at any moment, it leaves the new folder or the one before it where [`find_folder`] finds it.
pub(crate) fn replace_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (partial, old) = (beside(path, "partial"), beside(path, "old"));
    if !path.exists() && old.exists() {
        // The last replacement was cut off between its renames.
        std::fs::rename(&old, path).map_err(TrainError::write(path))?;
    }
    for leftover in [&partial, &old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).map_err(TrainError::write(leftover))?;
        }
    }
    std::fs::create_dir_all(&partial).map_err(TrainError::write(&partial))?;
    let manifest = |partial: &Path| {
        let manifest = Manifest::of(partial)?;
        Ok(write_whole(&partial.join(MANIFEST_FILE), manifest.to_json().as_bytes())?)
    };
    if let Err(error) = fill(&partial).and_then(|()| manifest(&partial)) {
        // Space is often what is missing; half a folder helps nobody.
        let _ = std::fs::remove_dir_all(&partial);
        return Err(error);
    }
    sync_folder(&partial)?;
    if path.exists() {
        std::fs::rename(path, &old).map_err(TrainError::write(path))?;
    }
    if let Err(source) = std::fs::rename(&partial, path) {
        let _ = std::fs::rename(&old, path);
        return Err(TrainError::Write { path: path.to_owned(), source });
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_folder(parent)?;
    }
    let _ = std::fs::remove_dir_all(&old);
    Ok(())
}

/// A folder that this crate replaces as a whole: itself, or what stood there before if the replacement was cut off
/// between its two renames. Reading moves nothing: the replacement may still be going on.
pub fn find_folder(path: &Path) -> PathBuf {
    let old = beside(path, "old");
    if !path.exists() && old.is_dir() { old } else { path.to_owned() }
}

/// A hidden name beside `path` that nobody else gives to a folder.
fn beside(path: &Path, role: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".weft-");
    name.push(role);
    path.with_file_name(name)
}

/// A rename is safe once its folder is on the disk. Only Unix can sync folders.
fn sync_folder(path: &Path) -> Result<(), TrainError> {
    if cfg!(unix) { File::open(path).and_then(|file| file.sync_all()).map_err(TrainError::write(path)) } else { Ok(()) }
}

fn with_cause(error: &TrainError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, text: &str) -> Result<(), TrainError> {
        replace_folder(path, |folder| Ok(write_whole(&folder.join("text"), text.as_bytes())?))
    }

    #[test]
    fn a_replacement_that_was_cut_off_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        written(&path, "first").unwrap();
        // As a kill between the two renames leaves it.
        std::fs::rename(&path, beside(&path, "old")).unwrap();
        let found = find_folder(&path);
        assert_eq!(std::fs::read_to_string(found.join("text")).unwrap(), "first");
        verify_model(&found).unwrap();
        let failure = |_: &Path| Err(TrainError::NothingToAverage);
        replace_folder(&path, failure).unwrap_err();
        assert_eq!(std::fs::read_to_string(path.join("text")).unwrap(), "first");
        written(&path, "second").unwrap();
        assert_eq!(std::fs::read_to_string(find_folder(&path).join("text")).unwrap(), "second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn neighbours_of_other_extensions_stay() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.old", "model.partial"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        written(&folder.path().join("model"), "new").unwrap();
        written(&folder.path().join("model"), "newer").unwrap();
        assert!(folder.path().join("model.old").is_dir() && folder.path().join("model.partial").is_dir());
    }

    #[test]
    fn manifests_that_list_nothing_or_what_is_missing_do_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        written(&path, "whole").unwrap();
        std::fs::remove_file(path.join("text")).unwrap();
        let error = verify_model(&path).unwrap_err().to_string();
        assert!(error.ends_with("text: it is missing, though manifest.json lists it"), "{error}");
        std::fs::write(path.join(MANIFEST_FILE), "{\"files\": {}}").unwrap();
        let error = verify_model(&path).unwrap_err().to_string();
        assert!(error.ends_with("manifest.json: it lists no files"), "{error}");
    }
}
