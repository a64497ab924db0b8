//! What this machine's memory holds, asked before it is taken: an allocation that fails ends the process.

use crate::error::{Error, Result};

/// Where the system does not say: more than a machine of today has.
const UNKNOWN: u128 = 1 << 43;

/// Checks that `bytes` fit into memory. `what` takes them; `advice` says how to take less.
///
/// # Errors
/// More than the machine has.
pub(crate) fn check(what: &str, bytes: u128, advice: &str) -> Result {
    let most = available();
    if bytes <= most {
        return Ok(());
    }
    let gigabytes = |bytes: u128| format!("{:.1} GB", bytes as f64 / 1e9);
    Err(Error::new(format!("{what} takes about {}, but this machine has {}", gigabytes(bytes), gigabytes(most)))
        .hint(advice))
}

/// The machine's memory in bytes, or what its control group allows.
fn available() -> u128 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let total = read("/proc/meminfo").lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u128>().ok()?.checked_mul(1024)
    });
    let allowed = read("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(UNKNOWN);
    total.unwrap_or(UNKNOWN).min(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_in_gigabytes() {
        assert!(check("nothing", 0, "").is_ok());
        let shown = check("all", 1 << 60, "take less").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(shown.starts_with("error: all takes about 1152921504.6 GB, but this machine has "), "{shown}");
        assert!(shown.ends_with("hint: take less\n"), "{shown}");
    }
}
