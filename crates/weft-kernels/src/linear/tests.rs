use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::SquaredRelu,
    Activation::Gelu,
    Activation::Tanh,
    Activation::Sigmoid,
];
const LAYOUTS: [WeightLayout; 2] = [WeightLayout::InOut, WeightLayout::OutIn];

/// Operands, and which of the optional ones are there.
struct Case {
    sizes: [usize; 3],
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
    how: How,
}

impl Case {
    fn new(sizes: [usize; 3], seed: u64, how: How, bias: bool, residual: bool) -> Self {
        let [rows, input, output] = sizes;
        // So scaled that activations see values of about 1, where they bend.
        let scale = 1.0 / (input.max(1) as f32).sqrt();
        Self {
            sizes,
            x: normal(seed, rows * input),
            weight: normal(seed + 1, input * output).into_iter().map(|w| w * scale).collect(),
            bias: bias.then(|| normal(seed + 2, output)),
            residual: residual.then(|| normal(seed + 3, rows * output)),
            how,
        }
    }

    fn weight(&self) -> cpu::Weight<'_> {
        cpu::Weight::new(&self.weight, self.weight_dims(), self.how.layout)
    }

    fn weight_dims(&self) -> [usize; 2] {
        let [_, input, output] = self.sizes;
        if self.how.layout == WeightLayout::InOut { [input, output] } else { [output, input] }
    }

    fn kernel(&self, level: Level, slope: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let (bias, residual) = (self.bias.as_deref(), self.residual.as_deref());
        let operands = cpu::Operands { x: &self.x, weight: self.weight(), bias, residual };
        cpu::forward(level, self.sizes[0], operands, self.how.activation, self.how.dropout, slope)
    }

    fn wide(&self) -> reference::Operands {
        reference::Operands {
            x: wide(&self.x),
            weight: wide(&self.weight),
            bias: self.bias.as_deref().map(wide),
            residual: self.residual.as_deref().map(wide),
        }
    }

    fn truth(&self, operands: &reference::Operands) -> Vec<f64> {
        reference::forward(self.sizes, operands, self.how.layout, self.how.activation, self.how.dropout)
    }

    /// Straightforward `f32`, with and without fused multiply-adds, whichever is worse: what the kernel may be at most
    /// twice as wrong as.
    fn plain(&self) -> Vec<f32> {
        let [rows, input, output] = self.sizes;
        let strides = if self.how.layout == WeightLayout::InOut { [output, 1] } else { [1, input] };
        let mut y = Vec::new();
        for row in 0..rows {
            for j in 0..output {
                let terms = (0..input).map(|i| (self.x[row * input + i], self.weight[i * strides[0] + j * strides[1]]));
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[j]);
                let exact = terms.clone().fold(f64::from(bias), |sum, (x, w)| sum + f64::from(x) * f64::from(w));
                let fused = terms.clone().fold(bias, |sum, (x, w)| x.mul_add(w, sum));
                let apart = terms.fold(bias, |sum, (x, w)| sum + x * w);
                let off = |x: f32| (f64::from(x) - exact).abs();
                let sum = if off(fused) > off(apart) { fused } else { apart };
                let active = match self.how.activation {
                    Activation::None => sum,
                    Activation::Relu => sum.max(0.0),
                    Activation::SquaredRelu => sum.max(0.0).powi(2),
                    Activation::Gelu => 0.5 * sum * (1.0 + (0.797_884_6 * (sum + 0.044_715 * sum * sum * sum)).tanh()),
                    Activation::Tanh => sum.tanh(),
                    Activation::Sigmoid => 1.0 / (1.0 + (-sum).exp()),
                };
                let index = row * output + j;
                y.push(self.how.dropout.at(index, active) + self.residual.as_ref().map_or(0.0, |r| r[index]));
            }
        }
        y
    }
}

fn dropouts() -> [Dropout; 2] {
    [Dropout::NONE, Dropout::new(0.3, 11)]
}

