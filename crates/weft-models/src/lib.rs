//! Sequence model architectures, one file each, and their checkpoints.
