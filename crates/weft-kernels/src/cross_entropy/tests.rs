use burn::tensor::{Device, TensorData};
use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::*;
use crate::in_place::address;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const IGNORE: i32 = -100;

fn targets(seed: u64, rows: usize, vocab: usize) -> Vec<i32> {
    let pick = |(i, x): (usize, f32)| if (i + 1) % 5 == 0 { IGNORE } else { (x.abs() * 1e4) as i32 % vocab as i32 };
    normal(seed, rows).into_iter().enumerate().map(pick).collect()
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn options(label_smoothing: f32) -> Options {
    Options { label_smoothing, ignore: Some(IGNORE) }
}

/// The losses, and their gradient, in straightforward `f32`.
fn plain(logits: &[f32], vocab: usize, targets: &[i32], smoothing: f32) -> (Vec<f32>, Vec<f32>) {
    let (mut losses, mut gradient) = (Vec::new(), Vec::new());
    for (logits, &target) in logits.chunks(vocab).zip(targets) {
        if target == IGNORE {
            losses.push(0.0);
            gradient.extend(std::iter::repeat_n(0.0, vocab));
            continue;
        }
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = logits.iter().map(|x| (x - largest).exp()).sum::<f32>();
        let log_p: Vec<f32> = logits.iter().map(|x| x - largest - sum.ln()).collect();
        let mean = log_p.iter().sum::<f32>() / vocab as f32;
        losses.push(-(1.0 - smoothing) * log_p[target as usize] - smoothing * mean);
        gradient.extend((0..vocab).map(|i| {
            let wanted = if i == target as usize { 1.0 - smoothing } else { 0.0 } + smoothing / vocab as f32;
            (logits[i] - largest).exp() / sum - wanted
        }));
    }
    (losses, gradient)
}

/// The gradient of the sum of losses in `f64`.
fn true_gradient(logits: &[f64], vocab: usize, targets: &[i32], smoothing: f64) -> Vec<f64> {
    let mut gradient = Vec::new();
    for (logits, &target) in logits.chunks(vocab).zip(targets) {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = logits.iter().map(|x| (x - largest).exp()).sum::<f64>();
        gradient.extend((0..vocab).map(|i| {
            let wanted = if i == target as usize { 1.0 - smoothing } else { 0.0 } + smoothing / vocab as f64;
            if target == IGNORE { 0.0 } else { (logits[i] - largest).exp() / sum - wanted }
        }));
    }
    gradient
}

fn cpu_gradient(level: Level, logits: &[f32], vocab: usize, targets: &[i32], rows: &cpu::Rows, o: Options) -> Vec<f32> {
    let (largest, reciprocal) = (&rows.largest, &rows.reciprocal);
    let mut gradient = logits.to_vec();
    cpu::Gradient { level, vocab, targets, largest, reciprocal, upstream: 1.0, options: o }.in_place(&mut gradient);
    gradient
}

fn assert_exact_everywhere(logits: &[f32], vocab: usize, targets: &[i32], smoothing: f32) {
    let truth = reference::losses(&wide(logits), vocab, targets, f64::from(smoothing), Some(IGNORE));
    let gradient_truth = true_gradient(&wide(logits), vocab, targets, f64::from(smoothing));
    let (plain_losses, plain_gradient) = plain(logits, vocab, targets, smoothing);
    let narrow = |losses: &[f64]| losses.iter().map(|&loss| loss as f32).collect::<Vec<f32>>();
    for level in Level::available() {
        let rows = cpu::forward(level, logits, vocab, targets, options(smoothing));
        assert_as_exact(level.name(), &narrow(&rows.losses), &plain_losses, &truth, 2.0);
        let gradient = cpu_gradient(level, logits, vocab, targets, &rows, options(smoothing));
        assert_as_exact(level.name(), &gradient, &plain_gradient, &gradient_truth, 2.0);
    }
    let flex = |data| FlexTensor::from_data(data);
    let logits = flex(TensorData::new(logits.to_vec(), [targets.len(), vocab]));
    let targets = flex(TensorData::new(targets.to_vec(), [targets.len()]));
    let forward = portable::forward::<Flex>(logits.clone(), targets.clone(), options(smoothing));
    assert_as_exact("portable", forward.losses.storage(), &plain_losses, &truth, 2.0);
    let upstream = flex(TensorData::new(vec![1.0f32], [1]));
    let gradient = portable::gradient::<Flex>(logits, targets, forward.statistics, upstream, options(smoothing));
    assert_as_exact("portable", gradient.to_contiguous().storage(), &plain_gradient, &gradient_truth, 2.0);
}

proptest! {
    #[test]
    fn losses_and_gradients_are_exact_on_every_level(
        rows in 0usize..20, vocab in 1usize..200, seed in 0u64..1000, smoothing in prop::sample::select(vec![0.0f32, 0.1, 1.0]),
    ) {
        let logits: Vec<f32> = normal(seed, rows * vocab).into_iter().map(|x| 3.0 * x).collect();
        assert_exact_everywhere(&logits, vocab, &targets(seed + 1, rows, vocab), smoothing);
    }
}

#[test]
fn large_equal_and_single_logits_are_exact() {
    let vocab = 131;
    for (scale, offset) in [(1.0, 1e4), (1e4, 0.0), (1e-3, -3e4), (0.0, 7.0), (30.0, 0.0)] {
        let logits: Vec<f32> = normal(1, 6 * vocab).into_iter().map(|x| x * scale + offset).collect();
        assert_exact_everywhere(&logits, vocab, &targets(2, 6, vocab), 0.1);
    }
    assert_exact_everywhere(&[3.0, -1e30, 1e30], 1, &[0, 0, IGNORE], 0.1);
    assert_exact_everywhere(&[], 7, &[], 0.0);
}

#[test]
fn a_large_vocabulary_is_exact() {
    let (rows, vocab) = (3, 37_000);
    let logits: Vec<f32> = normal(5, rows * vocab).into_iter().map(|x| 2.0 * x).collect();
    assert_exact_everywhere(&logits, vocab, &[36_999, 0, 20_000], 0.1);
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (rows, vocab, smoothing) in [(3, 5, 0.1), (1, 1, 0.0), (7, 37, 0.0), (20, 3, 0.3)] {
        let (logits, targets) = (normal(1, rows * vocab), targets(2, rows, vocab));
        let loss = |x: &[f64]| 0.7 * reference::losses(x, vocab, &targets, smoothing, Some(IGNORE)).iter().sum::<f64>();
        let expected = finite_differences(&wide(&logits), loss);
        for device in devices() {
            let device = device.autodiff();
            let leaf = make(&logits, [rows, vocab], &device).require_grad();
            // Once with logits that the test still holds, once with logits that only the step holds.
            let loss = cross_entropy(leaf.clone(), ints(&targets, &device), smoothing as f32, Some(IGNORE));
            let gradients = (loss * 0.7).backward();
            assert_gradient("shared", &values(leaf.grad(&gradients).unwrap()), &expected);
            let computed = leaf.clone() + 0.0;
            let loss = cross_entropy(computed, ints(&targets, &device), smoothing as f32, Some(IGNORE));
            let gradients = (loss * 0.7).backward();
            assert_gradient("in place", &values(leaf.grad(&gradients).unwrap()), &expected);
            assert_eq!(values(leaf), logits, "the shared logits were written over");
        }
    }
}

#[test]
fn the_gradient_takes_the_place_of_logits_that_nobody_else_holds() {
    let device = Device::flex().autodiff();
    let leaf = make(&normal(1, 6 * 50), [6, 50], &device).require_grad();
    let place = |shared: bool| {
        // Adding a number hands its gradient on as it is.
        let logits = leaf.clone() + 1.0;
        let held = shared.then(|| logits.clone());
        let before = address(&logits.clone().inner());
        let gradients = cross_entropy(logits, ints(&[1; 6], &device), 0.1, None).backward();
        let after = address(&leaf.grad(&gradients).unwrap());
        drop(held);
        before == after
    };
    assert!(place(false) && !place(true));
}

#[test]
fn a_sum_is_its_rows_and_ignored_rows_leak_nothing() {
    let (rows, vocab) = (50, 70);
    let targets = targets(4, rows, vocab);
    let mut logits = normal(3, rows * vocab);
    for (row, &target) in targets.iter().enumerate() {
        if target == IGNORE {
            logits[row * vocab..(row + 1) * vocab].fill(f32::NAN);
        }
    }
    for device in devices() {
        let device = device.autodiff();
        let x = make(&logits, [rows, vocab], &device).require_grad();
        let each = values(cross_entropy_rows(x.clone(), ints(&targets, &device), 0.1, Some(IGNORE)).inner());
        let total = cross_entropy(x.clone(), ints(&targets, &device), 0.1, Some(IGNORE));
        let gradients = total.clone().backward();
        let (total, sum) = (values(total.inner())[0], each.iter().sum::<f32>());
        assert!((total - sum).abs() < 1e-5 * sum, "{total} is not {sum}");
        let gradient = values(x.grad(&gradients).unwrap());
        for (row, &target) in targets.iter().enumerate() {
            let zero = gradient[row * vocab..(row + 1) * vocab].iter().all(|&g| g == 0.0);
            assert_eq!(target == IGNORE, zero && each[row] == 0.0, "row {row}");
        }
        assert!(gradient.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn a_nan_logit_spoils_its_own_row_only() {
    let vocab = 40;
    for level in Level::available() {
        for place in [0, 17, 39] {
            let mut logits = normal(1, 3 * vocab);
            logits[vocab + place] = f32::NAN;
            let rows = cpu::forward(level, &logits, vocab, &[1, 2, 3], options(0.0));
            assert_eq!(rows.losses.iter().map(|x| x.is_nan()).collect::<Vec<_>>(), [false, true, false]);
            let gradient = cpu_gradient(level, &logits, vocab, &[1, 2, 3], &rows, options(0.0));
            let nan = |row: usize| gradient[row * vocab..(row + 1) * vocab].iter().filter(|g| g.is_nan()).count();
            assert_eq!([nan(0), nan(1), nan(2)], [0, vocab, 0]);
        }
    }
}

#[test]
fn impossible_tokens_have_no_probability() {
    let logits = [0.5, f32::NEG_INFINITY, 1.5];
    for device in devices() {
        let loss = |target, smoothing| {
            values(cross_entropy(make(&logits, [1, 3], &device), ints(&[target], &device), smoothing, None))[0]
        };
        assert!((loss(2, 0.0) - (1.0f32 + (-1.0f32).exp()).ln()).abs() < 1e-6);
        assert_eq!(loss(1, 0.0), f32::INFINITY);
        assert_eq!(loss(2, 0.1), f32::INFINITY);
    }
}

/// Recorded from PyTorch 2.9.1: `CrossEntropyLoss(label_smoothing=0.1, ignore_index=-100, reduction="sum")`.
#[test]
fn loss_and_gradient_are_those_of_pytorch() {
    let logits: Vec<f32> = (0..15).map(|i| ((i * 7) % 11 - 5) as f32 * 0.3).collect();
    let gradient = [
        [0.00648238, 0.19625959, 0.045136146, 0.51191276, -0.7597909],
        [0.0; 5],
        [0.074775383, -0.89145416, 0.21310981, 0.050211329, 0.5533576],
    ];
    for device in devices() {
        let device = device.autodiff();
        let x = make(&logits, [3, 5], &device).require_grad();
        let loss = cross_entropy(x.clone(), ints(&[4, IGNORE, 1], &device), 0.1, Some(IGNORE));
        let gradients = loss.clone().backward();
        assert_gradient("loss", &values(loss.inner()), &[5.267_521_4]);
        assert_gradient("logits", &values(x.grad(&gradients).unwrap()), gradient.as_flattened());
    }
}

#[test]
fn neither_threads_nor_neighbours_change_a_bit() {
    let (rows, vocab) = (67, 203);
    let (logits, targets) = (normal(1, rows * vocab), targets(2, rows, vocab));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let rows = cpu::forward(Level::best(), &logits, vocab, &targets, options(0.1));
            let gradient = cpu_gradient(Level::best(), &logits, vocab, &targets, &rows, options(0.1));
            (rows.total(), rows.losses, gradient)
        })
    };
    let all = on(1);
    assert_eq!(all, on(4));
    let row = &logits[33 * vocab..34 * vocab];
    let alone = cpu::forward(Level::best(), row, vocab, &targets[33..34], options(0.1));
    assert_eq!(alone.losses[0], all.1[33]);
}

#[test]
#[should_panic(expected = "target 7 of row 1 is outside of the vocabulary of 7")]
fn a_target_outside_of_the_vocabulary_is_refused() {
    let device = Device::flex();
    cross_entropy(make(&[0.0; 14], [2, 7], &device), ints(&[0, 7], &device), 0.0, None);
}
