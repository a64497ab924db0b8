//! Sparse attention patterns by their names in a configuration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weft_kernels::attention::BlockMask;

/// Which blocks of positions see which; only the past, in any case. Written as `strided:BLOCK:STRIDE`,
/// `fixed:BLOCK:STRIDE:SUMMARY` or `global-window-random:BLOCK:GLOBAL:WINDOW:RANDOM`, where `BLOCK` counts positions and
/// all others count blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SparsePattern {
    /// See [`BlockMask::strided`].
    Strided {
        /// Positions in a block.
        block: usize,
        /// Blocks that are seen before the own one, and the step of those before.
        stride: usize,
    },
    /// See [`BlockMask::fixed`].
    Fixed {
        /// Positions in a block.
        block: usize,
        /// Blocks in a stretch.
        stride: usize,
        /// Blocks at the end of each stretch that all later ones see.
        summary: usize,
    },
    /// See [`BlockMask::global_window_random`].
    GlobalWindowRandom {
        /// Positions in a block.
        block: usize,
        /// First blocks, which all see.
        global: usize,
        /// Blocks that are seen before the own one.
        window: usize,
        /// Others, drawn for each block.
        random: usize,
    },
}

impl SparsePattern {
    /// Positions of a block.
    pub fn block(self) -> usize {
        match self {
            Self::Strided { block, .. } | Self::Fixed { block, .. } | Self::GlobalWindowRandom { block, .. } => block,
        }
    }

    /// The mask for `length` positions.
    pub fn mask(self, length: usize) -> BlockMask {
        match self {
            Self::Strided { block, stride } => BlockMask::strided(block, length, stride),
            Self::Fixed { block, stride, summary } => BlockMask::fixed(block, length, stride, summary),
            Self::GlobalWindowRandom { block, global, window, random } => {
                BlockMask::global_window_random(block, length, [global, window, random], true, 0)
            }
        }
    }
}

/// A pattern that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no attention pattern: wanted strided:BLOCK:STRIDE, fixed:BLOCK:STRIDE:SUMMARY or \
     global-window-random:BLOCK:GLOBAL:WINDOW:RANDOM, BLOCK and STRIDE 1 or more, SUMMARY at most STRIDE"
)]
pub struct UnknownPattern(String);

impl FromStr for SparsePattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, UnknownPattern> {
        let unknown = || UnknownPattern(text.to_owned());
        let (name, numbers) = text.split_once(':').ok_or_else(unknown)?;
        let numbers: Vec<usize> =
            numbers.split(':').map(|number| number.parse().map_err(|_| unknown())).collect::<Result<_, _>>()?;
        match (name, &numbers[..]) {
            ("strided", &[block, stride]) if block > 0 && stride > 0 => Ok(Self::Strided { block, stride }),
            ("fixed", &[block, stride, summary]) if block > 0 && stride > 0 && summary <= stride => {
                Ok(Self::Fixed { block, stride, summary })
            }
            ("global-window-random", &[block, global, window, random]) if block > 0 => {
                Ok(Self::GlobalWindowRandom { block, global, window, random })
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for SparsePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strided { block, stride } => write!(f, "strided:{block}:{stride}"),
            Self::Fixed { block, stride, summary } => write!(f, "fixed:{block}:{stride}:{summary}"),
            Self::GlobalWindowRandom { block, global, window, random } => {
                write!(f, "global-window-random:{block}:{global}:{window}:{random}")
            }
        }
    }
}

impl TryFrom<String> for SparsePattern {
    type Error = UnknownPattern;

    fn try_from(text: String) -> Result<Self, UnknownPattern> {
        text.parse()
    }
}

impl From<SparsePattern> for String {
    fn from(pattern: SparsePattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["strided:64:8", "fixed:16:4:0", "global-window-random:64:1:2:3"] {
            assert_eq!(name.parse::<SparsePattern>().unwrap().to_string(), name);
        }
        for wrong in
            ["", "strided", "strided:0:1", "strided:64:0", "fixed:16:4:5", "fixed:1:2", "dense:1:2", "strided:a:1"]
        {
            let error = wrong.parse::<SparsePattern>().unwrap_err().to_string();
            assert!(error.contains("no attention pattern"), "{wrong}: {error}");
        }
    }
}
