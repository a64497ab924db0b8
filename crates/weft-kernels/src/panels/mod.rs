//! Small products of packed operands, for kernels that keep a block of positions in cache: the operand that is read
//! again and again is packed into panels in scratch memory, and products may be ragged.

pub(crate) mod pack;
pub(crate) mod product;
pub(crate) mod scratch;
