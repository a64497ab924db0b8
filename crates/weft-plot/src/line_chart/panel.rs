//! One panel: its axis, grid, legend and lines.

use std::fmt::Write as _;

use super::curve::{Run, runs, smoothed, straightened, thinned};
use super::{LABEL_SIZE, MARGIN, Mark, Panel, Scale, Series, Stroke, TICK_SIZE, XAxis, bounds, fits, measure};
use crate::font::text_width;
use crate::svg::{Anchor, Canvas, dot_class, line_class, number, shorten};
use crate::ticks::{self, Tick, short_value};

/// Points of a series are drawn as dots up to this many.
const MOST_DOTS: usize = 40;
const LEGEND_LINE: f64 = 20.0;
const SWATCH: f64 = 18.0;

/// A panel whose axis is known.
pub(super) struct Prepared<'a> {
    panel: &'a Panel,
    /// The range of heights, in the scale's own measure (logarithms for a logarithmic one).
    range: Option<(f64, f64)>,
    ticks: Vec<Tick>,
    /// Per series, the pieces between gaps, in data units.
    runs: Vec<Vec<Run>>,
}

/// Where a panel goes; `height` is that of the plot itself, without its header.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) height: f64,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(panel: &'a Panel, x_scale: Scale) -> Self {
        let usable = |&(x, y): &(f64, f64)| fits(x_scale, x) && fits(panel.y_scale, y);
        let runs: Vec<Vec<Run>> = panel.series.iter().map(|series| runs(&series.points, usable)).collect();
        let values = runs.iter().flatten().flatten().map(|&(_, y)| measure(panel.y_scale, y));
        let range = bounds(values).map(|(low, high)| padded(low, high));
        let ticks = range.map_or_else(Vec::new, |(low, high)| match panel.y_scale {
            Scale::Linear => ticks::linear(low, high, 5),
            Scale::Logarithmic => ticks::logarithmic(10f64.powf(low), 10f64.powf(high), 5),
        });
        Self { panel, range, ticks, runs }
    }

    /// The room that the labels of the ticks need.
    pub(super) fn label_width(&self) -> f64 {
        self.ticks.iter().map(|tick| text_width(&tick.label, TICK_SIZE)).fold(14.0, f64::max)
    }

    /// Draws the panel and returns where the next one may start.
    pub(super) fn draw(&self, canvas: &mut Canvas, frame: Frame, x_axis: &XAxis, first_colour: usize) -> f64 {
        let top = self.draw_header(canvas, frame, first_colour);
        let frame = Frame { top, ..frame };
        let bottom = top + frame.height;
        for tick in &x_axis.ticks {
            let x = x_axis.place(tick.value, frame.left, frame.right);
            canvas.line((x, top), (x, bottom), "grid");
        }
        for tick in &self.ticks {
            let y = self.height_of(tick.value, frame);
            canvas.line((frame.left, y), (frame.right, y), "grid");
            canvas.text((frame.left - 8.0, y + TICK_SIZE * 0.35), "soft", TICK_SIZE, Anchor::End, &tick.label);
        }
        canvas.line((frame.left, bottom), (frame.right, bottom), "axis");
        if self.range.is_none() {
            let middle = (f64::midpoint(frame.left, frame.right), top + frame.height / 2.0);
            canvas.text(middle, "soft", LABEL_SIZE, Anchor::Middle, "no data yet");
            return bottom;
        }
        let place = |&(x, y): &(f64, f64)| (x_axis.place(x, frame.left, frame.right), self.height_of(y, frame));
        let placed: Vec<Vec<Run>> =
            self.runs.iter().map(|runs| runs.iter().map(|run| run.iter().map(place).collect()).collect()).collect();
        for (index, (series, runs)) in self.panel.series.iter().zip(&placed).enumerate() {
            draw_series(canvas, series, runs, first_colour + index);
        }
        // Marks last, so that no line crosses them.
        let mut labels = Vec::new();
        for index in 0..placed.len() {
            self.draw_mark(canvas, index, &placed, frame, first_colour, &mut labels);
        }
        bottom
    }

    fn height_of(&self, y: f64, frame: Frame) -> f64 {
        let (low, high) = self.range.unwrap_or((0.0, 1.0));
        frame.top + frame.height * (1.0 - (measure(self.panel.y_scale, y) - low) / (high - low))
    }

    /// The name of the axis at the left, the legend beside it or, where there is no room, below; returns the plot's top.
    fn draw_header(&self, canvas: &mut Canvas, frame: Frame, first_colour: usize) -> f64 {
        let mut baseline = frame.top + 22.0;
        let label = match self.panel.y_scale {
            Scale::Linear => self.panel.y_label.clone(),
            Scale::Logarithmic => format!("{}, log scale", self.panel.y_label),
        };
        let label = shorten(&label, LABEL_SIZE, frame.right - MARGIN);
        canvas.text((MARGIN, baseline), "ink", LABEL_SIZE, Anchor::Start, &label);
        let most = frame.right - frame.left;
        let items: Vec<(String, f64)> =
            self.panel.series.iter().map(|series| legend_item(&series.name, most)).collect();
        if matches!(&self.panel.series[..], [only] if only.name == self.panel.y_label) {
            // The axis has said it already.
            return baseline + 12.0;
        }
        let total: f64 = items.iter().map(|(_, width)| width).sum();
        let beside = MARGIN + text_width(&label, LABEL_SIZE) + 24.0;
        let mut x = frame.left;
        if total <= frame.right - beside + 18.0 {
            x = frame.right + 18.0 - total;
        } else {
            baseline += LEGEND_LINE;
        }
        let line_start = frame.left;
        for (index, (name, width)) in items.iter().enumerate() {
            if x > line_start && x + width > frame.right + 19.0 {
                x = line_start;
                baseline += LEGEND_LINE;
            }
            let colour = first_colour + index;
            let middle = baseline - LABEL_SIZE * 0.33;
            let dashed = if self.panel.series[index].stroke == Stroke::Dashed { " dashed" } else { "" };
            canvas.line((x, middle), (x + SWATCH, middle), &format!("line {}{dashed}", line_class(colour)));
            canvas.text((x + SWATCH + 6.0, baseline), "ink", LABEL_SIZE, Anchor::Start, name);
            x += width;
        }
        baseline + 12.0
    }

    /// `labels` are the places of those before: left, right and baseline. A value for which there is no room stays unsaid.
    fn draw_mark(
        &self,
        canvas: &mut Canvas,
        index: usize,
        all: &[Vec<Run>],
        frame: Frame,
        first_colour: usize,
        labels: &mut Vec<[f64; 3]>,
    ) {
        let (series, placed) = (&self.panel.series[index], &all[index]);
        let values = self.runs[index].iter().flatten().map(|&(_, y)| y);
        let points = placed.iter().flatten().zip(values);
        let marked = match series.mark {
            Mark::None => None,
            Mark::Lowest => points.min_by(|one, other| one.1.total_cmp(&other.1)),
            Mark::Highest => points.max_by(|one, other| one.1.total_cmp(&other.1)),
            Mark::Last => points.last(),
        };
        let Some((&(x, y), value)) = marked else { return };
        canvas.circle((x, y), 4.5, &format!("{} ring", dot_class(first_colour + index)));
        let label = short_value(value);
        let half = text_width(&label, TICK_SIZE) / 2.0;
        let x = x.clamp(frame.left + half, (frame.right - half).max(frame.left + half));
        // Above or below, wherever fewer points are in the way; a valley's label would rather be below it.
        let (above, below) = (y - 10.0, y + 19.0);
        let crowd = |baseline: f64| {
            let (top, bottom) = (baseline - TICK_SIZE, baseline + 3.0);
            let points = all.iter().flatten().flatten();
            let outside = top < frame.top || bottom > frame.top + frame.height;
            points.filter(|point| (point.0 - x).abs() <= half + 2.0 && (top..=bottom).contains(&point.1)).count()
                + if outside { 1_000_000 } else { 0 }
        };
        let prefers_below = series.mark == Mark::Lowest;
        let is_free = |baseline: f64| {
            let meets = |[left, right, other]: &[f64; 3]| {
                x - half < *right && *left < x + half && (baseline - other).abs() < TICK_SIZE
            };
            !labels.iter().any(meets)
        };
        let key = |baseline, is_second| (!is_free(baseline), crowd(baseline), is_second);
        let is_below = key(below, !prefers_below) < key(above, prefers_below);
        let y = if is_below { below } else { above };
        if is_free(y) {
            canvas.text((x, y), "ink halo", TICK_SIZE, Anchor::Middle, &label);
            labels.push([x - half, x + half, y]);
        }
    }
}

