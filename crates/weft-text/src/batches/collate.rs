//! Batches of sentences as padded rows.

use crate::dataset::ParallelDataset;
use crate::tokenizer::SpecialTokens;

/// Sequences of ids as rows of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedRows {
    /// Ids, `[batch, time]` row by row, the padding id behind each row's end.
    pub ids: Vec<i32>,
    /// Ids of each row before its padding, `[batch]`.
    pub lengths: Vec<usize>,
    /// The length of the rows: that of the longest sequence.
    pub time: usize,
}

impl PaddedRows {
    /// Pads sequences to the longest of them.
    pub fn new<T: AsRef<[u32]>>(sequences: &[T], pad: u32) -> Self {
        Self::with_ends(sequences, None, None, pad)
    }

    /// Puts a token before and one behind each sequence, where given, and pads.
    fn with_ends<T: AsRef<[u32]>>(sequences: &[T], first: Option<u32>, last: Option<u32>, pad: u32) -> Self {
        let more = usize::from(first.is_some()) + usize::from(last.is_some());
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.as_ref().len() + more).collect();
        let time = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(time * lengths.len());
        for (sequence, length) in sequences.iter().zip(&lengths) {
            // Ids are below 2^24.
            ids.extend(first.iter().chain(sequence.as_ref()).chain(&last).map(|&id| id as i32));
            ids.extend(std::iter::repeat_n(pad as i32, time - length));
        }
        Self { ids, lengths, time }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }
}

/// A batch of pairs for teacher forcing: at each time the decoder reads `target_in` and is to predict `target_out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelBatch {
    /// Which pairs of the dataset these are, `[batch]`.
    pub indices: Vec<u32>,
    /// The source sentences, `[batch, source_time]` row by row.
    pub source: Vec<i32>,
    /// Tokens of each source sentence, `[batch]`.
    pub source_lengths: Vec<usize>,
    /// Tokens of the longest source sentence.
    pub source_time: usize,
    /// The begin token and the target sentence, `[batch, target_time]`.
    pub target_in: Vec<i32>,
    /// The target sentence and the end token, `[batch, target_time]`.
    pub target_out: Vec<i32>,
    /// Tokens of each target sentence with its end token, `[batch]`: the tokens that a loss counts.
    pub target_lengths: Vec<usize>,
    /// Tokens of the longest target sentence, with its end token.
    pub target_time: usize,
}

impl ParallelBatch {
    /// Puts some pairs of a dataset into rows; the special tokens are those of the two sides' tokenizers.
    ///
    /// An index beyond the dataset gives an empty sentence.
    pub fn collate(
        dataset: &ParallelDataset,
        indices: &[u32],
        source_tokens: SpecialTokens,
        target_tokens: SpecialTokens,
    ) -> Self {
        let sources: Vec<&[u32]> = indices.iter().map(|&index| dataset.source.get(index as usize)).collect();
        let targets: Vec<&[u32]> = indices.iter().map(|&index| dataset.target.get(index as usize)).collect();
        let source = PaddedRows::new(&sources, source_tokens.pad);
        let target_in = PaddedRows::with_ends(&targets, Some(target_tokens.bos), None, target_tokens.pad);
        let target_out = PaddedRows::with_ends(&targets, None, Some(target_tokens.eos), target_tokens.pad);
        Self {
            indices: indices.to_vec(),
            source: source.ids,
            source_lengths: source.lengths,
            source_time: source.time,
            target_in: target_in.ids,
            target_out: target_out.ids,
            target_lengths: target_out.lengths,
            target_time: target_out.time,
        }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Target tokens that are predicted, end tokens included and padding not: what a step's loss is divided by.
    pub fn num_target_tokens(&self) -> usize {
        self.target_lengths.iter().sum()
    }
}
