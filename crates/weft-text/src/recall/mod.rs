//! Synthetic texts that ask a language model for what it has read, at distances that are known.
//!
//! ```text
//! recall   aQbZcM 4 cM 07 aQ 1 cM     pairs of a key and its value, then keys as questions, at random places (no spaces)
//! needle   5210 kX 88310527 kX        one pair somewhere, asked at the end
//! ```
//!
//! A key is a small letter, a value a capital, what stands between are random digits. *Recall* is multi-query
//! associative recall (Arora et al., arXiv 2312.04927, section 3.1): how much does a model keep? *Needle* asks how long
//! it keeps it. No two keys and no two values of a text are alike. What is asked is drawn anew for each question, so that
//! nothing is gained by ruling out what was asked before: who asks each key once teaches that first.

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use crate::batches::{RECALL_STREAM, WindowBatch};
use crate::corpus::hexadecimal;
use crate::error::TextError;
use crate::random::CounterRng;
use crate::tokenizer::Tokenizer;

/// Keys that there are, and values; fewer pairs are drawn from fewer letters, down to the second number, which are sooner
/// learned.
const LETTERS: usize = 26;
const LEAST_LETTERS: usize = 8;
/// What the numbers of a text are drawn for; each is a random stream of its own.
const KEYS: u64 = 0;
const VALUES: u64 = 1;
const FILLER: u64 = 2;
const PLACES: u64 = 3;
const PAIRS: u64 = 4;
const ASKED: u64 = 5;
/// Training texts that stand for all in a hash.
const HASHED_TEXTS: u64 = 64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecallKind {
    /// Many pairs, each asked: associative recall.
    Recall,
    /// One pair, hidden.
    Needle,
}

impl RecallKind {
    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recall => "recall",
            Self::Needle => "needle",
        }
    }
}

/// A kind of text, its pairs and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecallTask {
    /// What is asked.
    pub kind: RecallKind,
    /// Pairs in a text, 1 to 26; 1 for a needle.
    pub pairs: usize,
    /// Characters of a text.
    pub length: usize,
}

/// Who reads a text; no two of them read the same.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Training(u64),
    Validation,
    Test,
}

/// A text and what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecallText {
    /// ASCII letters and digits.
    pub text: String,
    /// In the order of their places.
    pub questions: Vec<RecallQuestion>,
}

/// A key that stands in a text again; its value, the answer, follows it each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecallQuestion {
    /// Where the key stands.
    pub place: usize,
    /// How far before that it stood the last time.
    pub distance: usize,
}

impl RecallTask {
    /// Every character of the texts.
    pub const ALPHABET: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    /// Four pairs in 32 characters, or a needle in 64.
    pub fn new(kind: RecallKind) -> Self {
        match kind {
            RecallKind::Recall => Self { kind, pairs: 4, length: 32 },
            RecallKind::Needle => Self { kind, pairs: 1, length: 64 },
        }
    }

    /// Keys that a text may have, and values.
    fn letters(&self) -> usize {
        match self.kind {
            RecallKind::Recall => (2 * self.pairs).clamp(LEAST_LETTERS, LETTERS),
            RecallKind::Needle => LETTERS,
        }
    }

    /// Checks that there are such texts.
    ///
    /// # Errors
    /// More pairs than letters, several needles, or a text too short for its pairs and questions.
    pub fn check(&self) -> Result<(), TextError> {
        let most = if self.kind == RecallKind::Recall { LETTERS } else { 1 };
        if !(1..=most).contains(&self.pairs) {
            let wanted = if most == 1 { "1 for a needle" } else { "1 to 26, the letters that there are" };
            return Err(TextError::Setting { field: "pairs", found: self.pairs, wanted });
        }
        if self.length < 4 * self.pairs {
            let wanted = "at least 4 tokens for each pair";
            return Err(TextError::Setting { field: "length", found: self.length, wanted });
        }
        Ok(())
    }

