//! Gradients of a model, added up over micro-batches in the order in which they come.

use std::any::Any;

use burn::Tensor;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Gradients;
use weft_kernels::squared_norm;

/// A model's gradients in the order of its parameters; `None` for those that have none.
#[derive(Default)]
pub struct GradientSum {
    parts: Vec<Part>,
}

struct Part {
    name: String,
    /// A `Tensor<D>` of the parameter's rank.
    sum: Option<Box<dyn Any + Send>>,
    /// The squared norm of `sum`, as long as it is up to date.
    squared_norm: f64,
}

impl GradientSum {
    /// No gradients yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the gradients of one backward pass and adds them to those that are there.
    pub fn add(&mut self, model: &impl Module, gradients: Gradients) {
        let mut add = Add { path: Vec::new(), gradients, parts: &mut self.parts, at: 0 };
        model.visit(&mut add);
    }

    /// The length of all gradients as one vector, in `f64`; NaN or infinite if an element is.
    pub fn norm(&self) -> f64 {
        self.parts.iter().map(|part| part.squared_norm).sum::<f64>().sqrt()
    }

    /// The first parameter whose gradient is not finite, and what it holds.
    pub fn first_not_finite(&self) -> Option<(&str, f64)> {
        let part = self.parts.iter().find(|part| !part.squared_norm.is_finite())?;
        Some((&part.name, part.squared_norm))
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes the gradient of the parameter at a place in the order.
    pub(super) fn take<const D: usize>(&mut self, at: usize) -> Option<Tensor<D>> {
        let sum = self.parts.get_mut(at)?.sum.take()?;
        sum.downcast::<Tensor<D>>().ok().map(|tensor| *tensor)
    }
}

struct Add<'a> {
    path: Vec<String>,
    gradients: Gradients,
    parts: &'a mut Vec<Part>,
    at: usize,
}

impl ModuleVisitor for Add<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.at == self.parts.len() {
            self.parts.push(Part { name: self.path.join("."), sum: None, squared_norm: 0.0 });
        }
        let part = &mut self.parts[self.at];
        self.at += 1;
        if !parameter.is_require_grad() {
            return;
        }
        let Some(new) = parameter.val().grad_remove(&mut self.gradients) else { return };
        let before = part.sum.take().and_then(|sum| sum.downcast::<Tensor<D>>().ok());
        let sum = match before {
            Some(before) => *before + new,
            None => new,
        };
        part.squared_norm = squared_norm(&sum);
        part.sum = Some(Box::new(sum));
    }
}
