//! How well a language model predicts text.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use weft_metrics::Perplexity;
use weft_text::{TextCorpus, TextDataset, TextError, sequential_windows};

use super::trained_with;
use crate::cli::EvaluateArgs;
use crate::error::{Error, Result, range_hint};
use crate::model::TextModel;
use crate::output::{Output, say};

/// The window of models without a limit.
const DEFAULT_WINDOW: usize = 256;
/// Tokens that are measured together.
const TOKENS_PER_BATCH: usize = 8192;
/// Tokens of a stream that are read at once.
const PIECE: usize = 1024;

/// Prints perplexity and bits per byte.
pub(super) fn measure(args: &EvaluateArgs, path: &Path, model: &TextModel) -> Result {
    let mut corpus = TextCorpus::new(&args.text);
    if let Some(trained) = trained_with(path)? {
        corpus.json_field = trained.data.field;
    }
    let dataset = TextDataset::build(&corpus, &model.tokenizer).map_err(|error| match error {
        TextError::JsonField { .. } => {
            Error::from(error).hint(format!("the text of every record must stand in its field `{}`", corpus.json_field))
        }
        other => other.into(),
    })?;
    if !dataset.skipped.is_empty() {
        say!("{}", dataset.skipped);
    }
    let ids = &dataset.ids;
    let scored = ids.get(1..).unwrap_or_default();
    let (tokens, bytes) = (scored.len() as u64, model.tokenizer.byte_count(scored)? as u64);
    let found = if args.streaming {
        Perplexity::of_stream(in_one_stream(model, ids)?, tokens, bytes)?
    } else {
        let (nats, window, stride) = in_windows(args, model, ids)?;
        Perplexity::new(nats, tokens, bytes, window, stride)?
    };
    let mut output = Output::open(None)?;
    if args.json {
        let mut report = json!({
            "perplexity": found.perplexity(),
            "bits_per_byte": found.bits_per_byte(),
            "bits_per_token": found.bits_per_token(),
            "nats_per_token": found.nats_per_token(),
            "tokens": found.num_tokens(),
            "bytes": found.num_bytes(),
            "streaming": args.streaming,
        });
        if let (Some(window), Some(stride)) = (found.window(), found.stride()) {
            report["window"] = window.into();
            report["stride"] = stride.into();
        }
        output.line(&format!("{report:#}"))?;
    } else {
        output.line(&format!("{found:.3}"))?;
        output.line(&format!("loss {:.4} nats/token", found.nats_per_token()))?;
    }
    output.flush()
}

/// The nats of a text that is read once, the state carried from beginning to end.
fn in_one_stream(model: &TextModel, ids: &[u32]) -> Result<f64> {
    let reads = ids.len().saturating_sub(1);
    if reads == 0 {
        return Err(TextError::TextTooShort { found: ids.len(), wanted: 2 }.into());
    }
    if let Some(limit) = model.model.max_length().filter(|&limit| reads > limit) {
        return Err(Error::new(format!(
            "--streaming: the text has {reads} tokens to read, but the model has {limit} positions"
        ))
        .hint("leave --streaming out: then the text is read in windows; models without positions stream any text"));
    }
    let bar = ProgressBar::new(reads as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} tokens  {eta} left") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    let nats = model.model.stream_loss(ids, PIECE, &mut |seen| bar.set_position(seen as u64));
    bar.finish_and_clear();
    Ok(nats)
}

/// The nats of a text that is read in windows, and the window and stride.
fn in_windows(args: &EvaluateArgs, model: &TextModel, ids: &[u32]) -> Result<(f64, usize, usize)> {
    let limit = model.model.max_length();
    let window = args.window.unwrap_or(limit.unwrap_or(DEFAULT_WINDOW));
    if let Some(limit) = limit.filter(|&limit| window > limit) {
        return Err(Error::new(format!("--window is {window}, but the model reads at most {limit} tokens at once"))
            .hint(format!("set it to {limit} or less")));
    }
    if window == 0 {
        let wanted = "at least 1";
        return Err(Error::new(format!("--window is 0, wanted {wanted}")).hint(range_hint(wanted)));
    }
    let stride = args.stride.unwrap_or(window.div_ceil(2));
    let windows = sequential_windows(ids.len(), window, stride).map_err(|error| match error {
        TextError::Setting { field, found, wanted } => {
            Error::new(format!("--{field} is {found}, wanted {wanted}")).hint(range_hint(wanted))
        }
        other => other.into(),
    })?;
    let mut nats = 0.0;
    let mut rest = windows.as_slice();
    while let Some(first) = rest.first() {
        let most = (TOKENS_PER_BATCH / first.length.max(1)).max(1);
        let same = rest.iter().take(most).take_while(|window| window.length == first.length).count();
        let (batch, later) = rest.split_at(same);
        rest = later;
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for window in batch {
            let ids = &ids[window.start..=window.start + window.length];
            inputs.extend(ids[..window.length].iter().map(|&id| id as i32));
            let target = |(place, &id): (usize, &u32)| if place < window.scored_from { -1 } else { id as i32 };
            targets.extend(ids[1..].iter().enumerate().map(target));
        }
        nats += model.model.loss(inputs, targets, batch.len(), first.length);
    }
    Ok((nats, window, stride))
}
