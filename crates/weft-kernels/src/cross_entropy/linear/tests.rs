use burn::tensor::{Device, TensorData};
use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};
use crate::{Epilogue, cross_entropy, linear};

const IGNORE: i32 = -1;
const ALL: Wanted = Wanted { x: true, weight: true, bias: true };

struct Case {
    rows: usize,
    hidden: usize,
    vocab: usize,
    layout: WeightLayout,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    targets: Vec<i32>,
    smoothing: f32,
}

impl Case {
    fn new(seed: u64, rows: usize, hidden: usize, vocab: usize, layout: WeightLayout, biased: bool) -> Self {
        let pick = |(i, x): (usize, f32)| if i % 6 == 3 { IGNORE } else { (x.abs() * 1e4) as i32 % vocab as i32 };
        Self {
            rows,
            hidden,
            vocab,
            layout,
            x: normal(seed, rows * hidden),
            weight: normal(seed + 1, hidden * vocab),
            bias: biased.then(|| normal(seed + 2, vocab)),
            targets: normal(seed + 3, rows).into_iter().enumerate().map(pick).collect(),
            smoothing: 0.1,
        }
    }

    fn options(&self) -> Options {
        Options { label_smoothing: self.smoothing, ignore: Some(IGNORE) }
    }

    fn weight_shape(&self) -> [usize; 2] {
        sizes(self.layout, [self.hidden, self.vocab])
    }

    fn run(&self, level: Level, wanted: Wanted) -> (f32, Gradients<Vec<f32>>) {
        let Self { x, weight, bias, targets, hidden, vocab, layout, .. } = self;
        let (hidden, vocab, layout, options) = (*hidden, *vocab, *layout, self.options());
        let operands = cpu::Operands { x, weight, bias: bias.as_deref(), targets, hidden, vocab, layout, options };
        cpu::loss(level, operands, wanted)
    }
}

/// Loss and gradients of `x`, weight and bias by the equations, in the given precision.
macro_rules! equations {
    ($float:ty, $case:expr, $x:expr, $weight:expr, $bias:expr) => {{
        let (case, x, weight): (&Case, &[$float], &[$float]) = ($case, $x, $weight);
        let bias: &[$float] = $bias;
        let (hidden, vocab, smoothing) = (case.hidden, case.vocab, case.smoothing as $float);
        let at = |i: usize, j: usize| match case.layout {
            WeightLayout::InOut => i * vocab + j,
            WeightLayout::OutIn => j * hidden + i,
        };
        let (mut dx, mut dweight) = (vec![0.0 as $float; x.len()], vec![0.0 as $float; weight.len()]);
        let (mut dbias, mut loss) = (vec![0.0 as $float; vocab], 0.0 as $float);
        for (row, &target) in case.targets.iter().enumerate().filter(|(_, target)| **target != IGNORE) {
            let x = &x[row * hidden..][..hidden];
            let logit = |j: usize| (0..hidden).map(|i| x[i] * weight[at(i, j)]).sum::<$float>() + bias[j];
            let logits: Vec<$float> = (0..vocab).map(logit).collect();
            let largest = logits.iter().copied().fold(<$float>::NEG_INFINITY, <$float>::max);
            let sum = logits.iter().map(|x| (x - largest).exp()).sum::<$float>();
            for j in 0..vocab {
                let wanted = if j == target as usize { 1.0 - smoothing } else { 0.0 } + smoothing / vocab as $float;
                loss -= wanted * (logits[j] - largest - sum.ln());
                let d = (logits[j] - largest).exp() / sum - wanted;
                dbias[j] += d;
                for i in 0..hidden {
                    dx[row * hidden + i] += d * weight[at(i, j)];
                    dweight[at(i, j)] += d * x[i];
                }
            }
        }
        [vec![loss], dx, dweight, dbias]
    }};
}

