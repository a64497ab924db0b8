//! Sequence operations that a tensor library lacks or does slowly, for Burn tensors.
//!
//! One folder per operation:
//!
//! | file           | holds |
//! |----------------|-------|
//! | `mod.rs`       | the public function on [`burn::Tensor`], and the extension trait with its portable body |
//! | `backward.rs`  | the autodiff step: which gradients exist and what the forward pass must keep |
//! | `cpu.rs`       | the kernel: SIMD chosen at run time, both passes over all cores |
//! | `reference.rs` | the equations in plain `f64`, for tests |
//! | `tests.rs`     | kernel against reference on every SIMD level, gradients, odd shapes |
//!
//! The portable body composes Burn's own operations, so every device runs every operation; the CPU device
//! (Flex) overrides it with the kernel. Kernels never depend on how many threads run them: rows are cut
//! into parts of a fixed size, and sums over rows are added in a fixed order.

pub mod adamw;
pub mod additive_attention;
pub mod attention;
pub mod causal_convolution;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
mod flex;
mod fresh;
pub mod gated_residual;
mod gemm;
mod host_mask;
mod in_place;
mod lanes;
pub mod layer_norm;
pub mod linear;
mod panels;
pub mod recurrent;
pub mod rms_norm;
pub mod rotary;
pub mod select_rows;
pub mod selective_scan;
mod simd;
pub mod state_space_dual;
pub mod swiglu;
#[cfg(test)]
mod testing;
mod threads;
pub mod token_shift;
pub mod wkv4;
pub mod wkv7;

pub use adamw::{AdamW, Moments, adamw, squared_norm};
pub use additive_attention::{AttentiveInputs, AttentiveOutputs, additive_attention, attentive_recurrence};
pub use attention::{AttentionOptions, BlockMask, attention_weights, cross_attention, self_attention};
pub use causal_convolution::causal_convolution;
pub use cross_entropy::linear::linear_cross_entropy;
pub use cross_entropy::{cross_entropy, cross_entropy_rows};
pub use dropout::{Dropout, dropout};
pub use embedding::{EmbeddingOptions, embedding};
pub use gated_residual::gated_residual;
pub use layer_norm::layer_norm;
pub use linear::{Activation, Epilogue, WeightLayout, linear};
pub use recurrent::{Cell, RecurrentState, recurrent};
pub use rms_norm::gated::gated_rms_norm;
pub use rms_norm::rms_norm;
pub use rotary::{Rotation, rotary};
pub use select_rows::select_rows;
pub use selective_scan::{ScanInputs, ScanParameters, selective_scan};
pub use simd::Level;
pub use state_space_dual::{DualInputs, DualParameters, state_space_dual};
pub use swiglu::swiglu;
pub use threads::on_worker;
pub use token_shift::token_shift;
pub use wkv4::{WkvInputs, wkv4};
pub use wkv7::{Wkv7Inputs, wkv7};
