//! Backward through time.
#![expect(unsafe_code, reason = "workers read and write parts of shared buffers")]

use pulp::{Simd, WithSimd};

use super::super::cell;
use super::super::panels::{Panels, gate_columns, panel_width};
use super::super::product::{MOST_VECTORS, Product};
use super::super::schedule::Schedule;
use super::super::team::{Buffer, Shared, Worker, load, read, team, workers_for, write};
use super::super::{Cell, Recurrence};
use super::weights::{Upstream, weight_gradient};
use super::{ContextGradient, Results, lanes};
use crate::fresh::zeros;
use crate::simd::{Level, prefetch};

/// The gradients of `gates_x`, `weight`, `bias` and `initial`, from that of the packed result.
#[expect(clippy::too_many_arguments, reason = "inputs, results and the gradient")]
pub(crate) fn backward(
    level: Level,
    recurrence: &Recurrence,
    [time, hidden]: [usize; 2],
    weight: &[f32],
    initial: &[f32],
    results: Results<'_>,
    gradient: &[f32],
    context: impl ContextGradient,
) -> [Vec<f32>; 4] {
    let (cell, batch) = (recurrence.cell, recurrence.lengths.len());
    let schedule = Schedule::new(&recurrence.lengths, recurrence.reverse);
    let (lanes, gates) = (lanes(level), cell.gates());
    let padded = hidden.next_multiple_of(lanes);
    let mut dgates_x = zeros(batch * time * gates * hidden);
    let mut dweight = vec![0.0; hidden * gates * hidden];
    let mut dbias = vec![0.0; gates * hidden];
    // The initial states' gradients begin as the last states': sentences of length 0 pass them through.
    let mut dinitial = gradient[batch * time * hidden..].to_vec();
    let mut dgates = Buffer::new(padded * schedule.total * gates);
    // The reset gate stands between the two sides; only a context asks for the inputs' side in this layout.
    let two_sides = context.size() > 0 && cell == Cell::Gru { reset_before: false };
    let mut dinputs = Buffer::new(if two_sides { dgates.len() } else { 0 });
    let before = cell == Cell::Gru { reset_before: true };
    let [mut previous, mut scaled] =
        [true, before].map(|wanted| Buffer::new(if wanted { schedule.total * padded } else { 0 }));
    let [mut direct, mut dcells] = [(); 2].map(|()| Buffer::new(batch * padded));
    for (row, &sentence) in schedule.order.iter().enumerate() {
        let row = row * padded..row * padded + hidden;
        direct[row.clone()].copy_from_slice(&dinitial[sentence * hidden..(sentence + 1) * hidden]);
        if cell == Cell::Lstm {
            dcells[row].copy_from_slice(&dinitial[(batch + sentence) * hidden..(batch + sentence + 1) * hidden]);
        }
    }
    let workers = workers_for(schedule.total * hidden * (hidden + context.size()) * gates).min(padded / lanes).max(1);
    let dgates = Shared::new(&mut dgates);
    let walk = Walk {
        cell,
        time,
        hidden,
        batch,
        schedule: &schedule,
        weight,
        initial,
        results,
        gradient,
        context,
        dgates,
        dinputs: if two_sides { Shared::new(&mut dinputs) } else { dgates },
        two_sides,
        previous: Shared::new(&mut previous),
        scaled: Shared::new(&mut scaled),
        direct: Shared::new(&mut direct),
        dcells: Shared::new(&mut dcells),
        dgates_x: Shared::new(&mut dgates_x),
        dweight: Shared::new(&mut dweight),
        dbias: Shared::new(&mut dbias),
        dinitial: Shared::new(&mut dinitial),
        workers,
        worker: None,
    };
    team(workers, |worker| level.run(Walk { worker: Some(worker), ..walk }));
    [dgates_x, dweight, dbias, dinitial]
}

