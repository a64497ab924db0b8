//! The losses of a run as a picture.

use std::path::Path;

use weft_plot::{LineChart, Mark, Panel, Series, XUnit, line_chart, png};

use super::Record;
use crate::error::TrainError;

/// Writes `curve.svg` and `curve.png` into a folder: the losses over the steps and, where there are such, BLEU and the
/// share of right answers.
///
/// # Errors
/// A picture that cannot be drawn or written.
pub fn draw_curve(records: &[Record], title: &str, folder: &Path) -> Result<(), TrainError> {
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    let (mut bleu, mut accuracy) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Training(record) => training.push((record.step as f64, record.loss)),
            Record::Validation(record) => {
                let step = record.step as f64;
                validation.push((step, record.loss));
                bleu.extend(record.bleu.map(|bleu| (step, bleu)));
                accuracy.extend(record.accuracy.map(|share| (step, 100.0 * share)));
            }
        }
    }
    let losses =
        vec![Series::smoothed("training", training), Series::new("validation", validation).marked(Mark::Lowest)];
    let mut panels = vec![Panel::new("loss per token", losses)];
    for (name, points) in [("BLEU", bleu), ("right answers in %", accuracy)] {
        if !points.is_empty() {
            panels.push(Panel::new(name, vec![Series::new("validation", points).marked(Mark::Highest)]));
        }
    }
    let chart = LineChart { x_unit: XUnit::Number, ..LineChart::new("step", panels).titled(title) };
    let svg = line_chart(&chart);
    let picture = png(&svg, 2.0).map_err(TrainError::Plot)?;
    for (name, bytes) in [("curve.svg", svg.as_bytes()), ("curve.png", picture.as_slice())] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(TrainError::write(&path))?;
    }
    Ok(())
}
