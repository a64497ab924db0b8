//! Training curves: one or more panels above each other that share the horizontal axis.

mod curve;
mod panel;
#[cfg(test)]
mod tests;

use crate::svg::{Anchor, Canvas, shorten};
use crate::{font, ticks};

/// A picture of training curves.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// The headline; may be empty.
    pub title: String,
    /// A quieter line below it (the configuration, the date); may be empty.
    pub subtitle: String,
    /// What the horizontal axis counts.
    pub x_label: String,
    /// How its values read.
    pub x_unit: XUnit,
    /// Linear or logarithmic; on a logarithmic axis points that are not to the right of zero are left out as gaps.
    pub x_scale: Scale,
    /// The panels, from the top. The first is the tallest.
    pub panels: Vec<Panel>,
    /// Width in SVG units (CSS pixels), at least 320. The height follows from the panels.
    pub width: u32,
}

impl LineChart {
    /// A chart of README width without a title.
    #[must_use]
    pub fn new(x_label: impl Into<String>, panels: Vec<Panel>) -> Self {
        Self {
            title: String::new(),
            subtitle: String::new(),
            x_label: x_label.into(),
            x_unit: XUnit::Number,
            x_scale: Scale::Linear,
            panels,
            width: 800,
        }
    }

    /// The same chart with a headline.
    #[must_use]
    pub fn titled(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// The same chart with a logarithmic horizontal axis.
    #[must_use]
    pub fn logarithmic(self) -> Self {
        Self { x_scale: Scale::Logarithmic, ..self }
    }
}

/// How the values of the horizontal axis read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XUnit {
    /// Plain numbers: steps, epochs.
    #[default]
    Number,
    /// Seconds; shown as seconds, minutes or hours, whichever suits the span.
    Seconds,
}

/// One vertical axis and the series measured on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What the vertical axis measures, with its unit.
    pub y_label: String,
    /// Linear or logarithmic.
    pub y_scale: Scale,
    /// The series, drawn in order.
    pub series: Vec<Series>,
}

impl Panel {
    /// A panel with a linear axis.
    #[must_use]
    pub fn new(y_label: impl Into<String>, series: Vec<Series>) -> Self {
        Self { y_label: y_label.into(), y_scale: Scale::Linear, series }
    }

    /// The same panel with a logarithmic axis: values that are not positive are left out as gaps.
    #[must_use]
    pub fn logarithmic(self) -> Self {
        Self { y_scale: Scale::Logarithmic, ..self }
    }
}

/// How values become places on an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally long.
    #[default]
    Linear,
    /// Equal ratios are equally long.
    Logarithmic,
}

/// Named points. A point with a NaN or an infinity (or a number above 1e290) is a gap in the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// `(x, y)`, in drawing order.
    pub points: Vec<(f64, f64)>,
    /// How the line looks.
    pub stroke: Stroke,
    /// Which point is marked with its value.
    pub mark: Mark,
}

impl Series {
    /// A plain line.
    #[must_use]
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, stroke: Stroke::Solid, mark: Mark::None }
    }

    /// A noisy series, such as the loss of each step: faint as it is, with its running mean drawn over it.
    #[must_use]
    pub fn smoothed(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { stroke: Stroke::Smoothed, ..Self::new(name, points) }
    }

    /// The same series with one point marked by its value.
    #[must_use]
    pub fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stroke {
    /// A line, with dots where the points are few.
    #[default]
    Solid,
    /// A dashed line without dots, for references and schedules.
    Dashed,
    /// The points faintly, and their running mean.
    Smoothed,
}

/// Which point of a series is marked with its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// None.
    #[default]
    None,
    /// The lowest (the best validation loss).
    Lowest,
    /// The highest (the best BLEU).
    Highest,
    /// The last.
    Last,
}

const MARGIN: f64 = 20.0;
const FIRST_PANEL_HEIGHT: f64 = 250.0;
const OTHER_PANEL_HEIGHT: f64 = 130.0;
const TITLE_SIZE: f64 = 19.0;
const LABEL_SIZE: f64 = 13.0;
const TICK_SIZE: f64 = 12.0;

