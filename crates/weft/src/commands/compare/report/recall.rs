//! How far back a model finds what it has read: associative recall and a needle, by distance.

use weft_plot::{LineChart, Panel, Series, line_chart};
use weft_text::RecallKind;
use weft_train::{ArchitectureKind, RecallAccuracy};

use super::super::page::{Csv, Section, figure, table};
use super::{Measured, listed};

/// Questions at each.
pub(super) const QUESTIONS: usize = 200;
/// Two shares of right answers differ where they are so far apart: more than twice what luck makes of so many questions.
const APART: f64 = 0.1;

/// What a competitor finds again.
pub(super) struct Recalled {
    pub(super) kind: RecallKind,
    /// The share of right answers of who guesses.
    pub(super) chance: f64,
    /// Characters of a text that it learned from.
    pub(super) length: usize,
    /// Distances between a key and its question.
    pub(super) distances: Vec<usize>,
    /// By distance, for each seed.
    pub(super) seeds: Vec<(u64, Vec<RecallAccuracy>)>,
}

/// Distances that fit texts of a length, and two that are farther.
pub(super) fn distances(length: usize) -> Vec<usize> {
    let mut all = [length / 16, length / 8, length / 4, length / 2, length.saturating_sub(4), 2 * length, 4 * length]
        .map(|distance| distance.max(2))
        .to_vec();
    all.dedup();
    all
}

