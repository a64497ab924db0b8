//! From corpora to tokenizers and datasets.

use std::collections::HashSet;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use weft_text::{
    ParallelCorpus, ParallelDataset, ParallelFiles, RecallKind, RecallTask, SkipReport, TextCorpus, TextDataset,
    TextError, TokenSequences, Tokenizer, hexadecimal,
};

use crate::config::{ArchitectureKind, DataConfig, Overrides, RunConfig, TokenizerConfig};
use crate::dial::Facts;
use crate::error::TrainError;

/// Pairs that are set aside for validation at most, where no validation corpus is given.
const MOST_HELD_OUT_PAIRS: usize = 2000;

/// A translator's data.
#[derive(Debug, Clone)]
pub struct TranslationData {
    /// Reads sources.
    pub source_tokenizer: Tokenizer,
    /// Writes targets; the same where the vocabulary is shared.
    pub target_tokenizer: Tokenizer,
    /// The pairs to learn from.
    pub train: ParallelDataset,
    /// The pairs to validate on.
    pub validation: ParallelDataset,
}

/// A language model's data.
#[derive(Debug, Clone)]
pub struct TextData {
    /// Reads and writes text.
    pub tokenizer: Tokenizer,
    /// The stream to learn from.
    pub train: Vec<u32>,
    /// The stream to validate on.
    pub validation: Vec<u32>,
    /// What was left out of the training and of the validation text.
    pub skipped: [SkipReport; 2],
    /// SHA-256 of the training text.
    pub train_hash: String,
    /// SHA-256 of the validation text, or of how it was cut off the training text.
    pub validation_hash: String,
}

/// Counts the training data that overrides name; a task's texts have no end.
///
/// # Errors
/// No training data, or files that cannot be read.
pub fn survey(overrides: &Overrides) -> Result<Facts, TrainError> {
    if overrides.get::<RecallKind>("data.task")?.is_some() {
        return Ok(Facts { examples: 0, bytes: 0, characters: Some(RecallTask::ALPHABET.len()) });
    }
    let architecture = overrides.get("model.architecture")?.unwrap_or(ArchitectureKind::Transformer);
    let train: Vec<PathBuf> = overrides.get("data.train")?.unwrap_or_default();
    if train.is_empty() {
        return Err(TrainError::MissingSetting { key: "data.train", what: "the files to learn from" });
    }
    let mut facts = Facts { examples: 0, bytes: 0, characters: None };
    if architecture.is_translator() {
        let languages: Vec<String> = overrides.get("data.languages")?.unwrap_or_default();
        for pair in parallel(&train, &languages)?.pairs()? {
            let pair = pair?;
            facts.examples += 1;
            facts.bytes += pair.source.len() + pair.target.len();
        }
    } else {
        let field: Option<String> = overrides.get("data.field")?;
        let mut characters = HashSet::new();
        for piece in text(&train, field.as_deref().unwrap_or("text")).pieces()? {
            let piece = piece?;
            facts.examples += 1;
            facts.bytes += piece.text.len();
            characters.extend(piece.text.chars());
        }
        facts.characters = Some(characters.len());
    }
    Ok(facts)
}

impl TranslationData {
    /// Reads the corpora and trains the tokenizers on the training corpus, or takes those that are given (source,
    /// target).
    ///
    /// # Errors
    /// Errors of the corpora and tokenizers.
    pub fn prepare(config: &RunConfig, given: Option<(Tokenizer, Tokenizer)>) -> Result<Self, TrainError> {
        let DataConfig { train, validation, languages, max_length, validation_ratio, .. } = &config.data;
        let corpus = parallel(train, languages)?;
        let (source_tokenizer, target_tokenizer) = match given {
            Some(tokenizers) => tokenizers,
            None => {
                let texts =
                    || Ok::<_, TextError>(corpus.pairs()?.map(|pair| pair.map(|pair| [pair.source, pair.target])));
                train_tokenizers(&config.tokenizer, texts)?
            }
        };
        let build =
            |corpus: &ParallelCorpus| ParallelDataset::build(corpus, &source_tokenizer, &target_tokenizer, *max_length);
        let all = build(&corpus)?;
        let (train, validation) = if validation.is_empty() {
            let held_out = (all.len() as f64 * validation_ratio).ceil() as usize;
            let held_out = held_out.clamp(1, MOST_HELD_OUT_PAIRS);
            if all.len() <= held_out {
                return Err(TrainError::TooLittle {
                    paths: config.data.train.clone(),
                    found: all.len(),
                    wanted: held_out + 1,
                    unit: "pairs",
                    purpose: "train and validate on",
                    remedy: "give more pairs, a smaller data.validation_ratio, or data.validation".into(),
                });
            }
            hold_out(all, held_out)
        } else {
            (all, build(&parallel(validation, languages)?)?)
        };
        Ok(Self { source_tokenizer, target_tokenizer, train, validation })
    }

