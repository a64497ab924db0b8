//! The training loop: schedule, optimizer, validation, checkpoints and exact resume.
