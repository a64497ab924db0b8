//! Progress on the terminal.