    /// From pairs in memory, with tokenizers trained on those for training.
    ///
    /// # Errors
    /// No pairs, or a vocabulary that is too small.
    pub fn from_pairs<S: AsRef<str>>(
        train: &[(S, S)],
        validation: &[(S, S)],
        tokenizer: &TokenizerConfig,
    ) -> Result<Self, TrainError> {
        let texts = || {
            let pairs = train.iter().map(|(source, target)| [source.as_ref().to_owned(), target.as_ref().to_owned()]);
            Ok(pairs.map(Ok))
        };
        let (source_tokenizer, target_tokenizer) = train_tokenizers(tokenizer, texts)?;
        let build = |pairs: &[(S, S)]| {
            let (sources, targets): (Vec<&str>, Vec<&str>) =
                pairs.iter().map(|(source, target)| (source.as_ref(), target.as_ref())).unzip();
            let mut hasher = Sha256::new();
            for text in sources.iter().zip(&targets).flat_map(|(source, target)| [source, target]) {
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            Ok::<_, TextError>(ParallelDataset {
                source: sequences(&source_tokenizer.encode_batch(&sources)?),
                target: sequences(&target_tokenizer.encode_batch(&targets)?),
                lines: (1..=pairs.len() as u32).collect(),
                skipped: SkipReport::default(),
                hash: hexadecimal(&hasher.finalize()),
            })
        };
        let (train, validation) = (build(train)?, build(validation)?);
        Ok(Self { source_tokenizer, target_tokenizer, train, validation })
    }
}

impl TextData {
    /// Reads the text and trains the tokenizer on the training files, or takes the one that is given. Where the end of
    /// these files is set aside for validation, the tokenizer has seen it; the model has not.
    ///
    /// # Errors
    /// Errors of the corpora and the tokenizer.
    pub fn prepare(config: &RunConfig, given: Option<Tokenizer>) -> Result<Self, TrainError> {
        let data = &config.data;
        let corpus = text(&data.train, &data.field);
        let tokenizer = match given {
            Some(tokenizer) => tokenizer,
            None => {
                let texts = corpus.pieces()?.map(|piece| piece.map(|piece| piece.text));
                Tokenizer::train(config.tokenizer.kind, config.tokenizer.vocab_size, texts)?
            }
        };
        let mut train = TextDataset::build(&corpus, &tokenizer)?;
        if data.validation.is_empty() {
            let ratio = 1.0 - data.validation_ratio;
            let (first, rest) = train.split(ratio);
            let (first, rest) = (first.len(), rest.len());
            check_lengths(config, first, rest)?;
            return Ok(Self {
                tokenizer,
                validation: train.ids.split_off(first),
                train: train.ids,
                skipped: [train.skipped, SkipReport::default()],
                validation_hash: hexadecimal(&Sha256::digest(format!("{} from {ratio}", train.hash))),
                train_hash: train.hash,
            });
        }
        let validation = TextDataset::build(&text(&data.validation, &data.field), &tokenizer)?;
        check_lengths(config, train.ids.len(), validation.ids.len())?;
        Ok(Self {
            tokenizer,
            train: train.ids,
            validation: validation.ids,
            skipped: [train.skipped, validation.skipped],
            train_hash: train.hash,
            validation_hash: validation.hash,
        })
    }
}

/// Source and target tokenizer from pairs that can be read more than once.
fn train_tokenizers<I: Iterator<Item = Result<[String; 2], TextError>>>(
    config: &TokenizerConfig,
    pairs: impl Fn() -> Result<I, TextError>,
) -> Result<(Tokenizer, Tokenizer), TextError> {
    let train = |texts: &mut dyn Iterator<Item = Result<String, TextError>>| {
        Tokenizer::train(config.kind, config.vocab_size, texts)
    };
    if config.shared {
        let mut both = pairs()?.flat_map(|pair| match pair {
            Ok(pair) => pair.map(Ok).into_iter().collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        });
        let tokenizer = train(&mut both)?;
        return Ok((tokenizer.clone(), tokenizer));
    }
    let source = train(&mut pairs()?.map(|pair| pair.map(|[source, _]| source)))?;
    let target = train(&mut pairs()?.map(|pair| pair.map(|[_, target]| target)))?;
    Ok((source, target))
}

/// Checks that there is a window to train on and a token to predict in validation.
fn check_lengths(config: &RunConfig, train: usize, validation: usize) -> Result<(), TrainError> {
    let (data, unit) = (&config.data, "tokens");
    let wanted = config.training.window.unwrap_or(1) + 1;
    if train < wanted {
        let remedy = "give more text, or a smaller training.window".into();
        return Err(TrainError::TooLittle {
            paths: data.train.clone(),
            found: train,
            wanted,
            unit,
            purpose: "train on",
            remedy,
        });
    }
    if validation < 2 {
        let (paths, remedy) = match data.validation.is_empty() {
            true => {
                let ratio = data.validation_ratio;
                (&data.train, format!("raise data.validation_ratio, which is {ratio}, or name data.validation"))
            }
            false => (&data.validation, "give more text".into()),
        };
        let purpose = "validate on";
        return Err(TrainError::TooLittle {
            paths: paths.clone(),
            found: validation,
            wanted: 2,
            unit,
            purpose,
            remedy,
        });
    }
    Ok(())
}

/// All but the last pairs, and those.
fn hold_out(mut all: ParallelDataset, count: usize) -> (ParallelDataset, ParallelDataset) {
    let first = all.len().saturating_sub(count);
    let held_out = ParallelDataset {
        source: all.source.split_off(first),
        target: all.target.split_off(first),
        lines: all.lines.split_off(first),
        skipped: SkipReport::default(),
        hash: hexadecimal(&Sha256::digest(format!("{} from {first}", all.hash))),
    };
    (all, held_out)
}

fn parallel(paths: &[PathBuf], languages: &[String]) -> Result<ParallelCorpus, TextError> {
    let languages = match languages {
        [source, target] => Some((source.as_str(), target.as_str())),
        _ => None,
    };
    Ok(ParallelCorpus::new(ParallelFiles::guess(paths, languages)?))
}

fn text(paths: &[PathBuf], field: &str) -> TextCorpus {
    TextCorpus { json_field: field.to_owned(), ..TextCorpus::new(paths) }
}

fn sequences(rows: &[Vec<u32>]) -> TokenSequences {
    rows.iter().map(Vec::as_slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pairs_are_held_out() {
        let rows = |tens: u32| sequences(&(0..5).map(|row| vec![tens + row; row as usize]).collect::<Vec<_>>());
        let mut skipped = SkipReport::default();
        skipped.add(weft_text::SkipReason::TooLong, std::path::Path::new("a.tsv"), 6);
        let all = ParallelDataset {
            source: rows(10),
            target: rows(20),
            lines: vec![1, 2, 3, 4, 7],
            skipped: skipped.clone(),
            hash: "whole".to_owned(),
        };
        let (train, validation) = hold_out(all, 2);
        let rows_of = |side: &TokenSequences| side.iter().map(<[u32]>::to_vec).collect::<Vec<_>>();
        assert_eq!(rows_of(&train.source), [vec![], vec![11], vec![12, 12]]);
        assert_eq!(rows_of(&validation.source), [vec![13; 3], vec![14; 4]]);
        assert_eq!(rows_of(&train.target), [vec![], vec![21], vec![22, 22]]);
        assert_eq!(rows_of(&validation.target), [vec![23; 3], vec![24; 4]]);
        assert_eq!((train.lines, validation.lines), (vec![1, 2, 3], vec![4, 7]));
        assert_eq!((train.skipped, validation.skipped), (skipped, SkipReport::default()));
        let cut = hexadecimal(&Sha256::digest("whole from 3"));
        assert_eq!((train.hash.as_str(), validation.hash), ("whole", cut));
    }
}
