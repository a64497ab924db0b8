//! `weft evaluate`: scores of translations, and of language models on text.

use std::path::Path;

use serde_json::json;
use weft_decode::BeamConfig;
use weft_metrics::{Bleu, Chrf, Perplexity, exact_match};
use weft_text::{TextCorpus, TextDataset, TextError, sequential_windows};

use super::translate::{beam_config, report_cut};
use crate::cli::EvaluateArgs;
use crate::device;
use crate::error::{Error, Result, range_hint};
use crate::files::{lines_of, refuse_input};
use crate::model::{Model, TextModel, TranslationModel, open};
use crate::output::{Output, say};

/// The window of models without a limit.
const DEFAULT_WINDOW: usize = 256;
/// Tokens that are measured together.
const TOKENS_PER_BATCH: usize = 8192;

/// Measures what the arguments name.
pub(crate) fn run(args: &EvaluateArgs) -> Result {
    let Some(path) = &args.model else {
        let hypotheses = lines_of(args.hypotheses.as_deref().expect("clap asks for one of the two"))?;
        return score(args, &hypotheses);
    };
    let wanted = "give --source FILE --reference FILE for a translator, or --text FILE for a language model";
    if args.source.is_none() && args.text.is_empty() {
        return Err(Error::new("there is nothing to measure the model on").hint(wanted));
    }
    let model = open(path, &device::open(args.device.device)?)?;
    match (&model, &args.source) {
        (Model::Translator(model), Some(source)) => translate_and_score(args, model, source),
        (Model::LanguageModel(model), None) => measure_text(args, model),
        (Model::Translator(_), None) => Err(Error::new(format!("{} is a translator", path.display())).hint(wanted)),
        (Model::LanguageModel(_), Some(_)) => {
            Err(Error::new(format!("{} is a language model", path.display())).hint(wanted))
        }
    }
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

/// Prints how well a language model predicts text.
fn measure_text(args: &EvaluateArgs, model: &TextModel) -> Result {
    let dataset = TextDataset::build(&TextCorpus::new(&args.text), &model.tokenizer)?;
    if !dataset.skipped.is_empty() {
        say!("{}", dataset.skipped);
    }
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
    let windows = sequential_windows(dataset.ids.len(), window, stride).map_err(|error| match error {
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
            let ids = &dataset.ids[window.start..=window.start + window.length];
            inputs.extend(ids[..window.length].iter().map(|&id| id as i32));
            let target = |(place, &id): (usize, &u32)| if place < window.scored_from { -1 } else { id as i32 };
            targets.extend(ids[1..].iter().enumerate().map(target));
        }
        nats += model.model.loss(inputs, targets, batch.len(), first.length);
    }
    let scored = &dataset.ids[1..];
    let bytes = model.tokenizer.byte_count(scored)?;
    let found = Perplexity::new(nats, scored.len() as u64, bytes as u64, window, stride)?;
    let mut output = Output::open(None)?;
    if args.json {
        let report = json!({
            "perplexity": found.perplexity(),
            "bits_per_byte": found.bits_per_byte(),
            "bits_per_token": found.bits_per_token(),
            "nats_per_token": found.nats_per_token(),
            "tokens": found.num_tokens(),
            "bytes": found.num_bytes(),
            "window": window,
            "stride": stride,
        });
        output.line(&format!("{report:#}"))?;
    } else {
        output.line(&format!("{found:.3}"))?;
        output.line(&format!("loss {:.4} nats/token", found.nats_per_token()))?;
    }
    output.flush()
}
