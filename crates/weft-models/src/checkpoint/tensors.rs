//! Between a model's parameters and the tensors of a safetensors file.

use std::collections::HashSet;
use std::path::Path;

use burn::Tensor;
use burn::module::{ModuleMapper, Param};
use burn::tensor::{Device, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::CheckpointError;
use crate::Architecture;
use crate::parameters::{NamedParameter, named_parameters};

/// A model's parameters under the names and in the parts that a checkpoint stores.
pub(super) fn stored_tensors<M: Architecture>(model: &M) -> Vec<NamedParameter> {
    named_parameters(model)
        .into_iter()
        .flat_map(|parameter| {
            let names = M::stored_names(&parameter.name);
            let mut shape = parameter.shape;
            shape[0] /= names.len();
            let count = shape.iter().product::<usize>().max(1);
            let mut parts = parameter.values.chunks(count).map(<[f32]>::to_vec).collect::<Vec<_>>().into_iter();
            names
                .into_iter()
                .map(|name| NamedParameter { name, shape: shape.clone(), values: parts.next().unwrap_or_default() })
                .collect::<Vec<_>>()
        })
        .collect()
}

pub(super) fn serialise(tensors: &[NamedParameter]) -> Result<Vec<u8>, SafeTensorError> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| Ok((&tensor.name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    // transformers looks for this entry before it opens a file.
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata))
}

/// The model with its parameters replaced by those in the file.
pub(super) fn fill<M: Architecture>(
    model: M,
    bytes: &[u8],
    path: &Path,
    device: &Device,
) -> Result<M, CheckpointError> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|source| CheckpointError::Format { path: path.to_owned(), source })?;
    let mut fill = Fill {
        file: &file,
        path,
        device,
        stored_names: M::stored_names,
        prefix: M::OPTIONAL_PREFIX,
        location: Vec::new(),
        used: HashSet::new(),
        error: None,
    };
    let model = model.map(&mut fill);
    if let Some(error) = fill.error {
        return Err(error);
    }
    let unknown = file.names().into_iter().find(|name| !fill.used.contains(*name) && !M::ignores_stored(name));
    match unknown {
        Some(name) => Err(CheckpointError::Unknown { path: path.to_owned(), name: name.to_owned() }),
        None => Ok(model),
    }
}

struct Fill<'a> {
    file: &'a SafeTensors<'a>,
    path: &'a Path,
    device: &'a Device,
    stored_names: fn(&str) -> Vec<String>,
    prefix: &'static str,
    location: Vec<String>,
    used: HashSet<String>,
    /// The first error; a mapper cannot return one.
    error: Option<CheckpointError>,
}

impl Fill<'_> {
    fn read(&mut self, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let names = (self.stored_names)(&self.location.join("."));
        let mut part = shape.to_vec();
        part[0] /= names.len();
        let mut values = Vec::with_capacity(shape.iter().product());
        for name in names {
            let short = name.strip_prefix(self.prefix).unwrap_or(&name).to_owned();
            let found = self.file.tensor(&name).map(|view| (name.clone(), view));
            let Ok((stored, view)) = found.or_else(|_| self.file.tensor(&short).map(|view| (short, view))) else {
                let nearest = nearest(&name, self.file.names().into_iter());
                return Err(CheckpointError::Missing { path: self.path.to_owned(), name, nearest });
            };
            if view.shape() != part {
                let (found, wanted) = (view.shape().to_vec(), part);
                return Err(CheckpointError::Shape { path: self.path.to_owned(), name, found, wanted });
            }
            let path = self.path;
            append(&view, &mut values).map_err(|found| CheckpointError::Type { path: path.to_owned(), name, found })?;
            self.used.insert(stored);
        }
        Ok(values)
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.location.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.location.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return parameter;
        }
        let shape = parameter.val().dims();
        match self.read(&shape) {
            Ok(values) => {
                let trained = parameter.is_require_grad();
                let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
                Param::from_tensor(tensor).set_require_grad(trained)
            }
            Err(error) => {
                self.error = Some(error);
                parameter
            }
        }
    }
}

/// Appends a tensor's values, widened or narrowed to `f32`; the type's name if it is not a float.
fn append(view: &TensorView<'_>, values: &mut Vec<f32>) -> Result<(), String> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => values.extend(data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))),
        Dtype::F64 => values.extend(data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32)),
        Dtype::BF16 => {
            values.extend(data.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)));
        }
        Dtype::F16 => values.extend(data.as_chunks().0.iter().map(|&b| half_to_f32(u16::from_le_bytes(b)))),
        other => return Err(format!("{other:?}")),
    }
    Ok(())
}

/// IEEE 754 binary16 to binary32.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// The name most like the wanted one, if any is near.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (strsim::normalized_damerau_levenshtein(wanted, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
