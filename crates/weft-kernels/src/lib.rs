//! Sequence operations with hand-written CPU kernels and portable bodies, for Burn tensors.
