//! How far back the loss of a token reaches.

use weft_plot::{LineChart, Panel, Series, line_chart};
use weft_train::GradientReach;

use super::super::page::{Csv, Section, figure, table};
use super::{Measured, listed, texts};

/// Distances of the table, as far as the windows go.
const DISTANCES: [usize; 7] = [1, 10, 50, 100, 200, 500, 1000];
/// What is near and, at most, what is far where the two are compared.
const NEAR: usize = 1;
const FAR: usize = 100;
/// Curves end where they fall below this: what is less than nothing would press the others together.
const FLOOR: f64 = 1e-20;

/// The section; none without a gradient.
pub(super) fn section(all: &[Measured]) -> Option<Section> {
    let reaches: Vec<(&str, &GradientReach)> =
        texts(all).into_iter().filter_map(|(one, text)| Some((one.name.as_str(), text.gradients.as_ref()?))).collect();
    let farthest = reaches.iter().map(|(_, reach)| reach.trained.len().saturating_sub(1)).min()?;
    let mut body = String::new();
    for (heading, of) in KINDS {
        body += &format!("<h3>{heading}</h3>\n");
        body += &distances_table(&reaches, of, farthest);
        let series = |(name, reach): &(&str, &GradientReach)| {
            let points = relative(of(reach)).into_iter().enumerate().map(|(distance, norm)| (distance as f64, norm));
            Series::new(*name, points.filter(|(_, norm)| *norm >= FLOOR).collect())
        };
        let panel = Panel::new("gradient, relative to distance 0", reaches.iter().map(series).collect()).logarithmic();
        body += &figure(&line_chart(&LineChart::new("tokens back", vec![panel])));
    }
    Some(Section {
        title: "Vanishing gradients",
        claim: "What a token teaches a plain recurrent network about the tokens long before it fades with every step; gates, \
                attention and selective states let it through.",
        body,
        verdict: verdict(&reaches, farthest),
        files: vec![gradients_csv(&reaches)],
    })
}

type Norms = fn(&GradientReach) -> &[f64];

const KINDS: [(&str, Norms); 2] = [("As trained", |reach| &reach.trained), ("Before training", |reach| &reach.fresh)];

/// By the norm at distance 0.
fn relative(norms: &[f64]) -> Vec<f64> {
    let own = norms.first().copied().unwrap_or(f64::NAN);
    norms.iter().map(|norm| norm / own).collect()
}

/// The geometric mean of the norms around a distance, relative to distance 0: single distances are noisy.
fn around(norms: &[f64], distance: usize) -> f64 {
    // As far to both sides, so that a gradient which falls is not taken for larger at the end.
    let reach = (distance / 5).min(norms.len() - 1 - distance);
    let near = &norms[distance - reach..=distance + reach];
    (near.iter().map(|norm| norm.ln()).sum::<f64>() / near.len() as f64).exp() / norms[0]
}

fn distances_table(reaches: &[(&str, &GradientReach)], of: Norms, farthest: usize) -> String {
    let distances: Vec<usize> = DISTANCES.into_iter().filter(|&distance| distance <= farthest).collect();
    let heads: Vec<String> = distances.iter().map(|distance| format!("{distance} back")).collect();
    let heads: Vec<&str> = std::iter::once("architecture").chain(heads.iter().map(String::as_str)).collect();
    let row = |(name, reach): &(&str, &GradientReach)| {
        let cells = distances.iter().map(|&distance| format!("{:.1e}", around(of(reach), distance)));
        std::iter::once((*name).to_owned()).chain(cells).collect()
    };
    table(&heads, &reaches.iter().map(row).collect::<Vec<_>>())
}

fn gradients_csv(reaches: &[(&str, &GradientReach)]) -> Csv {
    let mut rows = Vec::new();
    for (name, reach) in reaches {
        for (weights, of) in ["trained", "fresh"].iter().zip(KINDS.map(|(_, of)| of)) {
            rows.extend(of(reach).iter().zip(relative(of(reach))).enumerate().map(|(distance, (norm, relative))| {
                let (norm, relative) = (format!("{norm:.4e}"), format!("{relative:.4e}"));
                vec![(*name).to_owned(), (*weights).to_owned(), distance.to_string(), norm, relative]
            }));
        }
    }
    Csv {
        name: "gradients",
        heads: vec!["architecture", "weights", "tokens back", "gradient norm", "relative to distance 0"],
        rows,
    }
}

/// The share of the gradient one token back that is left far back, as trained.
fn kept(norms: &[f64], far: usize) -> f64 {
    around(norms, far) / around(norms, NEAR)
}

fn verdict(reaches: &[(&str, &GradientReach)], farthest: usize) -> String {
    let far = farthest.min(FAR);
    if far <= NEAR {
        return "Not tested: the windows of this comparison are too short.".to_owned();
    }
    let mut ranked: Vec<(&str, f64)> = reaches.iter().map(|(name, reach)| (*name, kept(&reach.trained, far))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let list: Vec<String> = ranked.iter().map(|(name, share)| format!("{name} {share:.1e}")).collect();
    let list = format!("Of the gradient one token back, this is left {far} back, as trained: {}.", list.join(", "));
    let Some(&(_, plain)) = ranked.iter().find(|(name, _)| *name == "rnn") else {
        return format!("Not tested: there is no plain recurrent network to compare with. {list}");
    };
    let worse: Vec<&str> =
        ranked.iter().filter(|(name, share)| *name != "rnn" && *share <= plain).map(|(name, _)| *name).collect();
    match worse.len() {
        _ if ranked.len() == 1 => format!("Not tested: only the plain network was trained. {list}"),
        0 => format!("Borne out here: the plain network keeps least. {list}"),
        count if count == ranked.len() - 1 => format!("Not borne out here: the plain network keeps most. {list}"),
        _ => {
            format!("Borne out in part: {} keep no more than the plain network, the others do. {list}", listed(&worse))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(rate: f64) -> GradientReach {
        let norms: Vec<f64> = (0..120).map(|distance| 3.0 * rate.powi(distance)).collect();
        GradientReach { trained: norms.clone(), fresh: norms }
    }

    #[test]
    fn the_verdict_follows_the_gradients() {
        let (fast, slow, middle) = (reach(0.5), reach(0.99), reach(0.9));
        let said = |rnn, gpt| verdict(&[("rnn", rnn), ("gpt", gpt), ("lstm", &middle)], 119);
        assert!(said(&fast, &slow).starts_with("Borne out here"), "{}", said(&fast, &slow));
        assert!(said(&slow, &fast).starts_with("Not borne out here"), "{}", said(&slow, &fast));
        let (faster, fastest) = (reach(0.8), reach(0.7));
        assert!(said(&faster, &fastest).starts_with("Borne out in part: gpt keep"), "{}", said(&faster, &fastest));
        assert!(verdict(&[("gpt", &slow)], 119).starts_with("Not tested"));
    }

    #[test]
    fn norms_are_relative_to_the_last_token() {
        let reach = reach(0.9);
        assert!((around(&reach.trained, 50) / 0.9f64.powi(50) - 1.0).abs() < 1e-9);
        assert!((kept(&reach.trained, 100) / 0.9f64.powi(99) - 1.0).abs() < 1e-9);
    }
}
