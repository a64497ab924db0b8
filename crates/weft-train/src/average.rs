//! Checkpoint averaging (Vaswani et al., arXiv 1706.03762, section 6.1): the mean of the weights of several checkpoints
//! of one run is often a better model than any of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use weft_models::checkpoint::{CONFIG_FILE, WEIGHTS_FILE, write_whole};

use crate::checkpoint::replace_folder;
use crate::error::TrainError;
use crate::task::{SOURCE_TOKENIZER_FILE, TOKENIZER_FILE};

/// Writes the mean of some models, computed in `f64`, into the folder `output`, with the configuration and the
/// tokenizers that they share. What was in `output` is replaced.
///
/// # Errors
/// No models; models of different configurations, tokenizers or tensors; files that cannot be read or written.
pub fn average(models: &[PathBuf], output: &Path) -> Result<(), TrainError> {
    let Some((first, others)) = models.split_first() else { return Err(TrainError::NothingToAverage) };
    for name in [CONFIG_FILE, TOKENIZER_FILE, SOURCE_TOKENIZER_FILE] {
        let wanted = std::fs::read(first.join(name)).ok();
        if let Some(path) = others.iter().find(|path| std::fs::read(path.join(name)).ok() != wanted) {
            let problem = format!("their {name} differ");
            return Err(TrainError::Average { path: path.clone(), first: first.clone(), problem });
        }
    }
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
