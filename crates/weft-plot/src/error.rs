//! What can go wrong when a picture is made or saved.

use std::path::PathBuf;

/// An error of this crate. [`PlotError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The weights of an alignment do not fill its table.
    #[error(
        "an alignment of {rows} target tokens and {columns} source tokens needs {} weights, but {found} were given",
        rows * columns
    )]
    Weights {
        /// Target tokens.
        rows: usize,
        /// Source tokens.
        columns: usize,
        /// Weights that were given.
        found: usize,
    },
    /// The file name does not say which kind of picture to write.
    #[error("{}: {}", path.display(), match extension {
        Some(extension) => format!("pictures are written as .svg or .png, not .{extension}"),
        None => "the file name has no extension, so the kind of picture is unknown".to_owned(),
    })]
    Extension {
        /// Where the picture should go.
        path: PathBuf,
        /// Its extension, if it has one.
        extension: Option<String>,
    },
    /// The picture would have more pixels than is reasonable.
    #[error("a picture of {width} x {height} pixels is too large: the limit is {limit} pixels on a side")]
    TooLarge {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// Most pixels on a side.
        limit: u32,
    },
    /// The SVG text cannot be read.
    #[error("the SVG text cannot be drawn")]
    Svg(#[source] resvg::usvg::Error),
    /// The pixels cannot be packed into a PNG.
    #[error("the picture cannot be packed as PNG: {reason}")]
    Encode {
        /// What the encoder reported.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where the picture should go.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl PlotError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Weights { .. } => {
                Some("give one row of weights per target token, one weight per source token".into())
            }
            Self::Extension { path, .. } => Some(format!(
                "try {} or {}",
                path.with_extension("svg").display(),
                path.with_extension("png").display()
            )),
            Self::TooLarge { .. } => Some("write an .svg instead, or draw fewer tokens".into()),
            Self::Write { source, path } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("make the folder first: {}", path.parent().unwrap_or(path).display()))
            }
            Self::Svg(_) | Self::Encode { .. } | Self::Write { .. } => None,
        }
    }
}
