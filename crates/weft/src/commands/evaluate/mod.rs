//! `weft evaluate`: scores of translations, and of language models on text and on tasks.

mod recall;
mod text;

use std::path::Path;

use serde_json::json;
use weft_decode::BeamConfig;
use weft_metrics::{Bleu, Chrf, exact_match};
use weft_train::RunConfig;

use super::translate::{beam_config, report_cut};
use crate::cli::EvaluateArgs;
use crate::device;
use crate::error::{Error, Result};
use crate::files::{lines_of, refuse_input};
use crate::model::{Model, TranslationModel, folder_of, open};
use crate::output::Output;

/// Measures what the arguments name.
pub(crate) fn run(args: &EvaluateArgs) -> Result {
    let Some(path) = &args.model else {
        let hypotheses = lines_of(args.hypotheses.as_deref().expect("clap asks for one of the two"))?;
        return score(args, &hypotheses);
    };
    let wanted =
        "give --source FILE --reference FILE for a translator, --text FILE or --task recall for a language model";
    if args.source.is_none() && args.text.is_empty() && args.task.is_none() {
        return Err(Error::new("there is nothing to measure the model on").hint(wanted));
    }
    let model = open(path, &device::open(args.device.device)?)?;
    match (&model, &args.source) {
        (Model::Translator(model), Some(source)) => translate_and_score(args, model, source),
        (Model::LanguageModel(model), None) => match args.task {
            Some(task) => recall::measure(args, task.into(), path, model),
            None => text::measure(args, path, model),
        },
        (Model::Translator(_), None) => Err(Error::new(format!("{} is a translator", path.display())).hint(wanted)),
        (Model::LanguageModel(_), Some(_)) => {
            Err(Error::new(format!("{} is a language model", path.display())).hint(wanted))
        }
    }
}

/// The configuration that a model was trained with, if it lies with the model.
fn trained_with(path: &Path) -> Result<Option<RunConfig>> {
    let text = std::fs::read_to_string(folder_of(path)?.join("run.toml")).unwrap_or_default();
    Ok(toml::from_str(&text).ok())
}

fn translate_and_score(args: &EvaluateArgs, model: &TranslationModel, source: &Path) -> Result {
    let config = BeamConfig { eos: model.target.eos_id(), ..beam_config(&args.beam, 1)? };
    model.check(&args.beam)?;
    let lines = lines_of(source)?;
    check_lengths(source, lines.len(), &args.reference)?;
    let inputs: Vec<Option<&Path>> =
        args.reference.iter().map(|path| Some(path.as_path())).chain([Some(source)]).collect();
    refuse_input(args.output.as_deref(), &inputs)?;
    let mut output = args.output.as_deref().map(|path| Output::open(Some(path))).transpose()?;
    let mut sources = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let ids = model.encode(line)?;
        if let Some(limit) = model.model.max_source_length().filter(|&limit| ids.len() > limit) {
            let (line, found) = (index + 1, ids.len());
            let shown = source.display();
            return Err(Error::new(format!("{shown}:{line} has {found} tokens, but the model reads at most {limit}"))
                .hint("leave the line out of the source and of the references"));
        }
        sources.push(ids);
    }
    // An empty line has an empty translation, as in `weft translate`.
    let texts: Vec<usize> = (0..lines.len()).filter(|&index| !lines[index].trim().is_empty()).collect();
    let wanted: Vec<Vec<u32>> = texts.iter().map(|&index| std::mem::take(&mut sources[index])).collect();
    let mut hypotheses = vec![String::new(); lines.len()];
    let mut cut = Vec::new();
    for (index, found) in texts.into_iter().zip(model.search(&wanted, &config, args.beam.max_length)?) {
        if let Some(best) = found.first() {
            if !best.finished {
                cut.push(index + 1);
            }
            hypotheses[index] = model.decode(&best.tokens)?;
        }
    }
    report_cut(&cut);
    if let Some(output) = &mut output {
        hypotheses.iter().try_for_each(|line| output.line(line))?;
        output.flush()?;
    }
    score(args, &hypotheses)
}

/// Prints the scores of `hypotheses`.
fn score(args: &EvaluateArgs, hypotheses: &[String]) -> Result {
    if let Some(path) = &args.hypotheses {
        check_lengths(path, hypotheses.len(), &args.reference)?;
    }
    let references: Vec<Vec<String>> = args.reference.iter().map(|path| lines_of(path)).collect::<Result<_>>()?;
    let bleu = Bleu { tokenizer: args.tokenize.into(), lowercase: args.lowercase, ..Bleu::default() };
    let chrf = Chrf { word_order: args.chrf_word_order, lowercase: args.lowercase, ..Chrf::default() };
    let bleu = bleu.corpus(hypotheses, &references)?;
    let chrf = chrf.corpus(hypotheses, &references)?;
    let exact = match &references[..] {
        [only] => Some(exact_match(hypotheses, only)?),
        _ => None,
    };
    let mut output = Output::open(None)?;
    if args.json {
        let mut report = json!({
            "sentences": hypotheses.len(),
            "bleu": bleu,
            "chrf": chrf,
        });
        if let Some(exact) = exact {
            report["exact_match"] = json!({ "correct": exact.num_correct, "rate": exact.rate() });
        }
        output.line(&format!("{report:#}"))?;
    } else {
        output.line(&format!("{bleu}\n  {}", bleu.signature))?;
        output.line(&format!("{chrf}\n  {}", chrf.signature))?;
        if let Some(exact) = exact {
            output.line(&exact.to_string())?;
        }
    }
    output.flush()
}

/// Names the files if their lines do not match.
fn check_lengths(path: &Path, wanted: usize, references: &[std::path::PathBuf]) -> Result {
    for reference in references {
        let found = lines_of(reference)?.len();
        if found != wanted {
            let (path, reference) = (path.display(), reference.display());
            return Err(Error::new(format!("{path} has {wanted} lines, {reference} has {found}")).hint(
                "line n of one file must belong to line n of the other: check for lost, added or wrapped lines",
            ));
        }
    }
    Ok(())
}
