//! The equations in plain `f64`.

use super::Lookup;

/// `[batch, time, hidden]` from `table` `[vocab, hidden]`, `ids` `[batch, time]` and `positions`
/// `[length, hidden]`.
pub(super) fn forward(
    table: &[f64],
    hidden: usize,
    ids: &[i32],
    time: usize,
    positions: Option<&[f64]>,
    how: Lookup,
) -> Vec<f64> {
    let mut y = Vec::new();
    for (token, &id) in ids.iter().enumerate() {
        for j in 0..hidden {
            let position = positions.map_or(0.0, |positions| positions[(how.offset + token % time) * hidden + j]);
            let value = f64::from(how.scale) * table[id as usize * hidden + j] + position;
            let kept = how.dropout.keeps(token * hidden + j);
            y.push(if kept { value / (1.0 - f64::from(how.dropout.probability)) } else { 0.0 });
        }
    }
    y
}
