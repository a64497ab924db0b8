//! What each head of each layer attends to: small maps in a grid.

use std::fmt::Write as _;

use crate::PlotError;
use crate::alignment::visible;
use crate::font::text_width;
use crate::svg::{Anchor, Canvas, number, shorten};

/// Attention of a sequence to itself, by layer and head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadMaps {
    tokens: Vec<String>,
    /// Of each layer the heads, of each head `[time, time]`, row by row.
    layers: Vec<Vec<Vec<f32>>>,
}

impl HeadMaps {
    /// Maps of these tokens: of each layer the weights `[heads, time, time]`, row by row.
    ///
    /// # Errors
    /// When the number of a layer's weights is not a multiple of the square of the number of tokens.
    pub fn new<S: Into<String>>(
        tokens: impl IntoIterator<Item = S>,
        layers: impl IntoIterator<Item = Vec<f32>>,
    ) -> Result<Self, PlotError> {
        let tokens: Vec<String> = tokens.into_iter().map(Into::into).collect();
        let size = tokens.len() * tokens.len();
        let split = |weights: Vec<f32>| match size > 0 && weights.len().is_multiple_of(size) {
            true => Ok(weights.chunks(size).map(<[f32]>::to_vec).collect()),
            false => Err(PlotError::Weights { rows: tokens.len(), columns: tokens.len(), found: weights.len() }),
        };
        let layers = layers.into_iter().map(split).collect::<Result<_, _>>()?;
        Ok(Self { tokens, layers })
    }

    /// Of each head, as (layer, head) from 1: the mean distance that it looks back, by that of a head which looks at all
    /// tokens up to its own alike. 0 looks at itself, 1 is an even look.
    #[must_use]
    pub fn reaches(&self) -> Vec<([usize; 2], f64)> {
        let time = self.tokens.len();
        let even: f64 = (0..time).map(|row| row as f64 / 2.0).sum();
        let reach = |weights: &[f32]| {
            let distance = |(index, &weight): (usize, &f32)| {
                f64::from(weight) * (index / time).saturating_sub(index % time) as f64
            };
            weights.iter().enumerate().map(distance).sum::<f64>() / even.max(f64::MIN_POSITIVE)
        };
        let of_layer = |(layer, heads): (usize, &Vec<Vec<f32>>)| -> Vec<([usize; 2], f64)> {
            heads.iter().enumerate().map(|(head, weights)| ([layer + 1, head + 1], reach(weights))).collect()
        };
        self.layers.iter().enumerate().flat_map(of_layer).collect()
    }
}

const MARGIN: f64 = 16.0;
const CELL: f64 = 9.0;
const LETTER: f64 = 8.0;
const NAME_SIZE: f64 = 12.0;
const GAP: f64 = 12.0;
/// Room for the tokens beside a row of maps and above it; longer ones are cut.
const LONGEST_LABEL: f64 = 60.0;
/// Maps beside each other; further heads of a layer go below.
const MAPS_IN_A_ROW: usize = 4;
/// Weights below this are white to the eye: leaving them out keeps the files small.
const FAINTEST: f32 = 0.02;

/// Draws the maps as SVG text, a row or more for each layer: in each map a row for each token that looks, a column for
/// each that is looked at, darker where the weight is larger; full colour is a weight of 1.
#[must_use]
pub fn head_maps(maps: &HeadMaps) -> String {
    let labels: Vec<String> = maps.tokens.iter().map(|token| shorten(&visible(token), LETTER, LONGEST_LABEL)).collect();
    let beside = labels.iter().map(|label| text_width(label, LETTER)).fold(0.0, f64::max);
    let upright = beside <= CELL;
    let above = if upright { LETTER } else { beside };
    let side = CELL * maps.tokens.len() as f64;
    let left = MARGIN + beside + 6.0;
    let in_a_row = maps.layers.iter().map(Vec::len).max().unwrap_or(0).clamp(1, MAPS_IN_A_ROW);
    let width = left + in_a_row as f64 * (side + GAP) - GAP + MARGIN;

    let mut canvas = Canvas::new();
    let mut y = MARGIN;
    for (layer, heads) in maps.layers.iter().enumerate() {
        for (row, heads) in heads.chunks(MAPS_IN_A_ROW).enumerate() {
            let top = y + NAME_SIZE + above + 12.0;
            for (index, label) in labels.iter().enumerate() {
                let baseline = top + (index as f64 + 0.5) * CELL + LETTER * 0.35;
                canvas.text((left - 5.0, baseline), "soft", LETTER, Anchor::End, label);
            }
            for (column, weights) in heads.iter().enumerate() {
                let x = left + column as f64 * (side + GAP);
                let name = format!("layer {}, head {}", layer + 1, row * MAPS_IN_A_ROW + column + 1);
                let name = shorten(&name, NAME_SIZE, side.max(90.0));
                canvas.text((x, y + NAME_SIZE), "ink", NAME_SIZE, Anchor::Start, &name);
                for (index, label) in labels.iter().enumerate() {
                    let middle = x + (index as f64 + 0.5) * CELL;
                    if upright {
                        canvas.text((middle, top - 4.0), "soft", LETTER, Anchor::Middle, label);
                    } else {
                        canvas.turned_text((middle + LETTER * 0.35, top - 4.0), -90, "soft", LETTER, label);
                    }
                }
                draw_map(&mut canvas, weights, maps.tokens.len(), (x, top));
            }
            y = top + side + GAP;
        }
    }
    canvas.finish(width.max(2.0 * MARGIN + 90.0), y + MARGIN - GAP, "Attention of each head")
}

