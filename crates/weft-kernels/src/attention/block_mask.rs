//! Which blocks of keys each block of queries sees: sparse attention, whose cost is that of the blocks kept.

/// A mask over blocks of `block_size` neighbouring positions, kept as the list of seen blocks of each row.
///
/// Rows and columns count blocks of *places*: the last query stands at the last key, as under a causal mask, so
/// that a token decoded later sees what it saw in the whole sequence. A causal mask, a window and lengths apply
/// besides, position by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMask {
    block_size: usize,
    rows: Vec<Vec<u32>>,
}

impl BlockMask {
    /// The mask that keeps block (row, column) where `keeps` says so, for `length` positions.
    ///
    /// # Panics
    /// If `block_size` is 0.
    pub fn new(block_size: usize, length: usize, keeps: impl Fn(usize, usize) -> bool) -> Self {
        assert!(block_size > 0, "BlockMask: blocks have at least one position");
        let blocks = length.div_ceil(block_size);
        let row = |i: usize| (0..blocks).filter(|&j| keeps(i, j)).map(|j| j as u32).collect();
        Self { block_size, rows: (0..blocks).map(row).collect() }
    }

    /// The strided pattern: the last `stride` blocks, and of those before every `stride`-th, counted from the own
    /// one.  Child et al., arXiv 1904.10509, section 4.3, on blocks; both its heads in one.
    ///
    /// # Panics
    /// If `block_size` or `stride` is 0.
    pub fn strided(block_size: usize, length: usize, stride: usize) -> Self {
        assert!(stride > 0, "BlockMask: a stride is at least 1");
        Self::new(block_size, length, |i, j| j <= i && (i - j < stride || (i - j).is_multiple_of(stride)))
    }

    /// The fixed pattern: the blocks of the own stretch of `stride` blocks, and the last `summary` blocks of every
    /// stretch before.  Child et al., arXiv 1904.10509, section 4.3, on blocks; both its heads in one.
    ///
    /// # Panics
    /// If `block_size` or `stride` is 0, or `summary` is more than `stride`.
    pub fn fixed(block_size: usize, length: usize, stride: usize, summary: usize) -> Self {
        assert!(stride > 0 && summary <= stride, "BlockMask: a stretch of {stride} blocks has no {summary} last ones");
        Self::new(block_size, length, |i, j| j <= i && (i / stride == j / stride || j % stride >= stride - summary))
    }

    /// The first `global` blocks, which also see all, `window` blocks to each side, and `random` others for each row,
    /// the same for the same seed; of all these only the past if `causal`.  Zaheer et al., arXiv 2007.14062, section 2.
    ///
    /// # Panics
    /// If `block_size` is 0.
    pub fn global_window_random(
        block_size: usize,
        length: usize,
        [global, window, random]: [usize; 3],
        causal: bool,
        seed: u64,
    ) -> Self {
        let past = |i: usize, j: usize| !causal || j <= i;
        let own = |i: usize, j: usize| i < global || j < global || i.abs_diff(j) <= window;
        let mut mask = Self::new(block_size, length, |i, j| past(i, j) && own(i, j));
        let blocks = mask.rows.len();
        for (i, row) in mask.rows.iter_mut().enumerate() {
            // The others in a random order, which is that of their hashes.
            let mut others: Vec<u32> =
                (0..blocks as u32).filter(|&j| past(i, j as usize) && !own(i, j as usize)).collect();
            others.sort_by_key(|&j| hash(seed, (i as u64) << 32 | u64::from(j)));
            row.extend(others.iter().take(random));
            row.sort_unstable();
        }
        mask
    }

    /// Positions in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The longest sequence that it covers.
    pub fn longest(&self) -> usize {
        self.rows.len() * self.block_size
    }

    /// For each block of queries, the blocks of keys that it sees, in order.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// The part of all blocks that is kept.
    pub fn density(&self) -> f64 {
        let kept: usize = self.rows.iter().map(Vec::len).sum();
        kept as f64 / (self.rows.len() * self.rows.len()).max(1) as f64
    }

    /// The blocks that the query at `place` sees, in order; none before the first key.
    pub(super) fn row(&self, place: isize) -> &[u32] {
        usize::try_from(place).map_or(&[], |place| &self.rows[place / self.block_size])
    }

    pub(super) fn keeps(&self, place: isize, key: usize) -> bool {
        self.row(place).binary_search(&((key / self.block_size) as u32)).is_ok()
    }
}

/// SplitMix64's mixing of two numbers.
fn hash(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