    /// The share of right answers of who knows the task and has forgotten which value belongs to the key: one of the
    /// text's values, or of all values where the text has only one.
    pub fn chance(&self) -> f64 {
        1.0 / if self.pairs > 1 { self.pairs } else { LETTERS } as f64
    }

    /// A text to learn from; a pure function of the task, the seed and the index.
    ///
    /// More than half of the texts have all pairs, the others fewer, down to one: what few teach helps with many.
    pub fn training_text(&self, seed: u64, index: u64) -> RecallText {
        let draw = CounterRng::new(seed, &[RECALL_STREAM, 0, index, PAIRS]).below(0, 2 * self.pairs as u64);
        self.text(Reader::Training(seed), index, self.pairs.min(1 + draw as usize))
    }

    /// A text to validate on, the same for every seed.
    pub fn validation_text(&self, index: u64) -> RecallText {
        self.text(Reader::Validation, index, self.pairs)
    }

    /// A text to measure with: one question, `distance` characters after its pair, at least 2.
    ///
    /// It is as long as [`RecallTask::length_at`] says. The same pairs are asked at every distance.
    pub fn test_text(&self, distance: usize, index: u64) -> RecallText {
        let (length, distance) = (self.length_at(distance), distance.max(2));
        let mut draft = Draft::new(Reader::Test, index, self.letters(), length);
        let (pair, place) = match self.kind {
            RecallKind::Needle => (0, length - 2 - distance),
            RecallKind::Recall => {
                // Those whose question lies behind the pairs and in the text.
                let least = self.pairs.saturating_sub(distance / 2);
                let most = ((length - 2 - distance) / 2).min(self.pairs - 1);
                let pair = least + draft.random(PLACES).below(0, (most + 1 - least) as u64) as usize;
                (pair, 2 * pair)
            }
        };
        match self.kind {
            RecallKind::Needle => draft.write(0, place),
            RecallKind::Recall => (0..self.pairs).for_each(|pair| draft.write(pair, 2 * pair)),
        }
        draft.ask(pair, place, place + distance);
        draft.finish()
    }

    /// The length of a text that asks at this distance: that of the task or, where it does not suffice, as much as
    /// all pairs need to be asked so late.
    pub fn length_at(&self, distance: usize) -> usize {
        let distance = distance.max(2);
        if distance.saturating_add(2) <= self.length { self.length } else { distance.saturating_add(2 * self.pairs) }
    }

    /// SHA-256 of what a run with this seed learns from, in hexadecimal: of the task and its first texts.
    pub fn training_hash(&self, seed: u64) -> String {
        self.hash(&format!("seed {seed}"), (0..HASHED_TEXTS).map(|index| self.training_text(seed, index)))
    }

    /// The same of the first `count` texts to validate on.
    pub fn validation_hash(&self, count: u64) -> String {
        self.hash(&format!("{count} texts"), (0..count).map(|index| self.validation_text(index)))
    }

    fn hash(&self, what: &str, texts: impl Iterator<Item = RecallText>) -> String {
        let Self { kind, pairs, length } = self;
        let mut hasher = Sha256::new();
        hasher.update(format!("{} of {pairs} pairs in {length}, {what}\n", kind.name()));
        texts.for_each(|text| hasher.update(text.text + "\n"));
        hexadecimal(&hasher.finalize())
    }

    fn text(&self, reader: Reader, index: u64, pairs: usize) -> RecallText {
        let mut draft = Draft::new(reader, index, self.letters(), self.length);
        let random = draft.random(PLACES);
        match self.kind {
            RecallKind::Needle => {
                let last = self.length - 2;
                let place = random.below(0, last as u64 - 1) as usize;
                draft.write(0, place);
                draft.ask(0, place, last);
            }
            RecallKind::Recall => {
                (0..pairs).for_each(|pair| draft.write(pair, 2 * pair));
                let mut last: Vec<usize> = (0..pairs).map(|pair| 2 * pair).collect();
                // As many questions as digits follow; every order of them is as likely as any other.
                let rest = self.length - 2 * pairs;
                let questions = (rest / 3).max(1);
                let mut asks = vec![true; questions];
                asks.resize(rest - questions, false);
                random.shuffle(&mut asks);
                let asked = draft.random(ASKED);
                let mut place = 2 * pairs;
                for asks in asks {
                    if asks {
                        let pair = asked.below(place as u64, pairs as u64) as usize;
                        draft.ask(pair, last[pair], place);
                        last[pair] = place;
                    }
                    place += if asks { 2 } else { 1 };
                }
            }
        }
        draft.finish()
    }
}

