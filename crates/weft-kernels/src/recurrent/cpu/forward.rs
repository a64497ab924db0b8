//! Forward through time.
#![expect(unsafe_code, reason = "workers read and write parts of shared buffers")]

use pulp::{Simd, WithSimd};

use super::super::cell;
use super::super::panels::{Panels, panel_width};
use super::super::product::{MOST_VECTORS, Product};
use super::super::schedule::Schedule;
use super::super::team::{Buffer, Shared, Worker, load, team, workers_for};
use super::super::{Cell, Recurrence};
use super::{Context, Inputs, kept, lanes};
use crate::fresh::zeros;
use crate::gemm::{Matrix, new_product};
use crate::simd::{Level, prefetch, sigmoid, tanh};

/// Outputs and last states `[batch * time + states * batch, hidden]`, and the kept activations if they are wanted.
pub(crate) fn forward(
    level: Level,
    recurrence: &Recurrence,
    [time, hidden]: [usize; 2],
    inputs: Inputs<'_>,
    context: impl Context,
    keep: bool,
) -> (Vec<f32>, Vec<f32>) {
    let (cell, batch) = (recurrence.cell, recurrence.lengths.len());
    let schedule = Schedule::new(&recurrence.lengths, recurrence.reverse);
    // The last states begin as the initial ones: sentences of length 0 keep them.
    let outputs = batch * time * hidden;
    let mut packed = zeros(outputs + inputs.initial.len());
    packed[outputs..].copy_from_slice(inputs.initial);
    let lanes = lanes(level);
    let padded = hidden.next_multiple_of(lanes);
    let mut activations = zeros(if keep { padded * schedule.total * kept(cell) } else { 0 });
    let [mut states, mut other, mut cells, mut scaled] = [(); 4].map(|()| Buffer::new(batch * padded));
    for (row, &sentence) in schedule.order.iter().enumerate() {
        let row = row * padded..row * padded + hidden;
        states[row.clone()].copy_from_slice(&inputs.initial[sentence * hidden..(sentence + 1) * hidden]);
        if cell == Cell::Lstm {
            cells[row].copy_from_slice(&inputs.initial[(batch + sentence) * hidden..(batch + sentence + 1) * hidden]);
        }
    }
    // Packing the weights costs more than one position's product, which reads them once where they lie.
    let one_product = (schedule.steps() == 1 && context.size() == 0 && cell != Cell::Gru { reset_before: true })
        .then(|| step_product(level, schedule.active[0], &states, padded, &inputs, cell.gates() * hidden));
    let workers = match one_product {
        Some(_) => 1,
        None => {
            workers_for(schedule.total * hidden * (hidden + context.size()) * cell.gates()).min(padded / lanes).max(1)
        }
    };
    let walk = Walk {
        cell,
        time,
        hidden,
        batch,
        inputs,
        context,
        schedule: &schedule,
        states: [Shared::new(&mut states), Shared::new(&mut other)],
        cells: Shared::new(&mut cells),
        scaled: Shared::new(&mut scaled),
        packed: Shared::new(&mut packed),
        activations: keep.then(|| Shared::new(&mut activations)),
        one_product: one_product.as_deref(),
        workers,
        worker: None,
    };
    team(workers, |worker| level.run(Walk { worker: Some(worker), ..walk }));
    (packed, activations)
}

/// The states times the weights, `[rows, columns]`, and room to read a vector from each value.
fn step_product(
    level: Level,
    rows: usize,
    states: &[f32],
    row_stride: usize,
    inputs: &Inputs<'_>,
    columns: usize,
) -> Vec<f32> {
    let hidden = inputs.weight.len() / columns.max(1);
    let states = Matrix { data: states, rows, cols: hidden, row_stride, col_stride: 1 };
    let mut product = new_product(level, states, Matrix::new(inputs.weight, hidden, columns));
    product.resize(rows * columns + lanes(level), 0.0);
    product
}

#[derive(Clone, Copy)]
struct Walk<'a, C> {
    cell: Cell,
    time: usize,
    hidden: usize,
    batch: usize,
    inputs: Inputs<'a>,
    context: C,
    schedule: &'a Schedule,
    /// The hidden states `[row, padded hidden]` before a step and after it, in turns.
    states: [Shared<'a>; 2],
    /// The LSTM's cell states `[row, padded hidden]`; the update gates of a GRU between its two phases.
    cells: Shared<'a>,
    /// `r * h` of a GRU with the reset before the product.
    scaled: Shared<'a>,
    packed: Shared<'a>,
    activations: Option<Shared<'a>>,
    /// Where there is one step only: its products with the states, `[row, gates * hidden]` and a vector more.
    one_product: Option<&'a [f32]>,
    workers: usize,
    worker: Option<&'a Worker<'a>>,
}

