//! What the metrics of a run tell.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use weft_plot::sparkline;

use crate::error::{Error, Result};

/// Columns of a curve.
const CURVE_WIDTH: usize = 48;

/// One measured number over the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Curve {
    /// The key in metrics.jsonl.
    pub(crate) name: String,
    /// Steps and values.
    pub(crate) points: Vec<(u64, f64)>,
}

/// The curves that are shown, where a run has them: the key, and whether higher is better.
const SHOWN: [(&str, bool); 4] =
    [("loss", false), ("validation_loss", false), ("validation_bleu", true), ("learning_rate", true)];

/// Reads metrics.jsonl; lines that a killed run left half-written are passed over.
///
/// # Errors
/// A file that is there and cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<Curve>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", path, &error)),
    };
    let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let curve = |name: &str| {
        let point = |record: &Value| Some((record.get("step")?.as_u64()?, record.get(name)?.as_f64()?));
        Curve { name: name.to_owned(), points: records.iter().filter_map(point).collect() }
    };
    Ok(SHOWN.iter().map(|(name, _)| curve(name)).filter(|curve| !curve.points.is_empty()).collect())
}

/// Each curve on a line: from its first value to its last, and its best.
pub(crate) fn lines(curves: &[Curve]) -> String {
    let mut text = String::new();
    for curve in curves {
        let values: Vec<f64> = curve.points.iter().map(|(_, value)| *value).collect();
        let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
        let name = curve.name.replace('_', " ");
        text += &format!("  {name:16} {} {} {}", short(*first), sparkline(&values, CURVE_WIDTH), short(*last));
        let higher_is_better = SHOWN.iter().any(|(name, higher)| *name == curve.name && *higher);
        if curve.name.starts_with("validation") {
            let order = |a: &&(u64, f64), b: &&(u64, f64)| match higher_is_better {
                true => a.1.total_cmp(&b.1),
                false => b.1.total_cmp(&a.1),
            };
            if let Some((step, value)) = curve.points.iter().max_by(order) {
                text += &format!("   best {} at step {step}", short(*value));
            }
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
    fn half_a_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"step\":1,\"loss\":4.0}\n{\"step\":2,\"validation_loss\":3.5}\n{\"step\":2,\"loss\":3.0}\n{\"ste";
        std::fs::write(&path, text).unwrap();
        let curves = read(&path).unwrap_or_default();
        assert_eq!(curves[0], Curve { name: "loss".into(), points: vec![(1, 4.0), (2, 3.0)] });
        assert_eq!(
            lines(&curves),
            "  loss             4.000 █▁ 3.000\n  validation loss  3.500 ▅ 3.500   best 3.500 at step 2\n"
        );
    }
}
