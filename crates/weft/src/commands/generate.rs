//! `weft generate`: a language model continues a text.

use std::hash::{BuildHasher, Hasher};
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_decode::{Sampler, SamplingConfig};
use weft_models::checkpoint;
use weft_models::search::{Generation, StateError};
use weft_train::weights_hash;

use crate::cli::GenerateArgs;
use crate::error::{Error, NOT_UTF8_HINT, Result, range_hint};
use crate::model::{Text, TextModel, folder_of, open_language_model};
use crate::output::{Output, say};
use crate::{device, interrupt};

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
    if let Some(path) = &args.state {
        check_state_path(path)?;
    }
    let model = open_language_model(&args.model, &device::open(args.device.device)?)?;
    let hash = match args.state.is_some() || args.load_state.is_some() {
        true => weights_hash(&folder_of(&args.model)?)?,
        false => String::new(),
    };
    let mut text = match &args.load_state {
        Some(path) => go_on(&model, path, &hash)?,
        None => model.model.begin(),
    };
    let mut prompt = prompt(args)?;
    if prompt.is_empty() && !text.has_unread() {
        if args.load_state.is_some() {
            return Err(
                Error::new("the text of the state has come to its end").hint("give what follows it as --prompt")
            );
        }
        prompt.push('\n');
    }
    let tokens = model.tokenizer.encode(&prompt)?;
    let known = text.tokens().len() + tokens.len();
    if let Some(limit) = model.model.max_length().filter(|&limit| known > limit) {
        let what = if text.tokens().is_empty() { "the prompt has" } else { "the state and the prompt have" };
        return Err(Error::new(format!("{what} {known} tokens, but the model reads at most {limit}"))
            .hint("shorten the prompt: only its end matters for what comes next"));
    }
    if args.seed.is_none() && args.temperature > 0.0 && args.top_k != Some(1) {
        say!("seed {seed}");
    }

    let stop = if args.state.is_some() { interrupt::listen()? } else { Arc::default() };
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
    let generated = text.generate(&what, &mut sampler, &mut |token| {
        let printed = stream.push(token).map_err(Error::from).and_then(|text| print(&text));
        printed.map_err(|error| failure = Some(error)).is_ok() && !stop.load(Ordering::SeqCst)
    })?;
    if let Some(error) = failure {
        // Whoever reads the text may have seen enough of it: `| head`. The state is for later.
        save(args, text, &hash)?;
        return Err(error);
    }
    print(&stream.finish()?)?;
    if !ends_line {
        output.text("\n")?;
    }
    output.flush()?;
    let used_up = |limit: &usize| text.tokens().len() > *limit && generated.len() < args.max_tokens;
    if let Some(limit) = model.model.max_length().filter(used_up) {
        say!("note: ended after {} tokens: the model reads at most {limit} at once", generated.len());
    }
    save(args, text, &hash)?;
    if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Writes the state, if it is wanted.
fn save(args: &GenerateArgs, text: Box<dyn Text + '_>, hash: &str) -> Result {
    match &args.state {
        Some(path) => Ok(checkpoint::write_whole(path, &text.into_bytes(hash))?),
        None => Ok(()),
    }
}

/// Before anything is generated: afterwards it would be lost.
fn check_state_path(path: &Path) -> Result {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || path.file_name().is_none() {
        return Err(Error::new(format!("{} is a folder, not a file for --state", path.display()))
            .hint("name a file in the folder"));
    }
    match folder.is_dir() {
        true => Ok(()),
        false => Err(Error::new(format!("cannot write {}: there is no folder {}", path.display(), folder.display()))
            .hint("make the folder first")),
    }
}

/// The text that a state file holds.
fn go_on<'a>(model: &'a TextModel, path: &Path, hash: &str) -> Result<Box<dyn Text + 'a>> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, &error))?;
    let shown = path.display();
    let text = model.model.go_on(hash, &bytes).map_err(|error| {
        let hint = match error {
            StateError::OtherModel => "go on with the model that saved it: its state is of no use to another",
            StateError::Format(_) => "name a file that `weft generate --state` has written",
        };
        Error::because(format!("cannot go on from {shown}"), &error).hint(hint)
    })?;
    let size = model.tokenizer.vocab_size();
    match text.tokens().iter().find(|&&token| token as usize >= size) {
        Some(token) => Err(Error::new(format!("{shown} has a token {token}, the model only {size}"))
            .hint("the file is damaged: copy it again")),
        None => Ok(text),
    }
}

/// The text to continue, or what follows the text so far.
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
    Ok(text)
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
