//! The loop: micro-batches to steps, steps to validations, validations to checkpoints.

mod finish;
mod save;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use weft_kernels::on_worker;
use weft_models::{Architecture, Noise, checkpoint};
use weft_text::CounterRng;

use crate::checkpoint::{RunFolder, RunState};
use crate::config::{Metric, RunConfig};
use crate::error::TrainError;
use crate::event::{Event, Outcome, Progress};
use crate::metrics::{Metrics, Record, TrainingRecord};
use crate::optimizer::{GradientSum, Optimizer, OptimizerSettings};
use crate::schedule::Schedule;
use crate::task::{Task, scalar};

/// Who is told of [`Event`]s.
pub type Observer<'a> = &'a mut (dyn FnMut(&Event) + Send);

/// The random stream of dropout, told apart from those of the data.
const NOISE_STREAM: u64 = 4;

/// A run in progress.
pub struct Trainer<M> {
    config: RunConfig,
    folder: RunFolder,
    device: Device,
    task: Box<dyn Task<M>>,
    /// Absent only while the optimizer has it.
    model: Option<M>,
    optimizer: Optimizer,
    schedule: Schedule,
    state: RunState,
    metrics: Metrics,
    batches_in_epoch: usize,
    total_steps: Option<u64>,
    /// Tokens and time since the speed was last reported; no part of what a run computes.
    pace: (u64, Instant),
    started: Instant,
    seconds_before: f64,
    outcome: Option<Outcome>,
}

impl<M: Architecture> Trainer<M> {
    /// Begins a run in a new folder. `model` is on a plain or an autodiff device; training goes on on `device`.
    ///
    /// # Errors
    /// A folder that cannot be written or that holds a run; data of which there is too little.
    pub fn start(
        config: RunConfig,
        model: M,
        mut task: Box<dyn Task<M>>,
        folder: &Path,
        device: &Device,
    ) -> Result<Self, TrainError> {
        // Data of which there is too little leave no folder behind.
        task.begin_epoch(0)?;
        let folder = RunFolder::create(folder, &config)?;
        let state =
            RunState { data: task.hashes(), weft_version: env!("CARGO_PKG_VERSION").to_owned(), ..RunState::default() };
        let optimizer = Optimizer::new(settings(&config));
        let mut trainer = Self::assemble(config, model, optimizer, task, folder, state, device)?;
        // From here on the run can be resumed, even if it is killed in its first step.
        trainer.save()?;
        Ok(trainer)
    }

    /// Goes on from the newest whole checkpoint of a run, bit for bit as if it had not stopped.
    ///
    /// # Errors
    /// No whole checkpoint; data or a tokenizer that changed.
    pub fn resume(
        config: RunConfig,
        task: Box<dyn Task<M>>,
        folder: &RunFolder,
        device: &Device,
        observer: Observer<'_>,
    ) -> Result<Self, TrainError> {
        let (path, state, passed_over) = folder.newest_whole()?;
        state.data.check(&task.hashes())?;
        passed_over.into_iter().for_each(|item| observer(&Event::PassedOver(item)));
        let model: M = checkpoint::load(&path, &device.clone().autodiff())?;
        let optimizer = match state.step {
            0 => Optimizer::new(settings(&config)),
            step => Optimizer::load(settings(&config), step, &model, &path)?,
        };
        observer(&Event::Resumed { path, step: state.step });
        Self::assemble(config, model, optimizer, task, folder.clone(), state, device)
    }

    fn assemble(
        config: RunConfig,
        model: M,
        optimizer: Optimizer,
        mut task: Box<dyn Task<M>>,
        folder: RunFolder,
        state: RunState,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let device = if device.is_autodiff() { device.clone() } else { device.clone().autodiff() };
        let training = &config.training;
        let total_steps = total_steps(task.as_mut(), training.steps, training.epochs, training.accumulate)?;
        let batches_in_epoch = task.begin_epoch(state.epoch)?;
        let schedule = Schedule {
            kind: training.schedule,
            peak: training.learning_rate,
            warmup_steps: training.warmup_steps,
            total_steps: total_steps.unwrap_or(0),
            floor_ratio: training.floor_ratio,
        };
        let metrics = Metrics::open(&folder, state.step)?;
        let state = RunState { config: config.to_toml(), ..state };
        let model = Some(if model.devices().iter().all(Device::is_autodiff) { model } else { model.train() });
        Ok(Self {
            folder,
            task,
            model,
            optimizer,
            schedule,
            metrics,
            batches_in_epoch,
            total_steps,
            pace: (0, Instant::now()),
            started: Instant::now(),
            seconds_before: state.seconds,
            outcome: None,
            state,
            config,
            device,
        })
    }

