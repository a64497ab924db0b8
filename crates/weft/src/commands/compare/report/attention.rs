//! What attention looks at: the heads of a language model, the alignments of translators.

use weft_plot::{Alignment, HeadMaps, alignment, head_maps};
use weft_train::TranslationData;

use super::super::page::{Csv, Section, escaped, figure, table};
use super::pairs::beam;
use super::{Measured, texts};
use crate::attention::align;
use crate::error::Result;
use crate::model::{TextModel, TranslationModel};

/// Tokens of the text whose maps are drawn.
const TOKENS: usize = 24;
/// About how many tokens a sentence has whose alignment is drawn.
const SENTENCE: usize = 12;
/// Heads differ where the one that looks farthest looks so many times as far as the one that looks least far.
const APART: f64 = 2.0;
/// An alignment points where its largest weights are so many times those of one that does not look.
const POINTS: f64 = 2.0;

/// The maps of the beginning of a text, where the model attends.
///
/// # Errors
/// None in practice: weights that do not fit their tokens.
pub(super) fn heads_of(model: &TextModel, text: &[u32]) -> Result<Option<HeadMaps>> {
    let most = model.model.max_length().unwrap_or(TOKENS).min(TOKENS);
    let tokens = &text[..most.min(text.len())];
    let layers = if tokens.is_empty() { Vec::new() } else { model.model.attention_maps(tokens) };
    if layers.is_empty() {
        return Ok(None);
    }
    let labels = tokens.iter().map(|&token| model.tokenizer.token_text(token));
    Ok(Some(HeadMaps::new(labels, layers)?))
}

/// The alignment of a validation sentence and its translation, where the model attends.
///
/// # Errors
/// Scores that are NaN.
pub(super) fn alignment_of(data: &TranslationData, model: &TranslationModel) -> Result<Option<Alignment>> {
    // By the length in letters, which all tokenizers agree on, so that all models are given the same sentence.
    let sentences = (0..data.validation.len()).map(|index| model.source.decode(data.validation.source.get(index)));
    let sentences = sentences.collect::<std::result::Result<Vec<String>, _>>()?;
    let Some(sentence) = sentences.iter().min_by_key(|text| text.split_whitespace().count().abs_diff(SENTENCE)) else {
        return Ok(None);
    };
    let source = model.encode(sentence)?;
    let found = model.search(std::slice::from_ref(&source), &beam(model), None)?;
    let Some(best) = found.first().and_then(|hypotheses| hypotheses.first()) else { return Ok(None) };
    // A model without attention has no alignment: that is no error here.
    Ok(align(model, &source, &best.tokens).ok())
}

/// The section; none where nothing attends.
pub(super) fn section(all: &[Measured]) -> Option<Section> {
    let heads = texts(all).into_iter().filter_map(|(one, text)| Some((one.name.as_str(), text.heads.as_ref()?)));
    let heads: Vec<(&str, &HeadMaps)> = heads.collect();
    let alignments: Vec<(&str, &Alignment)> =
        all.iter().filter_map(|one| Some((one.name.as_str(), one.pairs.as_ref()?.alignment.as_ref()?))).collect();
    if !heads.is_empty() {
        return Some(of_heads(&heads));
    }
    (!alignments.is_empty()).then(|| of_alignments(&alignments))
}

fn of_heads(heads: &[(&str, &HeadMaps)]) -> Section {
    let mut body = String::new();
    for (name, maps) in heads {
        body += &format!("<h3>{}</h3>\n{}", escaped(name), figure(&head_maps(maps)));
        let row = |(place, reach): ([usize; 2], f64)| {
            vec![format!("layer {}, head {}", place[0], place[1]), format!("{reach:.2}")]
        };
        body += &table(&["looks back", "by an even look"], &maps.reaches().into_iter().map(row).collect::<Vec<_>>());
    }
    let rows = heads.iter().flat_map(|(name, maps)| {
        maps.reaches().into_iter().map(move |([layer, head], reach)| {
            vec![(*name).to_owned(), layer.to_string(), head.to_string(), format!("{reach:.4}")]
        })
    });
    Section {
        title: "Attention, seen",
        claim: "The heads of attention divide the work: some look at the tokens just before, others far back.",
        body,
        verdict: heads.iter().map(|(name, maps)| verdict_of_heads(name, &maps.reaches())).collect::<Vec<_>>().join(" "),
        files: vec![Csv {
            name: "heads",
            heads: vec!["architecture", "layer", "head", "distance looked back, by that of an even look"],
            rows: rows.collect(),
        }],
    }
}

