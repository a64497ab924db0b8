//! `weft inspect`: what a model or a run holds.

mod history;
mod parameters;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weft_models::checkpoint;
use weft_text::Tokenizer;
use weft_train::RunFolder;

use crate::cli::{DeviceName, InspectArgs};
use crate::device;
use crate::error::{Error, Result};
use crate::model::{Model, folder_of, open};
use crate::output::Output;

pub(crate) use parameters::grouped;

/// Prints everything that is known of a model.
pub(crate) fn run(args: &InspectArgs) -> Result {
    let folder = folder_of(&args.model)?;
    let model = open(&args.model, &device::open(DeviceName::Cpu)?)?;
    let (kind, shapes, tokenizers) = match &model {
        Model::Translator(model) if model.source == model.target => {
            ("translator", model.model.shapes(), vec![("tokenizer.json", &model.target)])
        }
        Model::Translator(model) => {
            let both = vec![("source_tokenizer.json", &model.source), ("tokenizer.json", &model.target)];
            ("translator", model.model.shapes(), both)
        }
        Model::LanguageModel(model) => {
            ("language model", model.model.shapes(), vec![("tokenizer.json", &model.tokenizer)])
        }
    };
    let parts = if args.tensors { parameters::by_tensor(&shapes) } else { parameters::by_module(&shapes) };
    let (_, config) = checkpoint::read_config(&folder)?;
    let model_type = checkpoint::model_type(&folder)?;
    let run = run_of(&args.model, &folder);
    let curves = match &run {
        Some(run) => history::read(&run.join("metrics.jsonl"))?,
        None => Vec::new(),
    };
    let origin = origin_of(&folder, run.as_deref())?;
    let mut output = Output::open(None)?;
    if args.json {
        let report = json!({
            "model": folder.display().to_string(),
            "kind": kind,
            "model_type": model_type,
            "parameters": { "total": parts.iter().map(|part| part.parameters).sum::<usize>(), "parts": parts },
            "config": config,
            "tokenizers": tokenizers.iter().map(|(file, tokenizer)| tokenizer_json(file, tokenizer)).collect::<Vec<_>>(),
            "history": curves,
            "origin": origin,
        });
        output.line(&format!("{report:#}"))?;
        return output.flush();
    }
    output.line(&format!("{}: {kind}, {model_type}", folder.display()))?;
    output.text(&format!("\nparameters\n{}", parameters::table(&parts)))?;
    output.line("\nconfiguration")?;
    for (key, value) in &config {
        output.line(&format!("  {key} = {value}"))?;
    }
    output.line("\ntokenizer")?;
    for (file, tokenizer) in &tokenizers {
        let special = tokenizer.special_tokens();
        let size = grouped(tokenizer.vocab_size());
        output.line(&format!(
            "  {file}: {size} tokens; pad {}, unk {}, bos {}, eos {}\n  sha256 {}",
            special.pad,
            special.unk,
            special.bos,
            special.eos,
            tokenizer.hash()
        ))?;
    }
    if !curves.is_empty() {
        output.text(&format!("\nhistory\n{}", history::lines(&curves)))?;
    }
    if let Some(Value::Object(facts)) = &origin {
        output.line("\norigin")?;
        facts.iter().try_for_each(|(name, value)| print_fact(&mut output, name, value))?;
    }
    output.flush()
}

/// A fact and, a step to the right, the facts in it.
fn print_fact(output: &mut Output, name: &str, value: &Value) -> Result {
    match value {
        Value::Object(inner) => {
            output.line(&format!("  {name}"))?;
            inner.iter().try_for_each(|(key, value)| output.line(&format!("    {key} = {}", plain(value))))
        }
        other => output.line(&format!("  {name} = {}", plain(other))),
    }
}

/// Text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tokenizer_json(file: &str, tokenizer: &Tokenizer) -> Value {
    json!({
        "file": file,
        "vocab_size": tokenizer.vocab_size(),
        "special_tokens": tokenizer.special_tokens(),
        "sha256": tokenizer.hash(),
    })
}

/// The run that a model belongs to, if it stands in one: `run`, `run/model` or `run/checkpoints/step-...`.
fn run_of(path: &Path, folder: &Path) -> Option<PathBuf> {
    let absolute = std::fs::canonicalize(folder).ok()?;
    let candidates = [path.to_owned(), absolute.parent()?.to_owned(), absolute.parent()?.parent()?.to_owned()];
    candidates.into_iter().find(|candidate| candidate.join("config.toml").is_file())
}

/// Where a model came from: what its run wrote down.
fn origin_of(folder: &Path, run: Option<&Path>) -> Result<Option<Value>> {
    let mut origin = Map::new();
    let newest = run.and_then(|run| RunFolder::open(run).and_then(|run| run.checkpoints()).ok()?.into_iter().next());
    let states = [Some(folder.to_owned()), newest.map(|(_, path)| path)];
    if let Some(state) = states.into_iter().flatten().map(|path| path.join("state.json")).find(|path| path.is_file()) {
        let text = std::fs::read(&state).map_err(|error| Error::file("read", &state, &error))?;
        let unreadable = |error| Error::because(format!("{} is not a state of a run", state.display()), &error);
        let facts: Map<String, Value> = serde_json::from_slice(&text).map_err(unreadable)?;
        // The hashes of the data would be taken for the section `data` of the configuration.
        let named =
            facts.into_iter().map(|(key, value)| (if key == "data" { "sha256".to_owned() } else { key }, value));
        origin.extend(named);
    }
    let config = run.map(|run| run.join("config.toml")).into_iter().chain([folder.join("run.toml")]);
    if let Some(path) = config.into_iter().find(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))?;
        let unreadable = |error| Error::because(format!("{} is not a configuration", path.display()), &error);
        let sections: toml::Table = toml::from_str(&text).map_err(unreadable)?;
        for (section, values) in sections {
            let values = serde_json::to_value(values);
            origin.insert(section, values.map_err(|error| Error::because("a configuration is not JSON", &error))?);
        }
    }
    Ok((!origin.is_empty()).then_some(Value::Object(origin)))
}
