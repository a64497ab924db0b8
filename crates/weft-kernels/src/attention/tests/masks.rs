//! What reaches what: masks, padding, NaN.

use super::*;

#[test]
fn sparse_attention_equals_dense_attention_under_the_same_mask() {
    let time = 96;
    for blocks in [
        BlockMask::strided(8, time, 3),
        BlockMask::fixed(8, time, 4, 1),
        BlockMask::global_window_random(8, time, [1, 1, 1], true, 7),
        BlockMask::new(time, time, |_, _| true),
    ] {
        let dense = Case::new(1, [time, time], 1, 12, true).bias();
        let mut data = dense.data();
        data.bias.fill(0.0);
        let sparse = dense.clone().blocks(blocks.clone());
        let probabilities = cpu::weights(Level::best(), &sparse.call(&data));
        for (query, row) in probabilities.chunks(time).enumerate() {
            let sum: f32 = row.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "query {query}: {sum}");
            for (key, &probability) in row.iter().enumerate() {
                let size = blocks.block_size();
                let kept = key <= query && blocks.rows()[query / size].contains(&((key / size) as u32));
                assert_eq!(probability > 0.0, kept, "query {query}, key {key} of {blocks:?}");
            }
        }
    }
}

#[test]
fn a_key_that_a_bias_forbids_takes_no_part() {
    // Minus infinity for everything but the own place and the one before; and one row of them only.
    let case = Case::new(1, [300, 300], 1, 8, true).bias();
    let mut data = case.data();
    let middle = case.distances() / 2;
    data.bias.fill(f32::NEG_INFINITY);
    data.bias[middle - 1..=middle].fill(0.0);
    let window = Case { biased: false, ..case.clone().window(2) };
    let without = Data { bias: Vec::new(), ..window.data() };
    for level in Level::available() {
        let (forbidden, windowed) = (case.both(level, &data), window.both(level, &without));
        for (i, (a, b)) in forbidden.out.iter().zip(&windowed.out).enumerate() {
            assert!((a - b).abs() < 1e-5, "{level:?} out[{i}]: {a} is not {b}");
        }
        for (i, (a, b)) in forbidden.dkv.iter().zip(&windowed.dkv).enumerate() {
            assert!((a - b).abs() < 1e-5, "{level:?} dkv[{i}]: {a} is not {b}");
        }
        data.bias.fill(f32::NEG_INFINITY);
        let nothing = case.both(level, &data);
        assert!(nothing.out.iter().chain(&nothing.dq).chain(&nothing.dkv).all(|&x| x == 0.0), "{level:?}");
        data.bias[middle - 1..=middle].fill(0.0);
    }
}

#[test]
fn a_ragged_batch_equals_its_sentences_one_by_one() {
    let plain = |batch, times, heads, head_dim, causal| Case::new(batch, times, heads, head_dim, causal);
    check_ragged([60, 1, 0, 17, 48, 2, 5], [60, 9, 4, 17, 0, 100, 3], |batch, times| plain(batch, times, 2, 32, true));
    check_ragged([60, 1, 0, 17, 48, 2, 5], [60, 9, 4, 17, 0, 100, 3], |batch, times| plain(batch, times, 3, 20, false));
    check_ragged([60, 1, 0, 17, 48, 2, 5], [60, 9, 4, 17, 0, 100, 3], |batch, times| {
        plain(batch, times, 1, 64, true).window(11).grouped(2)
    });
    check_ragged([300, 1, 0, 17, 200, 2, 5], [300, 9, 4, 17, 0, 290, 280], |batch, times| {
        plain(batch, times, 2, 7, false).blocks(BlockMask::strided(16, 320, 2)).softcap(2.0)
    });
}

/// The case of seven sentences equals those of one, bit for bit, with NaN in its padding.
#[track_caller]
fn check_ragged(queries: [usize; 7], keys: [usize; 7], case: impl Fn(usize, [usize; 2]) -> Case) {
    let [q_time, k_time] = [queries, keys].map(|lengths| *lengths.iter().max().unwrap());
    let batch = case(7, [q_time, k_time]).lengths(&queries, &keys);
    let (hidden, kv_width) = (batch.hidden(), 2 * batch.kv_hidden());
    let mut data = batch.data();
    poison(&mut data.q, &queries, q_time, hidden, f32::NAN);
    poison(&mut data.kv, &keys, k_time, kv_width, f32::NAN);
    poison(&mut data.dout, &queries, q_time, hidden, f32::NAN);
    for level in Level::available() {
        let all = batch.both(level, &data);
        let rows = |x: &[f32], b: usize, time: usize, width: usize, length: usize| {
            let (used, past) = x[b * time * width..][..time * width].split_at(length * width);
            assert!(past.iter().all(|x| x.to_bits() == 0), "{level:?}: padding of sentence {b} is not zero");
            used.to_vec()
        };
        for (b, (&tq, &tk)) in queries.iter().zip(&keys).enumerate() {
            let part =
                |x: &[f32], time: usize, width: usize, length: usize| x[b * time * width..][..length * width].to_vec();
            let alone = Data {
                q: part(&data.q, q_time, hidden, tq),
                kv: part(&data.kv, k_time, kv_width, tk),
                dout: part(&data.dout, q_time, hidden, tq),
                bias: Vec::new(),
            };
            let one = case(1, [tq, tk]).both(level, &alone);
            assert_eq!(rows(&all.out, b, q_time, hidden, tq), one.out, "{level:?} sentence {b}");
            assert_eq!(rows(&all.dq, b, q_time, hidden, tq), one.dq, "{level:?} sentence {b}");
            assert_eq!(rows(&all.dkv, b, k_time, kv_width, tk), one.dkv, "{level:?} sentence {b}");
        }
    }
}

