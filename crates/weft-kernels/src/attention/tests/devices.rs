//! The operations through Burn, and their portable bodies.

use burn::backend::Flex;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

use super::*;
use crate::testing::{devices, tensor, values};

/// The result through Burn, and the gradients of `sum(weights * out)`.
fn through_burn(case: &Case, device: &burn::tensor::Device) -> Results {
    let data = case.data();
    let device = device.clone().autodiff();
    let hidden = case.hidden();
    let q = tensor(&data.q, [case.batch, case.q_time, hidden], &device).require_grad();
    let kv = tensor(&data.kv, [case.batch, case.k_time, 2 * case.kv_hidden()], &device).require_grad();
    let settings = &case.settings;
    let bias = case.biased.then(|| tensor(&data.bias, [settings.num_heads, case.distances()], &device).require_grad());
    let options = AttentionOptions {
        num_heads: settings.num_heads,
        num_kv_heads: settings.num_kv_heads,
        causal: settings.causal,
        window: settings.window,
        softcap: settings.softcap,
        bias: bias.clone(),
        blocks: settings.blocks.clone(),
        dropout: settings.dropout,
    };
    let (queries, keys) = (settings.query_lengths.as_deref(), settings.key_lengths.as_deref());
    let out = cross_attention(q.clone(), kv.clone(), queries, keys, &options);
    let weights = tensor(&data.dout, [case.batch, case.q_time, hidden], &device);
    let gradients = (out.clone() * weights).sum().backward();
    Results {
        out: values(out),
        dq: values(q.grad(&gradients).unwrap()),
        dkv: values(kv.grad(&gradients).unwrap()),
        dbias: bias.map_or_else(Vec::new, |bias| values(bias.grad(&gradients).unwrap())),
    }
}

#[test]
fn cross_attention_has_the_gradients_of_its_equations_on_every_device() {
    for case in [
        Case::new(2, [3, 5], 2, 3, false).lengths(&[3, 2], &[4, 5]),
        Case::new(1, [4, 2], 1, 5, true),
        Case::new(2, [3, 4], 2, 2, true).dropout(0.3),
        Case::new(2, [3, 4], 1, 2, false).lengths(&[3, 3], &[0, 4]),
        Case::new(2, [5, 5], 2, 3, true).grouped(2).bias().softcap(0.9),
        Case::new(2, [4, 6], 1, 3, false).grouped(3).window(3).bias().lengths(&[4, 3], &[6, 2]).dropout(0.2),
        Case::new(1, [6, 6], 1, 3, true).blocks(BlockMask::strided(2, 6, 2)).softcap(0.4),
    ] {
        let data = case.data();
        let (k, v) = unpack(&data.kv, case.kv_hidden());
        let (q, k, v, bias) = (wide(&data.q), wide(&k), wide(&v), wide(&data.bias));
        let inputs = case.inputs(&q, [&k, &v], &bias);
        let [dq, dk, dv, dbias] = truth::grad(&inputs, &wide(&data.dout), &case.settings);
        for device in devices() {
            let got = through_burn(&case, &device);
            let (got_dk, got_dv) = unpack(&got.dkv, case.kv_hidden());
            assert_gradient("out", &got.out, &truth::forward(&inputs, &case.settings));
            assert_gradient("dbias", &got.dbias, &dbias);
            assert_gradient("dq", &got.dq, &dq);
            assert_gradient("dk", &got_dk, &dk);
            assert_gradient("dv", &got_dv, &dv);
        }
    }
}

#[test]
fn self_attention_is_cross_attention_of_its_parts() {
    for group in [1, 2] {
        check_parts(group);
    }
}

fn check_parts(group: usize) {
    let (batch, time, kv_hidden) = (3, 7, 10);
    let dropout = Dropout::new(0.2, 3);
    let options = AttentionOptions { num_kv_heads: 2, dropout, ..AttentionOptions::causal(2 * group) };
    let hidden = group * kv_hidden;
    let width = hidden + 2 * kv_hidden;
    let (qkv, weights) = (normal(1, batch * time * width), normal(2, batch * time * hidden));
    for lengths in [None, Some([7, 0, 4].as_slice())] {
        for device in devices() {
            let device = device.autodiff();
            let weights = tensor(&weights, [batch, time, hidden], &device);
            let qkv = tensor(&qkv, [batch, time, width], &device).require_grad();
            let whole = self_attention(qkv.clone(), lengths, &options);
            let gradients = (whole.clone() * weights.clone()).sum().backward();
            let whole_grad = values(qkv.grad(&gradients).unwrap());
            let (q, kv) = (qkv.clone().narrow(2, 0, hidden), qkv.clone().narrow(2, hidden, 2 * kv_hidden));
            let parts = cross_attention(q, kv, lengths, lengths, &options);
            let gradients = (parts.clone() * weights).sum().backward();
            assert_eq!(values(whole), values(parts), "{device:?}");
            assert_eq!(whole_grad, values(qkv.grad(&gradients).unwrap()), "{device:?}");
        }
    }
}