    /// Runs to the end, or until `stop` becomes true; `observer` is called from one of the kernels' threads, which the
    /// run keeps all the time. For several runs side by side call [`Trainer::advance`] in turns or from their threads.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, files that cannot be written; the last checkpoint stays.
    pub fn run(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome, TrainError> {
        on_worker(|| {
            loop {
                if let Some(outcome) = self.advance(stop, observer)? {
                    return Ok(outcome);
                }
            }
        })
    }

    /// Does one step and what is due after it; the outcome once the run has ended.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn advance(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Option<Outcome>, TrainError> {
        if self.outcome.is_some() {
            return Ok(self.outcome);
        }
        if self.is_spent() {
            // A run that was finished and is resumed: everything is there.
            return self.end(Outcome::Finished, observer);
        }
        if self.is_out_of_patience() {
            return self.end(Outcome::EarlyStopped, observer);
        }
        let Some(progress) = on_worker(|| self.step(stop))? else {
            if self.folder.checkpoint_path(self.state.step).join("manifest.json").exists() {
                self.outcome = Some(Outcome::Interrupted);
                return Ok(self.outcome);
            }
            let path = self.save()?;
            observer(&Event::Saved { path, step: self.state.step });
            self.outcome = Some(Outcome::Interrupted);
            return Ok(self.outcome);
        };
        observer(&Event::Stepped(progress));
        let spent = self.is_spent();
        let is_due = |interval: u64| spent || self.state.step.is_multiple_of(interval);
        let validates = is_due(self.config.training.validation_interval);
        let saves = validates || is_due(self.config.training.checkpoint_interval);
        if is_due(self.config.training.log_interval) {
            self.record(progress, observer)?;
        }
        let mut improved = false;
        if validates {
            improved = self.validate(observer)?;
        }
        if saves {
            let path = self.save()?;
            if improved {
                self.folder.publish(&path)?;
            }
            observer(&Event::Saved { path, step: self.state.step });
            self.draw()?;
            self.pace = (0, Instant::now());
        }
        if spent {
            return self.end(Outcome::Finished, observer);
        }
        if self.is_out_of_patience() {
            return self.end(Outcome::EarlyStopped, observer);
        }
        Ok(None)
    }

