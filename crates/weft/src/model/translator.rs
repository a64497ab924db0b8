//! A translator with its tokenizers.

use weft_decode::{BeamConfig, DecodeError, Hypothesis};
use weft_models::search::SOURCE_TOKENS_PER_BATCH;
use weft_models::{Sequences, Translator};
use weft_text::Tokenizer;

use super::{device_of, stored_shapes};
use crate::cli::BeamArgs;
use crate::error::{Error, Result, range_hint};
use crate::memory;

/// A translator of any architecture, without its type.
pub(crate) trait Translates {
    /// The best translations of each source, best first.
    fn search(
        &self,
        sources: &[Vec<u32>],
        config: &BeamConfig,
    ) -> std::result::Result<Vec<Vec<Hypothesis>>, DecodeError>;

    /// How much each token of the target and its end, `[target + 1, source]`, looked at each token of the source;
    /// none if the architecture does not attend.
    fn alignment(&self, source: &[u32], target: &[u32]) -> Option<Vec<f32>>;

    /// The longest source, its end included, if there is a limit.
    fn max_source_length(&self) -> Option<usize>;

    /// The longest target, its end included, if there is a limit.
    fn max_target_length(&self) -> Option<usize>;

    /// The name and shape of each tensor.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;
}

impl<M: Translator> Translates for M {
    fn search(
        &self,
        sources: &[Vec<u32>],
        config: &BeamConfig,
    ) -> std::result::Result<Vec<Vec<Hypothesis>>, DecodeError> {
        weft_models::search::translate(self, sources, config)
    }

    fn alignment(&self, source: &[u32], target: &[u32]) -> Option<Vec<f32>> {
        let device = device_of(self);
        let mut target_in = vec![self.start_token()];
        target_in.extend(target);
        let source = Sequences::new(&[source], 0, &device);
        let (_, alignment) = self.forward(&source, &Sequences::new(&[target_in], 0, &device));
        alignment.map(|weights| weights.into_data().try_to_vec().expect("weights are f32"))
    }

    fn max_source_length(&self) -> Option<usize> {
        Translator::max_source_length(self)
    }

    fn max_target_length(&self) -> Option<usize> {
        Translator::max_target_length(self)
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        stored_shapes(self)
    }
}

/// A translator and its tokenizers.
pub(crate) struct TranslationModel {
    pub(crate) model: Box<dyn Translates>,
    pub(crate) source: Tokenizer,
    pub(crate) target: Tokenizer,
    /// Values that a hypothesis keeps for each of its tokens.
    pub(crate) cache_width: usize,
}

/// Source lengths are rounded up to a multiple of this before the longest translation is derived from them, so that
/// sentences of similar length are decoded together.
const LENGTH_STEP: usize = 16;

impl TranslationModel {
    /// The ids that the model reads: the text's and the end.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.source.encode(text)?;
        ids.push(self.source.eos_id());
        Ok(ids)
    }

    /// The text of a hypothesis, on one line.
    pub(crate) fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = self.target.decode(tokens)?;
        Ok(if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text })
    }

    /// Checks what the arguments ask of this model.
    ///
    /// # Errors
    /// A beam that the first step cannot fill, or translations longer than the model has positions for.
    pub(crate) fn check(&self, args: &BeamArgs) -> Result {
        let most = self.target.vocab_size();
        if args.beam > most {
            let wanted = format!("at most {most}, the tokens that a translation can begin with");
            return Err(Error::new(format!("--beam is {}, wanted {wanted}", args.beam)).hint(range_hint(&wanted)));
        }
        match (args.max_length, self.model.max_target_length()) {
            (Some(length), Some(limit)) if length > limit => {
                Err(Error::new(format!("--max-length is {length}, but the model writes at most {limit} tokens"))
                    .hint(range_hint(&format!("at most {limit}"))))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the hypotheses of the sources fit into memory: on each core a batch, and in it for each row its
    /// scores and what it keeps for its tokens, twice where rows are reordered.
    fn check_memory(&self, sources: &[Vec<u32>], beam: usize, max_length: usize) -> Result {
        let longest = sources.iter().map(Vec::len).max().unwrap_or(0);
        let batch = (SOURCE_TOKENS_PER_BATCH / longest.max(1)).max(1);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sentences = sources.len().min(batch.saturating_mul(cores)) as u128;
        let kept = (longest.min(max_length) as u128).saturating_mul(self.cache_width as u128);
        let row = (self.target.vocab_size() as u128).saturating_add(kept).saturating_mul(2 * size_of::<f32>() as u128);
        let what = format!("a beam of {beam} over {sentences} sentences at once");
        memory::check(&what, sentences.saturating_mul(beam as u128).saturating_mul(row), "choose a smaller --beam")
    }

    /// Searches with `config`; without a `max_length`, each source's own length bounds its translations. A source's
    /// result depends on nothing but itself.
    pub(crate) fn search(
        &self,
        sources: &[Vec<u32>],
        config: &BeamConfig,
        max_length: Option<usize>,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let limit = |source: &Vec<u32>| {
            let derived = 2 * source.len().next_multiple_of(LENGTH_STEP) + 10;
            let wanted = max_length.unwrap_or(derived);
            self.model.max_target_length().map_or(wanted, |most| wanted.min(most))
        };
        let mut by_limit: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
        for (index, source) in sources.iter().enumerate() {
            by_limit.entry(limit(source)).or_default().push(index);
        }
        let mut results = vec![Vec::new(); sources.len()];
        for (max_length, indices) in by_limit {
            let group: Vec<Vec<u32>> = indices.iter().map(|&index| sources[index].clone()).collect();
            self.check_memory(&group, config.beam_size, max_length)?;
            let found = self.model.search(&group, &BeamConfig { max_length, ..config.clone() })?;
            for (index, hypotheses) in indices.into_iter().zip(found) {
                results[index] = hypotheses;
            }
        }
        Ok(results)
    }
}
