//! Requests, answers and the clock.

use std::time::Instant;

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use weft_kernels::on_worker;

/// A line of standard input.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    /// So many steps.
    pub(crate) steps: usize,
    /// All sentences.
    pub(crate) translate: bool,
    /// The end.
    pub(crate) quit: bool,
}

/// A line of standard output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// Everything is loaded.
    Ready { ready: bool, simd: &'static str, version: &'static str },
    /// Of steps, in their order.
    Steps { seconds: f64, losses: Vec<f64>, gradient_norms: Vec<f64> },
    /// Of sentences, in their order.
    Translations { seconds: f64, outputs: Vec<Vec<u32>>, scores: Vec<f64> },
    /// What ends the run.
    Error { error: String },
}

/// What a step found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// The loss before the update.
    pub(crate) loss: f64,
    /// The length of all gradients as one vector, before clipping.
    pub(crate) gradient_norm: f64,
}

/// The best hypothesis of a sentence.
#[derive(Debug, Clone)]
pub(crate) struct Translation {
    /// With the end token where it was reached.
    pub(crate) tokens: Vec<u32>,
    /// Under the length penalty.
    pub(crate) score: f64,
}

/// Does the next step.
pub(crate) type Steps = Box<dyn FnMut() -> anyhow::Result<Step> + Send>;
/// Translates all sentences.
pub(crate) type Translations = Box<dyn Fn() -> anyhow::Result<Vec<Translation>>>;

/// What a process can be asked for.
pub(crate) enum Work {
    /// Of the kinds `gpt`, `transformer` and `recurrent`.
    Steps(Steps),
    /// Of the kind `translate`.
    Translate(Translations),
}

impl Work {
    /// Does what is asked, and measures it.
    pub(crate) fn answer(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let start = Instant::now();
        match self {
            Self::Steps(step) if request.steps > 0 => {
                let steps = on_worker(|| (0..request.steps).map(|_| step()).collect::<anyhow::Result<Vec<_>>>())?;
                let seconds = start.elapsed().as_secs_f64();
                // JSON has no word for them.
                let finite = steps.iter().all(|step| step.loss.is_finite() && step.gradient_norm.is_finite());
                ensure!(finite, "a loss or a gradient is not finite: {steps:?}");
                let (losses, gradient_norms) = steps.iter().map(|step| (step.loss, step.gradient_norm)).unzip();
                Ok(Answer::Steps { seconds, losses, gradient_norms })
            }
            Self::Translate(translate) if request.translate => {
                let translations = translate()?;
                let seconds = start.elapsed().as_secs_f64();
                let (outputs, scores) =
                    translations.into_iter().map(|translation| (translation.tokens, translation.score)).unzip();
                Ok(Answer::Translations { seconds, outputs, scores })
            }
            _ => bail!("this kind of process has no answer to {request:?}"),
        }
    }
}
