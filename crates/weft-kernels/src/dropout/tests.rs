use burn_flex::FlexTensor;

use super::*;
use crate::testing::{devices, normal, tensor as make, values};

#[test]
fn every_level_and_every_device_makes_the_same_choice() {
    for count in [0, 1, 2, 31, 67, 40_001] {
        for choice in [Dropout::new(0.1, 7), Dropout::new(0.5, u64::MAX), Dropout::new(0.99, 1 << 40)] {
            let x = normal(3, count);
            let expected: Vec<f32> =
                (0..count).map(|i| if choice.keeps(i) { x[i] * choice.scale() } else { 0.0 }).collect();
            for level in Level::available() {
                let mut y = x.clone();
                cpu::in_place(level, &mut y, choice);
                assert_eq!(y, expected, "{level:?}");
            }
            for device in devices() {
                assert_eq!(values(dropout(make(&x, [count], &device), choice)), expected, "{device:?}");
            }
            let flex = FlexTensor::from_data(TensorData::new(x, [count]));
            assert_eq!(portable::<Flex>(flex, choice).storage::<f32>(), expected);
        }
    }
}

#[test]
fn the_share_kept_is_the_wanted_one() {
    let count = 1_000_000;
    for probability in [0.05f32, 0.1, 0.3, 0.5, 0.9] {
        for seed in [0u64, 1, 2, 1 << 32, 0xDEAD_BEEF_0000_0001] {
            let dropped = (0..count).filter(|&i| !Dropout::new(probability, seed).keeps(i)).count() as f64;
            let p = f64::from(probability);
            let deviation = (count as f64 * p * (1.0 - p)).sqrt();
            let off = (dropped - count as f64 * p) / deviation;
            assert!(off.abs() < 4.5, "{probability} {seed}: {off:.1} standard deviations off");
        }
    }
}

/// The correlation of two choices, in its standard deviations: far from 0 means that one tells of the other.
fn correlation(count: usize, p: f64, a: impl Fn(usize) -> bool, b: impl Fn(usize) -> bool) -> f64 {
    let value = |kept: bool| if kept { p } else { p - 1.0 };
    let sum: f64 = (0..count).map(|i| value(a(i)) * value(b(i))).sum();
    sum / (p * (1.0 - p) * (count as f64).sqrt())
}

#[test]
fn neighbours_and_seeds_are_independent() {
    let count = 500_000;
    for probability in [0.1f32, 0.5] {
        let p = f64::from(probability);
        for seed in [0u64, 5, 1 << 33] {
            let choice = Dropout::new(probability, seed);
            for step in [1, 2, 3, 16, 255, 256, 512, 1024, 4096, 65_536] {
                let c = correlation(count, p, |i| choice.keeps(i), |i| choice.keeps(i + step));
                assert!(c.abs() < 4.5, "seed {seed}: elements {step} apart, {c:.1} deviations");
            }
            for other in [seed + 1, seed + 2, seed ^ (1 << 31), seed + (1 << 32), seed ^ (1 << 63), !seed] {
                let other = Dropout::new(probability, other);
                let c = correlation(count, p, |i| choice.keeps(i), |i| other.keeps(i));
                assert!(c.abs() < 4.5, "seeds {seed} and {}: {c:.1} deviations", other.seed);
            }
        }
    }
}

#[test]
fn a_nan_that_is_dropped_is_gone_and_one_that_is_kept_stays() {
    let choice = Dropout::new(0.5, 3);
    for device in devices() {
        for (i, y) in values(dropout(make(&[f32::NAN; 100], [100], &device), choice)).into_iter().enumerate() {
            assert!(if choice.keeps(i) { y.is_nan() } else { y == 0.0 }, "{device:?}: {y} at {i}");
        }
    }
}

#[test]
fn the_gradient_has_the_mask_of_the_result() {
    let choice = Dropout::new(0.3, 11);
    for device in devices() {
        let device = device.autodiff();
        let x = make(&normal(1, 3 * 77), [3, 77], &device).require_grad();
        let gradients = dropout(x.clone(), choice).sum().backward();
        assert_eq!(values(x.grad(&gradients).unwrap()), choice.host_mask(3 * 77));
    }
}

#[test]
fn no_dropout_changes_nothing() {
    let x = normal(1, 10);
    assert!(Dropout::NONE.is_none() && Dropout::default() == Dropout::NONE && Dropout::NONE.scale() == 1.0);
    for device in devices() {
        assert_eq!(values(dropout(make(&x, [10], &device), Dropout::NONE)), x);
    }
    assert_eq!(Dropout::NONE.host_mask(3), [1.0; 3]);
}

#[test]
#[should_panic(expected = "probability 1 is not")]
fn dropping_everything_is_refused() {
    Dropout::new(1.0, 0);
}
