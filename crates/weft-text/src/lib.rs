//! Corpora, tokenizers and batches.
