//! Curves and attention maps as SVG, PNG and terminal drawings.
//!
//! Plain functions from plain structs to text. The SVG is written here, letter by letter; [`png`] draws it with fonts
//! that travel with the crate, and [`write()`] chooses by the file's extension.
//!
//! ```
//! use weft_plot::{Alignment, LineChart, Panel, Series, alignment, line_chart, png};
//!
//! let training = Series::smoothed("training", vec![(0.0, 4.2), (100.0, 2.9), (200.0, 2.1)]);
//! let chart = LineChart::new("step", vec![Panel::new("loss", vec![training])]).titled("Multi30k, en-de");
//! let svg = line_chart(&chart);
//! assert!(svg.starts_with("<svg"));
//!
//! let map = Alignment::new(["a", "house"], ["ein", "Haus"], vec![0.9, 0.1, 0.2, 0.8])?;
//! let bytes = png(&alignment(&map), 1.0)?;
//! assert!(bytes.starts_with(b"\x89PNG"));
//! # Ok::<(), weft_plot::PlotError>(())
//! ```

mod alignment;
mod error;
mod font;
mod heads;
mod line_chart;
mod raster;
mod svg;
mod terminal;
mod ticks;

pub use alignment::{Alignment, alignment};
pub use error::PlotError;
pub use font::missing_letters;
pub use heads::{HeadMaps, head_maps};
pub use line_chart::{LineChart, Mark, Panel, Scale, Series, Stroke, XUnit, line_chart};
pub use raster::{PictureKind, png, write};
pub use terminal::{Colour, TextOptions, alignment_text, sparkline};
