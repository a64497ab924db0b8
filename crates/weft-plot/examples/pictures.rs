//! Draws a set of pictures into a folder: `cargo run --release -p weft-plot --example pictures -- FOLDER`.
//! To look at after a change of the drawing code.

use std::path::Path;

use weft_plot::{
    Alignment, Colour, LineChart, Mark, Panel, PlotError, Series, TextOptions, XUnit, alignment, alignment_text,
    line_chart, sparkline, write,
};

fn main() -> Result<(), PlotError> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = Path::new(&folder);
    let save = |name: &str, svg: &str| {
        write(folder.join(format!("{name}.svg")), svg)?;
        write(folder.join(format!("{name}-dark.png")), &dark(svg))?;
        write(folder.join(format!("{name}.png")), svg)
    };
    save("curves", &line_chart(&curves()))?;
    save("comparison", &line_chart(&comparison()))?;
    save("empty", &line_chart(&LineChart::new("step", vec![Panel::new("loss", vec![])]).titled("Nothing yet")))?;
    let one = Series::new("validation", vec![(200.0, 3.25)]).marked(Mark::Last);
    save("one-point", &line_chart(&LineChart::new("step", vec![Panel::new("loss", vec![one])])))?;
    for (name, map) in maps()? {
        save(name, &alignment(&map))?;
        let plain = alignment_text(&map, &TextOptions::default());
        let coloured = alignment_text(&map, &TextOptions { colour: Colour::Ansi256, ..TextOptions::default() });
        let path = folder.join(format!("{name}.txt"));
        std::fs::write(&path, plain + "\n" + &coloured).map_err(|source| PlotError::Write { path, source })?;
    }
    let losses: Vec<f64> = (0..1000).map(|step| loss(f64::from(step), 5.0)).collect();
    let path = folder.join("sparkline.txt");
    std::fs::write(&path, sparkline(&losses, 60)).map_err(|source| PlotError::Write { path, source })
}

/// The picture as a browser shows it on a dark page: the rules for it come last, and so win when they always hold.
fn dark(svg: &str) -> String {
    svg.replace("@media (prefers-color-scheme: dark) {", "").replace("}\n}\n</style>", "}\n</style>")
}

/// A number in [-1, 1] that looks random.
fn noise(step: f64) -> f64 {
    let value = (step * 12.9898).sin() * 43_758.547;
    2.0 * (value - value.floor()) - 1.0
}

fn loss(step: f64, start: f64) -> f64 {
    1.4 + (start - 1.4) * (-step / 180.0).exp() + 0.9 * (-step / 2_500.0).exp() + 0.22 * noise(step)
}

fn curves() -> LineChart {
    let steps = || (0..6000).map(f64::from);
    let training = Series::smoothed("training", steps().map(|step| (step, loss(step, 8.5))).collect());
    let every = || (1..=30).map(|index| f64::from(index) * 200.0);
    let validation = every().map(|step| (step, loss(step, 8.5) - 0.22 * noise(step) + 0.12 + (step / 9_000.0).powi(3)));
    let validation = Series::new("validation", validation.collect()).marked(Mark::Lowest);
    let bleu = every().map(|step| (step, 39.2 * (1.0 - (-step / 1_400.0).exp()) + 0.3 * noise(step)));
    let bleu = Series::new("BLEU (validation)", bleu.collect()).marked(Mark::Highest);
    let rate = steps().map(|step| (step, 1e-3 * ((step + 1.0) / 800.0).min((800.0 / (step + 1.0)).sqrt())));
    let rate = Series::new("learning rate", rate.collect());
    let panels = vec![
        Panel::new("loss (nats per token)", vec![training, validation]).logarithmic(),
        Panel::new("BLEU", vec![bleu]),
        Panel::new("learning rate", vec![rate]),
    ];
    LineChart {
        subtitle: "Transformer small, 9.2 million parameters, Multi30k en-de, seed 1".to_owned(),
        ..LineChart::new("step", panels).titled("Training a translator")
    }
}

fn comparison() -> LineChart {
    let names = ["Transformer", "attention RNN", "LSTM without attention", "GRU", "plain RNN <tanh>"];
    let series = names.iter().enumerate().map(|(index, name)| {
        let points = (1..=25).map(|minute| {
            let minute = f64::from(minute);
            let value = 1.6 + index as f64 * 0.35 + 5.0 * (-minute / (3.0 + index as f64)).exp();
            let is_gap = index == 3 && (10.0..12.0).contains(&minute);
            (minute * 60.0, if is_gap { f64::NAN } else { value })
        });
        Series::new(*name, points.collect())
    });
    let panels = vec![Panel::new("validation loss", series.collect())];
    LineChart { x_unit: XUnit::Seconds, ..LineChart::new("time", panels).titled("Same data, same time") }
}

fn maps() -> Result<Vec<(&'static str, Alignment)>, PlotError> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let letters = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    let near = |rows: usize, columns: usize, sharpness: f64| {
        let mut weights = Vec::new();
        for row in 0..rows {
            let centre = row as f64 * columns as f64 / rows as f64 + 1.2 * noise(row as f64);
            let scores: Vec<f64> =
                (0..columns).map(|column| (-(column as f64 - centre).abs() * sharpness).exp()).collect();
            let total: f64 = scores.iter().sum();
            weights.extend(scores.iter().map(|score| (score / total) as f32));
        }
        weights
    };
    let map = |source: Vec<String>, target: Vec<String>, sharpness: f64| {
        let weights = near(target.len(), source.len(), sharpness);
        Alignment::new(source, target, weights)
    };
    let long = || words(&"the quick brown fox jumps over the lazy dog and ".repeat(6));
    Ok(vec![
        (
            "words",
            map(
                words("Two young , White males are outside near many bushes . </s>"),
                words("Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche . </s>"),
                1.4,
            )?
            .titled("Where the translator looks"),
        ),
        ("letters", map(letters("Wednesday, 25 November 2026"), letters("2026-11-25"), 1.2)?),
        ("single", map(words("<s>"), words("&amp;"), 1.0)?),
        ("long", map(long(), long(), 1.0)?.titled("Sixty tokens & more")),
        (
            "scripts",
            map(
                words("日本 語 の 文章 です 。 👍"),
                words("Это предложение на Ελληνικά العربية Donaudampfschifffahrtsgesellschaftskapitänsmütze ."),
                1.4,
            )?,
        ),
    ])
}
