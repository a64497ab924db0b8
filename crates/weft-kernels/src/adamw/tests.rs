use burn::tensor::{Device, TensorData};
use proptest::prelude::*;

use super::*;
use crate::in_place::address;
use crate::testing::{assert_as_exact, devices, normal, tensor as make, values, wide};

const OPTIONS: AdamW = AdamW {
    learning_rate: 3e-3,
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-9,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 0.25,
};

/// Algorithm 2 of arXiv 1711.05101 over all steps, in the given precision: parameter, first and second moment.
macro_rules! algorithm {
    ($float:ty, $parameter:expr, $gradients:expr) => {{
        let mut p: Vec<$float> = $parameter;
        let (mut m, mut v) = (vec![0.0 as $float; p.len()], vec![0.0 as $float; p.len()]);
        let (b1, b2) = (OPTIONS.beta1 as $float, OPTIONS.beta2 as $float);
        for (t, gradient) in $gradients.iter().enumerate() {
            let rate = OPTIONS.learning_rate as $float;
            for i in 0..p.len() {
                let g = gradient[i] as $float * OPTIONS.gradient_scale as $float;
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let first = m[i] / (1.0 - b1.powi(t as i32 + 1));
                let second = v[i] / (1.0 - b2.powi(t as i32 + 1));
                let decay = rate * OPTIONS.weight_decay as $float * p[i];
                p[i] -= rate * (first / (second.sqrt() + OPTIONS.epsilon as $float)) + decay;
            }
        }
        (p, m, v)
    }};
}

fn gradients(seed: u64, steps: usize, count: usize) -> Vec<Vec<f32>> {
    (0..steps as u64).map(|t| normal(seed + t + 1, count)).collect()
}

fn assert_as_exact_as_plain(name: &str, got: [&[f32]; 3], parameter: &[f32], gradients: &[Vec<f32>]) {
    let truth = algorithm!(f64, wide(parameter), gradients);
    let plain = algorithm!(f32, parameter.to_vec(), gradients);
    assert_as_exact(name, got[0], &plain.0, &truth.0, 2.0);
    assert_as_exact(name, got[1], &plain.1, &truth.1, 2.0);
    assert_as_exact(name, got[2], &plain.2, &truth.2, 2.0);
}

proptest! {
    #[test]
    fn steps_are_exact_on_every_level(count in 0usize..200, steps in 1usize..6, seed in 0u64..1000) {
        let (parameter, gradients) = (normal(seed, count), gradients(seed, steps, count));
        for level in Level::available() {
            let (mut p, mut m, mut v) = (parameter.clone(), vec![0.0; count], vec![0.0; count]);
            for (t, gradient) in gradients.iter().enumerate() {
                cpu::step(level, &mut p, gradient, &mut m, &mut v, &AdamW { step: t as u64 + 1, ..OPTIONS });
            }
            assert_as_exact_as_plain(level.name(), [&p, &m, &v], &parameter, &gradients);
        }
    }
}

#[test]
fn many_steps_on_every_device_and_by_the_portable_body() {
    let (parameter, gradients) = (normal(1, 15), gradients(1, 60, 15));
    for device in devices() {
        let mut p = make(&parameter, [3, 5], &device);
        let mut moments = Moments::zeros([3, 5], &device);
        for (t, gradient) in gradients.iter().enumerate() {
            let options = AdamW { step: t as u64 + 1, ..OPTIONS };
            (p, moments) = adamw(p, make(gradient, [3, 5], &device), moments, &options);
        }
        let got = [&values(p)[..], &values(moments.first), &values(moments.second)];
        assert_as_exact_as_plain(&format!("{device:?}"), got, &parameter, &gradients);
    }
    let flex = |values: &[f32]| FlexTensor::from_data(TensorData::new(values.to_vec(), [15]));
    let (mut p, mut m, mut v) = (flex(&parameter), flex(&[0.0; 15]), flex(&[0.0; 15]));
    for (t, gradient) in gradients.iter().enumerate() {
        (p, m, v) = portable::step::<Flex>(p, flex(gradient), m, v, AdamW { step: t as u64 + 1, ..OPTIONS });
    }
    assert_as_exact_as_plain("portable", [p.storage(), m.storage(), v.storage()], &parameter, &gradients);
}

