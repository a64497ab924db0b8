//! The tensors of all batches: `step.K.NAME` in one safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use burn::Tensor;
use burn::tensor::{Device, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one step.
#[derive(Debug)]
pub(crate) struct Batch {
    step: usize,
    integers: HashMap<String, Values<i64>>,
    floats: HashMap<String, Values<f32>>,
}

#[derive(Debug)]
struct Values<T> {
    shape: Vec<usize>,
    values: Vec<T>,
}

/// Reads the batches in the order of their steps; there is at least one.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Batch>> {
    let of_file = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).with_context(of_file)?;
    let mut batches: BTreeMap<usize, Batch> = BTreeMap::new();
    for (name, view) in file.iter() {
        let parts = name.strip_prefix("step.").and_then(|rest| rest.split_once('.'));
        let place = parts.and_then(|(step, key)| Some((step.parse::<usize>().ok()?, key.to_owned())));
        let Some((step, key)) = place else { bail!("{}: `{name}` is not step.NUMBER.NAME", path.display()) };
        let batch =
            batches.entry(step).or_insert_with(|| Batch { step, integers: HashMap::new(), floats: HashMap::new() });
        let shape = view.shape().to_vec();
        match view.dtype() {
            Dtype::I64 => {
                let values = view.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
                batch.integers.insert(key, Values { shape, values });
            }
            Dtype::F32 => {
                let values = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
                batch.floats.insert(key, Values { shape, values });
            }
            other => bail!("{}: `{name}` is {other:?}, not I64 or F32", path.display()),
        }
    }
    ensure!(!batches.is_empty(), "{} holds no batch", path.display());
    Ok(batches.into_values().collect())
}

impl Batch {
    /// The rows of a padded matrix of token ids, each cut to its length.
    pub(crate) fn rows(&self, ids: &str, lengths: &str) -> anyhow::Result<Vec<Vec<u32>>> {
        let (ids_name, lengths_name) = (ids, lengths);
        let (ids, lengths) = (find(&self.integers, self.step, ids)?, find(&self.integers, self.step, lengths)?);
        let fits = ids.shape.len() == 2 && lengths.shape == ids.shape[..1];
        ensure!(fits, "step {}: {ids_name} is {:?}, {lengths_name} {:?}", self.step, ids.shape, lengths.shape);
        let time = ids.shape[1];
        let mut rows = Vec::with_capacity(lengths.values.len());
        for (row, &length) in lengths.values.iter().enumerate() {
            let length = usize::try_from(length).ok().filter(|length| (1..=time).contains(length));
            let Some(length) = length else {
                bail!("step {}: row {row} of {ids_name} is to hold {} of {time} tokens", self.step, lengths.values[row])
            };
            let tokens = &ids.values[row * time..][..length];
            let tokens = tokens.iter().map(|&token| u32::try_from(token)).collect::<Result<Vec<u32>, _>>();
            rows.push(tokens.with_context(|| format!("step {}: row {row} of {ids_name}", self.step))?);
        }
        Ok(rows)
    }

    /// A tensor of floats whose last axis has `width` elements.
    pub(crate) fn floats(&self, name: &str, width: usize, device: &Device) -> anyhow::Result<Tensor<3>> {
        let found = find(&self.floats, self.step, name)?;
        let fits = found.shape.len() == 3 && found.shape[2] == width;
        ensure!(fits, "step {}: {name} is {:?}, not [batch, time, {width}]", self.step, found.shape);
        Ok(Tensor::from_data(TensorData::new(found.values.clone(), found.shape.clone()), device))
    }

    /// Checks that all tokens are entries of a vocabulary and that no row is longer than there are positions.
    pub(crate) fn check(&self, rows: &[Vec<u32>], vocabulary: usize, positions: usize) -> anyhow::Result<()> {
        for row in rows {
            ensure!(row.len() <= positions, "step {}: {} tokens for {positions} positions", self.step, row.len());
            let unknown = row.iter().find(|&&token| token as usize >= vocabulary);
            ensure!(unknown.is_none(), "step {}: token {unknown:?} in a vocabulary of {vocabulary}", self.step);
        }
        Ok(())
    }
}

fn find<'a, T>(tensors: &'a HashMap<String, Values<T>>, step: usize, name: &str) -> anyhow::Result<&'a Values<T>> {
    tensors.get(name).with_context(|| format!("step {step} has no tensor `{name}` of the type that is needed"))
}