/// A name that fits, and the room for its swatch, itself and the space after it.
fn legend_item(name: &str, most: f64) -> (String, f64) {
    let name = shorten(name, LABEL_SIZE, (most - SWATCH - 24.0).max(20.0));
    let width = SWATCH + 6.0 + text_width(&name, LABEL_SIZE) + 18.0;
    (name, width)
}

fn draw_series(canvas: &mut Canvas, series: &Series, runs: &[Run], colour: usize) {
    let num_points: usize = runs.iter().map(Vec::len).sum();
    let (line, dot) = (line_class(colour), dot_class(colour));
    match series.stroke {
        Stroke::Solid => draw_runs(canvas, runs, &format!("line {line}")),
        Stroke::Dashed => draw_runs(canvas, runs, &format!("line dashed {line}")),
        Stroke::Smoothed => {
            draw_runs(canvas, runs, &format!("faint {line}"));
            let smooth: Vec<Run> = runs.iter().map(|run| smoothed(run)).collect();
            draw_runs(canvas, &smooth, &format!("line {line}"));
        }
    }
    let show_dots = series.stroke == Stroke::Solid && num_points <= MOST_DOTS;
    for run in runs.iter().filter(|run| show_dots || run.len() == 1) {
        for &point in run {
            canvas.circle(point, 3.0, &dot);
        }
    }
}

fn draw_runs(canvas: &mut Canvas, runs: &[Run], class: &str) {
    let mut data = String::new();
    for run in runs.iter().filter(|run| run.len() > 1) {
        for (index, (x, y)) in straightened(&thinned(run)).into_iter().enumerate() {
            let _ = write!(data, "{}{} {}", if index == 0 { 'M' } else { 'L' }, tenths(x), tenths(y));
        }
    }
    if !data.is_empty() {
        canvas.path(&data, class);
    }
}

/// A coordinate of a curve: a tenth of a pixel is enough.
fn tenths(value: f64) -> String {
    number((value * 10.0).round() / 10.0)
}

/// A little air above and below; a range of one value gets some of its own.
fn padded(low: f64, high: f64) -> (f64, f64) {
    let largest = low.abs().max(high.abs());
    // Below this, neighbouring numbers would fall together on the axis.
    let air = if high - low > largest * 1e-9 {
        (high - low) * 0.05
    } else if largest > 0.0 {
        largest * 0.1
    } else {
        1.0
    };
    (low - air, high + air)
}