    /// The model as it is now, for use: without gradients.
    pub fn model(&self) -> M {
        self.model.as_ref().expect("the optimizer hands it back").valid()
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The full configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The records of `metrics.jsonl`.
    pub fn records(&self) -> &[Record] {
        self.metrics.records()
    }

    /// One step of the optimizer; `None` if it was interrupted, with nothing changed.
    fn step(&mut self, stop: &AtomicBool) -> Result<Option<Progress>, TrainError> {
        let step = self.state.step + 1;
        let (before, batches_before) = ((self.state.epoch, self.state.position), self.batches_in_epoch);
        let mut model = self.model.take().expect("the optimizer hands it back");
        let mut gradients = GradientSum::new();
        let (mut sum, mut tokens) = (0.0, 0);
        let mut result = Ok(true);
        for micro in 0..self.config.training.accumulate {
            // What is half done is dropped: a resumed run does it again, the same way.
            if stop.load(Ordering::Relaxed) {
                result = Ok(false);
                break;
            }
            match self.micro_batch(&model, step, micro as u64, &mut gradients) {
                Ok((loss, count)) => {
                    sum += loss;
                    tokens += count;
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let norm = gradients.norm() / tokens.max(1) as f64;
        if let (Ok(true), Some((name, found))) = (&result, gradients.first_not_finite()) {
            result = Err(TrainError::NotFinite {
                step,
                what: format!("the gradient of `{name}`"),
                found: found.to_string(),
            });
        }
        let learning_rate = match (self.total_steps, self.config.training.minutes) {
            (None, Some(minutes)) => self.schedule.learning_rate_by_time(step, self.seconds() / (60.0 * minutes)),
            _ => self.schedule.learning_rate(step),
        };
        if let Ok(true) = result {
            model = self.optimizer.step(model, gradients, tokens, learning_rate);
        }
        self.model = Some(model);
        if !matches!(result, Ok(true)) {
            if before.0 != self.state.epoch {
                self.batches_in_epoch = self.task.begin_epoch(before.0)?;
            }
            (self.state.epoch, self.state.position) = before;
            self.batches_in_epoch = batches_before;
            return result.map(|_| None);
        }
        self.state.step = step;
        self.state.tokens += tokens as u64;
        self.state.seconds = self.seconds();
        self.state.unreported_loss += sum;
        self.state.unreported_tokens += tokens as u64;
        self.pace.0 += tokens as u64;
        Ok(Some(Progress {
            step,
            total_steps: self.total_steps,
            share: self.share(),
            epoch: self.state.epoch,
            loss: sum / tokens.max(1) as f64,
            learning_rate,
            gradient_norm: norm,
            tokens,
            seconds: self.state.seconds,
        }))
    }

    /// The next micro-batch: its gradients are added, its loss and tokens returned.
    fn micro_batch(
        &mut self,
        model: &M,
        step: u64,
        micro: u64,
        gradients: &mut GradientSum,
    ) -> Result<(f64, usize), TrainError> {
        let seed = CounterRng::new(self.config.training.seed, &[NOISE_STREAM, step]).at(micro);
        let mut noise = Noise::new(seed);
        let (loss, tokens) = self.task.loss(model, self.state.position, &mut noise, &self.device)?;
        let value = scalar(&loss);
        if !value.is_finite() {
            return Err(not_finite_loss(model, step, "loss", value));
        }
        gradients.add(model, loss.backward());
        self.state.position += 1;
        if self.state.position >= self.batches_in_epoch {
            self.state.epoch += 1;
            self.state.position = 0;
            self.batches_in_epoch = self.task.begin_epoch(self.state.epoch)?;
        }
        Ok((value, tokens))
    }

    fn record(&mut self, progress: Progress, observer: Observer<'_>) -> Result<(), TrainError> {
        let (paced, since) = std::mem::replace(&mut self.pace, (0, Instant::now()));
        let loss = std::mem::take(&mut self.state.unreported_loss);
        let tokens = std::mem::take(&mut self.state.unreported_tokens);
        let record = TrainingRecord {
            step: progress.step,
            epoch: progress.epoch,
            tokens: self.state.tokens,
            loss: loss / tokens.max(1) as f64,
            learning_rate: progress.learning_rate,
            gradient_norm: progress.gradient_norm,
            tokens_per_second: paced as f64 / since.elapsed().as_secs_f64().max(1e-9),
            seconds: progress.seconds,
        };
        observer(&Event::Trained(record.clone()));
        self.metrics.add(Record::Training(record))
    }

    /// Seconds spent so far, those before an interruption included.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// Whether the budget is used up.
    fn is_spent(&self) -> bool {
        let training = &self.config.training;
        training.steps.is_some_and(|steps| self.state.step >= steps)
            || training.epochs.is_some_and(|epochs| self.state.epoch >= epochs)
            || training.minutes.is_some_and(|minutes| self.state.seconds >= 60.0 * minutes)
    }

    fn is_out_of_patience(&self) -> bool {
        let patience = self.config.training.patience;
        patience > 0 && self.state.validations_without_best >= patience
    }

    fn share(&self) -> f64 {
        let training = &self.config.training;
        let of_steps = self.total_steps.map_or(0.0, |total| self.state.step as f64 / total.max(1) as f64);
        let of_time = training.minutes.map_or(0.0, |minutes| self.state.seconds / (60.0 * minutes).max(1e-9));
        of_steps.max(of_time).min(1.0)
    }

    fn metric(&self) -> Metric {
        self.config.training.metric
    }
}

/// The first parameter that is not finite, and what it holds.
fn first_not_finite(model: &impl Module) -> Option<(String, f32)> {
    weft_models::named_parameters(model).into_iter().find_map(|parameter| {
        let found = *parameter.values.iter().find(|value| !value.is_finite())?;
        Some((parameter.name, found))
    })
}

/// Names the first parameter that is not finite, or the loss (which of them, says `kind`) if all are.
fn not_finite_loss(model: &impl Module, step: u64, kind: &str, value: f64) -> TrainError {
    let (what, found) = match first_not_finite(model) {
        Some((name, found)) => {
            (format!("the {kind} is {value}, and the first parameter at fault, `{name}`,"), found.to_string())
        }
        None => (format!("all parameters are finite, but the {kind}"), value.to_string()),
    };
    TrainError::NotFinite { step, what, found }
}

fn settings(config: &RunConfig) -> OptimizerSettings {
    let training = &config.training;
    OptimizerSettings {
        betas: training.betas,
        epsilon: training.epsilon,
        weight_decay: training.weight_decay,
        clip_norm: training.clip_norm,
    }
}

/// Steps until the budget of steps or epochs is used up.
fn total_steps<M: Architecture>(
    task: &mut dyn Task<M>,
    steps: Option<u64>,
    epochs: Option<u64>,
    accumulate: usize,
) -> Result<Option<u64>, TrainError> {
    let Some(epochs) = epochs else { return Ok(steps) };
    let mut batches = 0;
    for epoch in 0..epochs {
        let in_epoch = task.begin_epoch(epoch)? as u64;
        batches += in_epoch;
        // The number of batches hardly differs from epoch to epoch: a few are counted, the rest is taken as alike.
        if epoch == 3 {
            batches = batches.saturating_mul(epochs) / 4;
            break;
        }
    }
    let of_epochs = batches.div_ceil(accumulate.max(1) as u64);
    Ok(Some(steps.map_or(of_epochs, |steps| steps.min(of_epochs))))
}