/// Recorded from PyTorch 2.9.1: three steps of `torch.optim.AdamW`.
#[test]
fn steps_are_those_of_pytorch() {
    let parameters = [
        [0.489500016, -1.23874998, 1.98800004, -0.00999990106],
        [0.479386359, -1.22751129, 1.97726786, -0.0199898016],
        [0.469379127, -1.2162838, 1.97076738, -0.0299697109],
    ];
    let first = [0.168300003, -0.00541999983, 0.116499998, 2.7099999e-05];
    let second = [0.0249847192, 2.35232001e-05, 0.0531179979, 5.88079974e-10];
    let close = |got: Vec<f32>, wanted: &[f64]| {
        for (got, wanted) in got.into_iter().zip(wanted) {
            assert!((f64::from(got) - wanted).abs() <= 4e-7 * wanted.abs(), "{got} is not {wanted}");
        }
    };
    for device in devices() {
        let mut p = make(&[0.5, -1.25, 2.0, 0.0], [4], &device);
        let mut moments = Moments::zeros([4], &device);
        for (t, wanted) in parameters.iter().enumerate() {
            let s = t as f32;
            let gradient = make(&[0.3 * (s + 1.0), -0.02, 1.5 - s, 1e-4], [4], &device);
            let options = AdamW { learning_rate: 0.01, step: t as u64 + 1, gradient_scale: 1.0, ..OPTIONS };
            (p, moments) = adamw(p, gradient, moments, &options);
            close(values(p.clone()), wanted);
        }
        close(values(moments.first), &first);
        close(values(moments.second), &second);
    }
}

#[test]
fn a_step_writes_over_what_nobody_else_holds_and_spares_what_somebody_does() {
    let device = Device::flex();
    let make = |seed| make(&normal(seed, 40), [8, 5], &device);
    let mut parameter = make(1);
    let mut moments = Moments { first: make(2), second: make(3).powi_scalar(2) };
    let addresses = |p: &Tensor<2>, m: &Moments<2>| [address(p), address(&m.first), address(&m.second)];
    let before = addresses(&parameter, &moments);
    for step in 1..4 {
        (parameter, moments) = adamw(parameter, make(4), moments, &AdamW { step, ..OPTIONS });
        assert_eq!(addresses(&parameter, &moments), before);
    }
    let held = parameter.clone();
    let copy = values(held.clone());
    let (moved, _) = adamw(parameter, make(4), moments, &OPTIONS);
    assert_ne!(address(&moved), address(&held));
    assert_eq!(values(held), copy);
    assert_ne!(values(moved), copy);
}

#[test]
fn views_are_read_in_their_own_order() {
    let device = Device::flex();
    let make = |seed| make(&normal(seed, 12), [3, 4], &device);
    let moments = |transposed: bool| {
        let (first, second) = (make(5), make(6).powi_scalar(2));
        if transposed {
            Moments { first: first.transpose(), second: second.transpose() }
        } else {
            Moments { first, second }
        }
    };
    let (straight, _) = adamw(make(1), make(2), moments(false), &OPTIONS);
    let (turned, _) = adamw(make(1).transpose(), make(2).transpose(), moments(true), &OPTIONS);
    assert_eq!(values(straight), values(turned.transpose()));
}

#[test]
fn a_nan_stays_in_its_element() {
    let device = Device::flex();
    let mut gradient = normal(2, 37);
    gradient[20] = f32::NAN;
    let (p, moments) = adamw(
        make(&normal(1, 37), [37], &device),
        make(&gradient, [37], &device),
        Moments::zeros([37], &device),
        &OPTIONS,
    );
    for result in [p, moments.first, moments.second] {
        assert!(values(result).iter().enumerate().all(|(i, x)| x.is_nan() == (i == 20)));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let count = 3 * (1 << 14) + 77;
    let (parameter, gradient) = (normal(1, count), normal(2, count));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (mut p, mut m, mut v) = (parameter.clone(), vec![0.0; count], vec![0.0; count]);
            cpu::step(Level::best(), &mut p, &gradient, &mut m, &mut v, &OPTIONS);
            (p, m, v, cpu::squared_norm(Level::best(), &gradient))
        })
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn the_norm_is_summed_in_f64() {
    for count in [0, 1, 15, 16, 17, 40_003] {
        let x = normal(7, count);
        let truth: f64 = wide(&x).iter().map(|x| x * x).sum();
        for level in Level::available() {
            let norm = cpu::squared_norm(level, &x);
            assert!((norm - truth).abs() <= 1e-13 * truth, "{level:?} {count}: {norm} is not {truth}");
        }
        for device in devices() {
            let norm = squared_norm(&make(&x, [count], &device));
            assert!((norm - truth).abs() <= 1e-5 * truth, "{device:?} {count}: {norm} is not {truth}");
        }
    }
}

#[test]
fn the_norm_tells_of_nan_and_infinity_but_not_of_large_values() {
    let device = Device::flex();
    let norm = |values: &[f32]| squared_norm(&make(values, [values.len()], &device));
    assert!(norm(&[1.0, f32::NAN, 2.0]).is_nan());
    assert_eq!(norm(&[1.0, f32::NEG_INFINITY]), f64::INFINITY);
    assert!((norm(&[1e30, 1e30]) / 2e60 - 1.0).abs() < 1e-6);
}

#[test]
#[should_panic(expected = "the gradient has another shape")]
fn another_shape_is_refused() {
    let device = Device::flex();
    adamw(make(&[0.0; 4], [4], &device), make(&[0.0; 3], [3], &device), Moments::zeros([4], &device), &OPTIONS);
}
