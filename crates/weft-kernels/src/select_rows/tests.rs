use proptest::prelude::*;

use super::select_rows;
use crate::testing::{devices, tensor, values};

proptest! {
    #[test]
    fn filled_positions_are_those_of_the_rows_asked_for(
        [count, time, width] in [1usize..5, 0usize..6, 0usize..9],
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..7),
        filled in any::<prop::sample::Index>(),
    ) {
        let filled = filled.index(time + 1);
        let rows: Vec<usize> = picks.iter().map(|pick| pick.index(count)).collect();
        let x: Vec<f32> = (0..count * time * width).map(|i| i as f32 + 0.5).collect();
        // Wgpu has no empty tensors.
        let devices = devices().into_iter().take(if rows.is_empty() || x.is_empty() { 1 } else { 2 });
        for device in devices {
            let selected = select_rows(tensor(&x, [count, time, width], &device), &rows, filled);
            prop_assert_eq!(selected.dims(), [rows.len(), time, width]);
            let selected = values(selected);
            for (i, &row) in rows.iter().enumerate() {
                let (from, to) = (row * time * width, i * time * width);
                prop_assert_eq!(&selected[to..to + filled * width], &x[from..from + filled * width]);
            }
        }
    }
}

#[test]
#[should_panic = "select_rows: rows [0, 2] of 2"]
fn a_row_that_does_not_exist_is_named() {
    let device = devices().remove(0);
    select_rows(tensor(&[0.0; 4], [2, 2, 1], &device), &[0, 2], 1);
}
