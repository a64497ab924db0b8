//! What the terminal can show.

use std::io::IsTerminal;

use console::Term;
use weft_plot::{Colour, TextOptions};

/// Whether text on standard error may be coloured: a terminal, and nobody asked for none (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    std::io::stderr().is_terminal() && !refused && !dumb
}

/// How drawings on standard error look.
pub(crate) fn drawing() -> TextOptions {
    let colour = if colours() { Colour::Ansi256 } else { Colour::None };
    TextOptions { width: width(), colour }
}

/// Columns of the terminal on standard error; 80 where there is none.
pub(crate) fn width() -> usize {
    let term = Term::stderr();
    if term.is_term() { usize::from(term.size().1).max(20) } else { 80 }
}
