//! AdamW over a model's parameters, one fused pass for each, with the gradient's norm clipped.

mod gradients;
mod moments;

use std::any::Any;
use std::collections::HashMap;

use burn::Tensor;
use burn::module::{ModuleMapper, Param};
use weft_kernels::{AdamW, Moments, adamw};
use weft_models::Architecture;

pub use gradients::GradientSum;

/// The settings of an [`Optimizer`] that stay during a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// Adam's decay rates.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// The share of a parameter that goes per step, divided by the learning rate, where [`Architecture::decays`].
    pub weight_decay: f64,
    /// The longest gradient; 0 for no limit.
    pub clip_norm: f64,
}

/// AdamW with its moments. The parameters of a model are told apart by their names.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    step: u64,
    /// A `Moments<D>` of the parameter's rank for each parameter that ever had a gradient.
    moments: HashMap<String, Box<dyn Any + Send>>,
}

impl Optimizer {
    /// Before the first step.
    pub fn new(settings: OptimizerSettings) -> Self {
        Self { settings, step: 0, moments: HashMap::new() }
    }

    /// Steps done.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// Moves a model against the gradients of a sum of losses, divided by `tokens`, the number of target tokens that
    /// the sum is over. Parameters that nobody else holds are written over.
    pub fn step<M: Architecture>(
        &mut self,
        model: M,
        mut gradients: GradientSum,
        tokens: usize,
        learning_rate: f64,
    ) -> M {
        self.step += 1;
        let OptimizerSettings { betas, epsilon, clip_norm, .. } = self.settings;
        let mean = 1.0 / tokens.max(1) as f64;
        // As torch has it: the constant keeps a zero gradient from dividing by zero.
        let clip = if clip_norm > 0.0 { (clip_norm / (gradients.norm() * mean + 1e-6)).min(1.0) } else { 1.0 };
        let options = AdamW {
            learning_rate,
            beta1: betas[0],
            beta2: betas[1],
            epsilon,
            weight_decay: 0.0,
            step: self.step,
            gradient_scale: (mean * clip) as f32,
        };
        let of_parameter = |name: &str, rank: usize| AdamW {
            learning_rate: learning_rate * M::learning_rate_factor(name),
            weight_decay: if M::decays(name, rank) { self.settings.weight_decay } else { 0.0 },
            ..options
        };
        model.map(&mut Update {
            path: Vec::new(),
            at: 0,
            gradients: &mut gradients,
            moments: &mut self.moments,
            options: &of_parameter,
        })
    }
}

struct Update<'a> {
    path: Vec<String>,
    at: usize,
    gradients: &'a mut GradientSum,
    moments: &'a mut HashMap<String, Box<dyn Any + Send>>,
    /// By name and rank.
    options: &'a dyn Fn(&str, usize) -> AdamW,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let at = self.at;
        self.at += 1;
        let Some(gradient) = self.gradients.take::<D>(at) else { return parameter };
        let name = self.path.join(".");
        let (id, value, mapper) = parameter.consume();
        let value = value.inner();
        let moments = self.moments.remove(&name).and_then(|moments| moments.downcast::<Moments<D>>().ok());
        let moments = match moments {
            Some(moments) => *moments,
            None => Moments::zeros(value.dims(), &value.device()),
        };
        let (value, moments) = adamw(value, gradient, moments, &(self.options)(&name, D));
        self.moments.insert(name, Box::new(moments));
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}
