//! Checkpoint averaging (Vaswani et al., arXiv 1706.03762, section 6.1): the mean of the weights of several checkpoints
//! of one run is often a better model than any of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use weft_models::checkpoint::{CONFIG_FILE, WEIGHTS_FILE, write_whole};

use crate::checkpoint::{MANIFEST_FILE, STATE_FILE, replace_folder, verify_model};
use crate::error::TrainError;
use crate::task::{SOURCE_TOKENIZER_FILE, TOKENIZER_FILE};

/// The files of a model that Weft wrote.
const MODEL_FILES: [&str; 7] = [
    CONFIG_FILE,
    WEIGHTS_FILE,
    TOKENIZER_FILE,
    SOURCE_TOKENIZER_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    "run.toml", // the run's configuration
];

/// Writes the mean of some models, computed in `f64`, into the folder `output`, with the configuration and the
/// tokenizers that they share. A model in `output` is replaced.
///
/// # Errors
/// No models; models that are damaged or of different configurations, tokenizers or tensors; files that cannot be read
/// or written; an output as in [`check_average_output`].
pub fn average(models: &[PathBuf], output: &Path) -> Result<(), TrainError> {
    let Some((first, others)) = models.split_first() else { return Err(TrainError::NothingToAverage) };
    check_average_output(models, output)?;
    for model in models {
        if let Some(missing) =
            [WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE].into_iter().find(|name| !model.join(name).exists())
        {
            return Err(TrainError::NoModel { path: model.clone(), missing });
        }
    }
    for name in [CONFIG_FILE, TOKENIZER_FILE, SOURCE_TOKENIZER_FILE] {
        let wanted = std::fs::read(first.join(name)).ok();
        if let Some(path) = others.iter().find(|path| std::fs::read(path.join(name)).ok() != wanted) {
            let problem = format!("their {name} differ");
            return Err(TrainError::Average { path: path.clone(), first: first.clone(), problem });
        }
    }
    models.iter().try_for_each(|model| verify_model(model))?;
    let mut sums: Vec<(String, Vec<usize>, Vec<f64>)> = Vec::new();
    for model in models {
        add(model, first, &mut sums)?;
    }
    let count = models.len() as f64;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = sums
        .into_iter()
        .map(|(name, shape, sum)| {
            (name, shape, sum.into_iter().flat_map(|sum| ((sum / count) as f32).to_le_bytes()).collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("four bytes a value"))
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(metadata)).map_err(|error| TrainError::Damaged {
        path: output.join(WEIGHTS_FILE),
        problem: format!("the mean cannot be put into the format: {error}"),
    })?;
    replace_folder(output, |folder| {
        write_whole(&folder.join(WEIGHTS_FILE), &weights)?;
        for name in [CONFIG_FILE, TOKENIZER_FILE, SOURCE_TOKENIZER_FILE] {
            let from = first.join(name);
            if from.exists() {
                let bytes = std::fs::read(&from).map_err(|source| TrainError::Read { path: from, source })?;
                write_whole(&folder.join(name), &bytes)?;
            }
        }
        Ok(())
    })
}

/// Checks that an average may go to `output`: nothing is there yet, or a model that Weft wrote and that is neither one
/// of `inputs` nor in one of them.
///
/// # Errors
/// Says what is there.
pub fn check_average_output(inputs: &[PathBuf], output: &Path) -> Result<(), TrainError> {
    let refused = |problem: String| Err(TrainError::AverageOutput { path: output.to_owned(), problem });
    let place = real_place(output);
    if let Some(input) = inputs.iter().find(|input| place.starts_with(real_place(input))) {
        return refused(format!("it is {} or in it, which is averaged", input.display()));
    }
    let Ok(metadata) = std::fs::symlink_metadata(output) else { return Ok(()) };
    if !metadata.is_dir() {
        return refused("it exists and is no folder".to_owned());
    }
    for entry in std::fs::read_dir(output).map_err(|source| TrainError::Read { path: output.to_owned(), source })? {
        let entry = entry.map_err(|source| TrainError::Read { path: output.to_owned(), source })?;
        let name = entry.file_name();
        if !entry.path().is_file() || !MODEL_FILES.iter().any(|known| name == **known) {
            return refused(format!("it holds {}, which is no part of a model", name.display()));
        }
    }
    match [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE].iter().find(|name| !output.join(name).exists()) {
        Some(missing) => refused(format!("it exists and is no model: there is no {missing} in it")),
        None => Ok(()),
    }
}

/// The path without links, as far as it exists.
fn real_place(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.canonicalize(), absolute.parent(), absolute.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => real_place(parent).join(name),
        _ => absolute,
    }
}

/// Adds a model's tensors to the sums, which are in the order of the first model's file.
fn add(model: &Path, first: &Path, sums: &mut Vec<(String, Vec<usize>, Vec<f64>)>) -> Result<(), TrainError> {
    let path = model.join(WEIGHTS_FILE);
    let bytes = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| TrainError::Damaged {
        path: path.clone(),
        problem: format!("it is not a whole safetensors file: {error}"),
    })?;
    let differs = |problem: String| TrainError::Average { path: path.clone(), first: first.to_owned(), problem };
    let is_first = sums.is_empty();
    if !is_first && sums.len() != file.len() {
        return Err(differs(format!("one has {} tensors, the other {}", file.len(), sums.len())));
    }
    for (index, (name, view)) in file.iter().enumerate() {
        if view.dtype() != Dtype::F32 {
            return Err(differs(format!("tensor `{name}` is {:?}, not F32", view.dtype())));
        }
        let values = view.data().as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes)));
        if is_first {
            sums.push((name.to_owned(), view.shape().to_vec(), values.collect()));
            continue;
        }
        // Files of one format list their tensors in one order; where they do not, the name decides.
        let at = sums.get(index).filter(|sum| sum.0 == name).map(|_| index);
        let at = at.or_else(|| sums.iter().position(|sum| sum.0 == name));
        match at.map(|at| &mut sums[at]) {
            Some((_, shape, sum)) if shape == view.shape() => {
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            Some((_, shape, _)) => {
                return Err(differs(format!("tensor `{name}` is {:?} and {shape:?}", view.shape())));
            }
            None => return Err(differs(format!("tensor `{name}` is in one of them only"))),
        }
    }
    Ok(())
}