#[derive(Clone, Copy)]
struct Walk<'a, C> {
    cell: Cell,
    time: usize,
    hidden: usize,
    batch: usize,
    schedule: &'a Schedule,
    weight: &'a [f32],
    initial: &'a [f32],
    results: Results<'a>,
    gradient: &'a [f32],
    context: C,
    /// The gradients of the gates' arguments on the state's side, `[unit vector][running row][gate][lane]`: rows
    /// of the products backward, and at the same time panels of the weights' gradient.
    dgates: Shared<'a>,
    /// The same on the inputs' side, and whether it is another.
    dinputs: Shared<'a>,
    two_sides: bool,
    /// The hidden state before each running row's step, `[running row, padded hidden]`.
    previous: Shared<'a>,
    /// `r * h` of a GRU with the reset before the product, laid out the same.
    scaled: Shared<'a>,
    /// What reaches a hidden state by other ways than the next step's gates, `[row, padded hidden]`.
    direct: Shared<'a>,
    /// The gradients of the cell states; of a GRU with the reset before the product, of the state through `z`.
    dcells: Shared<'a>,
    dgates_x: Shared<'a>,
    dweight: Shared<'a>,
    dbias: Shared<'a>,
    dinitial: Shared<'a>,
    workers: usize,
    worker: Option<&'a Worker<'a>>,
}

/// One vector of units at one step.
#[derive(Clone, Copy)]
struct Place {
    step: usize,
    vector: usize,
    unit: usize,
    count: usize,
    /// The products' first element, the stride to the next row, and the rows that have one.
    products: *const f32,
    row_stride: usize,
    rows: usize,
}

impl<C: ContextGradient> WithSimd for Walk<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Some(worker) = self.worker else { return };
        let (hidden, lanes, gates) = (self.hidden, S::F32_LANES, self.cell.gates());
        let vectors = hidden.div_ceil(lanes);
        let width = panel_width(vectors, MOST_VECTORS, self.workers);
        let share = worker.share(vectors.div_ceil(width));
        let before = self.cell == Cell::Gru { reset_before: true };
        let pack = |groups: std::ops::Range<usize>| {
            let columns = gate_columns(groups, hidden, lanes);
            let mut panels = Panels::new(share.clone(), vectors, width, 1, columns.len(), lanes);
            panels.pack_transposed(self.weight, gates * hidden, &columns, hidden, lanes);
            panels
        };
        // The gates whose product with the transposed weights reaches the state before the step. With the
        // reset before the product, the new gate's reaches `r * h` first.
        let state_gates = if before { 2 } else { gates };
        let panels = pack(0..state_gates);
        let scaled_panels = before.then(|| pack(2..3));
        let query_size = self.context.query_size();
        let mut query_panels = Panels::new(share.clone(), vectors, width, 1, query_size, lanes);
        let columns: Vec<_> = (0..query_size).map(Some).collect();
        query_panels.pack_transposed(self.context.query_weight(), query_size, &columns, hidden, lanes);
        let local = self.context.begin(simd, worker);
        self.gather_previous(simd, worker);
        worker.wait();

        let units = panels.units.first().map_or(0..0, |first| first.start..panels.units[panels.units.len() - 1].end);
        let mut dbias = Buffer::new(units.len() * gates * lanes);
        let mut scratch = Buffer::new(self.batch * MOST_VECTORS * lanes);
        let scratch = scratch.as_mut_ptr();
        let steps = self.schedule.steps();
        for step in (0..steps).rev() {
            let next = (step + 1 < steps).then_some(step + 1);
            for (index, covered) in panels.units.iter().enumerate() {
                self.multiply(simd, &panels, index, next, 0..state_gates, scratch);
                self.multiply_queries(simd, &query_panels, index, next, scratch);
                for vector in covered.clone() {
                    let at = (vector - units.start) * gates * lanes;
                    let place = self.place::<S>(step, vector, covered, next, scratch);
                    self.step(simd, place, &mut dbias[at..at + gates * lanes]);
                }
            }
            worker.wait();
            if let Some(panels) = &scaled_panels {
                for (index, covered) in panels.units.iter().enumerate() {
                    self.multiply(simd, panels, index, Some(step), 2..3, scratch);
                    for vector in covered.clone() {
                        let at = (vector - units.start) * gates * lanes;
                        let place = self.place::<S>(step, vector, covered, Some(step), scratch);
                        self.gru_before_product(simd, place, &mut dbias[at..at + gates * lanes]);
                    }
                }
                worker.wait();
            }
            self.context.back(simd, &local, worker, self.schedule, step, self.dinputs);
        }
        let first = (steps > 0).then_some(0);
        for (index, covered) in panels.units.iter().enumerate() {
            self.multiply(simd, &panels, index, first, 0..state_gates, scratch);
            self.multiply_queries(simd, &query_panels, index, first, scratch);
            for vector in covered.clone() {
                self.first_states(simd, self.place::<S>(0, vector, covered, first, scratch));
            }
        }
        let parts: &[_] =
            if before { &[(self.previous, 0..2), (self.scaled, 2..3)] } else { &[(self.previous, 0..gates)] };
        let total = self.schedule.total;
        let upstream = Upstream {
            values: self.dgates,
            unit_stride: total * gates * lanes,
            row_stride: gates * lanes,
            gates,
            total,
        };
        weight_gradient(simd, units.clone(), upstream, parts, hidden, hidden, self.dweight);
        self.context.finish(simd, worker, self.schedule, units.clone(), self.dinputs, self.previous);
        for (at, vector) in units.enumerate() {
            for gate in 0..gates {
                let unit = vector * lanes;
                let count = lanes.min(hidden - unit);
                let sum = simd.partial_load_f32s(&dbias[(at * gates + gate) * lanes..][..lanes]);
                // SAFETY: the owner's part of the bias.
                unsafe { self.dbias.store(simd, gate * hidden + unit, count, sum) };
            }
        }
    }
}