/// Draws training curves as SVG text. Empty charts, single points and gaps are drawn as what they are.
#[must_use]
pub fn line_chart(chart: &LineChart) -> String {
    let width = f64::from(chart.width.max(320));
    let mut canvas = Canvas::new();
    let mut y = MARGIN;
    let room = width - 2.0 * MARGIN;
    if !chart.title.is_empty() {
        y += TITLE_SIZE * 0.8;
        canvas.text((MARGIN, y), "ink", TITLE_SIZE, Anchor::Start, &shorten(&chart.title, TITLE_SIZE, room));
        y += 8.0;
    }
    if !chart.subtitle.is_empty() {
        y += LABEL_SIZE;
        canvas.text((MARGIN, y), "soft", LABEL_SIZE, Anchor::Start, &shorten(&chart.subtitle, LABEL_SIZE, room));
        y += 6.0;
    }
    let x_axis = XAxis::of(chart);
    let prepared: Vec<panel::Prepared> =
        chart.panels.iter().map(|panel| panel::Prepared::new(panel, chart.x_scale)).collect();
    let widest_label = prepared.iter().map(panel::Prepared::label_width).fold(0.0, f64::max);
    let (left, right) = (MARGIN + widest_label + 8.0, width - MARGIN - 6.0);
    for (index, panel) in prepared.iter().enumerate() {
        let height = if index == 0 { FIRST_PANEL_HEIGHT } else { OTHER_PANEL_HEIGHT };
        if index > 0 {
            y += 10.0;
        }
        // Colours run on through the panels, so that no colour means two things in one picture.
        let first_colour = chart.panels[..index].iter().map(|panel| panel.series.len()).sum();
        y = panel.draw(&mut canvas, panel::Frame { left, right, top: y, height }, &x_axis, first_colour);
    }
    y += TICK_SIZE + 6.0;
    for tick in &x_axis.ticks {
        let x = x_axis.place(tick.value, left, right);
        let half = font::text_width(&tick.label, TICK_SIZE) / 2.0;
        canvas.text((x.min(width - 4.0 - half), y), "soft", TICK_SIZE, Anchor::Middle, &tick.label);
    }
    y += LABEL_SIZE + 8.0;
    canvas.text((f64::midpoint(left, right), y), "soft", LABEL_SIZE, Anchor::Middle, &x_axis.label);
    let panels: Vec<&str> = chart.panels.iter().map(|panel| panel.y_label.as_str()).collect();
    let what_is_seen = format!("{} by {}", panels.join("; "), chart.x_label);
    let description = if chart.title.is_empty() { &what_is_seen } else { &chart.title };
    canvas.finish(width, y + MARGIN - 4.0, description)
}

/// The horizontal axis that all panels share.
struct XAxis {
    scale: Scale,
    /// The range, in the scale's own measure.
    low: f64,
    high: f64,
    /// Ticks at values in the unit of the data.
    ticks: Vec<ticks::Tick>,
    label: String,
}

impl XAxis {
    fn of(chart: &LineChart) -> Self {
        let points = chart.panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
        let scale = chart.x_scale;
        let drawable = points.clone().filter(|(x, y)| fits(scale, *x) && is_drawable(*y)).map(|(x, _)| *x);
        let Some((low, high)) = bounds(drawable) else {
            return Self { scale, low: 0.0, high: 1.0, ticks: Vec::new(), label: chart.x_label.clone() };
        };
        let wanted = (f64::from(chart.width) / 110.0) as usize;
        if scale == Scale::Logarithmic && high > low * (1.0 + 1e-9) {
            let ticks = ticks::logarithmic(low, high, wanted);
            return Self { scale, low: low.log10(), high: high.log10(), ticks, label: chart.x_label.clone() };
        }
        let scale = Scale::Linear;
        // A run that starts at a small step starts at the corner; a single point stands in the middle.
        let low = if low > 0.0 && low < 0.1 * high { 0.0 } else { low };
        if high - low <= high.abs() * 1e-9 {
            let air = (high.abs() * 1e-3).max(1.0);
            let ticks = vec![ticks::Tick { value: low, label: ticks::short_value(low) }];
            return Self { scale, low: low - air, high: high + air, ticks, label: chart.x_label.clone() };
        }
        let (unit, name) = match chart.x_unit {
            XUnit::Number => (1.0, None),
            XUnit::Seconds if high < 180.0 => (1.0, Some("seconds")),
            XUnit::Seconds if high < 3.0 * 3600.0 => (60.0, Some("minutes")),
            XUnit::Seconds => (3600.0, Some("hours")),
        };
        let counts = chart.x_unit == XUnit::Number && points.clone().all(|(x, _)| x.fract() == 0.0);
        // Quarters of a minute read worse than fewer ticks.
        let is_long = chart.x_unit == XUnit::Seconds && (high - low) / unit >= 4.0;
        let place = if counts || is_long { ticks::whole } else { ticks::linear };
        let mut ticks = place(low / unit, high / unit, wanted);
        for tick in &mut ticks {
            tick.value *= unit;
        }
        let label = name.map_or_else(|| chart.x_label.clone(), |name| format!("{} ({name})", chart.x_label));
        Self { scale, low, high, ticks, label }
    }

    fn place(&self, x: f64, left: f64, right: f64) -> f64 {
        left + (right - left) * ((measure(self.scale, x) - self.low) / (self.high - self.low))
    }
}

/// Whether a coordinate can be drawn: not NaN or infinite, and sums of it stay finite.
fn is_drawable(value: f64) -> bool {
    value.abs() < 1e290
}

/// Whether a value has a place on an axis.
fn fits(scale: Scale, value: f64) -> bool {
    is_drawable(value) && (scale == Scale::Linear || value > 0.0)
}

/// A value in the scale's own measure: logarithms for a logarithmic one.
fn measure(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Logarithmic => value.log10(),
    }
}

/// The least and the greatest, if there is any.
fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}
