//! What the metrics of a run tell.

use std::path::Path;

use serde::Serialize;
use weft_plot::sparkline;
use weft_train::{Record, read_metrics};

use crate::error::Result;

/// Columns of a curve.
const CURVE_WIDTH: usize = 48;

/// One measured number over the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Curve {
    /// What was measured.
    pub(crate) name: &'static str,
    /// Steps and values.
    pub(crate) points: Vec<(u64, f64)>,
    /// What is good, where that is a question.
    #[serde(skip)]
    better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Lower,
    Higher,
    Neither,
}

/// Reads metrics.jsonl, where there is one.
///
/// # Errors
/// A file that cannot be read, or a line that is no record.
pub(crate) fn read(path: &Path) -> Result<Vec<Curve>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let records = read_metrics(path)?;
    let training = records.iter().filter_map(|record| match record {
        Record::Training(record) => Some(record),
        Record::Validation(_) => None,
    });
    let validation = records.iter().filter_map(|record| match record {
        Record::Validation(record) => Some(record),
        Record::Training(_) => None,
    });
    let curves = vec![
        Curve {
            name: "training loss",
            points: training.clone().map(|record| (record.step, record.loss)).collect(),
            better: Better::Neither,
        },
        Curve {
            name: "validation loss",
            points: validation.clone().map(|record| (record.step, record.loss)).collect(),
            better: Better::Lower,
        },
        Curve {
            name: "validation BLEU",
            points: validation.clone().filter_map(|record| Some((record.step, record.bleu?))).collect(),
            better: Better::Higher,
        },
        Curve {
            name: "right answers",
            points: validation.filter_map(|record| Some((record.step, record.accuracy?))).collect(),
            better: Better::Higher,
        },
        Curve {
            name: "learning rate",
            points: training.map(|record| (record.step, record.learning_rate)).collect(),
            better: Better::Neither,
        },
    ];
    Ok(curves.into_iter().filter(|curve| !curve.points.is_empty()).collect())
}

/// Each curve on a line: from its first value to its last, and its best.
pub(crate) fn lines(curves: &[Curve]) -> String {
    let mut text = String::new();
    for curve in curves {
        let values: Vec<f64> = curve.points.iter().map(|(_, value)| *value).collect();
        let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
        text += &format!("  {:16} {} {} {}", curve.name, short(*first), sparkline(&values, CURVE_WIDTH), short(*last));
        let best = match curve.better {
            Better::Lower => curve.points.iter().min_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Higher => curve.points.iter().max_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Neither => None,
        };
        if let Some((step, value)) = best {
            text += &format!("   best {} at step {step}", short(*value));
        }
        text.push('\n');
    }
    text
}

/// Four digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_on_lines() {
        let curve = |name, points: &[(u64, f64)], better| Curve { name, points: points.to_vec(), better };
        let curves = [
            curve("training loss", &[(1, 4.0), (2, 3.0)], Better::Neither),
            curve("validation loss", &[(2, 3.5)], Better::Lower),
            curve("learning rate", &[(1, 0.002), (2, 0.0)], Better::Neither),
        ];
        let wanted = "  training loss    4.000 █▁ 3.000\n  validation loss  3.500 ▅ 3.500   best 3.500 at step 2\n  \
                      learning rate    2.00e-3 █▁ 0.000\n";
        assert_eq!(lines(&curves), wanted);
    }
}
