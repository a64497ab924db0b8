//! The training loop: schedule, optimizer, validation, checkpoints and exact resume.
//!
//! A run is a function of its configuration, its data and its seed. What the user does not fix is [derived](derive()); the full
//! configuration is written into the run's folder. Here a Transformer learns to read numbers, and is used:
//!
//! ```
//! use std::{path::Path, sync::atomic::AtomicBool};
//! use burn::tensor::Device;
//! use weft_decode::BeamConfig;
//! use weft_models::{checkpoint, search::translate, transformer::Transformer};
//! use weft_text::Tokenizer;
//! use weft_train::{Overrides, Run, derive, survey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # std::env::set_current_dir(temporary.path())?;
//! let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
//! let pairs: String = (0..100).map(|n| format!("{} {}\t{n:02}\n", names[n / 10], names[n % 10])).collect();
//! std::fs::write("numbers.tsv", pairs)?;
//!
//! let settings = r#"
//!     data = { train = ["numbers.tsv"], validation = ["numbers.tsv"] }
//!     model = { preset = "tiny", num_layers = 1, dropout = 0.0 }
//!     training = { steps = 120, batch_tokens = 512, learning_rate = 3e-3, warmup_steps = 40 }"#;
//! let overrides = Overrides::parse(settings, Path::new("run.toml"))?;
//! let (config, _derived) = derive(&overrides, &survey(&overrides)?)?;
//! let device = Device::flex();
//! Run::start(config, Path::new("run"), &device)?.run(&AtomicBool::new(false), &mut |event| println!("{event:?}"))?;
//!
//! let model: Transformer = checkpoint::load(Path::new("run/model"), &device)?;
//! let tokenizer = Tokenizer::load("run/model/tokenizer.json")?;
//! let mut source = tokenizer.encode("four two")?;
//! source.push(tokenizer.eos_id());
//! let found = translate(&model, &[source], &BeamConfig::new(4, 20, tokenizer.eos_id()))?;
//! assert_eq!(tokenizer.decode(&found[0][0].tokens)?, "42");
//! # Ok(())
//! # }
//! ```

mod average;
mod build;
mod checkpoint;
mod config;
mod dial;
mod error;
mod event;
mod exact;
mod measure;
mod metrics;
mod optimizer;
mod prepare;
mod recall;
mod run;
mod schedule;
mod task;
pub mod tensorboard;
mod trainer;

pub use average::{average, check_average_output};
pub use build::Buildable;
pub use checkpoint::{Best, DataHashes, PassedOver, RunFolder, RunState, find_folder, verify_model, weights_hash};
pub use config::{
    ArchitectureKind, DataConfig, Metric, ModelConfig, Origin, Overrides, RunConfig, TokenizerConfig, TrainingConfig,
};
pub use dial::{Derived, Facts, derive};
pub use error::TrainError;
pub use event::{Event, Outcome, Progress};
pub use measure::{
    ATTENTION_WINDOW, AttentionCost, GenerationSpeed, GradientReach, MemoryMeter, TrainingSpeed, gradient_norms,
    measure_attention, measure_gradients, measure_speed,
};
pub use metrics::{Record, TrainingRecord, ValidationRecord, draw_curve, read_metrics};
pub use optimizer::{GradientSum, Optimizer, OptimizerSettings};
pub use prepare::{TextData, TranslationData, survey};
pub use recall::{RecallAccuracy, recall_accuracy};
pub use run::Run;
pub use schedule::{Schedule, ScheduleKind};
pub use task::{
    LanguageModelling, Recalling, SOURCE_TOKENIZER_FILE, TOKENIZER_FILE, Task, Translated, Translating, Translations,
};
pub use trainer::{Observer, Trainer};