/// One vector of units at one step.
#[derive(Clone, Copy)]
struct Place {
    step: usize,
    vector: usize,
    /// The first unit and how many there are.
    unit: usize,
    count: usize,
    /// The products' first element (of those with the states, and of those with the contexts), and the strides
    /// to the next row and gate.
    products: *const f32,
    context_products: *const f32,
    row_stride: usize,
    gate_stride: usize,
}

impl<C: Context> WithSimd for Walk<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Some(worker) = self.worker else { return };
        let (hidden, lanes, gates) = (self.hidden, S::F32_LANES, self.cell.gates());
        let vectors = hidden.div_ceil(lanes);
        let local = self.context.begin(simd, worker);
        if let Some(product) = self.one_product {
            self.context.prepare(simd, &local, worker, self.schedule, 0, self.states[0]);
            for vector in 0..vectors {
                let products = product[vector * lanes..].as_ptr();
                self.gates(simd, 0, self.place::<S>(0, vector, products, gates * hidden, hidden));
            }
            return;
        }
        // A GRU with the reset before the product has two products a step: the second needs all of r.
        let before = self.cell == Cell::Gru { reset_before: true };
        let phases: &[_] = if before { &[(0, 2), (2, 3)] } else { &[(0, gates)] };
        let phases: Vec<_> = phases
            .iter()
            .map(|&(first, end)| {
                let groups = first..end;
                let width = panel_width(vectors, MOST_VECTORS / groups.len(), self.workers);
                let share = worker.share(vectors.div_ceil(width));
                let mut panels = Panels::new(share.clone(), vectors, width, groups.len(), hidden, lanes);
                panels.pack_rows(self.inputs.weight, gates * hidden, groups.clone(), hidden, lanes);
                let inner = self.context.size();
                let mut context_panels = Panels::new(share, vectors, width, groups.len(), inner, lanes);
                context_panels.pack_rows(self.context.weight(), gates * hidden, groups.clone(), hidden, lanes);
                (groups, panels, context_panels)
            })
            .collect();
        let mut scratch = [(); 2].map(|()| Buffer::new(self.batch * MOST_VECTORS * lanes));
        for step in 0..self.schedule.steps() {
            let rows = self.schedule.active[step];
            let state = self.states[step % 2];
            self.context.prepare(simd, &local, worker, self.schedule, step, state);
            for (phase, (groups, panels, context_panels)) in phases.iter().enumerate() {
                let operand = if phase == 0 { state } else { self.scaled };
                for (index, units) in panels.units.iter().enumerate() {
                    let wide = units.len() * groups.len();
                    self.ask_for_inputs(step, groups.clone(), units.start * lanes);
                    let product = Product {
                        a: operand.at(0),
                        rows,
                        row_stride: vectors * lanes,
                        inner_stride: 1,
                        chunk: hidden,
                        chunks: 1,
                        chunk_stride: 0,
                        panel: panels.panel(index).as_ptr(),
                        panel_stride: wide * lanes,
                        vector_stride: lanes,
                        vectors: wide,
                        out: scratch[0].as_mut_ptr(),
                        out_stride: wide * lanes,
                        accumulate: false,
                    };
                    // SAFETY: the states have `rows` rows of `vectors * lanes` values and nobody writes those
                    // of this phase; the panel holds `hidden` times `wide` vectors, the scratch `batch` times.
                    unsafe { product.run(simd) };
                    if self.context.size() > 0 {
                        let product = Product {
                            a: self.context.step_contexts().at(0),
                            row_stride: self.context.size().next_multiple_of(lanes),
                            chunk: self.context.size(),
                            panel: context_panels.panel(index).as_ptr(),
                            out: scratch[1].as_mut_ptr(),
                            ..product
                        };
                        // SAFETY: as above, with the contexts instead of the states.
                        unsafe { product.run(simd) };
                    }
                    for (u, vector) in units.clone().enumerate() {
                        let (row_stride, gate_stride) = (wide * lanes, units.len() * lanes);
                        let products = scratch[0][u * lanes..].as_ptr();
                        let context_products = scratch[1][u * lanes..].as_ptr();
                        let place = self.place::<S>(step, vector, products, row_stride, gate_stride);
                        self.gates(simd, phase, Place { context_products, ..place });
                    }
                }
                worker.wait();
            }
        }
    }
}

