use std::f64::consts::LN_2;
use std::fmt;

use serde::Serialize;

use crate::MetricError;

/// How well a language model predicts a text, with the context it had: figures for other contexts do not compare.
///
/// Either the text is read once, in one stream, and every token is scored after all before it. Or it is read in windows
/// of `window` tokens, each `stride` tokens after the last; every token is scored once, in the first window that holds
/// it. With `stride` equal to `window` the windows do not overlap and the first tokens of each have little context; a
/// smaller stride gives every token at least `window - stride` tokens of it, and a better figure, at `window / stride`
/// times the work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    nats: f64,
    num_tokens: u64,
    num_bytes: u64,
    /// Window and stride; none where the text was read once.
    windows: Option<(usize, usize)>,
}

impl Perplexity {
    /// From `nats`, the summed negative log-probability of all scored tokens; their number; the number of bytes of
    /// UTF-8 that they stand for; and the window and stride in tokens.
    ///
    /// # Errors
    /// No tokens, no bytes, a negative or non-finite sum, a stride of 0 or above the window.
    pub fn new(nats: f64, num_tokens: u64, num_bytes: u64, window: usize, stride: usize) -> Result<Self, MetricError> {
        if stride == 0 || stride > window {
            return Err(MetricError::setting("stride", stride, "at least 1 and at most the window"));
        }
        Ok(Self { windows: Some((window, stride)), ..Self::of_stream(nats, num_tokens, num_bytes)? })
    }

    /// The same of a text that was read once, from beginning to end.
    ///
    /// # Errors
    /// No tokens, no bytes, a negative or non-finite sum.
    pub fn of_stream(nats: f64, num_tokens: u64, num_bytes: u64) -> Result<Self, MetricError> {
        if !(nats.is_finite() && nats >= 0.0) {
            return Err(MetricError::setting("nats", nats, "a finite sum of at least 0"));
        }
        if num_tokens == 0 {
            return Err(MetricError::setting("num_tokens", 0, "at least 1"));
        }
        if num_bytes == 0 {
            return Err(MetricError::setting("num_bytes", 0, "at least 1"));
        }
        Ok(Self { nats, num_tokens, num_bytes, windows: None })
    }

    /// The summed negative log-probability of all tokens, in nats.
    pub fn nats(&self) -> f64 {
        self.nats
    }

    /// The number of tokens scored.
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// The number of bytes that the tokens stand for.
    pub fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    /// The number of tokens that the model saw at once; none where it read the text in one stream.
    pub fn window(&self) -> Option<usize> {
        self.windows.map(|(window, _)| window)
    }

    /// The number of tokens from one window to the next.
    pub fn stride(&self) -> Option<usize> {
        self.windows.map(|(_, stride)| stride)
    }

    /// The mean loss in nats per token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.num_tokens as f64
    }

    /// `exp(nats / tokens)`: between how many equally likely tokens the model is, on average, undecided.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// The mean loss in bits per token.
    pub fn bits_per_token(&self) -> f64 {
        self.nats_per_token() / LN_2
    }

    /// The mean loss in bits per byte of text, which compares models with different tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / LN_2 / self.num_bytes as f64
    }
}

impl fmt::Display for Perplexity {
    /// `perplexity 4.42, 2.14 bits/token, 2.14 bits/byte (111539 tokens, 111539 bytes, window 256, stride 128)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        write!(
            f,
            "perplexity {:.precision$}, {:.precision$} bits/token, {:.precision$} bits/byte \
             ({} tokens, {} bytes, ",
            self.perplexity(),
            self.bits_per_token(),
            self.bits_per_byte(),
            self.num_tokens,
            self.num_bytes,
        )?;
        match self.windows {
            Some((window, stride)) => write!(f, "window {window}, stride {stride})"),
            None => f.write_str("in one stream)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_eight_is_three_bits() {
        let found = Perplexity::new(10.0 * 8f64.ln(), 10, 15, 256, 128).unwrap();
        assert!((found.perplexity() - 8.0).abs() < 1e-12);
        assert!((found.bits_per_token() - 3.0).abs() < 1e-12);
        assert!((found.bits_per_byte() - 2.0).abs() < 1e-12);
        let wanted = "perplexity 8.00, 3.00 bits/token, 2.00 bits/byte (10 tokens, 15 bytes, window 256, stride 128)";
        assert_eq!(found.to_string(), wanted);
        assert!(format!("{found:.4}").starts_with("perplexity 8.0000, 3.0000 bits/token"));
        let stream = Perplexity::of_stream(10.0 * 8f64.ln(), 10, 15).unwrap();
        assert_eq!((stream.perplexity(), stream.window(), stream.stride()), (found.perplexity(), None, None));
        assert!(stream.to_string().ends_with("(10 tokens, 15 bytes, in one stream)"));
    }

    #[test]
    fn impossible_counts_are_errors() {
        for (field, found) in [
            ("nats", Perplexity::new(f64::NAN, 1, 1, 1, 1)),
            ("nats", Perplexity::new(-1.0, 1, 1, 1, 1)),
            ("num_tokens", Perplexity::new(1.0, 0, 1, 1, 1)),
            ("num_bytes", Perplexity::new(1.0, 1, 0, 1, 1)),
            ("stride", Perplexity::new(1.0, 1, 1, 2, 3)),
            ("stride", Perplexity::new(1.0, 1, 1, 2, 0)),
        ] {
            assert!(matches!(&found, Err(MetricError::Setting { field: name, .. }) if *name == field), "{field}");
        }
    }
}