impl<C: ContextGradient> Walk<'_, C> {
    /// The product of the gates' gradients at step `of` (if there is one) with a panel of transposed weights.
    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        simd: S,
        panels: &Panels,
        index: usize,
        of: Option<usize>,
        gates_used: std::ops::Range<usize>,
        out: *mut f32,
    ) {
        let Some(step) = of else { return };
        let (gates, lanes) = (self.cell.gates(), S::F32_LANES);
        let width = panels.units[index].len();
        let product = Product {
            a: self.dgates.at((self.schedule.before[step] * gates + gates_used.start) * lanes),
            rows: self.schedule.active[step],
            row_stride: gates * lanes,
            inner_stride: 1,
            chunk: gates_used.len() * lanes,
            chunks: self.hidden.div_ceil(lanes),
            chunk_stride: self.schedule.total * gates * lanes,
            panel: panels.panel(index).as_ptr(),
            panel_stride: width * lanes,
            vector_stride: lanes,
            vectors: width,
            out,
            out_stride: width * lanes,
            accumulate: false,
        };
        // SAFETY: the strides stay in that step's gradients, which nobody writes now, in the panel and in the
        // scratch, which has `MOST_VECTORS` vectors for each sentence.
        unsafe { product.run(simd) };
    }

    /// Adds the product of the queries' gradients at step `of` with a panel of the query's transposed weights.
    #[inline(always)]
    fn multiply_queries<S: Simd>(&self, simd: S, panels: &Panels, index: usize, of: Option<usize>, out: *mut f32) {
        let (Some(step), Some(dqueries)) = (of, self.context.dqueries()) else { return };
        let (size, lanes) = (self.context.query_size(), S::F32_LANES);
        let padded = size.next_multiple_of(lanes);
        let width = panels.units[index].len();
        let product = Product {
            a: dqueries.at(self.schedule.before[step] * padded),
            rows: self.schedule.active[step],
            row_stride: padded,
            inner_stride: 1,
            chunk: size,
            chunks: 1,
            chunk_stride: 0,
            panel: panels.panel(index).as_ptr(),
            panel_stride: width * lanes,
            vector_stride: lanes,
            vectors: width,
            out,
            out_stride: width * lanes,
            accumulate: true,
        };
        // SAFETY: as in `multiply`, with the queries' gradients.
        unsafe { product.run(simd) };
    }

    /// One vector of units, out of those that a panel covers, with its products at step `of`.
    #[inline(always)]
    fn place<S: Simd>(
        &self,
        step: usize,
        vector: usize,
        covered: &std::ops::Range<usize>,
        of: Option<usize>,
        products: *const f32,
    ) -> Place {
        let unit = vector * S::F32_LANES;
        Place {
            step,
            vector,
            unit,
            count: S::F32_LANES.min(self.hidden - unit),
            products: products.wrapping_add((vector - covered.start) * S::F32_LANES),
            row_stride: covered.len() * S::F32_LANES,
            rows: of.map_or(0, |step| self.schedule.active[step]),
        }
    }

    /// The row's place among all positions of the batch.
    #[inline(always)]
    fn position(&self, row: usize, step: usize) -> usize {
        self.schedule.order[row] * self.time + self.schedule.position(row, step)
    }

    /// Copies the states before each step to where the weights' gradient reads them in order.
    #[inline(always)]
    fn gather_previous<S: Simd>(&self, _: S, worker: &Worker<'_>) {
        let (hidden, padded) = (self.hidden, self.hidden.next_multiple_of(S::F32_LANES));
        for step in worker.share(self.schedule.steps()) {
            for row in 0..self.schedule.active[step] {
                let from = if step == 0 {
                    &self.initial[self.schedule.order[row] * hidden..][..hidden]
                } else {
                    &self.results.packed[self.position(row, step - 1) * hidden..][..hidden]
                };
                let at = (self.schedule.before[step] + row) * padded;
                // SAFETY: this worker's steps; the others read them after the barrier.
                unsafe { self.previous.slice_mut(at..at + hidden) }.copy_from_slice(from);
            }
        }
    }

    /// The kept vectors of a running row.
    #[inline(always)]
    fn kept<S: Simd, const N: usize>(&self, simd: S, place: Place, row: usize) -> [S::f32s; N] {
        let row = place.vector * self.schedule.total + self.schedule.before[place.step] + row;
        let values = &self.results.activations[row * N * S::F32_LANES..(row + 1) * N * S::F32_LANES];
        let mut vectors = [simd.splat_f32s(0.0); N];
        for (slot, vector) in vectors.iter_mut().enumerate() {
            *vector = read(simd, values, slot * S::F32_LANES, S::F32_LANES);
        }
        vectors
    }

    /// The gradient of a row's new hidden state: through the next step's gates, directly, and from the outputs.
    #[inline(always)]
    fn dhidden<S: Simd>(&self, simd: S, place: Place, row: usize) -> S::f32s {
        let start = self.position(row, place.step) * self.hidden + place.unit;
        let outputs = read(simd, self.gradient, start, place.count);
        simd.add_f32s(self.through_state(simd, place, row), outputs)
    }

    /// The part of a state's gradient that comes from the step after it.
    #[inline(always)]
    fn through_state<S: Simd>(&self, simd: S, place: Place, row: usize) -> S::f32s {
        // SAFETY: inside the buffer, and only the owner of the units touches it.
        let direct = unsafe { self.direct.load(simd, self.state::<S>(row, place), S::F32_LANES) };
        if row < place.rows { simd.add_f32s(self.product(simd, place, row), direct) } else { direct }
    }

    #[inline(always)]
    fn product<S: Simd>(&self, simd: S, place: Place, row: usize) -> S::f32s {
        // SAFETY: the scratch holds a vector for each of the product's rows.
        unsafe { load(simd, place.products.add(row * place.row_stride), S::F32_LANES) }
    }

    /// Where the state of a row begins for a vector of units.
    #[inline(always)]
    fn state<S: Simd>(&self, row: usize, place: Place) -> usize {
        row * self.hidden.next_multiple_of(S::F32_LANES) + place.unit
    }

    /// Writes gradients of gates' arguments, `first` and the following: `da` on the state's side, `dx` on the
    /// input's (they differ where the reset gate stands between).
    #[inline(always)]
    fn finish<S: Simd, const N: usize>(
        &self,
        simd: S,
        place: Place,
        row: usize,
        first: usize,
        [da, dx]: [[S::f32s; N]; 2],
        dbias: &mut [f32],
    ) {
        let gates = self.cell.gates();
        let running = place.vector * self.schedule.total + self.schedule.before[place.step] + row;
        let inputs = self.position(row, place.step) * gates * self.hidden + place.unit;
        for n in 0..N {
            let gate = first + n;
            let sum = simd.add_f32s(read(simd, dbias, gate * S::F32_LANES, S::F32_LANES), da[n]);
            write(simd, dbias, gate * S::F32_LANES, S::F32_LANES, sum);
            // SAFETY: inside the buffers; only the owner of the units writes them.
            unsafe {
                self.dgates.store(simd, (running * gates + gate) * S::F32_LANES, S::F32_LANES, da[n]);
                if self.two_sides {
                    self.dinputs.store(simd, (running * gates + gate) * S::F32_LANES, S::F32_LANES, dx[n]);
                }
                self.dgates_x.store(simd, inputs + gate * self.hidden, place.count, dx[n]);
            }
        }
    }

    /// Leaves what goes past the gates to the state before.
    #[inline(always)]
    fn leave<S: Simd>(&self, simd: S, states: Shared<'_>, place: Place, row: usize, value: S::f32s) {
        // SAFETY: inside the buffer, and only the owner of the units touches it.
        unsafe { states.store(simd, self.state::<S>(row, place), S::F32_LANES, value) };
    }

    /// One step of the cell backward for the rows that run.
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, place: Place, dbias: &mut [f32]) {
        let rows = self.schedule.active[place.step];
        for row in 0..rows {
            let start = self.position(row, place.step) * self.hidden + place.unit;
            prefetch(self.gradient.as_ptr().wrapping_add(start));
        }
        for row in 0..rows {
            let dh = self.dhidden(simd, place, row);
            let zero = simd.splat_f32s(0.0);
            match self.cell {
                Cell::Rnn => {
                    let [h] = self.kept(simd, place, row);
                    let da = [cell::rnn_backward(simd, h, dh)];
                    self.leave(simd, self.direct, place, row, zero);
                    self.finish(simd, place, row, 0, [da, da], dbias);
                }
                Cell::Lstm => {
                    let [i, f, g, o, c_before] = self.kept(simd, place, row);
                    // SAFETY: inside the buffer, and only the owner of the units touches it.
                    let dc = unsafe { self.dcells.load(simd, self.state::<S>(row, place), S::F32_LANES) };
                    let (da, dc) = cell::lstm_backward(simd, [i, f, g, o], c_before, dh, dc);
                    self.leave(simd, self.direct, place, row, zero);
                    self.leave(simd, self.dcells, place, row, dc);
                    self.finish(simd, place, row, 0, [da, da], dbias);
                }
                Cell::Gru { reset_before: false } => {
                    let [r, z, n, q, h_before] = self.kept(simd, place, row);
                    let [da_z, da_n, direct] = cell::gru_blend_backward(simd, z, n, h_before, dh);
                    let da_r = cell::reset_backward(simd, r, q, da_n);
                    self.leave(simd, self.direct, place, row, direct);
                    let dq = simd.mul_f32s(da_n, r);
                    self.finish(simd, place, row, 0, [[da_r, da_z, dq], [da_r, da_z, da_n]], dbias);
                }
                Cell::Gru { reset_before: true } => {
                    let [r, z, n, h_before] = self.kept(simd, place, row);
                    let [da_z, da_n, direct] = cell::gru_blend_backward(simd, z, n, h_before, dh);
                    self.leave(simd, self.direct, place, row, direct);
                    self.finish(simd, place, row, 1, [[da_z, da_n], [da_z, da_n]], dbias);
                    let padded = self.hidden.next_multiple_of(S::F32_LANES);
                    let at = (self.schedule.before[place.step] + row) * padded + place.unit;
                    // SAFETY: inside the buffer, and only the owner of the units writes it.
                    unsafe { self.scaled.store(simd, at, S::F32_LANES, simd.mul_f32s(r, h_before)) };
                }
            }
        }
    }

    /// The second phase of a GRU with the reset before the product: through `r * h`.
    #[inline(always)]
    fn gru_before_product<S: Simd>(&self, simd: S, place: Place, dbias: &mut [f32]) {
        for row in 0..place.rows {
            let dproduct = self.product(simd, place, row);
            let [r, _, _, h_before] = self.kept(simd, place, row);
            let da_r = [cell::reset_backward(simd, r, h_before, dproduct)];
            self.finish(simd, place, row, 0, [da_r, da_r], dbias);
            // SAFETY: inside the buffer, and only the owner of the units touches it.
            let direct = unsafe { self.direct.load(simd, self.state::<S>(row, place), S::F32_LANES) };
            self.leave(simd, self.direct, place, row, simd.mul_add_f32s(dproduct, r, direct));
        }
    }

    /// The gradients of the initial states of the rows that ran.
    #[inline(always)]
    fn first_states<S: Simd>(&self, simd: S, place: Place) {
        for row in 0..place.rows {
            let dh = self.through_state(simd, place, row);
            let at = self.schedule.order[row] * self.hidden + place.unit;
            // SAFETY: inside the buffers, and only the owner of the units touches them.
            unsafe {
                self.dinitial.store(simd, at, place.count, dh);
                if self.cell == Cell::Lstm {
                    let dc = self.dcells.load(simd, self.state::<S>(row, place), S::F32_LANES);
                    self.dinitial.store(simd, self.batch * self.hidden + at, place.count, dc);
                }
            }
        }
    }
}
