//! Greedy search, beam search and sampling: pure functions from scores to choices.
