//! Parameters by name.

use burn::Tensor;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Gradients;

/// One parameter, as a checkpoint sees it.
#[derive(Debug, Clone)]
pub struct NamedParameter {
    /// The dotted path, e.g. `transformer.h.0.attn.c_attn.weight`.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
}

/// Every parameter of a model in the order of its fields, with its values copied to the host.
pub fn named_parameters(model: &impl Module) -> Vec<NamedParameter> {
    let mut collect = Collect { path: Vec::new(), parameters: Vec::new() };
    model.visit(&mut collect);
    collect.parameters
}

struct Collect {
    path: Vec<String>,
    parameters: Vec<NamedParameter>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().try_to_vec().expect("parameters are f32");
        self.parameters.push(NamedParameter { name: self.path.join("."), shape, values });
    }
}

/// The gradients of a model's parameters, by the same names; those without one are left out.
pub fn named_gradients(model: &impl Module, gradients: &Gradients) -> Vec<NamedParameter> {
    let mut collect = CollectGradients { path: Vec::new(), gradients, found: Vec::new() };
    model.visit(&mut collect);
    collect.found
}

struct CollectGradients<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Vec<NamedParameter>,
}

impl ModuleVisitor for CollectGradients<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad(self.gradients) {
            let shape = gradient.dims().to_vec();
            let values = gradient.into_data().try_to_vec().expect("gradients are f32");
            self.found.push(NamedParameter { name: self.path.join("."), shape, values });
        }
    }
}
