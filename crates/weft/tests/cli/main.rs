//! The binary as its users run it: each test in a folder of its own, whole outputs compared where they are stable.

#![allow(clippy::unwrap_used, reason = "a test whose tools fail has failed")]

mod bad_input;
mod compare;
mod device;
mod evaluate;
mod generate;
mod inspect;
mod nothing_lost;
mod quickstart;
mod recall;
mod resume;
mod support;
mod train;
mod translate;
