//! `manifest.json`: which files make a checkpoint, with their sizes and SHA-256. Written last, so that a folder with a
//! manifest that holds is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weft_models::checkpoint::WEIGHTS_FILE;
use weft_text::hexadecimal;

use crate::error::TrainError;

/// The file's name.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Of all files in a folder, as they are now; each is synced to the disk.
    pub(crate) fn of(folder: &Path) -> Result<Self, TrainError> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(TrainError::write(folder))? {
            let path = entry.map_err(TrainError::write(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != MANIFEST_FILE {
                File::open(&path).and_then(|file| file.sync_all()).map_err(TrainError::write(&path))?;
                files.insert(name, describe(&path)?);
            }
        }
        Ok(Self { files })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers") + "\n"
    }

    /// Checks that a folder holds what its manifest lists; the files' names.
    pub(crate) fn verify(folder: &Path) -> Result<Vec<String>, TrainError> {
        let path = folder.join(MANIFEST_FILE);
        let text = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| TrainError::Damaged {
            path: path.clone(),
            problem: format!("it is no list of files: {error}"),
        })?;
        if manifest.files.is_empty() {
            return Err(TrainError::Damaged { path, problem: "it lists no files".into() });
        }
        for (name, wanted) in &manifest.files {
            let path = folder.join(name);
            if !path.exists() {
                let problem = format!("it is missing, though {MANIFEST_FILE} lists it");
                return Err(TrainError::Damaged { path, problem });
            }
            let found = describe(&path)?;
            if found.bytes != wanted.bytes {
                let problem = format!("it has {} bytes, the manifest says {}", found.bytes, wanted.bytes);
                return Err(TrainError::Damaged { path, problem });
            }
            if found.sha256 != wanted.sha256 {
                return Err(TrainError::Damaged { path, problem: "its SHA-256 is not the manifest's".into() });
            }
        }
        Ok(manifest.files.into_keys().collect())
    }
}

/// The SHA-256 of a model's weights, in hexadecimal digits.
///
/// # Errors
/// Weights that cannot be read.
pub fn weights_hash(folder: &Path) -> Result<String, TrainError> {
    describe(&folder.join(WEIGHTS_FILE)).map(|entry| entry.sha256)
}

fn describe(path: &Path) -> Result<Entry, TrainError> {
    let failed = |source| TrainError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
    Ok(Entry { bytes, sha256: hexadecimal(&hasher.finalize()) })
}
