//! From a preset or a number of parameters to a shape.

use weft_models::CellKind;

use crate::config::ArchitectureKind;

/// The presets.
pub(super) const PRESETS: [&str; 4] = ["tiny", "small", "base", "big"];

/// Tokens that a language model reads at once where nobody says otherwise.
pub(super) const WINDOW: usize = 256;

/// Width and depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) hidden_size: usize,
    pub(super) num_layers: usize,
}

impl Shape {
    pub(super) fn of_preset(architecture: ArchitectureKind, preset: &str) -> Option<Self> {
        let at = PRESETS.iter().position(|name| *name == preset)?;
        let (hidden_size, num_layers) = match architecture {
            ArchitectureKind::Transformer => [(128, 3), (256, 3), (512, 6), (1024, 6)][at],
            ArchitectureKind::Gpt | ArchitectureKind::Llama | ArchitectureKind::Rwkv4 | ArchitectureKind::Rwkv7 => {
                [(128, 4), (256, 6), (512, 8), (768, 12)][at]
            }
            ArchitectureKind::Mamba | ArchitectureKind::Mamba2 => [(128, 6), (256, 10), (512, 16), (768, 24)][at],
            ArchitectureKind::RecurrentLm => [(128, 1), (512, 2), (1024, 2), (1536, 3)][at],
            ArchitectureKind::RnnEncoderDecoder => [(128, 1), (512, 1), (1000, 1), (1024, 2)][at],
        };
        Some(Self { hidden_size, num_layers })
    }

    /// The shape whose number of parameters comes nearest; `cell` is that of a recurrent language model.
    pub(super) fn of_size(architecture: ArchitectureKind, cell: CellKind, parameters: f64, vocab_size: usize) -> Self {
        let shapes = (1..=128).map(|n| 32 * n).map(|hidden_size| {
            let num_layers = match architecture {
                ArchitectureKind::Transformer => {
                    if hidden_size < 384 {
                        3
                    } else {
                        6
                    }
                }
                ArchitectureKind::Gpt | ArchitectureKind::Llama | ArchitectureKind::Rwkv7 => {
                    (hidden_size / 64 + 2).clamp(3, 24)
                }
                ArchitectureKind::Rwkv4 => (hidden_size / 64 + 1).clamp(3, 24),
                ArchitectureKind::Mamba | ArchitectureKind::Mamba2 => (hidden_size / 32 + 2).clamp(4, 48),
                ArchitectureKind::RecurrentLm => 2,
                ArchitectureKind::RnnEncoderDecoder => 1,
            };
            Self { hidden_size, num_layers }
        });
        let distance = |shape: &Self| (shape.parameters(architecture, cell, vocab_size) / parameters).ln().abs();
        let nearest = shapes.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.unwrap_or(Self { hidden_size: 256, num_layers: 3 })
    }

    /// Parameters, biases left out: `vocab_size` counts every row of every embedding table.
    pub(super) fn parameters(&self, architecture: ArchitectureKind, cell: CellKind, vocab_size: usize) -> f64 {
        let (d, n, v) = (self.hidden_size as f64, self.num_layers as f64, vocab_size as f64);
        match architecture {
            // Encoder layers hold 4 d^2 + 8 d^2, decoder layers 4 d^2 more.
            ArchitectureKind::Transformer => v * d + n * (12.0 + 16.0) * d * d,
            ArchitectureKind::Gpt => (v + WINDOW as f64) * d + n * 12.0 * d * d,
            // Three matrices of the feed-forward layer, 8 d^2 together; 2 d^2 for queries and output, d^2 for half as many
            // heads of keys and values.
            ArchitectureKind::Llama => v * d + n * 11.0 * d * d,
            // Projections of 6 d^2, delta's two of d^2 / 8 each; rates, B and C some 100 d.
            ArchitectureKind::Mamba => v * d + n * (6.25 * d * d + 110.0 * d),
            // Two tables; 4 d^2 mix over time, 9 d^2 over channels.
            ArchitectureKind::Rwkv4 => 2.0 * v * d + n * 13.0 * d * d,
            // Projections of 6 d^2; for B and C, the steps and the convolution some 140 d.
            ArchitectureKind::Mamba2 => v * d + n * (6.0 * d * d + 140.0 * d),
            // Embeddings and head; projections of 12 d^2; four of low rank, 32 or more, together some 12 roots of d.
            ArchitectureKind::Rwkv7 => 2.0 * v * d + n * (12.0 * d * d + 2.0 * d * (11.7 * d.sqrt()).max(128.0)),
            // Two matrices for each gate.
            ArchitectureKind::RecurrentLm => v * d + n * 2.0 * gates(cell) * d * d,
            // Two tables and the output at d / 2; the encoder 3 d^2 / 2, the decoder 15 d^2 / 2 in its two products,
            // attention and readout some 3 d^2.
            ArchitectureKind::RnnEncoderDecoder => 1.5 * v * d / 2.0 + n * 7.5 * d * d + 3.0 * d * d,
        }
    }
}

fn gates(cell: CellKind) -> f64 {
    match cell {
        CellKind::Rnn => 1.0,
        CellKind::Gru => 3.0,
        CellKind::Lstm => 4.0,
    }
}

/// Heads of 64, of 32 in narrow models; they divide the width.
pub(super) fn heads(hidden_size: usize) -> usize {
    let wanted = if hidden_size >= 256 { hidden_size / 64 } else { hidden_size / 32 };
    (1..=wanted.max(1)).rev().find(|heads| hidden_size.is_multiple_of(*heads)).unwrap_or(1)
}

/// `500k`, `3M`, `1.5B` or a plain number.
pub(super) fn parse_size(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, factor) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'm' | 'M' => (&text[..text.len() - 1], 1e6),
        'b' | 'B' | 'g' | 'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let parameters = number.trim().parse::<f64>().ok()? * factor;
    (1e3..1e13).contains(&parameters).then_some(parameters)
}
