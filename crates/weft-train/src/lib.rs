//! The training loop: schedule, optimizer, validation, checkpoints and exact resume.

mod average;
mod build;
mod checkpoint;
mod config;
mod dial;
mod error;
mod event;
mod metrics;
mod optimizer;
mod prepare;
mod run;
mod schedule;
mod task;
pub mod tensorboard;
mod trainer;

pub use average::average;
pub use build::Buildable;
pub use checkpoint::{Best, DataHashes, PassedOver, RunFolder, RunState};
pub use config::{
    ArchitectureKind, DataConfig, Metric, ModelConfig, Origin, Overrides, RunConfig, TokenizerConfig, TrainingConfig,
};
pub use dial::{Derived, Facts, derive};
pub use error::TrainError;
pub use event::{Event, Outcome, Progress};
pub use metrics::{Record, TrainingRecord, ValidationRecord, draw_curve, read_metrics};
pub use optimizer::{GradientSum, Optimizer, OptimizerSettings};
pub use prepare::{TextData, TranslationData, survey};
pub use run::Run;
pub use schedule::{Schedule, ScheduleKind};
pub use task::{LanguageModelling, SOURCE_TOKENIZER_FILE, TOKENIZER_FILE, Task, Translated, Translating, Translations};
pub use trainer::{Observer, Trainer};
