//! Models with a configuration that is a little different from their folder's.

use std::any::Any;
use std::path::Path;

use anyhow::Context;
use burn::Tensor;
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Device;
use weft_models::{Architecture, checkpoint};

/// Reads a model whose configuration `change` has changed; parameters and their shapes must stay the same.
pub(crate) fn load<M: Architecture>(
    folder: &Path,
    device: &Device,
    change: impl FnOnce(&mut M::Config),
) -> anyhow::Result<M> {
    let stored: M = checkpoint::load(folder, device)?;
    let mut config = stored.config().clone();
    change(&mut config);
    M::check(&config).context("the options do not go with this model")?;
    let mut parameters = Parameters(Vec::new());
    stored.visit(&mut parameters);
    drop(stored);
    parameters.0.reverse();
    Ok(M::new(&config, 0, device).map(&mut parameters))
}

/// A `Param<Tensor<D>>` of each parameter's rank: visiting a model takes them, mapping another one gives them away.
struct Parameters(Vec<Box<dyn Any>>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.0.push(Box::new(parameter.clone()));
    }
}

impl ModuleMapper for Parameters {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let stored = self.0.pop().and_then(|stored| stored.downcast::<Param<Tensor<D>>>().ok());
        stored.map_or(parameter, |stored| *stored)
    }
}