#[test]
fn the_portable_body_agrees_with_the_kernel() {
    for case in [
        Case::new(2, [3, 5], 2, 3, false),
        Case::new(3, [6, 6], 2, 4, true).lengths(&[6, 0, 3], &[6, 2, 3]).dropout(0.3),
        Case::new(2, [7, 3], 1, 5, true).lengths(&[7, 5], &[3, 0]),
        Case::new(1, [0, 3], 1, 5, true),
        Case::new(2, [3, 0], 1, 5, false),
        Case::new(3, [6, 6], 2, 4, true).grouped(2).bias().window(3).lengths(&[6, 0, 3], &[6, 2, 3]),
        Case::new(1, [9, 9], 2, 4, true).grouped(3).softcap(1.0).bias().blocks(BlockMask::fixed(2, 9, 2, 1)),
    ] {
        let (hidden, kv_width) = (case.hidden(), 2 * case.kv_hidden());
        let mut data = case.data();
        if let (Some(queries), Some(keys)) = (&case.settings.query_lengths, &case.settings.key_lengths) {
            poison(&mut data.q, queries, case.q_time, hidden, f32::NAN);
            poison(&mut data.dout, queries, case.q_time, hidden, f32::NAN);
            poison(&mut data.kv, keys, case.k_time, kv_width, f32::NAN);
        }
        let got = case.both(Level::best(), &data);
        let flex = |x: &[f32], time: usize, width: usize| {
            FlexTensor::from_data(TensorData::new(x.to_vec(), [case.batch, time, width]))
        };
        let back = |x: FlexTensor| wide(x.to_contiguous().storage::<f32>());
        let (q, kv) = (flex(&data.q, case.q_time, hidden), flex(&data.kv, case.k_time, kv_width));
        let bias = TensorData::new(data.bias.clone(), [case.settings.num_heads, case.distances()]);
        let (dout, bias) = (flex(&data.dout, case.q_time, hidden), FlexTensor::from_data(bias));
        let [k, v] = split_kv::<Flex>(kv);
        let settings = &case.settings;
        let out = portable::forward::<Flex>(q.clone(), k.clone(), v.clone(), bias.clone(), settings);
        assert_gradient("out", &got.out, &back(out));
        let weights = portable::weights::<Flex>(q.clone(), k.clone(), bias.clone(), settings);
        assert_gradient("weights", &cpu::weights(Level::best(), &case.call(&data)), &back(weights));
        let [dq, dk, dv, dbias] = portable::grad::<Flex>(q, k, v, bias, dout, settings);
        let (got_dk, got_dv) = unpack(&got.dkv, case.kv_hidden());
        assert_gradient("dq", &got.dq, &back(dq));
        assert_gradient("dk", &got_dk, &back(dk));
        assert_gradient("dv", &got_dv, &back(dv));
        assert_gradient("dbias", &got.dbias, &back(dbias));
    }
}

#[test]
fn a_cache_with_room_to_spare_is_read_in_place_and_decodes_like_the_whole() {
    let (batch, time, capacity, heads, hidden) = (2, 9, 16, 2, 12);
    let options = AttentionOptions::causal(heads);
    for device in devices() {
        let qkv = tensor(&normal(1, batch * time * 3 * hidden), [batch, time, 3 * hidden], &device);
        let whole = values(self_attention(qkv.clone(), None, &options));
        let kv = qkv.clone().narrow(2, hidden, 2 * hidden);
        let room = Tensor::full([batch, capacity - time, 2 * hidden], f32::NAN, &device);
        let cache = Tensor::cat(vec![kv, room], 1);
        for step in 0..time {
            let q = qkv.clone().narrow(1, step, 1).narrow(2, 0, hidden);
            let filled = [step + 1; 2];
            let by_length = cross_attention(q.clone(), cache.clone(), None, Some(&filled), &options);
            let view = cache.clone().narrow(1, 0, step + 1);
            let by_view = values(cross_attention(q, view, None, None, &options));
            let by_length = values(by_length);
            // The portable body sums over what the cache does not hold too, zeros, in another order.
            if device == Device::flex() {
                assert_eq!(by_length, by_view, "step {step}");
            }
            let expected = (0..batch).flat_map(|b| &whole[(b * time + step) * hidden..][..hidden]);
            for ((length, view), wanted) in by_length.iter().zip(&by_view).zip(expected) {
                assert!((length - wanted).abs() < 1e-5, "{device:?} step {step}: {length} is not {wanted}");
                assert!((view - wanted).abs() < 1e-5, "{device:?} step {step}, a view: {view} is not {wanted}");
            }
        }
    }
}

#[test]
fn weights_are_probabilities() {
    let options = AttentionOptions { dropout: Dropout::new(0.5, 1), ..AttentionOptions::new(2) };
    for device in devices() {
        let (q, k) = (tensor(&normal(1, 24), [2, 3, 4], &device), tensor(&normal(2, 40), [2, 5, 4], &device));
        let weights = attention_weights(q, k, Some(&[5, 2]), &options);
        assert_eq!(weights.dims(), [2, 2, 3, 5]);
        for (row, p) in values(weights).chunks(5).enumerate() {
            let keys = if row < 6 { 5 } else { 2 };
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{device:?} row {row}: {p:?}");
            assert!(p[..keys].iter().all(|&p| p > 0.0) && p[keys..].iter().all(|&p| p == 0.0), "{device:?}: {p:?}");
        }
    }
}
