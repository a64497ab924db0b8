//! `weft generate`: a language model continues a text.

use std::hash::{BuildHasher, Hasher};
use std::io::{IsTerminal, Read};

use weft_decode::{Sampler, SamplingConfig};
use weft_models::search::Generation;

use crate::cli::GenerateArgs;
use crate::device;
use crate::error::{Error, NOT_UTF8_HINT, Result, range_hint};
use crate::model::open_language_model;
use crate::output::{Output, say};

/// Continues the prompt and prints text as it becomes whole.
pub(crate) fn run(args: &GenerateArgs) -> Result {
    let config = SamplingConfig {
        repetition_penalty: args.repetition_penalty,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
    };
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let mut sampler = Sampler::new(config, seed).map_err(option_error)?;
    let model = open_language_model(&args.model, &device::open(args.device.device)?)?;
    let prompt = prompt(args)?;
    let tokens = model.tokenizer.encode(&prompt)?;
    if let Some(limit) = model.model.max_length().filter(|&limit| tokens.len() > limit) {
        let found = tokens.len();
        return Err(Error::new(format!("the prompt has {found} tokens, but the model reads at most {limit}"))
            .hint("shorten the prompt: only its end matters for what comes next"));
    }
    if args.seed.is_none() && args.temperature > 0.0 && args.top_k != Some(1) {
        say!("seed {seed}");
    }

    let mut output = Output::open(None)?;
    if !args.only_new {
        output.text(&prompt)?;
        output.flush()?;
    }
    let mut stream = model.tokenizer.text_stream();
    let mut failure = None;
    let mut ends_line = false;
    let what = Generation { prompt: &tokens, max_tokens: args.max_tokens, stop: Some(model.tokenizer.eos_id()) };
    let mut print = |text: &str| -> Result {
        if !text.is_empty() {
            ends_line = text.ends_with('\n');
            output.text(text)?;
            output.flush()?;
        }
        Ok(())
    };
    let generated = model.model.generate(&what, &mut sampler, &mut |token| {
        let printed = stream.push(token).map_err(Error::from).and_then(|text| print(&text));
        printed.map_err(|error| failure = Some(error)).is_ok()
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    print(&stream.finish()?)?;
    if !ends_line {
        output.text("\n")?;
    }
    output.flush()?;
    let used_up = |limit: &usize| tokens.len() + generated.len() > *limit && generated.len() < args.max_tokens;
    if let Some(limit) = model.model.max_length().filter(used_up) {
        say!("note: ended after {} tokens: the model reads at most {limit} at once", generated.len());
    }
    Ok(())
}

/// The text to continue: never without a token, since a model needs one to begin with.
fn prompt(args: &GenerateArgs) -> Result<String> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, &error))?;
            text_of(bytes, &path.display().to_string())?
        }
        (None, None) if std::io::stdin().is_terminal() => String::new(),
        (None, None) => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map_err(|error| Error::because("cannot read standard input", &error))?;
            text_of(bytes, "standard input")?
        }
    };
    Ok(if text.is_empty() { "\n".to_owned() } else { text })
}

fn text_of(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count() + 1;
        Error::new(format!("{name}: line {line} is not UTF-8")).hint(NOT_UTF8_HINT)
    })
}

/// Names the option instead of the configuration's field.
fn option_error(error: weft_decode::DecodeError) -> Error {
    match error {
        weft_decode::DecodeError::Config { field, found, wanted } => {
            Error::new(format!("--{} is {found}, wanted {wanted}", field.replace('_', "-"))).hint(range_hint(&wanted))
        }
        other => other.into(),
    }
}

/// Another seed each time; small enough to type.
fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}