/// A text in the making: digits, over which pairs and questions are written.
struct Draft {
    names: [u64; 4],
    keys: Vec<u8>,
    values: Vec<u8>,
    text: Vec<u8>,
    questions: Vec<RecallQuestion>,
}

impl Draft {
    fn new(reader: Reader, index: u64, letters: usize, length: usize) -> Self {
        let [seed, reader] = match reader {
            Reader::Training(seed) => [seed, 0],
            Reader::Validation => [0, 1],
            Reader::Test => [0, 2],
        };
        let names = [seed, RECALL_STREAM, reader, index];
        let from = |first: u8| (first..).take(letters).collect();
        let mut draft = Self { names, keys: from(b'a'), values: from(b'A'), text: Vec::new(), questions: Vec::new() };
        draft.random(KEYS).shuffle(&mut draft.keys);
        draft.random(VALUES).shuffle(&mut draft.values);
        let filler = draft.random(FILLER);
        draft.text = (0..length as u64).map(|place| b'0' + filler.below(place, 10) as u8).collect();
        draft
    }

    fn random(&self, purpose: u64) -> CounterRng {
        let [seed, stream, reader, index] = self.names;
        CounterRng::new(seed, &[stream, reader, index, purpose])
    }

    fn write(&mut self, pair: usize, place: usize) {
        self.text[place..place + 2].copy_from_slice(&[self.keys[pair], self.values[pair]]);
    }

    fn ask(&mut self, pair: usize, last: usize, place: usize) {
        self.write(pair, place);
        self.questions.push(RecallQuestion { place, distance: place - last });
    }

    fn finish(self) -> RecallText {
        RecallText { text: self.text.into_iter().map(char::from).collect(), questions: self.questions }
    }
}

/// The token of each character, for a model that may read any tokenizer's tokens.
#[derive(Debug, Clone)]
pub struct RecallTokens {
    /// By ASCII code.
    ids: Vec<u32>,
}

impl RecallTokens {
    /// Asks a tokenizer for each character alone: texts are read character by character, whatever longer tokens it has.
    ///
    /// # Errors
    /// A character that is not one token.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let mut ids = vec![0; 128];
        for character in RecallTask::ALPHABET.chars() {
            let tokens = tokenizer.encode(&character.to_string())?;
            match tokens[..] {
                [id] if tokenizer.decode(&tokens)?.trim() == character.to_string() => ids[character as usize] = id,
                _ => return Err(TextError::NotOneToken { character }),
            }
        }
        Ok(Self { ids })
    }

    /// Texts of one length as rows: each character but the last is read, and of the targets only the answers count;
    /// all others are -1.
    pub fn collate(&self, texts: &[RecallText]) -> WindowBatch {
        let time = texts.iter().map(|text| text.text.len()).max().unwrap_or(0).saturating_sub(1);
        let mut batch = WindowBatch {
            inputs: Vec::with_capacity(texts.len() * time),
            targets: vec![-1; texts.len() * time],
            rows: texts.len(),
            time,
        };
        for (row, text) in texts.iter().enumerate() {
            let ids: Vec<i32> = text.text.bytes().map(|byte| self.ids[usize::from(byte)] as i32).collect();
            for question in &text.questions {
                batch.targets[row * time + question.place] = ids[question.place + 1];
            }
            batch.inputs.extend(&ids[..time]);
        }
        batch
    }
}
