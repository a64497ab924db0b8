//! Parameters, counted by module.

use serde::Serialize;

/// A part of a model and how many parameters it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    /// Dotted, as in the checkpoint.
    pub(crate) name: String,
    /// Of the tensor, if the part is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<Vec<usize>>,
    pub(crate) parameters: usize,
}

/// Every tensor as a part of its own.
pub(crate) fn by_tensor(shapes: &[(String, Vec<usize>)]) -> Vec<Part> {
    let part = |(name, shape): &(String, Vec<usize>)| Part {
        name: name.clone(),
        shape: Some(shape.clone()),
        parameters: shape.iter().product(),
    };
    shapes.iter().map(part).collect()
}

/// The parts in the order of the model: a layer of a stack is one, and so is what stands outside the stacks.
pub(crate) fn by_module(shapes: &[(String, Vec<usize>)]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (name, shape) in shapes {
        let (name, parameters) = (module_of(name), shape.iter().product::<usize>());
        match parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.parameters += parameters,
            None => parts.push(Part { name: name.to_owned(), shape: None, parameters }),
        }
    }
    parts
}

/// `model.encoder.layers.0.fc1.weight` belongs to `model.encoder.layers.0`, `model.shared.weight` to `model.shared`.
fn module_of(name: &str) -> &str {
    let mut end = 0;
    for piece in name.split('.') {
        end += piece.len();
        if piece.parse::<usize>().is_ok() {
            return &name[..end];
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table with the shares and the total.
pub(crate) fn table(parts: &[Part]) -> String {
    let total: usize = parts.iter().map(|part| part.parameters).sum();
    let label = |part: &Part| match &part.shape {
        Some(shape) => format!("{} {shape:?}", part.name),
        None => part.name.clone(),
    };
    let labels: Vec<String> = parts.iter().map(label).collect();
    let widest = labels.iter().map(String::len).max().unwrap_or(0).max("total".len());
    let digits = grouped(total).len();
    let row = |label: &str, count: usize| {
        let share = 100.0 * count as f64 / total.max(1) as f64;
        format!("  {label:widest$}  {:>digits$}  {share:5.1} %\n", grouped(count))
    };
    let rows: String = labels.iter().zip(parts).map(|(label, part)| row(label, part.parameters)).collect();
    rows + &row("total", total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_parts() {
        let shapes = [
            ("model.shared.weight", vec![100, 8]),
            ("model.encoder.layers.0.fc1.weight", vec![32, 8]),
            ("model.encoder.layers.0.fc1.bias", vec![32]),
            ("model.encoder.layers.1.fc1.bias", vec![32]),
            ("final_logits_bias", vec![1, 1200]),
        ];
        let parts = by_module(&shapes.map(|(name, shape)| (name.to_owned(), shape)));
        let found: Vec<(&str, usize)> = parts.iter().map(|part| (part.name.as_str(), part.parameters)).collect();
        let wanted = [
            ("model.shared", 800),
            ("model.encoder.layers.0", 288),
            ("model.encoder.layers.1", 32),
            ("final_logits_bias", 1200),
        ];
        assert_eq!(found, wanted);
        let last = "  total                   2,320  100.0 %\n";
        assert!(table(&parts).ends_with(last), "{}", table(&parts));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1234567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
