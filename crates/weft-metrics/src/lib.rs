//! BLEU, chrF, perplexity and bits per byte.
