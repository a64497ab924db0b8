use proptest::prelude::*;

use super::*;
use crate::png;

fn falling(steps: usize, from: f64, to: f64) -> Vec<(f64, f64)> {
    (0..steps).map(|step| (step as f64, to + (from - to) * (-(step as f64) * 6.0 / steps as f64).exp())).collect()
}

/// Reads the SVG back, and returns its texts.
fn texts(svg: &str) -> Vec<String> {
    let document = resvg::usvg::roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.map(|node| node.text().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_chart_names_its_series_axes_and_best_value() {
    let training = Series::smoothed("training", falling(500, 6.0, 1.5));
    let validation = Series::new("validation", vec![(100.0, 3.0), (200.0, 2.125), (300.0, 2.25)]).marked(Mark::Lowest);
    let rate = Series::new("learning rate", falling(500, 1e-3, 1e-5));
    let panels = vec![Panel::new("loss", vec![training, validation]), Panel::new("rate", vec![rate]).logarithmic()];
    let svg = line_chart(&LineChart::new("step", panels).titled("a <b> & c"));
    let texts = texts(&svg);
    let wanted =
        ["a <b> & c", "loss", "training", "validation", "2.125", "rate, log scale", "learning rate", "step", "400"];
    for text in wanted {
        assert!(texts.iter().any(|found| found == text), "{text} is missing in {texts:?}");
    }
}

/// Of five curves that end in one place two values can be read, above and below; the others stay unsaid.
#[test]
fn values_do_not_cover_each_other() {
    let series = (0..5).map(|i| {
        let end = 1.501 + 1e-4 * f64::from(i);
        Series::new(format!("curve {i}"), vec![(0.0, 3.0), (1.0, end)]).marked(Mark::Last)
    });
    let svg = line_chart(&LineChart::new("step", vec![Panel::new("loss", series.collect())]));
    let values = texts(&svg).into_iter().filter(|text| text.starts_with("1.501")).count();
    assert!((1..=2).contains(&values), "{values}");
}

#[test]
fn long_curves_stay_small_files() {
    let noise: Vec<(f64, f64)> = (0..200_000).map(|step| (f64::from(step), f64::from(step * 7919 % 1000))).collect();
    let svg = line_chart(&LineChart::new("step", vec![Panel::new("loss", vec![Series::smoothed("training", noise)])]));
    assert!(svg.len() < 200_000, "{}", svg.len());
}

#[test]
fn nothing_to_draw_is_said() {
    for panels in [
        vec![Panel::new("loss", vec![])],
        vec![Panel::new("loss", vec![Series::new("training", vec![])])],
        vec![Panel::new("loss", vec![Series::new("training", vec![(1.0, f64::NAN), (f64::INFINITY, 2.0)])])],
        vec![Panel::new("loss", vec![Series::new("training", vec![(1.0, 0.0), (2.0, -1.0)])]).logarithmic()],
    ] {
        let svg = line_chart(&LineChart::new("step", panels));
        assert!(texts(&svg).contains(&"no data yet".to_owned()));
        assert!(png(&svg, 1.0).is_ok());
    }
    assert!(png(&line_chart(&LineChart::new("step", vec![])), 1.0).is_ok());
}

#[test]
fn seconds_become_minutes_and_hours() {
    let chart = |seconds: f64| {
        let points = (0..100).map(|index| (f64::from(index) / 99.0 * seconds, 1.0 / f64::from(index + 1))).collect();
        let panels = vec![Panel::new("loss", vec![Series::new("training", points)])];
        texts(&line_chart(&LineChart { x_unit: XUnit::Seconds, ..LineChart::new("time", panels) }))
    };
    for (seconds, label) in [(100.0, "time (seconds)"), (1200.0, "time (minutes)"), (20_000.0, "time (hours)")] {
        assert!(chart(seconds).contains(&label.to_owned()), "{label}");
    }
    assert!(chart(1200.0).contains(&"20".to_owned()));
}

#[test]
fn a_logarithmic_axis_sets_equal_ratios_equally_far_apart() {
    let points = vec![(0.0, 1.0), (10.0, 1.0), (100.0, 2.0), (1000.0, 4.0)];
    let panels = vec![Panel::new("time", vec![Series::new("model", points)])];
    let svg = line_chart(&LineChart::new("tokens", panels).logarithmic());
    let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
    let dots = document.descendants().filter(|node| node.has_tag_name("circle"));
    let x: Vec<f64> = dots.map(|node| node.attribute("cx").unwrap().parse().unwrap()).collect();
    assert_eq!(x.len(), 3);
    assert!((x[2] - 2.0 * x[1] + x[0]).abs() < 0.05, "{x:?}");
    assert!(["10", "100", "1000"].iter().all(|label| texts(&svg).iter().any(|text| text == label)));
}

#[test]
fn a_gap_breaks_the_path() {
    let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, 1.0)];
    let svg = line_chart(&LineChart::new("step", vec![Panel::new("loss", vec![Series::new("training", points)])]));
    let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
    let path = document.descendants().find(|node| node.has_tag_name("path")).unwrap();
    assert_eq!(path.attribute("d").unwrap().matches('M').count(), 2);
}

fn odd_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -10.0f64..10.0,
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => prop_oneof![Just(0.0), Just(f64::MAX), Just(f64::MIN), Just(f64::MIN_POSITIVE), Just(1e-300)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_chart_is_a_readable_picture(
        series in prop::collection::vec((".{0,40}", prop::collection::vec((odd_number(), odd_number()), 0..30)), 0..5),
        logarithmic: bool,
        mark in prop_oneof![Just(Mark::None), Just(Mark::Lowest), Just(Mark::Highest), Just(Mark::Last)],
        smooth: bool,
        x_logarithmic: bool,
        width in 0u32..1500,
    ) {
        let stroke = if smooth { Stroke::Smoothed } else { Stroke::Solid };
        let series = series.into_iter().map(|(name, points)| Series { name, points, stroke, mark }).collect();
        let scale = |logarithmic| if logarithmic { Scale::Logarithmic } else { Scale::Linear };
        let (x_scale, y_scale) = (scale(x_logarithmic), scale(logarithmic));
        let panel = Panel { y_label: "loss".to_owned(), y_scale, series };
        let svg = line_chart(&LineChart { width, x_scale, ..LineChart::new("step", vec![panel.clone(), panel]) });
        for wrong in ["NaN", "inf"] {
            let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
            let attributes = document.descendants().flat_map(|node| node.attributes()).map(|attribute| attribute.value());
            prop_assert!(attributes.into_iter().all(|value| !value.contains(wrong)));
        }
        prop_assert!(resvg::usvg::Tree::from_str(&svg, &resvg::usvg::Options::default()).is_ok());
    }
}
