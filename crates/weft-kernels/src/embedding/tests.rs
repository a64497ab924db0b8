use burn::tensor::{Device, TensorData};
use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::*;
use crate::testing::{
    assert_as_exact, assert_gradient, devices, finite_differences, normal, tensor as make, values, wide,
};

fn ids(seed: u64, count: usize, vocab: usize) -> Vec<i32> {
    normal(seed, count).into_iter().map(|x| (x.abs() * 1e4) as i32 % vocab as i32).collect()
}

fn ints(values: &[i32], shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The same in straightforward `f32`.
fn plain(table: &[f32], hidden: usize, ids: &[i32], time: usize, positions: Option<&[f32]>, how: Lookup) -> Vec<f32> {
    let mut y = Vec::new();
    for (token, &id) in ids.iter().enumerate() {
        for j in 0..hidden {
            let position = positions.map_or(0.0, |positions| positions[(how.offset + token % time) * hidden + j]);
            y.push(how.dropout.at(token * hidden + j, how.scale * table[id as usize * hidden + j] + position));
        }
    }
    y
}

fn flex<T: burn::tensor::Element, const D: usize>(values: &[T], shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values.to_vec(), shape))
}

proptest! {
    #[test]
    fn lookups_are_exact_on_every_level(
        batch in 0usize..4, time in 0usize..6, hidden in 0usize..70, vocab in 1usize..40, offset in 0usize..3,
        probability in prop::sample::select(vec![0.0f32, 0.3]), positioned in any::<bool>(), seed in 0u64..1000,
    ) {
        let how = Lookup { scale: 1.7, offset, dropout: Dropout { probability, seed } };
        let (table, positions) = (normal(seed, vocab * hidden), normal(seed + 1, (offset + time) * hidden));
        let positions = positioned.then_some(&positions[..]);
        let ids = ids(seed + 2, batch * time, vocab);
        let truth = reference::forward(&wide(&table), hidden, &ids, time, positions.map(wide).as_deref(), how);
        let plain = plain(&table, hidden, &ids, time, positions, how);
        for level in Level::available() {
            let y = cpu::forward(level, &table, hidden, &ids, time, positions, how);
            assert_as_exact(level.name(), &y, &plain, &truth, 2.0);
        }
        let table = flex(&table, [vocab, hidden]);
        let positions = positions.map(|positions| flex(positions, [offset + time, hidden]));
        let y = portable::forward::<Flex>(table, flex(&ids, [batch, time]), positions, how);
        assert_as_exact("portable", y.to_contiguous().storage(), &plain, &truth, 2.0);
    }

    #[test]
    fn gradients_are_exact_on_every_level(
        batch in 0usize..4, time in 0usize..40, hidden in 0usize..40, vocab in 1usize..70, offset in 0usize..3,
        probability in prop::sample::select(vec![0.0f32, 0.3]), seed in 0u64..1000,
    ) {
        let how = Lookup { scale: 1.7, offset, dropout: Dropout { probability, seed } };
        let (ids, dy) = (ids(seed, batch * time, vocab), normal(seed + 1, batch * time * hidden));
        let length = offset + time + 1;
        let mut truth = (vec![0.0f64; vocab * hidden], vec![0.0f64; length * hidden]);
        let mut plain = (vec![0.0f32; vocab * hidden], vec![0.0f32; length * hidden]);
        for (i, &g) in dy.iter().enumerate() {
            let (token, j) = (i / hidden, i % hidden);
            let (row, place) = (ids[token] as usize * hidden + j, (offset + token % time) * hidden + j);
            let g = how.dropout.at(i, g);
            truth.0[row] += f64::from(how.scale) * f64::from(g);
            truth.1[place] += f64::from(g);
            plain.0[row] += how.scale * g;
            plain.1[place] += g;
        }
        for level in Level::available() {
            let table = cpu::table_gradient(level, vocab, hidden, &ids, &dy, how);
            assert_as_exact(level.name(), &table, &plain.0, &truth.0, 2.0);
            let positions = cpu::positions_gradient(level, length, hidden, time, &dy, how);
            assert_as_exact(level.name(), &positions, &plain.1, &truth.1, 2.0);
        }
        let dy = flex(&dy, [batch, time, hidden]);
        let table = portable::table_gradient::<Flex>(vocab, flex(&ids, [batch, time]), dy.clone(), how);
        assert_as_exact("portable", table.to_contiguous().storage(), &plain.0, &truth.0, 2.0);
        let positions = portable::positions_gradient::<Flex>(length, dy, how);
        assert_as_exact("portable", positions.to_contiguous().storage(), &plain.1, &truth.1, 2.0);
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_device() {
    let (batch, time, hidden, vocab, offset) = (2, 3, 5, 4, 1);
    let how = Lookup { scale: 0.5, offset, dropout: Dropout::new(0.25, 9) };
    let (table, positions) = (normal(1, vocab * hidden), normal(2, 6 * hidden));
    let (ids, weights) = ([3, 0, 3, 1, 1, 3], normal(3, batch * time * hidden));
    let loss = |table: &[f64], positions: Option<&[f64]>| -> f64 {
        let y = reference::forward(table, hidden, &ids, time, positions, how);
        y.iter().zip(&weights).map(|(y, &w)| y * f64::from(w)).sum()
    };
    let (wide_table, wide_positions) = (wide(&table), wide(&positions));
    let table_expected = finite_differences(&wide_table, |x| loss(x, None));
    let positions_expected = finite_differences(&wide_positions, |x| loss(&wide_table, Some(x)));
    for device in devices() {
        let device = device.autodiff();
        let weights = make(&weights, [batch, time, hidden], &device);
        for positioned in [false, true] {
            let table = make(&table, [vocab, hidden], &device).require_grad();
            let positions = make(&positions, [6, hidden], &device).require_grad();
            let options = EmbeddingOptions {
                scale: how.scale,
                positions: positioned.then(|| positions.clone()),
                offset,
                dropout: how.dropout,
            };
            let y = embedding(table.clone(), ints(&ids, [batch, time], &device), options);
            let gradients = (y * weights.clone()).sum().backward();
            assert_gradient("table", &values(table.grad(&gradients).unwrap()), &table_expected);
            if positioned {
                assert_gradient("positions", &values(positions.grad(&gradients).unwrap()), &positions_expected);
            }
        }
        // Sinusoidal positions are not trained, a frozen table is not either.
        let table = make(&table, [vocab, hidden], &device);
        let positions = make(&positions, [6, hidden], &device).require_grad();
        let options =
            EmbeddingOptions { scale: how.scale, positions: Some(positions.clone()), offset, dropout: how.dropout };
        let y = embedding(table.clone(), ints(&ids, [batch, time], &device), options);
        let gradients = (y * weights).sum().backward();
        assert_gradient("positions", &values(positions.grad(&gradients).unwrap()), &positions_expected);
        assert!(table.grad(&gradients).is_none());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (vocab, hidden, time) = (70, 33, 50);
    let how = Lookup { scale: 1.5, offset: 2, dropout: Dropout::new(0.1, 4) };
    let (ids, dy) = (ids(1, 4 * time, vocab), normal(2, 4 * time * hidden));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let table = cpu::table_gradient(Level::best(), vocab, hidden, &ids, &dy, how);
            (table, cpu::positions_gradient(Level::best(), time + 2, hidden, time, &dy, how))
        })
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn a_nan_in_the_table_stays_in_its_tokens() {
    let device = Device::flex();
    let mut table = normal(1, 3 * 20);
    table[20..40].fill(f32::NAN);
    let options = EmbeddingOptions { dropout: Dropout::new(0.5, 1), ..Default::default() };
    let y = values(embedding(make(&table, [3, 20], &device), ints(&[0, 1, 2], [1, 3], &device), options.clone()));
    for (i, y) in y.into_iter().enumerate() {
        assert_eq!(y.is_nan(), i / 20 == 1 && options.dropout.keeps(i), "element {i}");
    }
}

#[test]
#[should_panic(expected = "token 3 is outside of the vocabulary of 3")]
fn a_token_outside_of_the_vocabulary_is_refused() {
    let device = Device::flex();
    embedding(make(&[0.0; 6], [3, 2], &device), ints(&[0, 3], [1, 2], &device), EmbeddingOptions::default());
}

#[test]
#[should_panic(expected = "4 positions for 3 tokens from 2 on")]
fn too_few_positions_are_refused() {
    let device = Device::flex();
    let options =
        EmbeddingOptions { positions: Some(make(&[0.0; 8], [4, 2], &device)), offset: 2, ..Default::default() };
    embedding(make(&[0.0; 6], [3, 2], &device), ints(&[0, 1, 2], [1, 3], &device), options);
}