fn assert_case(case: &Case) {
    let no_bias = vec![0.0; case.vocab];
    let bias = case.bias.as_ref().unwrap_or(&no_bias);
    let truth = equations!(f64, case, &wide(&case.x), &wide(&case.weight), &wide(bias));
    let plain = equations!(f32, case, &case.x, &case.weight, bias);
    for level in Level::available() {
        let (loss, gradients) = case.run(level, ALL);
        let got = [vec![loss], gradients.x.unwrap(), gradients.weight.unwrap(), gradients.bias.unwrap()];
        for ((got, plain), truth) in got.iter().zip(&plain).zip(&truth) {
            assert_as_exact(level.name(), got, plain, truth, 2.0);
        }
        let nothing = Wanted { x: false, weight: false, bias: false };
        assert_eq!(case.run(level, nothing).0, loss, "{level:?}: the loss without gradients");
    }
    let flex = |values: &[f32], shape: &[usize]| FlexTensor::from_data(TensorData::new(values.to_vec(), shape));
    let (loss, gradients) = portable::<Flex>(
        flex(&case.x, &[case.rows, case.hidden]),
        flex(&case.weight, &case.weight_shape()),
        case.bias.as_ref().map_or(Operand::Absent, |bias| Operand::Present(flex(bias, &[case.vocab]))),
        FlexTensor::from_data(TensorData::new(case.targets.clone(), [case.rows])),
        case.layout,
        case.options(),
        ALL,
    );
    let got = [loss, gradients.x.unwrap(), gradients.weight.unwrap(), gradients.bias.unwrap()];
    for ((got, plain), truth) in got.into_iter().zip(&plain).zip(&truth) {
        assert_as_exact("portable", Values::new(got).f32(), plain, truth, 2.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn losses_and_gradients_are_exact_on_every_level(
        rows in 0usize..40, hidden in 1usize..50, vocab in 1usize..90, turned in any::<bool>(), biased in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let layout = if turned { WeightLayout::OutIn } else { WeightLayout::InOut };
        assert_case(&Case::new(seed, rows, hidden, vocab, layout, biased));
    }
}

#[test]
fn more_rows_than_a_chunk_are_exact() {
    for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
        assert_case(&Case::new(1, 1201, 9, 31, layout, true));
    }
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// The loss times `factor`, and its gradients, of one operation or of two.
fn through_autodiff(case: &Case, device: &Device, fused: bool, factor: f32) -> [Vec<f32>; 4] {
    let x = make(&case.x, [case.rows, case.hidden], device).require_grad();
    let weight = make(&case.weight, case.weight_shape(), device).require_grad();
    let bias = case.bias.as_ref().map(|bias| make(bias, [case.vocab], device).require_grad());
    let (targets, smoothing) = (ints(&case.targets, device), case.smoothing);
    let loss = if fused {
        linear_cross_entropy(x.clone(), weight.clone(), case.layout, bias.clone(), targets, smoothing, Some(IGNORE))
    } else {
        let logits = linear(x.clone(), weight.clone(), case.layout, bias.clone(), Epilogue::default());
        cross_entropy(logits, targets, smoothing, Some(IGNORE))
    } * factor;
    let gradients = loss.clone().backward();
    let bias = bias.map_or(Vec::new(), |bias| values(bias.grad(&gradients).unwrap()));
    let [x, weight] = [x, weight].map(|tensor| values(tensor.grad(&gradients).unwrap()));
    [values(loss.inner()), x, weight, bias]
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    for (layout, biased) in [(WeightLayout::InOut, true), (WeightLayout::OutIn, false)] {
        let case = Case::new(3, 8, 5, 7, layout, biased);
        let (x, weight) = (wide(&case.x), wide(&case.weight));
        let bias = wide(case.bias.as_ref().unwrap_or(&vec![0.0; 7]));
        let loss = |x: &[f64], weight: &[f64], bias: &[f64]| 0.7 * equations!(f64, &case, x, weight, bias)[0][0];
        let expected = [
            finite_differences(&x, |x| loss(x, &weight, &bias)),
            finite_differences(&weight, |weight| loss(&x, weight, &bias)),
            finite_differences(&bias, |bias| loss(&x, &weight, bias)),
        ];
        for device in devices() {
            let [_, dx, dweight, dbias] = through_autodiff(&case, &device.autodiff(), true, 0.7);
            assert_gradient("x", &dx, &expected[0]);
            assert_gradient("weight", &dweight, &expected[1]);
            if biased {
                assert_gradient("bias", &dbias, &expected[2]);
            }
        }
    }
}

#[test]
fn it_is_the_linear_map_and_the_loss_one_after_the_other() {
    for (layout, biased) in [(WeightLayout::InOut, false), (WeightLayout::OutIn, true)] {
        let mut case = Case::new(3, 1000, 33, 71, layout, biased);
        case.targets.iter_mut().for_each(|target| *target = (*target).max(0));
        let device = Device::flex().autodiff();
        // Bit for bit, but for the bias, whose sum is cut into parts there and is not here.
        let [one, two] = [true, false].map(|fused| through_autodiff(&case, &device, fused, 1.0));
        assert_eq!(one[..3], two[..3]);
    }
}

#[test]
fn frozen_parts_have_no_gradient_and_cost_the_others_nothing() {
    let case = Case::new(3, 20, 5, 7, WeightLayout::OutIn, false);
    let device = Device::flex().autodiff();
    let both = through_autodiff(&case, &device, true, 0.7);
    let x = make(&case.x, [20, 5], &device);
    let weight = make(&case.weight, [7, 5], &device).require_grad();
    let targets = ints(&case.targets, &device);
    let loss =
        linear_cross_entropy(x.clone(), weight.clone(), case.layout, None, targets, case.smoothing, Some(IGNORE));
    let gradients = (loss * 0.7).backward();
    assert!(x.grad(&gradients).is_none());
    assert_eq!(values(weight.grad(&gradients).unwrap()), both[2]);
}

#[test]
fn ignored_rows_leak_nothing_on_any_device() {
    let mut case = Case::new(5, 30, 6, 11, WeightLayout::InOut, true);
    let clean: Vec<_> =
        devices().iter().map(|device| through_autodiff(&case, &device.clone().autodiff(), true, 0.7)).collect();
    for row in (0..30).filter(|&row| case.targets[row] == IGNORE) {
        case.x[row * 6..][..6].fill(f32::NAN);
    }
    for (device, clean) in devices().into_iter().zip(clean) {
        assert_eq!(through_autodiff(&case, &device.autodiff(), true, 0.7), clean);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
        let case = Case::new(5, 700, 20, 300, layout, true);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (loss, gradients) = pool.install(|| case.run(Level::best(), ALL));
            (loss, gradients.x, gradients.weight, gradients.bias)
        };
        assert_eq!(on(1), on(5));
    }
}

#[test]
#[should_panic(expected = "linear_cross_entropy: target 7 of row 1 is outside of the vocabulary of 7")]
fn a_target_outside_of_the_vocabulary_is_refused() {
    let device = Device::flex();
    let (x, weight) = (make(&[0.0; 4], [2, 2], &device), make(&[0.0; 14], [2, 7], &device));
    linear_cross_entropy(x, weight, WeightLayout::InOut, None, ints(&[0, 7], &device), 0.0, None);
}
