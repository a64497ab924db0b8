//! Which sentences are still running at which step.

/// The order in which the rows of a ragged batch are worked on: longest sentence first, so that the rows that
/// are still running at a step are the first ones, and finished rows cost nothing.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Row -> sentence.
    pub(crate) order: Vec<usize>,
    /// Row -> length.
    pub(crate) lengths: Vec<usize>,
    /// Step -> number of rows that are running.
    pub(crate) active: Vec<usize>,
    /// Step -> running rows of all steps before.
    pub(crate) before: Vec<usize>,
    /// Running rows of all steps.
    pub(crate) total: usize,
    reverse: bool,
}

impl Schedule {
    /// For sentences of these lengths, walked from their starts or, in `reverse`, from their own ends.
    pub(crate) fn new(lengths: &[usize], reverse: bool) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&sentence| std::cmp::Reverse(lengths[sentence]));
        let lengths: Vec<usize> = order.iter().map(|&sentence| lengths[sentence]).collect();
        let steps = lengths.first().copied().unwrap_or(0);
        let active: Vec<usize> = (0..steps).map(|step| lengths.partition_point(|&length| length > step)).collect();
        let total = active.iter().sum();
        let before = active
            .iter()
            .scan(0, |sum, &rows| {
                *sum += rows;
                Some(*sum - rows)
            })
            .collect();
        Self { order, lengths, active, before, total, reverse }
    }

    /// Steps until every sentence has ended.
    pub(crate) fn steps(&self) -> usize {
        self.active.len()
    }

    /// Where in its sentence a row is at a step.
    #[inline(always)]
    pub(crate) fn position(&self, row: usize, step: usize) -> usize {
        if self.reverse { self.lengths[row] - 1 - step } else { step }
    }
}