#[test]
fn rows_that_see_no_key_are_zeros() {
    for level in Level::available() {
        for (tq, tk, blind) in [(9, 4, 5), (60, 3, 57), (3, 0, 3), (2, 1, 1), (100, 50, 50)] {
            let case = Case::new(1, [tq, tk], 2, 5, true);
            let mut data = case.data();
            // Whatever their gradient is, they have nothing to pass it to.
            data.dout[..blind * 10].fill(f32::NAN);
            let Results { out, dq, dkv, .. } = case.both(level, &data);
            assert!(out[..blind * 10].iter().chain(&dq[..blind * 10]).all(|&x| x == 0.0), "{level:?} {tq} {tk}");
            assert!(out[blind * 10..].iter().all(|&x| x != 0.0), "{level:?} {tq} {tk}");
            assert!(out.iter().chain(&dq).chain(&dkv).all(|x| x.is_finite()), "{level:?} {tq} {tk}");
        }
    }
}

#[test]
fn a_nan_reaches_exactly_what_depends_on_it() {
    let case = Case::new(1, [361, 361], 1, 24, true);
    let hidden = case.hidden();
    let nan_rows = |x: &[f32], width: usize| -> Vec<bool> {
        x.chunks(width)
            .map(|row| {
                let count = row.iter().filter(|x| x.is_nan()).count();
                assert!(count == 0 || count == row.len(), "a row is partly NaN");
                count > 0
            })
            .collect()
    };
    for level in Level::available() {
        for at in [0, 13, 47, 48, 64, 255, 256, 360] {
            let mut data = case.data();
            data.kv[at * 2 * hidden..(at + 1) * 2 * hidden].fill(f32::NAN);
            let expected: Vec<bool> = (0..361).map(|i| i >= at).collect();
            assert_eq!(nan_rows(&case.forward(level, &data), hidden), expected, "{level:?}: later rows only");

            let mut data = case.data();
            data.dout[at * hidden..(at + 1) * hidden].fill(f32::NAN);
            let Results { dq, dkv, .. } = case.both(level, &data);
            let expected: Vec<bool> = (0..361).map(|i| i == at).collect();
            assert_eq!(nan_rows(&dq, hidden), expected, "{level:?}: the row's own gradient");
            let expected: Vec<bool> = (0..361).map(|j| j <= at).collect();
            assert_eq!(nan_rows(&dkv, 2 * hidden), expected, "{level:?}: keys that the row sees");
        }
        let mut data = case.data();
        data.q[30 * hidden] = f32::NAN;
        let rows = nan_rows(&case.forward(level, &data), hidden);
        assert_eq!(rows, (0..361).map(|i| i == 30).collect::<Vec<_>>(), "{level:?}");
    }
}

#[test]
fn what_a_mask_hides_is_never_read() {
    // A NaN outside the window or in a block that is not kept reaches nobody, whatever span it lies in.
    let window = Case::new(1, [400, 400], 1, 8, true).window(70);
    let blocks = Case::new(1, [400, 400], 1, 8, true).blocks(BlockMask::new(20, 400, |i, j| i == j || j == 3));
    for case in [window, blocks] {
        for level in Level::available() {
            let clean = case.both(level, &case.data());
            let mut data = case.data();
            let at = 100;
            data.kv[at * 16..(at + 1) * 16].fill(f32::NAN);
            let got = case.both(level, &data);
            let sentence = case.settings.sentence(0, 400, 400);
            for query in 0..400 {
                let (got, clean) = (&got.out[query * 8..][..8], &clean.out[query * 8..][..8]);
                match sentence.sees(query, at) {
                    true => assert!(got.iter().all(|x| x.is_nan()), "{level:?} query {query}"),
                    false => assert_eq!(got, clean, "{level:?} query {query}"),
                }
            }
        }
    }
}
