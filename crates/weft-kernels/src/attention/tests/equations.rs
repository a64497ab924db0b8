//! The kernel against its equations.

use proptest::prelude::*;

use super::*;

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (0usize..4, 0usize..40, 0usize..40, 1usize..4, 1usize..70);
    let mask = (any::<bool>(), any::<bool>(), 0usize..4, 0usize..50);
    let score = (any::<bool>(), 0usize..3, 0usize..3, 1usize..4);
    (sizes, mask, score, 0u64..1000).prop_map(
        |((batch, q_time, k_time, heads, head_dim), (causal, ragged, sparse, window), score, seed)| {
            let (dropped, softcap, bias, group) = score;
            let mut case = Case::new(batch, [q_time, k_time], heads, head_dim, causal).grouped(group);
            case.seed = seed;
            if ragged {
                let length = |time: usize, i: usize| (seed as usize * 7 + i * 13) % (time + 1);
                let queries: Vec<_> = (0..batch).map(|i| length(q_time, i)).collect();
                let keys: Vec<_> = (0..batch).map(|i| length(k_time, i + 1)).collect();
                case = case.lengths(&queries, &keys);
            }
            case = if window > 0 && window < 40 { case.window(window) } else { case };
            case = if softcap == 0 { case.softcap(0.7) } else { case };
            case = if bias == 0 { case.bias() } else { case };
            case = if dropped { case.dropout(0.3) } else { case };
            if sparse > 0 {
                return case;
            }
            let some = |i: usize, j: usize| (i * 31 + j * 17 + seed as usize).is_multiple_of(2);
            case.blocks(BlockMask::new(1 + seed as usize % 9, 40, some))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn the_kernel_is_exact_on_every_level(case in cases()) {
        case.check();
    }
}

#[test]
fn larger_shapes_are_exact_on_every_level() {
    Case::new(1, [256, 256], 2, 32, true).check();
    Case::new(2, [300, 300], 1, 16, true).check();
    Case::new(1, [70, 530], 1, 8, true).check();
    Case::new(1, [530, 70], 1, 9, true).check();
    Case::new(1, [97, 97], 1, 256, false).check();
    Case::new(1, [20, 2000], 1, 24, false).check();
    Case::new(3, [1, 300], 2, 64, true).lengths(&[1, 1, 0], &[300, 17, 5]).check();
    Case::new(2, [2, 45], 3, 19, true).check();
    Case::new(2, [60, 60], 2, 40, true).lengths(&[60, 33], &[60, 33]).dropout(0.2).check();
}

#[test]
fn many_spans_are_exact_on_every_level() {
    Case::new(1, [600, 600], 1, 16, true).check();
    Case::new(1, [130, 700], 1, 8, false).dropout(0.2).check();
    Case::new(1, [600, 600], 1, 8, true).grouped(3).bias().softcap(1.5).dropout(0.1).check();
    for causal in [false, true] {
        Case::new(1, [400, 400], 1, 8, causal).window(150).check();
        Case::new(1, [400, 400], 1, 8, causal).window(300).bias().check();
        Case::new(2, [90, 700], 1, 8, causal).window(333).lengths(&[90, 2], &[700, 650]).check();
        Case::new(1, [500, 500], 1, 8, causal).blocks(BlockMask::strided(16, 500, 4)).check();
        Case::new(1, [500, 500], 1, 8, causal).blocks(BlockMask::fixed(20, 500, 5, 2)).bias().check();
        let blocks = BlockMask::global_window_random(32, 512, [1, 1, 2], causal, 3);
        Case::new(1, [512, 512], 1, 8, causal).blocks(blocks).window(400).check();
    }
}

#[test]
fn the_reference_gradient_agrees_with_finite_differences() {
    for case in [
        Case::new(2, [3, 4], 2, 3, false),
        Case::new(2, [4, 4], 1, 5, true).lengths(&[4, 2], &[3, 2]),
        Case::new(1, [5, 3], 2, 2, true),
        Case::new(2, [3, 5], 2, 3, true).dropout(0.4),
        Case::new(1, [5, 5], 1, 3, true).grouped(2).softcap(0.8).bias(),
        Case::new(2, [4, 6], 1, 3, false).grouped(2).window(3).bias().lengths(&[4, 3], &[6, 2]),
        Case::new(1, [6, 6], 1, 3, true).softcap(0.5).blocks(BlockMask::strided(2, 6, 2)),
    ] {
        let data = case.data();
        let (k, v) = unpack(&data.kv, case.kv_hidden());
        let (q, k, v, dout, bias) = (wide(&data.q), wide(&k), wide(&v), wide(&data.dout), wide(&data.bias));
        let loss = |q: &[f64], k: &[f64], v: &[f64], bias: &[f64]| -> f64 {
            truth::forward(&case.inputs(q, [k, v], bias), &case.settings).iter().zip(&dout).map(|(y, w)| y * w).sum()
        };
        let gradients = truth::grad(&case.inputs(&q, [&k, &v], &bias), &dout, &case.settings);
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
        assert_gradient("q", &narrow(&gradients[0]), &finite_differences(&q, |q| loss(q, &k, &v, &bias)));
        assert_gradient("k", &narrow(&gradients[1]), &finite_differences(&k, |k| loss(&q, k, &v, &bias)));
        assert_gradient("v", &narrow(&gradients[2]), &finite_differences(&v, |v| loss(&q, &k, v, &bias)));
        assert_gradient("bias", &narrow(&gradients[3]), &finite_differences(&bias, |bias| loss(&q, &k, &v, bias)));
    }
}

#[test]
fn a_wrong_scale_or_a_shifted_mask_is_noticed() {
    let case = Case::new(1, [33, 33], 2, 32, true);
    let data = case.data();
    let (k, v) = unpack(&data.kv, case.hidden());
    let exact = truth::forward(&case.inputs(&wide(&data.q), [&wide(&k), &wide(&v)], &[]), &case.settings);
    let inexact = plain::forward(&case.inputs(&data.q, [&k, &v], &[]), &case.settings);
    let scaled = |factor: f32| Data { q: data.q.iter().map(|q| q * factor).collect(), ..case.data() };
    let fails = |got: &[f32]| {
        std::panic::catch_unwind(|| assert_as_exact("broken on purpose", got, &inexact, &exact, 2.0)).is_err()
    };
    for level in Level::available() {
        assert!(!fails(&case.forward(level, &data)));
        assert!(fails(&case.forward(level, &scaled(1.0001))), "{level:?}: a scale wrong by 1e-4 passes");
        assert!(fails(&case.forward(level, &scaled(2.0))), "{level:?}: a doubled scale passes");
        // One key less shifts the mask, which is aligned at the end, by one.
        let shifted = case.clone().lengths(&[33], &[32]);
        assert!(fails(&shifted.forward(level, &data)), "{level:?}: a mask shifted by one passes");
        let mut open = case.clone();
        open.settings.causal = false;
        assert!(fails(&open.forward(level, &data)), "{level:?}: no mask passes");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let case = Case::new(1, [20, 20], 1, 8, false);
    let mut data = case.data();
    data.q.iter_mut().for_each(|q| *q *= 1e4);
    for level in Level::available() {
        let Results { out, dq, dkv, .. } = case.both(level, &data);
        assert!(out.iter().chain(&dq).chain(&dkv).all(|x| x.is_finite()), "{level:?}");
        let weights = cpu::weights(level, &case.call(&data));
        assert!(weights.iter().all(|&p| (0.0..=1.0).contains(&p)), "{level:?}");
        assert!(weights.chunks(20).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5), "{level:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in [
        Case::new(3, [130, 130], 4, 32, true).dropout(0.1),
        Case::new(1, [600, 600], 1, 16, true),
        Case::new(20, [1, 400], 2, 48, false),
        Case::new(2, [300, 300], 2, 8, true).grouped(2).bias(),
    ] {
        let data = case.data();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let Results { out, dq, dkv, dbias } = pool.install(|| case.both(Level::best(), &data));
            [out, dq, dkv, dbias]
        };
        assert_eq!(on(1), on(4));
    }
}
