//! Windows into a stream of tokens, for language models.

use super::WINDOW_STREAM;
use crate::error::TextError;
use crate::random::CounterRng;

/// Where the windows of a training step begin: row r of a step is a pure function of (seed, step, r).
///
/// A window reads `window` tokens and predicts each one's successor, so it covers `window + 1` tokens of the stream.
/// Windows are drawn with replacement, evenly over all places where one fits.
///
/// # Errors
/// A stream that is shorter than one window.
pub fn random_windows(
    stream_length: usize,
    window: usize,
    rows: usize,
    seed: u64,
    step: u64,
) -> Result<Vec<usize>, TextError> {
    let places = places(stream_length, window)?;
    let random = CounterRng::new(seed, &[WINDOW_STREAM, step]);
    Ok((0..rows as u64).map(|row| random.below(row, places as u64) as usize).collect())
}

/// A window of an evaluation and which of its predictions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationWindow {
    /// Where the window begins.
    pub start: usize,
    /// Tokens that it reads.
    pub length: usize,
    /// The predictions from this place on count; those before only give context.
    pub scored_from: usize,
}

/// Windows over a whole stream, `stride` tokens apart, such that the prediction of every token but the first counts
/// exactly once.
///
/// A stride of `window` is the fastest; a smaller one gives each counted prediction at least `window - stride` tokens
/// of context (after the first window). The last window is moved back so that all have the same length; only a stream
/// shorter than one window has a shorter one.
///
/// # Errors
/// A stream of less than two tokens, a window of no tokens, or a stride that is 0 or longer than the window.
pub fn sequential_windows(
    stream_length: usize,
    window: usize,
    stride: usize,
) -> Result<Vec<EvaluationWindow>, TextError> {
    if stride == 0 || stride > window {
        return Err(TextError::Setting { field: "stride", found: stride, wanted: "1 up to the window's length" });
    }
    let length = window.min(stream_length.saturating_sub(1));
    places(stream_length, length.max(1))?;
    let predictions = stream_length - 1;
    let mut windows = vec![EvaluationWindow { start: 0, length, scored_from: 0 }];
    let mut scored = length;
    while scored < predictions {
        let end = (scored + stride).min(predictions);
        let start = end - length;
        windows.push(EvaluationWindow { start, length, scored_from: scored - start });
        scored = end;
    }
    Ok(windows)
}

/// Number of places where a window fits.
fn places(stream_length: usize, window: usize) -> Result<usize, TextError> {
    if window == 0 {
        return Err(TextError::Setting { field: "window", found: 0, wanted: "at least 1" });
    }
    match stream_length.checked_sub(window) {
        Some(places) if places > 0 => Ok(places),
        _ => Err(TextError::TextTooShort { found: stream_length, wanted: window.saturating_add(1) }),
    }
}

/// Windows of one length as rows: the tokens read, and their successors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowBatch {
    /// Tokens read, `[batch, time]` row by row.
    pub inputs: Vec<i32>,
    /// The token behind each of them, `[batch, time]`.
    pub targets: Vec<i32>,
    /// Number of rows.
    pub rows: usize,
    /// Tokens in a row.
    pub time: usize,
}

impl WindowBatch {
    /// Copies windows of `time` tokens out of a stream.
    ///
    /// # Errors
    /// A window that does not fit into the stream with its last successor.
    pub fn collate(stream: &[u32], starts: &[usize], time: usize) -> Result<Self, TextError> {
        let mut inputs = Vec::with_capacity(starts.len() * time);
        let mut targets = Vec::with_capacity(starts.len() * time);
        for &start in starts {
            let wanted = start.saturating_add(time).saturating_add(1);
            let Some(window) = stream.get(start..wanted) else {
                return Err(TextError::TextTooShort { found: stream.len(), wanted });
            };
            inputs.extend(window[..time].iter().map(|&id| id as i32));
            targets.extend(window[1..].iter().map(|&id| id as i32));
        }
        Ok(Self { inputs, targets, rows: starts.len(), time })
    }
}