fn verdict_of_heads(name: &str, reaches: &[([usize; 2], f64)]) -> String {
    let by_reach = |a: &&([usize; 2], f64), b: &&([usize; 2], f64)| a.1.total_cmp(&b.1);
    let (Some(near), Some(far)) = (reaches.iter().min_by(by_reach), reaches.iter().max_by(by_reach)) else {
        return format!("{name}: not tested, there are no heads.");
    };
    let shown = |([layer, head], reach): ([usize; 2], f64)| format!("layer {layer}, head {head} ({reach:.2})");
    let word = match far.1 > APART * near.1 {
        _ if reaches.len() == 1 => "not tested, there is one head",
        true => "borne out here",
        false => "not borne out here",
    };
    format!(
        "{name}: {word}. Least far looks {}, farthest {}; 1 is a head that looks at all tokens alike.",
        shown(*near),
        shown(*far)
    )
}

fn of_alignments(alignments: &[(&str, &Alignment)]) -> Section {
    let mut body = String::new();
    for (name, map) in alignments {
        body += &format!("<h3>{}</h3>\n{}", escaped(name), figure(&alignment(map)));
    }
    let sharpness: Vec<(&str, f64)> = alignments.iter().map(|(name, map)| (*name, sharpness(map))).collect();
    let holds = sharpness.iter().all(|(_, sharp)| *sharp > POINTS);
    let list: Vec<String> = sharpness.iter().map(|(name, sharp)| format!("{name} {sharp:.1}")).collect();
    Section {
        title: "Attention, seen",
        claim: "While it writes a word, a translator with attention looks at the words that it translates.",
        body,
        verdict: format!(
            "{}: the largest weight of a target token, by an even look's, on the mean over this sentence: {}.",
            if holds { "Borne out here" } else { "Not borne out here" },
            list.join(", ")
        ),
        files: vec![Csv {
            name: "alignments",
            heads: vec!["architecture", "target place", "target", "source place", "source", "weight"],
            rows: alignments.iter().flat_map(|(name, map)| alignment_rows(name, map)).collect(),
        }],
    }
}

/// The mean over the target of its tokens' largest weights, by that of weights which are all alike.
fn sharpness(map: &Alignment) -> f64 {
    let (rows, columns) = (map.target().len(), map.source().len());
    let largest = |row| (0..columns).map(|column| map.weight(row, column)).fold(0.0, f32::max);
    (0..rows).map(|row| f64::from(largest(row))).sum::<f64>() / rows.max(1) as f64 * columns as f64
}

fn alignment_rows(name: &str, map: &Alignment) -> Vec<Vec<String>> {
    let cells = map.target().iter().enumerate().flat_map(|(row, target)| {
        map.source().iter().enumerate().map(move |(column, source)| (row, target, column, source))
    });
    cells
        .map(|(row, target, column, source)| {
            let weight = format!("{:.4}", map.weight(row, column));
            vec![name.to_owned(), row.to_string(), target.clone(), column.to_string(), source.clone(), weight]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_judged_by_how_far_they_look() {
        let verdict = |reaches: &[f64]| {
            let reaches: Vec<_> = reaches.iter().enumerate().map(|(head, &reach)| ([1, head + 1], reach)).collect();
            verdict_of_heads("gpt", &reaches)
        };
        assert!(verdict(&[0.2, 1.1, 0.9]).starts_with("gpt: borne out here. Least far looks layer 1, head 1 (0.20)"));
        assert!(verdict(&[0.8, 1.1]).starts_with("gpt: not borne out here"));
        assert!(verdict(&[0.8]).starts_with("gpt: not tested"));
    }

    #[test]
    fn an_even_alignment_is_not_sharp() -> std::result::Result<(), weft_plot::PlotError> {
        let even = Alignment::new(["a", "b"], ["c", "d"], vec![0.5; 4])?;
        let sharp = Alignment::new(["a", "b"], ["c", "d"], vec![1.0, 0.0, 0.0, 1.0])?;
        assert_eq!([sharpness(&even), sharpness(&sharp)], [1.0, 2.0]);
        Ok(())
    }
}