fn draw_map(canvas: &mut Canvas, weights: &[f32], time: usize, (left, top): (f64, f64)) {
    let [x, y, side] = [left, top, CELL * time as f64].map(number);
    let mut markup = format!("<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" class=\"frame\"/>\n");
    // One path for each of ten shades: a hundredth of the size of a rectangle for each weight.
    for shade in 1..=10 {
        let mut squares = String::new();
        for (index, &weight) in weights.iter().enumerate() {
            let of_this_shade = weight >= FAINTEST && (weight * 10.0).ceil().min(10.0) == shade as f32;
            if of_this_shade {
                let (row, column) = (index / time, index % time);
                let place = |from: f64, steps: usize| number(from + steps as f64 * CELL + 0.5);
                let _ = write!(squares, "M{} {}h8v8h-8z", place(left, column), place(top, row));
            }
        }
        if !squares.is_empty() {
            let opacity = number(f64::from(shade) / 10.0);
            let _ = writeln!(markup, "<path d=\"{squares}\" class=\"cell\" fill-opacity=\"{opacity}\"/>");
        }
    }
    canvas.raw(&markup);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::png;

    fn causal(time: usize) -> Vec<f32> {
        let weight = |row: usize, column: usize| if column <= row { 1.0 / (row + 1) as f32 } else { 0.0 };
        (0..time * time).map(|index| weight(index / time, index % time)).collect()
    }

    #[test]
    fn every_head_of_every_layer_has_its_map() {
        for tokens in [vec!["a", " ", "\n"], vec!["the", " lantern", "<end>"]] {
            let layers = vec![[causal(3), causal(3)].concat(), vec![causal(3); 5].concat()];
            let svg = head_maps(&HeadMaps::new(tokens, layers).unwrap());
            let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
            let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
            for name in ["layer 1, head 1", "layer 1, head 2", "layer 2, head 1", "layer 2, head 5"] {
                assert!(texts.contains(&name), "{name} is not in {texts:?}");
            }
            // Weights of 1, 1/2 and 1/3.
            for opacity in ["\"1\"", "\"0.5\"", "\"0.4\""] {
                assert!(svg.contains(&format!("fill-opacity={opacity}")), "{opacity}");
            }
            assert!(png(&svg, 1.0).is_ok());
        }
    }

    #[test]
    fn an_even_look_reaches_one() {
        let itself = (0..9).map(|index| if index % 4 == 0 { 1.0 } else { 0.0 }).collect();
        let maps = HeadMaps::new(["a", "b", "c"], [[causal(3), itself].concat()]).unwrap();
        let reaches = maps.reaches();
        assert_eq!(reaches.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [[1, 1], [1, 2]]);
        assert!((reaches[0].1 - 1.0).abs() < 1e-6 && reaches[1].1 == 0.0, "{reaches:?}");
    }

    #[test]
    fn maps_must_be_square() {
        let error = HeadMaps::new(["a", "b"], [vec![1.0; 6]]).unwrap_err();
        assert!(error.to_string().contains("6 were given"), "{error}");
        assert!(HeadMaps::new(Vec::<String>::new(), [vec![1.0]]).is_err());
        assert!(HeadMaps::new(["a"], [vec![f32::NAN, 2.0]]).is_ok_and(|maps| png(&head_maps(&maps), 1.0).is_ok()));
    }
}
