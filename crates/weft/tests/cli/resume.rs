use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Ran, SMALL, run, translation_data, weft};

/// The losses of a run, without its timings: what an unbroken run must equal.
fn losses(run: &Path) -> Vec<(u64, String, f64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        (record["step"].as_u64().unwrap(), record["kind"].to_string(), record["loss"].as_f64().unwrap())
    };
    text.lines().map(record).collect()
}

/// Begins a long run and waits until it has saved step 40.
fn begun(folder: &Path) -> std::process::Child {
    let args = [&SMALL[..], &["--steps", "4000", "--output", "run"]].concat();
    let child = weft(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !folder.join("run/checkpoints/step-00000040").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Goes on to step `steps` and compares with a run that was never stopped.
fn equals_unbroken(folder: &Path, steps: u64) -> Ran {
    let steps = steps.to_string();
    let resumed = run(folder, &["train", "--resume", "run", "--steps", &steps]).worked();
    let args = [&SMALL[..], &["--steps", "4000", "--output", "unbroken"]].concat();
    // The schedule depends on the steps planned, so the unbroken run is planned the same way and stopped there.
    let mut child = weft(folder, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let last = folder.join(format!("unbroken/checkpoints/step-{:08}", steps.parse::<u64>().unwrap()));
    let started = Instant::now();
    while !last.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no step {steps} after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed_losses = losses(&folder.join("run"));
    let unbroken = losses(&folder.join("unbroken"));
    assert!(resumed_losses.len() >= 8 && unbroken.len() >= resumed_losses.len());
    assert_eq!(resumed_losses, unbroken[..resumed_losses.len()]);
    resumed
}

#[cfg(unix)]
#[test]
fn after_control_c() {
    let data = translation_data();
    let folder = data.path();
    let child = begun(folder);
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let stopped = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    assert!(stopped.stderr.contains("weft train --resume run"), "{stopped:#?}");
    let last = std::fs::read_dir(folder.join("run/checkpoints")).unwrap();
    let step = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().strip_prefix("step-").unwrap().parse::<u64>().unwrap()
    };
    let reached = last.map(step).max().unwrap();
    let resumed = equals_unbroken(folder, (reached + 20).next_multiple_of(20));
    assert!(resumed.stderr.contains(&format!("going on from step {reached}")), "{resumed:#?}");
}

#[test]
fn after_a_kill() {
    let data = translation_data();
    let folder = data.path();
    let mut child = begun(folder);
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = equals_unbroken(folder, 120);
    assert!(resumed.stderr.contains("going on from step "), "{resumed:#?}");
    let model = run(folder, &["translate", "run", "-i", "test.en"]).worked();
    assert_eq!(model.stdout.lines().count(), 20);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_said() {
    let data = translation_data();
    let folder = data.path();
    run(folder, &[&SMALL[..], &["--steps", "60", "--output", "run"]].concat()).worked();
    let newest = folder.join("run/checkpoints/step-00000060/model.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let resumed = run(folder, &["train", "--resume", "run", "--steps", "80"]).worked();
    for part in ["warning: passed over", "step-00000060", "going on from step 40"] {
        assert!(resumed.stderr.contains(part), "{part:?} is not in {resumed:#?}");
    }
}

/// No file may grow past 100 KiB, as if the disk were full then: writing fails within a checkpoint.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_during_a_checkpoint() {
    let data = translation_data();
    let folder = data.path();
    run(folder, &[&SMALL[..], &["--steps", "20", "--output", "run"]].concat()).worked();
    let mut command = std::process::Command::new("sh");
    command.current_dir(folder).args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_weft"), "train", "--resume", "run", "--steps", "60"]);
    Ran::of(command.output().unwrap()).failed(&["cannot write run/checkpoints/", "File too large"]);
    let resumed = equals_unbroken(folder, 60);
    assert!(resumed.stderr.contains("going on from step 20"), "{resumed:#?}");
}

#[test]
fn a_changed_corpus_is_refused() {
    let data = translation_data();
    let folder = data.path();
    run(folder, &[&SMALL[..], &["--steps", "20", "--output", "run"]].concat()).worked();
    let text = std::fs::read_to_string(folder.join("train.de")).unwrap();
    std::fs::write(folder.join("train.de"), text.replacen("eins", "uno", 1)).unwrap();
    let refused = run(folder, &["train", "--resume", "run", "--steps", "40"]);
    refused.failed(&["the training corpus changed since the run began"]);
}

#[test]
fn checkpoints_are_averaged() {
    let data = translation_data();
    let folder = data.path();
    run(folder, &[&SMALL[..], &["--steps", "60", "--output", "run"]].concat()).worked();
    run(folder, &["average", "run", "--output", "mean"]).worked();
    let translated = run(folder, &["translate", "mean", "-i", "test.en"]).worked();
    assert_eq!(translated.stdout.lines().count(), 20);
    let one = "run/checkpoints/step-00000060";
    run(folder, &["average", one, "--output", "same"]).worked();
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let (mean, same) = (weights(&folder.join("mean")), weights(&folder.join("same")));
    assert_eq!(same.len(), mean.len());
    assert!(same != mean);
}