impl<C: Context> Walk<'_, C> {
    /// A vector of units at a step, without products of contexts.
    #[inline(always)]
    fn place<S: Simd>(
        &self,
        step: usize,
        vector: usize,
        products: *const f32,
        row_stride: usize,
        gate_stride: usize,
    ) -> Place {
        let unit = vector * S::F32_LANES;
        let count = S::F32_LANES.min(self.hidden - unit);
        Place { step, vector, unit, count, products, context_products: products, row_stride, gate_stride }
    }

    /// What follows a phase's products.
    #[inline(always)]
    fn gates<S: Simd>(&self, simd: S, phase: usize, place: Place) {
        match (self.cell, phase) {
            (Cell::Rnn, _) => self.rnn(simd, place),
            (Cell::Lstm, _) => self.lstm(simd, place),
            (Cell::Gru { reset_before: false }, _) => self.gru_after(simd, place),
            (Cell::Gru { reset_before: true }, 0) => self.gru_before_product(simd, place),
            (Cell::Gru { reset_before: true }, _) => self.gru_before(simd, place),
        }
    }

    /// Fetches the inputs that the panel's gates will read after its product: each lies in a line of its own.
    #[inline(always)]
    fn ask_for_inputs(&self, step: usize, groups: std::ops::Range<usize>, unit: usize) {
        for row in 0..self.schedule.active[step] {
            let inputs = self.position(row, step) * self.cell.gates() * self.hidden + unit;
            for gate in groups.clone() {
                prefetch(self.inputs.gates_x.as_ptr().wrapping_add(inputs + gate * self.hidden));
            }
        }
    }

    /// The row's place among all positions of the batch.
    #[inline(always)]
    fn position(&self, row: usize, step: usize) -> usize {
        self.schedule.order[row] * self.time + self.schedule.position(row, step)
    }

    /// Calls `body(row, x, u)` for each running row: the gates' arguments from the input and from the state.
    #[inline(always)]
    fn rows<S: Simd, const G: usize>(
        &self,
        simd: S,
        place: Place,
        first_gate: usize,
        mut body: impl FnMut(usize, [S::f32s; G], [S::f32s; G]),
    ) {
        let (Place { unit, count, .. }, hidden) = (place, self.hidden);
        let zero = simd.splat_f32s(0.0);
        let mut biases = [zero; G];
        for (gate, bias) in biases.iter_mut().enumerate() {
            let start = (first_gate + gate) * hidden + unit;
            *bias = simd.partial_load_f32s(&self.inputs.bias[start..start + count]);
        }
        for row in 0..self.schedule.active[place.step] {
            let inputs = self.position(row, place.step) * self.cell.gates() * hidden + unit;
            let (mut x, mut u) = ([zero; G], [zero; G]);
            for gate in 0..G {
                let start = inputs + (first_gate + gate) * hidden;
                let values = &self.inputs.gates_x[start..start + count];
                // SAFETY: `values` has `count` elements; the products have a vector at each row and gate.
                unsafe {
                    x[gate] = load(simd, values.as_ptr(), count);
                    let product = place.products.add(row * place.row_stride + gate * place.gate_stride);
                    let product = load(simd, product, S::F32_LANES);
                    u[gate] = simd.add_f32s(product, biases[gate]);
                    if self.context.size() > 0 {
                        let product = place.context_products.add(row * place.row_stride + gate * place.gate_stride);
                        x[gate] = simd.add_f32s(x[gate], load(simd, product, S::F32_LANES));
                    }
                }
            }
            body(row, x, u);
        }
    }

    /// Where the state of a row begins for a vector of units.
    #[inline(always)]
    fn state<S: Simd>(&self, row: usize, place: Place) -> usize {
        row * self.hidden.next_multiple_of(S::F32_LANES) + place.unit
    }

    /// Keeps vectors for the way back, from slot `first` on.
    #[inline(always)]
    fn keep<S: Simd, const N: usize>(&self, simd: S, place: Place, row: usize, first: usize, values: [S::f32s; N]) {
        let Some(activations) = self.activations else { return };
        let row = place.vector * self.schedule.total + self.schedule.before[place.step] + row;
        for (slot, value) in values.into_iter().enumerate() {
            let offset = (row * kept(self.cell) + first + slot) * S::F32_LANES;
            // SAFETY: inside the activations, and only the owner of the units touches them.
            unsafe { activations.store(simd, offset, S::F32_LANES, value) };
        }
    }

    /// Writes a new hidden state: for the next step, to the outputs, and at a sentence's end to its last state.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, place: Place, row: usize, h: S::f32s) {
        let Place { step, unit, count, .. } = place;
        let output = self.position(row, step) * self.hidden + unit;
        // SAFETY: inside the buffers, and only the owner of the units touches them in this phase.
        unsafe {
            self.states[(step + 1) % 2].store(simd, self.state::<S>(row, place), S::F32_LANES, h);
            self.packed.store(simd, output, count, h);
            self.last(simd, place, row, 0, h);
        }
    }

    /// Writes a state to the sentence's last states if this is its last step.
    ///
    /// # Safety
    /// Only the owner of the units calls it.
    #[inline(always)]
    unsafe fn last<S: Simd>(&self, simd: S, place: Place, row: usize, which: usize, state: S::f32s) {
        if place.step + 1 == self.schedule.lengths[row] {
            let row = self.batch * self.time + which * self.batch + self.schedule.order[row];
            // SAFETY: inside the packed result; the caller's promise.
            unsafe { self.packed.store(simd, row * self.hidden + place.unit, place.count, state) };
        }
    }

    /// Reads a state that the owner of the units, or nobody, writes in this phase.
    #[inline(always)]
    fn read<S: Simd>(&self, simd: S, states: Shared<'_>, row: usize, place: Place) -> S::f32s {
        // SAFETY: inside the buffer; see above.
        unsafe { states.load(simd, self.state::<S>(row, place), S::F32_LANES) }
    }

    #[inline(always)]
    fn rnn<S: Simd>(&self, simd: S, place: Place) {
        self.rows(
            simd,
            place,
            0,
            #[inline(always)]
            |row, [x], [u]| {
                let h = tanh(simd, simd.add_f32s(x, u));
                self.keep(simd, place, row, 0, [h]);
                self.finish(simd, place, row, h);
            },
        );
    }

    #[inline(always)]
    fn lstm<S: Simd>(&self, simd: S, place: Place) {
        self.rows(
            simd,
            place,
            0,
            #[inline(always)]
            |row, x: [S::f32s; 4], u| {
                let c_before = self.read(simd, self.cells, row, place);
                let mut a = x;
                for (a, &u) in a.iter_mut().zip(&u) {
                    *a = simd.add_f32s(*a, u);
                }
                let ([i, f, g, o], c, h) = cell::lstm(simd, a, c_before);
                self.keep(simd, place, row, 0, [i, f, g, o, c_before]);
                // SAFETY: inside the buffers, and only the owner of the units touches them.
                unsafe {
                    self.cells.store(simd, self.state::<S>(row, place), S::F32_LANES, c);
                    self.last(simd, place, row, 1, c);
                }
                self.finish(simd, place, row, h);
            },
        );
    }

    #[inline(always)]
    fn gru_after<S: Simd>(&self, simd: S, place: Place) {
        self.rows(
            simd,
            place,
            0,
            #[inline(always)]
            |row, x, u| {
                let h_before = self.read(simd, self.states[place.step % 2], row, place);
                let ([r, z, n], h) = cell::gru_after(simd, x, u, h_before);
                self.keep(simd, place, row, 0, [r, z, n, u[2], h_before]);
                self.finish(simd, place, row, h);
            },
        );
    }

    /// The first phase of a GRU with the reset before the product: `r`, `z` and `r * h`.
    #[inline(always)]
    fn gru_before_product<S: Simd>(&self, simd: S, place: Place) {
        self.rows(
            simd,
            place,
            0,
            #[inline(always)]
            |row, x: [S::f32s; 2], u| {
                let h_before = self.read(simd, self.states[place.step % 2], row, place);
                let r = sigmoid(simd, simd.add_f32s(x[0], u[0]));
                let z = sigmoid(simd, simd.add_f32s(x[1], u[1]));
                self.keep(simd, place, row, 0, [r, z]);
                self.keep(simd, place, row, 3, [h_before]);
                let state = self.state::<S>(row, place);
                // SAFETY: inside the buffers; only the owner of the units touches them in this phase.
                unsafe {
                    self.cells.store(simd, state, S::F32_LANES, z);
                    self.scaled.store(simd, state, S::F32_LANES, simd.mul_f32s(r, h_before));
                }
            },
        );
    }

    /// The second phase: `n` and the new state.
    #[inline(always)]
    fn gru_before<S: Simd>(&self, simd: S, place: Place) {
        self.rows(
            simd,
            place,
            2,
            #[inline(always)]
            |row, [x], [u]| {
                let h_before = self.read(simd, self.states[place.step % 2], row, place);
                let z = self.read(simd, self.cells, row, place);
                let n = tanh(simd, simd.add_f32s(x, u));
                self.keep(simd, place, row, 2, [n]);
                self.finish(simd, place, row, cell::gru_blend(simd, z, n, h_before));
            },
        );
    }
}
