//! Ctrl-C: the first asks to stop, the second stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::output::say;

/// The exit code after Ctrl-C, as shells have it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// A flag that the first Ctrl-C sets (and so does a SIGTERM); the second ends the process at once.
///
/// # Errors
/// A system that does not let us listen.
pub(crate) fn listen() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let heard = move || {
        if flag.swap(true, Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "the user has asked twice; checkpoints are whole at any moment")]
            std::process::exit(INTERRUPTED);
        }
        say!("\nstopping after this step and saving; once more to quit at once");
    };
    ctrlc::set_handler(heard).map_err(|error| Error::because("cannot listen to Ctrl-C", &error))?;
    Ok(stop)
}
