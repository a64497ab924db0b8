use proptest::prelude::*;

use super::*;
use crate::testing::{assert_as_exact, assert_gradient, devices, normal, tensor as make, values, wide};

const BASE: f64 = 10_000.0;

/// The equations in plain `f64`, position `first` first.
fn reference(
    x: &[f64],
    [time, width]: [usize; 2],
    columns: usize,
    head_dim: usize,
    first: usize,
    sign: f64,
) -> Vec<f64> {
    let mut y = x.to_vec();
    for (row, y) in y.chunks_mut(width.max(1)).enumerate() {
        let position = (first + row % time) as f64;
        for (head, y) in y[..columns].chunks_mut(head_dim).enumerate() {
            let x = &x[row * width + head * head_dim..][..head_dim];
            for i in 0..head_dim / 2 {
                let angle = sign * position * BASE.powf(-2.0 * i as f64 / head_dim as f64);
                let (a, b) = (x[i], x[i + head_dim / 2]);
                y[i] = a * angle.cos() - b * angle.sin();
                y[i + head_dim / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    }
    y
}

/// And in `f32`, with angles as exact as they can be stored.
fn plain(x: &[f32], [time, width]: [usize; 2], columns: usize, head_dim: usize, first: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    for (row, y) in y.chunks_mut(width.max(1)).enumerate() {
        for (head, y) in y[..columns].chunks_mut(head_dim).enumerate() {
            let x = &x[row * width + head * head_dim..][..head_dim];
            for i in 0..head_dim / 2 {
                let angle = (first + row % time) as f64 * BASE.powf(-2.0 * i as f64 / head_dim as f64);
                let (cos, sin) = (angle.cos() as f32, angle.sin() as f32);
                y[i] = x[i] * cos - x[i + head_dim / 2] * sin;
                y[i + head_dim / 2] = x[i + head_dim / 2] * cos + x[i] * sin;
            }
        }
    }
    y
}

proptest! {
    #[test]
    fn the_kernel_is_exact_on_every_level(
        (batch, time, heads, others) in (0usize..3, 0usize..9, 0usize..4, 0usize..5),
        half in 1usize..20,
        first in 0usize..5000,
        seed in 0u64..1000,
    ) {
        let (columns, head_dim) = (heads * 2 * half, 2 * half);
        let width = columns + others;
        let x = normal(seed, batch * time * width);
        let rotation = Rotation::new(first, time, head_dim, BASE);
        let truth = reference(&wide(&x), [time, width], columns, head_dim, first, 1.0);
        let plain = plain(&x, [time, width], columns, head_dim, first);
        for level in Level::available() {
            let y = cpu::rotated(level, &x, [time, width], columns, &rotation);
            assert_as_exact(level.name(), &y, &plain, &truth, 2.0);
            let back = cpu::rotated(level, &y, [time, width], columns, &rotation.clone().inverse());
            for (back, x) in back.iter().zip(&x) {
                prop_assert!((back - x).abs() < 1e-5 * x.abs().max(1.0), "{back} is not {x}");
            }
        }
    }
}

#[test]
fn gradients_are_rotated_back_on_every_device() {
    let (batch, time, columns, head_dim, width) = (2, 3, 8, 4, 11);
    let (x, weights) = (normal(1, batch * time * width), normal(2, batch * time * width));
    let rotation = Rotation::new(5, time, head_dim, BASE);
    let expected = reference(&wide(&x), [time, width], columns, head_dim, 5, 1.0);
    let gradient = reference(&wide(&weights), [time, width], columns, head_dim, 5, -1.0);
    for device in devices() {
        let device = device.autodiff();
        let x = make(&x, [batch, time, width], &device).require_grad();
        let y = rotary(x.clone(), columns, &rotation);
        assert_gradient("y", &values(y.clone()), &expected);
        let of = (y * make(&weights, [batch, time, width], &device)).sum().backward();
        assert_gradient("x", &values(x.grad(&of).unwrap()), &gradient);
    }
}

#[test]
fn products_depend_on_the_distance_alone() {
    let (q, k) = (normal(1, 16), normal(2, 16));
    let turned =
        |x: &[f32], position| cpu::rotated(Level::best(), x, [1, 16], 16, &Rotation::new(position, 1, 16, BASE));
    let product = |i, j| turned(&q, i).iter().zip(turned(&k, j)).map(|(q, k)| q * k).sum::<f32>();
    for (i, j, further) in [(3, 0, 5), (0, 7, 90), (100, 90, 1000)] {
        assert!((product(i, j) - product(i + further, j + further)).abs() < 1e-4, "{i} {j} {further}");
    }
    assert!((product(3, 0) - product(4, 0)).abs() > 1e-3);
}
