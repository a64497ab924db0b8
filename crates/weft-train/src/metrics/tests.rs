use super::*;

fn training(step: u64) -> Record {
    Record::Training(TrainingRecord {
        step,
        epoch: 0,
        tokens: 100 * step,
        loss: 4.0 / step as f64,
        learning_rate: 1e-3,
        gradient_norm: 0.75,
        tokens_per_second: 1000.0,
        seconds: step as f64,
    })
}

fn folder() -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::config::RunConfig::full_example();
    let run = RunFolder::create(&folder.path().join("run"), &config).unwrap();
    (folder, run)
}

#[test]
fn records_are_read_back() {
    let (_guard, run) = folder();
    let validation =
        ValidationRecord { step: 3, loss: 1.25, bleu: Some(50.5), accuracy: None, best: true, seconds: 0.5 };
    let records = [training(1), training(2), training(4), Record::Validation(validation)];
    let mut metrics = Metrics::open(&run, 0).unwrap();
    records.iter().for_each(|record| metrics.add(record.clone()).unwrap());
    assert_eq!(read_metrics(&run.metrics_path()).unwrap(), records);
    assert_eq!(metrics.records(), records);
}

#[test]
fn what_lies_after_the_checkpoint_is_cut_off() {
    let (_guard, run) = folder();
    let mut metrics = Metrics::open(&run, 0).unwrap();
    (1..=5).for_each(|step| metrics.add(training(step)).unwrap());
    drop(metrics);
    // The last line is torn, as after a kill.
    let mut text = std::fs::read(run.metrics_path()).unwrap();
    text.extend(b"{\"kind\":\"training\",\"step\":6,");
    std::fs::write(run.metrics_path(), text).unwrap();
    let before = std::fs::read_to_string(run.metrics_path()).unwrap();
    let mut metrics = Metrics::open(&run, 3).unwrap();
    metrics.add(training(4)).unwrap();
    let after = std::fs::read_to_string(run.metrics_path()).unwrap();
    assert!(before.starts_with(&after), "lines changed: {before} {after}");
    let steps: Vec<u64> = read_metrics(&run.metrics_path()).unwrap().iter().map(Record::step).collect();
    assert_eq!(steps, [1, 2, 3, 4]);
}

#[test]
fn a_damaged_line_is_named() {
    let (_guard, run) = folder();
    std::fs::write(run.metrics_path(), "{}\n").unwrap();
    let error = read_metrics(&run.metrics_path()).unwrap_err();
    assert!(error.to_string().contains("line 1 is no record"), "{error}");
}
