//! `optimizer.safetensors`: the moments under the names of the parameters they belong to, with `.exp_avg` and
//! `.exp_avg_sq` behind them, as torch calls them.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::Tensor;
use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use weft_kernels::Moments;
use weft_models::Architecture;
use weft_models::checkpoint::write_whole;

use super::{Optimizer, OptimizerSettings};
use crate::error::TrainError;

/// The file's name in a checkpoint.
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl Optimizer {
    /// Writes the moments into a checkpoint's folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save<M: Architecture>(&self, model: &M, folder: &Path) -> Result<(), TrainError> {
        let mut collect = Collect { path: Vec::new(), optimizer: self, names: M::stored_names, tensors: Vec::new() };
        model.visit(&mut collect);
        let path = folder.join(OPTIMIZER_FILE);
        let views = collect.tensors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("four bytes a value"))
        });
        let metadata = HashMap::from([("step".to_owned(), self.step.to_string())]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| TrainError::Damaged {
            path: path.clone(),
            problem: format!("the moments cannot be put into the format: {error}"),
        })?;
        Ok(write_whole(&path, &file)?)
    }

    /// Reads the moments of a checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, or whose tensors are not those of the model.
    pub fn load<M: Architecture>(
        settings: OptimizerSettings,
        step: u64,
        model: &M,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let path = folder.join(OPTIMIZER_FILE);
        let bytes = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| TrainError::Damaged {
            path: path.clone(),
            problem: format!("it is not a whole safetensors file: {error}"),
        })?;
        let mut restore = Restore {
            path: Vec::new(),
            file: &file,
            file_path: &path,
            names: M::stored_names,
            known: HashSet::new(),
            moments: HashMap::new(),
            error: None,
        };
        model.visit(&mut restore);
        let stranger = file.names().into_iter().filter(|name| !restore.known.contains(*name)).min();
        let strange = stranger.map(|name| TrainError::Damaged {
            path: path.clone(),
            problem: format!("tensor `{name}` belongs to no parameter of the model"),
        });
        match restore.error.or(strange) {
            Some(error) => Err(error),
            None => Ok(Self { settings, step, moments: restore.moments }),
        }
    }
}

struct Collect<'a> {
    path: Vec<String>,
    optimizer: &'a Optimizer,
    names: fn(&str) -> Vec<String>,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let moments = match self.optimizer.moments.get(&name).and_then(|any| any.downcast_ref::<Moments<D>>()) {
            Some(moments) => moments.clone(),
            // Constants have no moments; before the first step, those of a parameter are zeros.
            None if !parameter.is_require_grad() => return,
            None => Moments::zeros(parameter.dims(), &parameter.device().inner()),
        };
        let names = (self.names)(&name);
        let mut shape = moments.first.dims().to_vec();
        shape[0] /= names.len();
        let count = shape.iter().product::<usize>().max(1);
        for (suffix, tensor) in SUFFIXES.iter().zip([&moments.first, &moments.second]) {
            let values: Vec<f32> = tensor.to_data().try_to_vec().expect("moments are f32");
            for (name, part) in names.iter().zip(values.chunks(count)) {
                let bytes = part.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.tensors.push((format!("{name}.{suffix}"), shape.clone(), bytes));
            }
        }
    }
}

struct Restore<'a> {
    path: Vec<String>,
    file: &'a SafeTensors<'a>,
    file_path: &'a Path,
    names: fn(&str) -> Vec<String>,
    /// The names of the tensors that the model's parameters make.
    known: HashSet<String>,
    moments: HashMap<String, Box<dyn Any + Send>>,
    /// The first error; a visitor cannot return one.
    error: Option<TrainError>,
}

impl Restore<'_> {
    fn read<const D: usize>(
        &self,
        names: &[String],
        suffix: &str,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, TrainError> {
        let damaged = |problem: String| TrainError::Damaged { path: self.file_path.to_owned(), problem };
        let mut part = shape.to_vec();
        part[0] /= names.len();
        let mut values: Vec<f32> = Vec::with_capacity(shape.iter().product());
        for name in names {
            let name = format!("{name}.{suffix}");
            let view = self.file.tensor(&name).map_err(|_| damaged(format!("tensor `{name}` is missing")))?;
            if view.shape() != part || view.dtype() != Dtype::F32 {
                let found = (view.dtype(), view.shape().to_vec());
                return Err(damaged(format!("tensor `{name}` is {found:?}, but the model makes it F32 {part:?}")));
            }
            values.extend(view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

impl ModuleVisitor for Restore<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let names = (self.names)(&name);
        // Constants have no moments.
        if self.error.is_some() || !parameter.is_require_grad() {
            return;
        }
        let tensors = names.iter().flat_map(|name| SUFFIXES.map(|suffix| format!("{name}.{suffix}")));
        self.known.extend(tensors);
        let value = parameter.val().inner();
        let (shape, device) = (value.dims(), value.device());
        let read = || {
            let first = self.read::<D>(&names, SUFFIXES[0], shape, &device)?;
            Ok(Moments { first, second: self.read::<D>(&names, SUFFIXES[1], shape, &device)? })
        };
        match read() {
            Ok(moments) => {
                self.moments.insert(name, Box::new(moments));
            }
            Err(error) => self.error = Some(error),
        }
    }
}