impl Recalled {
    /// The mean share of right answers over the seeds, where all of them could be asked.
    fn at(&self, distance: usize) -> Option<f64> {
        let of = |found: &Vec<RecallAccuracy>| Some(found.iter().find(|found| found.distance == distance)?.accuracy());
        let shares = self.seeds.iter().map(|(_, found)| of(found)).collect::<Option<Vec<f64>>>()?;
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// The least and the greatest share.
    fn spread_at(&self, distance: usize) -> Option<(f64, f64)> {
        let found = self.seeds.iter().flat_map(|(_, found)| found).filter(|found| found.distance == distance);
        let shares = found.map(RecallAccuracy::accuracy);
        shares.fold(None, |spread, share| {
            let (least, most) = spread.unwrap_or((share, share));
            Some((share.min(least), share.max(most)))
        })
    }
}

/// The section; none where nobody was asked.
pub(super) fn section(all: &[Measured]) -> Option<Section> {
    let (mut body, mut said, mut rows) = (String::new(), Vec::new(), Vec::new());
    for kind in [RecallKind::Recall, RecallKind::Needle] {
        let asked: Vec<(&Measured, &Recalled)> =
            all.iter().filter_map(|one| Some((one, one.recalled.iter().find(|found| found.kind == kind)?))).collect();
        let Some((_, first)) = asked.first() else { continue };
        body += &match kind {
            RecallKind::Recall => format!(
                "<h3>Associative recall</h3>\n<p>Pairs of letters, then each first letter again: which one came after it? \
                 Learned from texts of {} characters; guessing is right in {:.0} %.</p>\n",
                first.length,
                100.0 * first.chance
            ),
            RecallKind::Needle => format!(
                "<h3>A needle</h3>\n<p>One pair of letters among digits, asked at the end. Learned from texts of {} characters; \
                 guessing is right in {:.0} %.</p>\n",
                first.length,
                100.0 * first.chance
            ),
        };
        body += &shares_table(&asked);
        body += &shares_chart(&asked);
        said.push(verdict(kind, &asked));
        rows.extend(asked.iter().flat_map(|(one, found)| csv_rows(one, found)));
    }
    (!said.is_empty()).then(|| Section {
        title: "How far back",
        claim: "Attention finds what it has read at every distance that it knows; a recurrent state holds less the longer ago it \
                was, a plain one least.",
        body,
        verdict: said.join(" "),
        files: vec![Csv {
            name: "recall",
            heads: vec!["architecture", "task", "seed", "distance", "questions", "right answers"],
            rows,
        }],
    })
}

fn shares_table(asked: &[(&Measured, &Recalled)]) -> String {
    let distances = asked.first().map_or(&[][..], |(_, found)| &found.distances);
    let heads: Vec<String> = distances.iter().map(|distance| format!("{distance} back")).collect();
    let heads: Vec<&str> = std::iter::once("right answers, %").chain(heads.iter().map(String::as_str)).collect();
    let cell = |found: &Recalled, distance| match (found.at(distance), found.spread_at(distance)) {
        (Some(mean), Some((least, most))) if found.seeds.len() > 1 => {
            format!("{:.0} ({:.0} to {:.0})", 100.0 * mean, 100.0 * least, 100.0 * most)
        }
        (Some(mean), _) => format!("{:.0}", 100.0 * mean),
        (None, _) => "no positions".to_owned(),
    };
    let row = |(one, found): &(&Measured, &Recalled)| {
        std::iter::once(one.name.clone()).chain(distances.iter().map(|&distance| cell(found, distance))).collect()
    };
    table(&heads, &asked.iter().map(row).collect::<Vec<_>>())
}

fn shares_chart(asked: &[(&Measured, &Recalled)]) -> String {
    let series = |(one, found): &(&Measured, &Recalled)| {
        let points =
            found.distances.iter().filter_map(|&distance| Some((distance as f64, 100.0 * found.at(distance)?)));
        Series::new(&one.name, points.collect())
    };
    let panel = Panel::new("right answers, %", asked.iter().map(series).collect());
    figure(&line_chart(&LineChart::new("distance in tokens", vec![panel]).logarithmic()))
}

fn csv_rows(one: &Measured, found: &Recalled) -> Vec<Vec<String>> {
    let of_seed = |(seed, found_by_seed): &(u64, Vec<RecallAccuracy>)| -> Vec<Vec<String>> {
        let row = |at: &RecallAccuracy| {
            let numbers =
                [*seed, at.distance as u64, at.questions as u64, at.correct as u64].map(|count| count.to_string());
            [&[one.name.clone(), found.kind.name().to_owned()], &numbers[..]].concat()
        };
        found_by_seed.iter().map(row).collect()
    };
    found.seeds.iter().flat_map(of_seed).collect()
}

/// Attention and the recurrent networks at the farthest distance that fits the texts they learned from.
fn verdict(kind: RecallKind, asked: &[(&Measured, &Recalled)]) -> String {
    let name = match kind {
        RecallKind::Recall => "Recall",
        RecallKind::Needle => "Needle",
    };
    let fits = |distance: &&usize| asked.iter().all(|(_, found)| **distance + 2 <= found.length);
    let Some(&far) = asked.first().and_then(|(_, found)| found.distances.iter().rev().find(fits)) else {
        return format!("{name}: not tested, the texts are too short.");
    };
    let mut ranked: Vec<(&str, ArchitectureKind, f64)> =
        asked.iter().filter_map(|(one, found)| Some((one.name.as_str(), one.architecture, found.at(far)?))).collect();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
    let list: Vec<String> = ranked.iter().map(|(name, _, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
    let list = format!("Right {far} tokens back: {}.", list.join(", "));
    let recurrent: Vec<_> = ranked.iter().filter(|(_, kind, _)| *kind == ArchitectureKind::RecurrentLm).collect();
    let Some((_, _, attention)) = ranked.iter().find(|(_, kind, _)| *kind == ArchitectureKind::Gpt) else {
        return format!("{name}: not tested, there is no attention to compare with. {list}");
    };
    if recurrent.is_empty() {
        return format!("{name}: not tested, there is no recurrent network to compare with. {list}");
    }
    let chance = asked.first().map_or(0.0, |(_, found)| found.chance);
    let as_good: Vec<&str> =
        recurrent.iter().filter(|(_, _, share)| share + APART > *attention).map(|one| one.0).collect();
    match as_good.len() {
        _ if *attention < chance + APART => {
            format!("{name}: not borne out with this budget, in which attention has not learned the task. {list}")
        }
        0 => format!("{name}: borne out here. {list}"),
        count if count == recurrent.len() => {
            format!("{name}: not borne out here, recurrent networks do as well. {list}")
        }
        _ => format!("{name}: borne out in part, {} as well as attention. {list}", does(&as_good)),
    }
}

fn does(names: &[&str]) -> String {
    format!("{} {}", listed(names), if names.len() == 1 { "does" } else { "do" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, architecture: ArchitectureKind, correct: [usize; 2]) -> Measured {
        let at = |(distance, correct)| RecallAccuracy { distance, questions: QUESTIONS, correct };
        let found = vec![(1, vec![at((8, correct[0])), at((60, correct[1]))])];
        let recalled = vec![Recalled {
            kind: RecallKind::Recall,
            chance: 0.125,
            length: 64,
            distances: distances(64),
            seeds: found,
        }];
        let runs = Vec::new();
        Measured { name: name.into(), architecture, parameters: 1, runs, text: None, recalled, alignment: None }
    }

    #[test]
    fn the_verdict_follows_the_answers() {
        let said = |gpt: [usize; 2], rnn: [usize; 2], lstm: [usize; 2]| {
            let all = [
                measured("gpt", ArchitectureKind::Gpt, gpt),
                measured("rnn", ArchitectureKind::RecurrentLm, rnn),
                measured("lstm", ArchitectureKind::RecurrentLm, lstm),
            ];
            section(&all).map_or_else(String::new, |section| section.verdict)
        };
        let far = "Right 60 tokens back: gpt 98 %, lstm 50 %, rnn 12 %.";
        assert_eq!(said([200, 196], [100, 25], [200, 100]), format!("Recall: borne out here. {far}"));
        assert!(said([200, 196], [100, 25], [200, 190]).starts_with("Recall: borne out in part, lstm does as well"));
        assert!(said([200, 196], [200, 196], [200, 190]).starts_with("Recall: not borne out here, recurrent"));
        assert!(said([30, 26], [30, 25], [30, 25]).contains("attention has not learned the task"));
        let alone = section(&[measured("rnn", ArchitectureKind::RecurrentLm, [1, 1])]).map(|section| section.verdict);
        assert!(alone.is_some_and(|said| said.starts_with("Recall: not tested, there is no attention")));
    }

    #[test]
    fn seeds_have_a_mean_and_a_spread() {
        let mut one = measured("gpt", ArchitectureKind::Gpt, [200, 100]);
        let mut two = measured("gpt", ArchitectureKind::Gpt, [100, 100]);
        one.recalled[0].seeds.append(&mut two.recalled[0].seeds);
        assert_eq!((one.recalled[0].at(8), one.recalled[0].spread_at(8)), (Some(0.75), Some((0.5, 1.0))));
        assert_eq!((one.recalled[0].at(120), one.recalled[0].spread_at(120)), (None, None));
    }
}
