//! `weft translate`: a Unix filter around beam search.

use weft_decode::{BeamConfig, Hypothesis, StopRule};
use weft_plot::alignment_text;

use crate::attention::{Pictures, align, check};
use crate::cli::{BeamArgs, TranslateArgs};
use crate::error::{Error, Result, range_hint};
use crate::files::{LineStream, refuse_input};
use crate::model::{TranslationModel, open_translator};
use crate::output::{Output, say};
use crate::{device, terminal};

/// Lines that are translated together at most: enough to find many of one length.
const LINES_PER_PORTION: usize = 1000;

/// Translates lines until there are no more.
pub(crate) fn run(args: &TranslateArgs) -> Result {
    let config = beam_config(&args.beam, args.n_best)?;
    refuse_input(args.output.as_deref(), &[args.input.as_deref()])?;
    let mut pictures = args.attention.as_deref().map(Pictures::new).transpose()?;
    let model = open_translator(&args.model, &device::open(args.device.device)?)?;
    model.check(&args.beam)?;
    if pictures.is_some() || args.show_attention {
        check(&model)?;
    }
    let config = BeamConfig { eos: model.target.eos_id(), ..config };
    let mut lines = LineStream::open(args.input.as_deref(), LINES_PER_PORTION)?;
    let mut output = Output::open(args.output.as_deref())?;
    let mut filter = Filter { args, model: &model, config, line: 0, skipped: Vec::new(), cut: Vec::new() };
    loop {
        let (portion, end) = lines.next_portion();
        if portion.is_empty() {
            end?;
            break;
        }
        // What came before a broken line is still translated.
        filter.translate(&portion, &lines.name(), &mut output, pictures.as_mut())?;
        end?;
    }
    pictures.map_or(Ok(()), Pictures::finish)?;
    filter.report();
    Ok(())
}

/// The search that the arguments ask for, checked before anything is opened.
pub(crate) fn beam_config(args: &BeamArgs, num_best: usize) -> Result<BeamConfig> {
    let mut config = BeamConfig::new(args.beam, args.max_length.unwrap_or(1), 0);
    config.num_best = num_best;
    config.length_penalty = args.length_penalty;
    config.stop = StopRule::EnoughFinished;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(weft_decode::DecodeError::Config { field, found, wanted }) => {
            let option = match field {
                "beam_size" => "--beam",
                "num_best" => "--n-best",
                "max_length" => "--max-length",
                _ => "--length-penalty",
            };
            let wanted = wanted.replace("beam_size", "--beam");
            Err(Error::new(format!("{option} is {found}, wanted {wanted}")).hint(range_hint(&wanted)))
        }
        Err(other) => Err(other.into()),
    }
}

struct Filter<'run> {
    args: &'run TranslateArgs,
    model: &'run TranslationModel,
    config: BeamConfig,
    /// Lines handled so far.
    line: usize,
    /// The numbers of lines that were too long.
    skipped: Vec<usize>,
    /// The numbers of lines whose translations have no end.
    cut: Vec<usize>,
}

impl Filter<'_> {
    /// Translates a portion of lines and prints the results in their order.
    fn translate(
        &mut self,
        lines: &[String],
        name: &str,
        output: &mut Output,
        mut pictures: Option<&mut Pictures>,
    ) -> Result {
        let mut sources = Vec::new();
        let mut indices = Vec::new();
        let mut too_long = None;
        for (index, line) in lines.iter().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let source = self.model.encode(line)?;
            match self.model.model.max_source_length() {
                Some(limit) if source.len() > limit => {
                    if !self.args.skip_long {
                        too_long = Some((index, source.len(), limit));
                        break;
                    }
                    self.skipped.push(self.line + index + 1);
                }
                _ => {
                    sources.push(source);
                    indices.push(index);
                }
            }
        }
        let mut results = vec![Vec::new(); lines.len()];
        let found = self.model.search(&sources, &self.config, self.args.beam.max_length)?;
        for ((&index, hypotheses), source) in indices.iter().zip(found).zip(&sources) {
            if let Some(best) = hypotheses.first() {
                if !best.finished {
                    self.cut.push(self.line + index + 1);
                }
                self.draw(self.line + index + 1, source, best, pictures.as_deref_mut())?;
            }
            results[index] = hypotheses;
        }
        let done = too_long.map_or(lines.len(), |(index, ..)| index);
        for (index, hypotheses) in results[..done].iter().enumerate() {
            self.print(self.line + index + 1, hypotheses, output)?;
        }
        output.flush()?;
        self.line += done;
        match too_long {
            None => Ok(()),
            Some((_, found, limit)) => Err(Error::new(format!(
                "{name}: line {} has {found} tokens, its end counted, but the model reads at most {limit}",
                self.line + 1
            ))
            .hint("split the line into sentences, or leave such lines empty with --skip-long")),
        }
    }

    fn print(&self, line: usize, hypotheses: &[Hypothesis], output: &mut Output) -> Result {
        let number = if self.config.num_best > 1 { format!("{line}\t") } else { String::new() };
        if hypotheses.is_empty() {
            return output.line(&number);
        }
        for hypothesis in hypotheses {
            let score = if self.args.scores { format!("{:.4}\t", hypothesis.score) } else { String::new() };
            output.line(&format!("{number}{score}{}", self.model.decode(&hypothesis.tokens)?))?;
        }
        Ok(())
    }

    fn draw(&self, line: usize, source: &[u32], best: &Hypothesis, pictures: Option<&mut Pictures>) -> Result {
        if pictures.is_none() && !self.args.show_attention {
            return Ok(());
        }
        let map = align(self.model, source, &best.tokens)?;
        if self.args.show_attention {
            say!("{}\n{}", self.model.decode(&best.tokens)?, alignment_text(&map, &terminal::drawing()));
        }
        pictures.map_or(Ok(()), |pictures| pictures.draw(line, &map))
    }

    /// Tells what was left out and what has no end.
    fn report(&self) {
        if let Some(first) = self.skipped.first() {
            let count = self.skipped.len();
            let lines = if count == 1 { "line was" } else { "lines were" };
            say!("warning: {count} {lines} too long for the model and left empty (the first is line {first})");
        }
        report_cut(&self.cut);
    }
}

/// Tells which lines' translations reached the longest length before their end.
pub(crate) fn report_cut(lines: &[usize]) {
    let Some(first) = lines.first() else { return };
    let translations = if lines.len() == 1 { "translation was" } else { "translations were" };
    say!(
        "warning: {} {translations} cut off at the longest length, see --max-length (the first is line {first})",
        lines.len()
    );
}
