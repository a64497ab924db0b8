//! Corpora as token ids in memory.

use crate::corpus::{Pair, ParallelCorpus, SkipReason, SkipReport, TextCorpus};
use crate::error::TextError;
use crate::tokenizer::Tokenizer;

/// Pairs that are read before their texts are encoded side by side.
const PAIRS_PER_CHUNK: usize = 8192;
/// Bytes of monolingual text that are read before they are encoded side by side.
const BYTES_PER_CHUNK: usize = 8 << 20;

/// Many sequences of ids in one flat allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSequences {
    ids: Vec<u32>,
    /// Where each sequence begins, and the end of the last.
    offsets: Vec<usize>,
}

impl Default for TokenSequences {
    fn default() -> Self {
        Self { ids: Vec::new(), offsets: vec![0] }
    }
}

impl TokenSequences {
    /// No sequences yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sequence at the end.
    pub fn push(&mut self, sequence: &[u32]) {
        self.ids.extend_from_slice(sequence);
        self.offsets.push(self.ids.len());
    }

    /// Takes the sequences from an index on away; none beyond [`TokenSequences::len`].
    pub fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.len());
        let start = self.offsets[at];
        let offsets = self.offsets[at..].iter().map(|offset| offset - start).collect();
        self.offsets.truncate(at + 1);
        Self { ids: self.ids.split_off(start), offsets }
    }

    /// The sequence at an index below [`TokenSequences::len`]; empty beyond.
    pub fn get(&self, index: usize) -> &[u32] {
        match self.offsets.get(index..index.saturating_add(2)) {
            Some(&[start, end]) => &self.ids[start..end],
            _ => &[],
        }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of ids in all sequences together.
    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    /// The sequences in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.offsets.windows(2).map(|bounds| &self.ids[bounds[0]..bounds[1]])
    }
}

impl<'ids> FromIterator<&'ids [u32]> for TokenSequences {
    fn from_iter<I: IntoIterator<Item = &'ids [u32]>>(sequences: I) -> Self {
        let mut all = Self::new();
        sequences.into_iter().for_each(|sequence| all.push(sequence));
        all
    }
}

/// A parallel corpus as token ids, without special tokens.
#[derive(Debug, Clone)]
pub struct ParallelDataset {
    /// The source sentences.
    pub source: TokenSequences,
    /// The target sentences; as many.
    pub target: TokenSequences,
    /// The line of each pair in its file, from 1.
    pub lines: Vec<u32>,
    /// What was left out of the corpus.
    pub skipped: SkipReport,
    /// The SHA-256 of the corpus ([`crate::Pairs::hash`]): a resumed run compares it.
    pub hash: String,
}

impl ParallelDataset {
    /// Reads and encodes a corpus, on all cores. Pairs with more than `max_length` tokens on a side (not counting
    /// the tokens that begin and end a sequence) are left out and counted.
    ///
    /// # Errors
    /// Errors of the corpus or the tokenizers; a corpus of which nothing is left.
    pub fn build(
        corpus: &ParallelCorpus,
        source_tokenizer: &Tokenizer,
        target_tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Self, TextError> {
        let mut dataset = Self {
            source: TokenSequences::new(),
            target: TokenSequences::new(),
            lines: Vec::new(),
            skipped: SkipReport::default(),
            hash: String::new(),
        };
        let mut too_long = SkipReport::default();
        let mut pairs = corpus.pairs()?;
        loop {
            let chunk: Vec<Pair> = pairs.by_ref().take(PAIRS_PER_CHUNK).collect::<Result<_, _>>()?;
            if chunk.is_empty() {
                break;
            }
            let (sources, targets): (Vec<&str>, Vec<&str>) =
                chunk.iter().map(|pair| (pair.source.as_str(), pair.target.as_str())).unzip();
            let sources = source_tokenizer.encode_batch(&sources)?;
            let targets = target_tokenizer.encode_batch(&targets)?;
            for ((pair, source), target) in chunk.iter().zip(&sources).zip(&targets) {
                if source.len().max(target.len()) > max_length {
                    too_long.add(SkipReason::TooLong, corpus.line_path(), pair.line);
                    continue;
                }
                dataset.source.push(source);
                dataset.target.push(target);
                dataset.lines.push(u32::try_from(pair.line).unwrap_or(u32::MAX));
            }
        }
        dataset.skipped = pairs.skipped().clone();
        dataset.skipped.merge(&too_long);
        dataset.hash = pairs.hash().unwrap_or_default();
        if dataset.is_empty() {
            return Err(TextError::NothingLeft { paths: corpus.files.path_list(), skipped: dataset.skipped });
        }
        Ok(dataset)
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// The lengths of each pair as [`crate::epoch_batches`] counts them: the source's tokens, and the target's with
    /// the one token that begins or ends it.
    pub fn lengths(&self) -> Vec<(u32, u32)> {
        let pairs = self.source.iter().zip(self.target.iter());
        pairs.map(|(source, target)| (source.len() as u32, target.len() as u32 + 1)).collect()
    }
}

/// Text as one stream of token ids for a language model: the documents with an end-of-sequence token between them.
#[derive(Debug, Clone)]
pub struct TextDataset {
    /// The stream.
    pub ids: Vec<u32>,
    /// Number of documents in it.
    pub num_documents: usize,
    /// Bytes of text that the stream stands for.
    pub num_bytes: usize,
    /// What was left out of the corpus.
    pub skipped: SkipReport,
    /// The SHA-256 of the corpus ([`crate::TextPieces::hash`]): a resumed run compares it.
    pub hash: String,
}

impl TextDataset {
    /// Reads and encodes a corpus, on all cores.
    ///
    /// # Errors
    /// Errors of the corpus or the tokenizer; a corpus without text.
    pub fn build(corpus: &TextCorpus, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let mut pieces = corpus.pieces()?;
        let mut dataset = Self {
            ids: Vec::new(),
            num_documents: 0,
            num_bytes: 0,
            skipped: SkipReport::default(),
            hash: String::new(),
        };
        let mut begins_document = true;
        loop {
            let mut texts = Vec::new();
            let mut ends = Vec::new();
            let mut bytes = 0;
            while bytes < BYTES_PER_CHUNK
                && let Some(piece) = pieces.next().transpose()?
            {
                bytes += piece.text.len();
                texts.push(piece.text);
                ends.push(piece.ends_document);
            }
            if texts.is_empty() {
                break;
            }
            dataset.num_bytes += bytes;
            for (ids, ends_document) in tokenizer.encode_batch(&texts)?.into_iter().zip(ends) {
                if begins_document {
                    if dataset.num_documents > 0 {
                        dataset.ids.push(tokenizer.eos_id());
                    }
                    dataset.num_documents += 1;
                }
                dataset.ids.extend(ids);
                begins_document = ends_document;
            }
        }
        dataset.skipped = pieces.skipped().clone();
        dataset.hash = pieces.hash().unwrap_or_default();
        if dataset.ids.is_empty() {
            return Err(TextError::NothingLeft { paths: corpus.path_list(), skipped: dataset.skipped });
        }
        Ok(dataset)
    }

    /// The first part of the stream for training and the rest for validation; `train_ratio` is the first part's share,
    /// from 0 to 1.
    pub fn split(&self, train_ratio: f64) -> (&[u32], &[u32]) {
        let position = (self.ids.len() as f64 * train_ratio.clamp(0.0, 1.0)) as usize;
        self.ids.split_at(position.min(self.ids.len()))
    }
}