/// Every combination of layout, activation, dropout, bias and residual.
fn combinations() -> Vec<(How, bool, bool)> {
    let mut all = Vec::new();
    for layout in LAYOUTS {
        for activation in ACTIVATIONS {
            for dropout in dropouts() {
                for (bias, residual) in [(false, false), (false, true), (true, false), (true, true)] {
                    all.push((How { layout, activation, dropout }, bias, residual));
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_kernel_is_exact_on_every_level(
        rows in prop_oneof![0usize..4, 4usize..80], input in 0usize..300, output in 0usize..90,
        combination in 0usize..80, seed in 0u64..1000,
    ) {
        let (how, bias, residual) = combinations()[combination];
        let case = Case::new([rows, input, output], seed, how, bias, residual);
        let truth = case.truth(&case.wide());
        for level in Level::available() {
            let name = format!("{} {how:?}", level.name());
            let (y, none) = case.kernel(level, false);
            assert_as_exact(&name, &y, &case.plain(), &truth, 2.0);
            prop_assert!(none.is_none());
            let (same, slope) = case.kernel(level, true);
            prop_assert_eq!(&same, &y);
            prop_assert_eq!(slope.map(|slope| slope.len()), Some(y.len()));
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_for_every_combination() {
    for (index, (how, bias, residual)) in combinations().into_iter().enumerate() {
        let sizes = [[3, 4, 5], [2, 1, 7], [1, 9, 1], [5, 3, 19]][index % 4];
        check_gradients(&Case::new(sizes, 100 + index as u64, how, bias, residual));
    }
}

#[test]
fn gradients_agree_with_finite_differences_for_many_rows() {
    // More than one part in the backward pass, and enough to pack the weight once for all.
    for activation in ACTIVATIONS {
        let how = How { layout: WeightLayout::InOut, activation, dropout: Dropout::new(0.2, 5) };
        check_gradients(&Case::new([461, 2, 3], 7, how, true, true));
        check_gradients(&Case::new([461, 2, 3], 7, How { dropout: Dropout::NONE, ..how }, true, false));
    }
}

fn check_gradients(case: &Case) {
    let [rows, input, output] = case.sizes;
    let weights = normal(99, rows * output);
    let operands = case.wide();
    let loss = |operands: &reference::Operands| -> f64 {
        case.truth(operands).iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
    };
    let by = |values: &[f64], set: fn(&mut reference::Operands, Vec<f64>)| {
        finite_differences(values, |moved| {
            let mut operands = operands.clone();
            set(&mut operands, moved.to_vec());
            loss(&operands)
        })
    };
    let dx = by(&operands.x, |operands, x| operands.x = x);
    let dweight = by(&operands.weight, |operands, weight| operands.weight = weight);
    let dbias = operands.bias.as_ref().map(|bias| by(bias, |operands, bias| operands.bias = Some(bias)));
    let name = format!("{:?} {:?}", case.how, case.sizes);
    for device in devices() {
        let device = device.autodiff();
        let leaf = |values: &[f32], shape: [usize; 2]| make(values, shape, &device).require_grad();
        let (x, weight) = (leaf(&case.x, [rows, input]), leaf(&case.weight, case.weight_dims()));
        let bias = case.bias.as_ref().map(|bias| make(bias, [output], &device).require_grad());
        let residual = case.residual.as_ref().map(|residual| leaf(residual, [rows, output]));
        let How { layout, activation, dropout } = case.how;
        let epilogue = Epilogue { activation, dropout, residual: residual.clone() };
        // Three axes, so that the rows are counted over two of them.
        let shaped = |t: Tensor<2>| t.clone().reshape([1, rows, t.dims()[1]]);
        let epilogue = Epilogue { activation, dropout, residual: epilogue.residual.map(shaped) };
        let y = linear(shaped(x.clone()), weight.clone(), layout, bias.clone(), epilogue);
        let gradients = (y.reshape([rows, output]) * make(&weights, [rows, output], &device)).sum().backward();
        let name = format!("{name} on {device:?}");
        assert_gradient(&format!("{name} x"), &values(x.grad(&gradients).unwrap()), &dx);
        assert_gradient(&format!("{name} weight"), &values(weight.grad(&gradients).unwrap()), &dweight);
        if let (Some(bias), Some(dbias)) = (bias, &dbias) {
            assert_gradient(&format!("{name} bias"), &values(bias.grad(&gradients).unwrap()), dbias);
        }
        if let Some(residual) = residual {
            assert_eq!(values(residual.grad(&gradients).unwrap()), weights, "{name} residual");
        }
    }
    // The portable body, on the CPU.
    let flex =
        |values: &[f32], shape: &[usize]| FlexTensor::from_data(burn::tensor::TensorData::new(values.to_vec(), shape));
    let (x, weight) = (flex(&case.x, &[rows, input]), flex(&case.weight, &case.weight_dims()));
    let bias = case.bias.as_ref().map(|bias| flex(bias, &[output]));
    let residual = case.residual.as_ref().map(|residual| flex(residual, &[rows, output]));
    let saving = case.how.saving(residual.is_some());
    let (y, saved) = portable::forward::<Flex>(x.clone(), weight.clone(), bias, residual, case.how, saving);
    assert_as_exact(&format!("{name} portable"), Values::new(y).f32(), &case.plain(), &case.truth(&operands), 4.0);
    let wanted = Wanted { x: true, weight: true, bias: true };
    let dy = flex(&weights, &[rows, output]);
    let gradients = portable::backward::<Flex>(x, weight, saved, dy, case.how, wanted);
    assert_gradient(&format!("{name} portable x"), Values::new(gradients.x.unwrap()).f32(), &dx);
    assert_gradient(&format!("{name} portable weight"), Values::new(gradients.weight.unwrap()).f32(), &dweight);
    if let Some(dbias) = &dbias {
        assert_gradient(&format!("{name} portable bias"), Values::new(gradients.bias.unwrap()).f32(), dbias);
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    for layout in LAYOUTS {
        let how = How { layout, activation: Activation::Gelu, dropout: Dropout::NONE };
        let [rows, input, output] = [600, 70, 53];
        let case = Case::new([rows, input, output], 1, how, true, true);
        for level in Level::available() {
            let (whole, _) = case.kernel(level, false);
            for (first, count) in [(0, 1), (599, 1), (17, 2), (100, 13), (3, 500), (250, 33)] {
                let residual = case.residual.as_ref().map(|r| r[first * output..][..count * output].to_vec());
                let x = case.x[first * input..][..count * input].to_vec();
                let (weight, bias) = (case.weight.clone(), case.bias.clone());
                let some = Case { sizes: [count, input, output], x, weight, bias, residual, how };
                let (some, _) = some.kernel(level, false);
                assert_eq!(some, whole[first * output..][..count * output], "{} {layout:?} {count}", level.name());
            }
        }
    }
}

#[test]
fn neither_threads_nor_memory_change_a_bit() {
    for rows in [3, 130, 700] {
        for (activation, dropout) in [(Activation::Gelu, Dropout::new(0.1, 3)), (Activation::Relu, Dropout::NONE)] {
            let how = How { layout: WeightLayout::InOut, activation, dropout };
            let case = Case::new([rows, 65, 1100], 1, how, true, false);
            let dy = normal(9, rows * 1100);
            let wanted = Wanted { x: true, weight: true, bias: true };
            for level in Level::available() {
                let on = |threads, owned: bool| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| {
                        let (y, slope) = case.kernel(level, true);
                        let slope = slope.unwrap();
                        let mut dy = dy.clone();
                        let upstream = if owned { cpu::Upstream::Owned(&mut dy) } else { cpu::Upstream::Shared(&dy) };
                        let derivative = cpu::Derivative::Slope(&slope);
                        let gradients =
                            cpu::backward(level, rows, &case.x, case.weight(), derivative, upstream, wanted);
                        (y, gradients.x, gradients.weight, gradients.bias)
                    })
                };
                let expected = on(1, false);
                assert!(expected == on(4, false) && expected == on(3, true), "{} {rows}", level.name());
            }
        }
    }
}

#[test]
fn only_the_gradients_that_are_wanted_are_made() {
    let how = How { layout: WeightLayout::OutIn, activation: Activation::None, dropout: Dropout::NONE };
    for rows in [5, 500] {
        let case = Case::new([rows, 6, 7], 1, how, true, false);
        let dy = normal(2, rows * 7);
        let run = |wanted| {
            let derivative = cpu::Derivative::Dropout(Dropout::NONE);
            cpu::backward(Level::best(), rows, &case.x, case.weight(), derivative, cpu::Upstream::Shared(&dy), wanted)
        };
        let all = run(Wanted { x: true, weight: true, bias: true });
        for bits in 0..8 {
            let wanted = Wanted { x: bits & 1 > 0, weight: bits & 2 > 0, bias: bits & 4 > 0 };
            let some = run(wanted);
            assert_eq!(some.x, all.x.clone().filter(|_| wanted.x));
            assert_eq!(some.weight, all.weight.clone().filter(|_| wanted.weight));
            assert_eq!(some.bias, all.bias.clone().filter(|_| wanted.bias));
        }
    }
}

#[test]
fn nothing_is_a_size_too() {
    for device in devices() {
        let device = device.autodiff();
        for (rows, input, output) in [(0, 3, 4), (2, 0, 4), (2, 3, 0), (1, 1, 1)] {
            let x = make(&normal(1, rows * input), [1, rows, input], &device).require_grad();
            let weight = make(&normal(2, input * output), [input, output], &device).require_grad();
            let bias = make(&normal(3, output), [output], &device).require_grad();
            let epilogue = Epilogue { activation: Activation::Gelu, ..Epilogue::default() };
            let y = linear(x.clone(), weight.clone(), WeightLayout::InOut, Some(bias.clone()), epilogue);
            assert_eq!(y.dims(), [1, rows, output]);
            if input == 0 {
                let row = values(linear(
                    x.clone(),
                    weight.clone(),
                    WeightLayout::InOut,
                    Some(bias.clone()),
                    Epilogue::default(),
                ));
                assert_eq!(row, [values(bias.clone()), values(bias.clone())].concat(), "nothing but the bias");
            }
            let gradients = y.sum().backward();
            assert_eq!(x.grad(&gradients).unwrap().dims(), [1, rows, input]);
            assert_eq!(weight.grad(&gradients).unwrap().dims(), [input, output]);
            assert_eq!(bias.grad(&gradients).unwrap().dims(), [output]);
        }
    }
}

#[test]
fn not_a_number_stays_in_its_row_and_is_dropped_with_its_element() {
    for activation in ACTIVATIONS {
        for dropout in dropouts() {
            let how = How { layout: WeightLayout::InOut, activation, dropout };
            let mut case = Case::new([9, 20, 37], 1, how, true, true);
            case.x[4 * 20 + 3] = f32::NAN;
            for level in Level::available() {
                for (index, y) in case.kernel(level, false).0.iter().enumerate() {
                    let expected = index / 37 == 4 && (dropout.is_none() || dropout.keeps(index));
                    assert_eq!(y.is_nan(), expected, "{} {how:?} {index}", level.name());
                }
            }
        }
    }
}

#[test]
fn a_view_is_read_in_its_own_order() {
    for device in devices() {
        let (x, weight) = (make(&normal(1, 12), [3, 4], &device), make(&normal(2, 15), [5, 3], &device));
        let view = |layout| values(linear(x.clone().transpose(), weight.clone(), layout, None, Epilogue::default()));
        let copy = make(&values(x.clone().transpose()), [4, 3], &device);
        let turned = make(&values(weight.clone().transpose()), [3, 5], &device);
        let expected = values(linear(copy, turned, WeightLayout::InOut, None, Epilogue::default()));
        assert_eq!(view(WeightLayout::OutIn), expected);
    }
}

#[test]
#[should_panic(expected = "linear: x [2, 3] does not fit the weight [4, 5], InOut")]
fn shapes_are_checked() {
    let device = burn::tensor::Device::flex();
    let (x, weight) = (make(&[0.0; 6], [2, 3], &device), make(&[0.0; 20], [4, 5], &device));
    linear(x, weight, WeightLayout::InOut, None, Epilogue::default());
}
