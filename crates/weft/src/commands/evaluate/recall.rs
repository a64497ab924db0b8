//! What a language model finds again of what it has read, by how far back it stands.

use std::path::Path;

use serde_json::json;
use weft_text::{RecallKind, RecallTask};

use super::trained_with;
use crate::cli::EvaluateArgs;
use crate::error::{Error, Result, range_hint};
use crate::model::TextModel;
use crate::output::Output;

/// Without --distances: the powers of two from here on, up to the model's positions or, where it has none, up to so
/// many lengths of the task's texts.
const FIRST_DISTANCE: usize = 4;
const LENGTHS: usize = 4;

/// Asks and prints the share of right answers at each distance.
pub(super) fn measure(args: &EvaluateArgs, kind: RecallKind, path: &Path, model: &TextModel) -> Result {
    let limit = model.model.max_length();
    let task = task_of(kind, args.pairs, path, limit)?;
    if args.questions == 0 {
        let wanted = "at least 1";
        return Err(Error::new(format!("--questions is 0, wanted {wanted}")).hint(range_hint(wanted)));
    }
    let distances = match args.distances.is_empty() {
        false => args.distances.clone(),
        true => default_distances(&task, limit),
    };
    if let Some(limit) = limit
        && let Some(far) = distances.iter().find(|&&distance| task.length_at(distance) > limit)
    {
        let needed = task.length_at(*far);
        return Err(Error::new(format!(
            "--distances: {far} needs a text of {needed} tokens, but the model reads at most {limit}"
        ))
        .hint("ask at smaller distances, or with fewer --pairs, or train with a longer --window"));
    }
    let mut output = Output::open(None)?;
    if !args.json {
        let pairs = if task.pairs == 1 { "1 pair".to_owned() } else { format!("{} pairs", task.pairs) };
        output.line(&format!(
            "{}, {pairs} a text: {} questions at each distance, {:.1} % right by guessing",
            kind.name(),
            args.questions,
            100.0 * task.chance()
        ))?;
        output.line("distance    right")?;
        output.flush()?;
    }
    let mut rows = Vec::new();
    for distance in distances {
        let found = model.model.recall_accuracy(&model.tokenizer, &task, &[distance], args.questions)?;
        for found in found {
            if !args.json {
                output.line(&format!("{distance:>8}  {:5.1} %", 100.0 * found.accuracy()))?;
                output.flush()?;
            }
            rows.push(json!({ "distance": distance, "correct": found.correct, "accuracy": found.accuracy() }));
        }
    }
    if args.json {
        let report = json!({
            "task": kind.name(),
            "pairs": task.pairs,
            "questions": args.questions,
            "chance": task.chance(),
            "distances": rows,
        });
        output.line(&format!("{report:#}"))?;
    }
    output.flush()
}

/// The task as the model was trained on it, if it was; else as it is by default, in a text that the model can read.
fn task_of(kind: RecallKind, pairs: Option<usize>, path: &Path, limit: Option<usize>) -> Result<RecallTask> {
    let trained = trained_with(path)?.and_then(|config| config.recall_task());
    let mut task = RecallTask::new(kind);
    if let Some(trained) = trained {
        task.length = trained.length;
        task.pairs = if trained.kind == kind { trained.pairs } else { task.pairs };
    }
    task.pairs = pairs.unwrap_or(task.pairs);
    let least = task.pairs.saturating_mul(4);
    task.length = task.length.min(limit.unwrap_or(usize::MAX)).max(least);
    task.check()?;
    match limit.filter(|&limit| task.length > limit) {
        Some(limit) => Err(Error::new(format!(
            "a text that asks for {} pairs needs {least} tokens, but the model reads at most {limit}",
            task.pairs
        ))
        .hint(format!("set --pairs to {} or less", limit / 4))),
        None => Ok(task),
    }
}

fn default_distances(task: &RecallTask, limit: Option<usize>) -> Vec<usize> {
    let powers = std::iter::successors(Some(FIRST_DISTANCE), |distance| distance.checked_mul(2));
    let fits = |distance: &usize| match limit {
        Some(limit) => task.length_at(*distance) <= limit,
        None => *distance <= LENGTHS * task.length,
    };
    powers.take_while(fits).collect()
}
