use proptest::prelude::*;

use super::*;
use crate::simd::Level;
use crate::testing::{assert_as_exact, normal};

/// `start + a b` by three loops: in `f64`, and in `f32` with and without fused multiply-adds, whichever is worse.
fn plain(start: f32, a: Matrix<'_>, b: Matrix<'_>) -> (Vec<f64>, Vec<f32>) {
    let (mut truth, mut single) = (Vec::new(), Vec::new());
    for i in 0..a.rows {
        for j in 0..b.cols {
            let terms = (0..a.cols)
                .map(|k| (a.data[i * a.row_stride + k * a.col_stride], b.data[k * b.row_stride + j * b.col_stride]));
            let exact = terms.clone().map(|(x, y)| f64::from(x) * f64::from(y)).sum::<f64>() + f64::from(start);
            let fused = terms.clone().fold(start, |sum, (x, y)| x.mul_add(y, sum));
            let apart = terms.fold(start, |sum, (x, y)| sum + x * y);
            let off = |x: f32| (f64::from(x) - exact).abs();
            truth.push(exact);
            single.push(if off(fused) > off(apart) { fused } else { apart });
        }
    }
    (truth, single)
}

fn view(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Matrix<'_> {
    if transposed { Matrix::new(data, cols, rows).transposed() } else { Matrix::new(data, rows, cols) }
}

fn packed_product(level: Level, a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut c = vec![f32::NAN; a.rows * b.cols];
    multiply(level, a, &Packed::parallel(level, b), &mut c, b.cols, false);
    c
}

fn size(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![0usize..4, 4..most]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_exact_on_every_level(
        rows in size(150), inner in size(600), cols in size(100), ta: bool, tb: bool, seed in 0u64..1000,
    ) {
        let (a, b) = (normal(seed, rows * inner), normal(seed + 1, inner * cols));
        let (a, b) = (view(&a, rows, inner, ta), view(&b, inner, cols, tb));
        let (truth, single) = plain(0.0, a, b);
        for level in Level::available() {
            let c = packed_product(level, a, b);
            assert_as_exact(level.name(), &c, &single, &truth, 2.0);
            // Adding to what is there is the same chain, begun elsewhere; and gaps between rows are left alone.
            let mut sum = vec![0.5; rows * (cols + 3)];
            multiply(level, a, &Packed::parallel(level, b), &mut sum, cols + 3, true);
            let gaps = sum.chunks(cols + 3).all(|row| row[cols..].iter().all(|&x| x == 0.5));
            prop_assert!(gaps, "{}: wrote between the rows", level.name());
            let sum: Vec<f32> = sum.chunks(cols + 3).flat_map(|row| row[..cols].to_vec()).collect();
            let (shifted, shifted_single) = plain(0.5, a, b);
            assert_as_exact(level.name(), &sum, &shifted_single, &shifted, 2.0);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (rows, inner, cols) = (131, 300, 75);
    let (a, b) = (normal(1, rows * inner), normal(2, inner * cols));
    for level in Level::available() {
        let packed = Packed::parallel(level, Matrix::new(&b, inner, cols));
        let mut whole = vec![0.0; rows * cols];
        multiply(level, Matrix::new(&a, rows, inner), &packed, &mut whole, cols, false);
        for count in 1..=rows {
            let first = (count * 37) % (rows - count + 1);
            let mut some = vec![0.0; count * cols];
            multiply(level, Matrix::new(&a[first * inner..], count, inner), &packed, &mut some, cols, false);
            assert!(some == whole[first * cols..][..count * cols], "{} {count}", level.name());
        }
        // Nor on how the left matrix lies.
        let turned: Vec<f32> = (0..rows * inner).map(|i| a[i % rows * inner + i / rows]).collect();
        let mut same = vec![0.0; rows * cols];
        multiply(level, Matrix::new(&turned, inner, rows).transposed(), &packed, &mut same, cols, false);
        assert!(same == whole, "{}", level.name());
    }
}

#[test]
fn a_few_rows_have_the_bits_of_many() {
    for rows in 1..7 {
        for cols in [1, 31, 32, 128, 300, 1000] {
            let inner = 301;
            let (a, b) = (normal(1, rows * inner), normal(2, inner * cols));
            for (left, right) in [(false, false), (true, false), (false, true)] {
                let (a, b) = (view(&a, rows, inner, left), view(&b, inner, cols, right));
                for level in Level::available() {
                    let mut expected = packed_product(level, a, b);
                    assert!(new_product(level, a, b) == expected, "{} {rows} {cols}", level.name());
                    let mut sum = expected.clone();
                    multiply(level, a, &Packed::parallel(level, b), &mut expected, cols, true);
                    product(level, a, b, &mut sum, true);
                    assert!(sum == expected, "{} {rows} {cols}", level.name());
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (rows, inner, cols) in [(1, 300, 700), (29, 513, 90), (256, 1000, 257), (700, 64, 1100), (0, 5, 5), (5, 0, 5)] {
        let (a, b) = (normal(1, rows * inner), normal(2, inner * cols));
        let (a, b) = (Matrix::new(&a, inner, rows).transposed(), Matrix::new(&b, cols, inner).transposed());
        for level in Level::available() {
            let expected = packed_product(level, a, b);
            for threads in [1, 2, 3, 7] {
                let mut c = vec![f32::NAN; rows * cols];
                let seen = std::sync::Mutex::new(vec![0; rows * cols]);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    product(level, a, b, &mut c, false);
                    let (again, side) = new_product_with(level, a, b, None, true, |block| {
                        let first_col = block.first_col;
                        while let Some(row) = block.next_row() {
                            row.side.unwrap().copy_from_slice(row.values);
                            let first = row.index * cols + first_col;
                            seen.lock().unwrap()[first..][..row.values.len()].iter_mut().for_each(|count| *count += 1);
                        }
                    });
                    assert!(again == c);
                    assert!(side.unwrap() == c);
                });
                assert!(c == expected, "{} {rows}x{inner}x{cols} on {threads}", level.name());
                assert!(seen.into_inner().unwrap().iter().all(|&count| count == 1), "each part is finished once");
            }
        }
    }
}

#[test]
fn however_the_left_matrix_lies_the_bits_are_the_same() {
    for rows in 1..40 {
        for inner in [1, 2, 3, 15, 16, 17, 256, 257] {
            let (a, b, cols) = (normal(1, rows * inner), normal(2, inner * 5), 5);
            let turned: Vec<f32> = (0..rows * inner).map(|i| a[i % rows * inner + i / rows]).collect();
            let b = Matrix::new(&b, inner, cols);
            for level in Level::available() {
                let expected = packed_product(level, Matrix::new(&a, rows, inner), b);
                let turned = packed_product(level, Matrix::new(&turned, inner, rows).transposed(), b);
                assert!(turned == expected, "{} {rows}x{inner}", level.name());
            }
        }
    }
}

#[test]
fn not_a_number_stays_in_its_row_and_column() {
    for level in Level::available() {
        let (mut a, mut b) = (normal(1, 20 * 9), normal(2, 9 * 40));
        a[3 * 9 + 4] = f32::NAN;
        b[2 * 40 + 33] = f32::NAN;
        let c = packed_product(level, Matrix::new(&a, 20, 9), Matrix::new(&b, 9, 40));
        for (i, x) in c.iter().enumerate() {
            assert_eq!(x.is_nan(), i / 40 == 3 || i % 40 == 33, "{} {i}", level.name());
        }
    }
}
