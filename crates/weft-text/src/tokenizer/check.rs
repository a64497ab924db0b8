//! Checks of a tokenizer.json before the `tokenizers` crate reads it: it takes the parts of a vocabulary at their word
//! and panics where they contradict each other.

use serde_json::Value;

use crate::error::Cause;

/// The largest id; more tokens than any model has embeddings for.
pub(super) const MAX_ID: u64 = (1 << 24) - 1;

/// Whether the vocabulary and the merges fit together.
pub(super) fn check(file: &Value) -> Result<(), Cause> {
    let model = &file["model"];
    if let Some(vocabulary) = model["vocab"].as_object() {
        for (token, id) in vocabulary {
            if id.as_u64().is_none_or(|id| id > MAX_ID) {
                return Err(format!("token {token:?} has id {id}, wanted a number up to {MAX_ID}").into());
            }
        }
    }
    for added in file["added_tokens"].as_array().into_iter().flatten() {
        if added["id"].as_u64().is_none_or(|id| id > MAX_ID) {
            return Err(format!(
                "added token {} has id {}, wanted a number up to {MAX_ID}",
                added["content"], added["id"]
            )
            .into());
        }
    }
    check_merges(model)
}

fn check_merges(model: &Value) -> Result<(), Cause> {
    let Some(merges) = model["merges"].as_array() else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let known = |token: &str| model["vocab"].get(token).is_some();
    for (rank, merge) in merges.iter().enumerate() {
        let parts = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(first), Value::String(second)] => Some((first.as_str(), second.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((first, second)) = parts else {
            return Err(format!("merge {rank} is {merge}, wanted two tokens").into());
        };
        let fits = known(first)
            && known(second)
            && second.get(prefix.len()..).is_some_and(|rest| known(&format!("{first}{rest}")));
        if !fits {
            return Err(format!(
                "merge {rank} joins {first:?} and {second:?}, which are not in the vocabulary with their union"
            )
            .into());
        }
    }
    Ok(())
}
