//! Where an axis has its ticks, and how they read.

/// A tick: its place on the axis and its label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// The whole numbers among the [`linear`] ticks, for axes that count.
pub(crate) fn whole(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    let most = (high - low).max(1.0) as usize;
    let ticks = linear(low, high, wanted.min(most)).into_iter().filter(|tick| tick.value.fract() == 0.0);
    let format = Format::for_values(1.0, low.abs().max(high.abs()));
    ticks.map(|tick| Tick { label: format.write(tick.value), ..tick }).collect()
}

/// Round numbers (1, 2, 2.5 or 5 times a power of ten apart) within `[low, high]`, about `wanted` of them.
pub(crate) fn linear(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return Vec::new();
    }
    let rough = span / wanted.max(1) as f64;
    let power = rough.log10().floor();
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * 10f64.powf(power));
    let distance = |step: &f64| (step / rough).ln().abs();
    let step = step.into_iter().min_by(|one, other| distance(one).total_cmp(&distance(other))).unwrap_or(rough);
    // A hair of slack, so that a bound that is itself round keeps its tick.
    let slack = step * 1e-6;
    let (first, last) = (((low - slack) / step).ceil(), ((high + slack) / step).floor());
    if !(first.is_finite() && last.is_finite()) || last - first > 1000.0 {
        return Vec::new();
    }
    let values: Vec<f64> = (0..=(last - first).max(-1.0) as i64).map(|index| (first + index as f64) * step).collect();
    let format = Format::for_values(step, low.abs().max(high.abs()));
    values.into_iter().map(|value| Tick { value, label: format.write(value) }).collect()
}

/// Ticks of a logarithmic axis within `[low, high]`, both positive: powers of ten, with more between them the fewer
/// they are, or the linear ticks where the axis is shorter than half a decade.
pub(crate) fn logarithmic(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    if !(low > 0.0 && high > low && high.is_finite()) {
        return Vec::new();
    }
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades = (high / low).log10();
    if decades < 0.5 {
        return linear(low, high, wanted);
    }
    let factors: &[f64] = match decades * 3.0 / wanted as f64 {
        crowded if crowded > 1.5 => &[1.0],
        crowded if crowded > 0.75 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    };
    let stride = ((decades / wanted.max(1) as f64).ceil() as usize).max(1);
    let slack = 1e-9;
    (first..=last)
        .step_by(stride)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(|value| (low * (1.0 - slack)..=high * (1.0 + slack)).contains(value))
        .map(|value| Tick { value, label: Format::for_values(value, value).write(value) })
        .collect()
}

/// A value beside a mark: four significant digits are enough to compare runs.
pub(crate) fn short_value(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    Format::for_values(10f64.powf(size.log10().floor() - 3.0), size).write(value)
}

/// How the numbers of one axis are written.
enum Format {
    Decimals(usize),
    Scientific(usize),
}

impl Format {
    /// For numbers that are multiples of `step` and `largest` at most.
    fn for_values(step: f64, largest: f64) -> Self {
        // Digits after the point until the step shows in full: 2.5 needs one more than 2 or 5.
        let decimals_of = |step: f64| {
            let decimals = (0..=17).find(|&decimals| {
                let scaled = step * 10f64.powi(decimals);
                scaled >= 0.999 && (scaled - scaled.round()).abs() < 1e-6 * scaled
            });
            decimals.unwrap_or(17) as usize
        };
        if !(5e-3..1e7).contains(&largest) {
            let power = largest.log10().floor();
            return Self::Scientific(decimals_of(step / 10f64.powf(power)).min(6));
        }
        Self::Decimals(decimals_of(step))
    }

    fn write(&self, value: f64) -> String {
        match self {
            _ if value == 0.0 => "0".to_owned(),
            Self::Decimals(decimals) => with_thousands(&format!("{value:.decimals$}")),
            Self::Scientific(decimals) => {
                let text = format!("{value:.decimals$e}");
                match text.split_once('e') {
                    Some((digits, power)) if digits.contains('.') => {
                        format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
                    }
                    _ => text,
                }
            }
        }
        .replace('-', "\u{2212}")
    }
}

/// `12345.6` as `12,345.6`; numbers of four digits stay as they are.
fn with_thousands(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, rest) = text.find('.').map_or((text, ""), |dot| text.split_at(dot));
    if whole.len() < 5 {
        return format!("{sign}{whole}{rest}");
    }
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(ticks: Vec<Tick>) -> Vec<String> {
        ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn labels_read_well() {
        assert_eq!(labels(linear(0.0, 10.0, 5)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(linear(0.0, 1e-3, 4)), ["0", "2.5e−4", "5e−4", "7.5e−4", "1e−3"]);
        assert_eq!(labels(whole(0.0, 3.0, 7)), ["0", "1", "2", "3"]);
        assert_eq!(labels(whole(0.0, 16.0, 7)), ["0", "5", "10", "15"]);
        assert_eq!(labels(logarithmic(1.2, 9.5, 5)), ["1.5", "2", "3", "5", "7"]);
        assert_eq!(labels(linear(1.2, 2.4, 5)), ["1.25", "1.50", "1.75", "2.00", "2.25"]);
        assert_eq!(labels(linear(0.0, 25_000.0, 5)), ["0", "5000", "10,000", "15,000", "20,000", "25,000"]);
        assert_eq!(labels(linear(0.0, 3e-4, 3)), ["0", "1e\u{2212}4", "2e\u{2212}4", "3e\u{2212}4"]);
        assert_eq!(labels(linear(-1.0, 1.0, 2)), ["\u{2212}1", "0", "1"]);
        assert_eq!(labels(logarithmic(0.9, 40.0, 5)), ["1", "2", "5", "10", "20"]);
        assert_eq!(
            labels(logarithmic(1e-5, 1.0, 5)),
            ["1e\u{2212}5", "1e\u{2212}4", "1e\u{2212}3", "0.01", "0.1", "1"]
        );
        assert_eq!(
            [0.0, 1.42345, 38.2, 123_456.0, 2.5e-4, 0.9871].map(short_value),
            ["0", "1.423", "38.20", "123,456", "2.5e\u{2212}4", "0.9871"]
        );
    }

    #[test]
    fn impossible_ranges_have_no_ticks() {
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (1e300, 1e300 + 1e280)] {
            assert_eq!(linear(low, high, 5), [], "{low} {high}");
        }
        assert_eq!(logarithmic(0.0, 1.0, 5), []);
        assert_eq!(logarithmic(-1.0, 1.0, 5), []);
    }

    proptest! {
        #[test]
        fn ticks_lie_inside_in_order_and_are_few(low in -1e6f64..1e6, span in 1e-6f64..1e7, wanted in 1usize..12) {
            let high = low + span;
            let ticks = linear(low, high, wanted);
            prop_assert!(ticks.len() <= 2 * wanted + 2);
            prop_assert!(ticks.windows(2).all(|pair| pair[0].value < pair[1].value));
            let slack = span * 1e-3;
            prop_assert!(ticks.iter().all(|tick| (low - slack..=high + slack).contains(&tick.value)));
        }

        #[test]
        fn logarithmic_ticks_are_few(low in -12f64..6.0, decades in 0.01f64..20.0, wanted in 2usize..10) {
            let (low, high) = (10f64.powf(low), 10f64.powf(low + decades));
            let ticks = logarithmic(low, high, wanted);
            prop_assert!(ticks.len() <= 2 * wanted + 3, "{}", ticks.len());
            prop_assert!(ticks.windows(2).all(|pair| pair[0].value < pair[1].value));
        }
    }
}
