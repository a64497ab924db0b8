//! Learning rates as a pure function of the step.

use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Falls with the inverse square root of the step: arXiv 1706.03762, equation 3.
    InverseSquareRoot,
    /// Half a cosine down to the floor at the last step: Loshchilov & Hutter, arXiv 1608.03983, without restarts.
    Cosine,
    /// A straight line down to the floor at the last step.
    Linear,
    /// Stays.
    Constant,
}

/// A warm-up from zero in a straight line, then one of the [`ScheduleKind`]s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// The highest learning rate, reached at step `warmup_steps`.
    pub peak: f64,
    /// Steps of the warm-up; 0 for none.
    pub warmup_steps: u64,
    /// Steps of the whole run; cosine and linear end there. Later steps stay at the floor.
    pub total_steps: u64,
    /// Where cosine and linear end, as a share of the peak.
    pub floor_ratio: f64,
}

impl Schedule {
    /// The learning rate of a step, from 1 on.
    ///
    /// The inverse square root is the paper's `hidden^-0.5 * min(step^-0.5, step * warmup^-1.5)`, scaled so that its
    /// peak, `hidden^-0.5 * warmup^-0.5` there, is `peak`.
    ///
    /// ```
    /// use weft_train::{Schedule, ScheduleKind};
    ///
    /// let kind = ScheduleKind::InverseSquareRoot;
    /// let schedule = Schedule { kind, peak: 7e-4, warmup_steps: 4000, total_steps: 100_000, floor_ratio: 0.0 };
    /// assert_eq!(schedule.learning_rate(2000), 3.5e-4);
    /// assert_eq!(schedule.learning_rate(16_000), 3.5e-4);
    /// ```
    pub fn learning_rate(&self, step: u64) -> f64 {
        let (at, warmup) = (step.max(1) as f64, self.warmup_steps as f64);
        if step < self.warmup_steps {
            return self.peak * at / warmup;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        self.after_warmup(at, (at - warmup) / span)
    }

    /// The learning rate of a step of a run that ends with the clock: cosine and linear follow the share of its time
    /// that is spent, from the first step on, and the warm-up scales them.
    pub fn learning_rate_by_time(&self, step: u64, share: f64) -> f64 {
        let (at, warmup) = (step.max(1) as f64, self.warmup_steps.max(1) as f64);
        self.after_warmup(at.max(warmup), share) * (at / warmup).min(1.0)
    }

    fn after_warmup(&self, at: f64, progress: f64) -> f64 {
        let progress = progress.clamp(0.0, 1.0);
        let floor = self.peak * self.floor_ratio;
        match self.kind {
            ScheduleKind::InverseSquareRoot => self.peak * (self.warmup_steps.max(1) as f64 / at).sqrt(),
            ScheduleKind::Cosine => floor + (self.peak - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Linear => floor + (self.peak - floor) * (1.0 - progress),
            ScheduleKind::Constant => self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, peak: 1.0, warmup_steps: 100, total_steps: 1100, floor_ratio: 0.1 }
    }

    /// Equation 3 as it is printed.
    #[test]
    fn inverse_square_root_is_the_papers_formula() {
        let (hidden, warmup) = (512f64, 4000f64);
        let peak = hidden.powf(-0.5) * warmup.powf(-0.5);
        let kind = ScheduleKind::InverseSquareRoot;
        let ours = Schedule { kind, peak, warmup_steps: 4000, total_steps: 100_000, floor_ratio: 0.0 };
        for step in [1u64, 2, 10, 3999, 4000, 4001, 10_000, 100_000, 300_000] {
            let at = step as f64;
            let paper = hidden.powf(-0.5) * at.powf(-0.5).min(at * warmup.powf(-1.5));
            assert!((ours.learning_rate(step) - paper).abs() < 1e-15, "step {step}");
        }
    }

    #[test]
    fn cosine_and_linear_go_from_the_peak_to_the_floor() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            let schedule = schedule(kind);
            assert_eq!(schedule.learning_rate(50), 0.5);
            assert_eq!(schedule.learning_rate(100), 1.0);
            assert!((schedule.learning_rate(600) - 0.55).abs() < 1e-12);
            assert!((schedule.learning_rate(1100) - 0.1).abs() < 1e-12);
            assert!((schedule.learning_rate(5000) - 0.1).abs() < 1e-12);
        }
    }

    #[test]
    fn a_run_by_time_falls_with_the_time() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            let rate = |step, share| schedule(kind).learning_rate_by_time(step, share);
            assert_eq!(rate(50, 0.0), 0.5);
            assert_eq!(rate(100, 0.0), 1.0);
            // However many steps that makes.
            for step in [100, 5000, 1_000_000] {
                assert!((rate(step, 0.5) - 0.55).abs() < 1e-12);
                assert!((rate(step, 1.5) - 0.1).abs() < 1e-12);
            }
        }
        for kind in [ScheduleKind::InverseSquareRoot, ScheduleKind::Constant] {
            for step in [1, 50, 99, 100, 101, 5000] {
                let (by_time, by_step) =
                    (schedule(kind).learning_rate_by_time(step, 0.7), schedule(kind).learning_rate(step));
                assert!((by_time - by_step).abs() < 1e-12, "{kind:?} at {step}");
            }
        }
    }

    #[test]
    fn nothing_divides_by_zero() {
        for kind in
            [ScheduleKind::InverseSquareRoot, ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant]
        {
            for (warmup_steps, total_steps) in [(0, 0), (0, 1), (10, 5), (1, 1)] {
                let schedule = Schedule { warmup_steps, total_steps, ..schedule(kind) };
                for step in 0..20 {
                    let rate = schedule.learning_rate(step);
                    assert!((0.0..=1.0).contains(&rate), "{schedule:?} at {step}: {rate}");
                    let rate = schedule.learning_rate_by_time(step, 0.5);
                    assert!((0.0..=1.0).contains(&rate), "{schedule:?} at {step} by time: {rate}");
                }
            }
        }
    }
}
