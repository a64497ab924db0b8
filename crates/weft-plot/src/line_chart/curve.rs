//! Points to lines: cut at gaps, thinned to what the eye can see, smoothed.

/// Consecutive points without a gap.
pub(super) type Run = Vec<(f64, f64)>;

/// Cuts `points` wherever one is not `usable`.
pub(super) fn runs(points: &[(f64, f64)], usable: impl Fn(&(f64, f64)) -> bool) -> Vec<Run> {
    points.split(|point| !usable(point)).filter(|run| !run.is_empty()).map(<[_]>::to_vec).collect()
}

/// Keeps the first, lowest, highest and last of the consecutive points that fall on one pixel column: the picture of
/// a million steps is the same, and no larger than that of a thousand.
pub(super) fn thinned(run: &[(f64, f64)]) -> Run {
    let mut kept = Run::new();
    for column in run.chunk_by(|one, other| one.0.floor() == other.0.floor()) {
        if column.len() <= 4 {
            kept.extend_from_slice(column);
            continue;
        }
        let by_height = |&one: &usize, &other: &usize| column[one].1.total_cmp(&column[other].1);
        let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
        let mut indices = [0, lowest.min(highest), lowest.max(highest), column.len() - 1].to_vec();
        indices.dedup();
        kept.extend(indices.into_iter().map(|index| column[index]));
    }
    kept
}

/// Leaves out the points that lie on the straight line between their neighbours, to within a twentieth of a pixel.
pub(super) fn straightened(run: &[(f64, f64)]) -> Run {
    const OFF: f64 = 0.05;
    let Some(&first) = run.first() else { return Run::new() };
    let mut kept = vec![first];
    // The slopes from the last kept point that pass all points since then closely enough.
    let (mut anchor, mut flattest, mut steepest) = (first, f64::NEG_INFINITY, f64::INFINITY);
    for pair in run.windows(2) {
        let [previous, point] = [pair[0], pair[1]];
        let slope_to = |from: (f64, f64), y: f64| (y - from.1) / (point.0 - from.0);
        let slope = slope_to(anchor, point.1);
        if !(point.0 > previous.0 && (flattest..=steepest).contains(&slope)) {
            if previous != anchor {
                kept.push(previous);
            }
            (anchor, flattest, steepest) = (previous, f64::NEG_INFINITY, f64::INFINITY);
        }
        if point.0 > anchor.0 {
            flattest = flattest.max(slope_to(anchor, point.1 - OFF));
            steepest = steepest.min(slope_to(anchor, point.1 + OFF));
        }
    }
    if run.len() > 1 {
        kept.push(run[run.len() - 1]);
    }
    kept
}

/// A running mean over about a fortieth of the run to each side. At the beginning, where losses fall steeply, the
/// window shrinks on both sides, so that the line starts where the points do.
pub(super) fn smoothed(run: &[(f64, f64)]) -> Run {
    let reach = run.len() / 40;
    if reach == 0 {
        return run.to_vec();
    }
    let mut sums = Vec::with_capacity(run.len() + 1);
    sums.push(0.0);
    for (_, y) in run {
        sums.push(sums[sums.len() - 1] + y);
    }
    let mean_around = |index: usize| {
        let before = reach.min(index);
        let end = (index + before + 1).min(run.len());
        (sums[end] - sums[index - before]) / (end - (index - before)) as f64
    };
    run.iter().enumerate().map(|(index, &(x, _))| (x, mean_around(index))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_cut_the_line() {
        let points = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0), (f64::INFINITY, 5.0)];
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        assert_eq!(runs(&points, finite), [vec![(0.0, 1.0)], vec![(2.0, 3.0), (3.0, 4.0)]]);
        assert!(runs(&[], finite).is_empty());
    }

    #[test]
    fn smoothing_keeps_straight_lines_and_the_start() {
        let line: Run = (0..400).map(|x| (f64::from(x), 100.0 - f64::from(x) / 10.0)).collect();
        let smooth = smoothed(&line);
        assert_eq!(smooth[0], line[0]);
        assert!(smooth[..390].iter().zip(&line).all(|(one, other)| (one.1 - other.1).abs() < 1e-9));
        let noise: Run = (0..400).map(|x| (f64::from(x), if x % 2 == 0 { 1.0 } else { -1.0 })).collect();
        assert!(smoothed(&noise)[50..].iter().all(|(_, y)| y.abs() < 0.1));
    }

    #[test]
    fn straight_lines_need_two_points() {
        let line: Run = (0..100).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        assert_eq!(straightened(&line), [line[0], line[99]]);
        let corner = [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 1.0), (4.0, 0.0), (4.0, 9.0), (4.0, 2.0)];
        assert_eq!(straightened(&corner), [corner[0], corner[2], corner[4], corner[5], corner[6]]);
        assert_eq!(straightened(&[]), []);
        assert_eq!(straightened(&corner[..1]), corner[..1]);
    }

    proptest! {
        #[test]
        fn straightening_moves_no_point_visibly(heights in prop::collection::vec(0.0f64..3.0, 1..200)) {
            let run: Run = heights.iter().enumerate().map(|(index, &y)| (index as f64 / 7.0, y)).collect();
            let kept = straightened(&run);
            for &(x, y) in &run {
                let after = kept.iter().position(|point| point.0 >= x).unwrap();
                let (one, other) = (kept[after.max(1) - 1], kept[after]);
                let share = if other.0 > one.0 { (x - one.0) / (other.0 - one.0) } else { 1.0 };
                let line = one.1 + share * (other.1 - one.1);
                prop_assert!((line - y).abs() <= 0.051, "({x}, {y}) is off by {}", line - y);
            }
        }

        #[test]
        fn thinning_keeps_ends_and_extremes(heights in prop::collection::vec(0.0f64..100.0, 1..3000), width in 1.0f64..100.0) {
            let step = width / heights.len() as f64;
            let run: Run = heights.iter().enumerate().map(|(index, &y)| (index as f64 * step, y)).collect();
            let kept = thinned(&run);
            prop_assert!(kept.len() as f64 <= 4.0 * (width + 2.0));
            prop_assert_eq!((kept[0], kept[kept.len() - 1]), (run[0], run[run.len() - 1]));
            let extremes = |run: &Run| run.iter().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
            prop_assert_eq!(extremes(&kept), extremes(&run));
            prop_assert!(kept.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        }
    }
}
