//! How far back a model finds what it has read: associative recall and a needle, by distance.

use weft_plot::{LineChart, Panel, Series, line_chart};
use weft_text::RecallKind;
use weft_train::RecallAccuracy;

use super::super::page::{Csv, Section, figure, table};
use super::{Measured, listed};
use crate::commands::inspect::grouped;

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
    /// Of the model that learned the task.
    pub(super) parameters: usize,
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
            heads: vec!["architecture", "task", "seed", "parameters", "distance", "questions", "right answers"],
            rows,
        }],
    })
}

fn shares_table(asked: &[(&Measured, &Recalled)]) -> String {
    let distances = asked.first().map_or(&[][..], |(_, found)| &found.distances);
    let heads: Vec<String> = distances.iter().map(|distance| format!("{distance} back")).collect();
    let heads: Vec<&str> =
        ["right answers, %", "parameters"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let cell = |found: &Recalled, distance| match (found.at(distance), found.spread_at(distance)) {
        (Some(mean), Some((least, most))) if found.seeds.len() > 1 => {
            format!("{:.0} ({:.0} to {:.0})", 100.0 * mean, 100.0 * least, 100.0 * most)
        }
        (Some(mean), _) => format!("{:.0}", 100.0 * mean),
        (None, _) => "no positions".to_owned(),
    };
    let row = |(one, found): &(&Measured, &Recalled)| {
        let first = [one.name.clone(), grouped(found.parameters)];
        first.into_iter().chain(distances.iter().map(|&distance| cell(found, distance))).collect()
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
            let numbers = [found.parameters, at.distance, at.questions, at.correct].map(|count| count.to_string());
            [&[one.name.clone(), found.kind.name().to_owned(), seed.to_string()], &numbers[..]].concat()
        };
        found_by_seed.iter().map(row).collect()
    };
    found.seeds.iter().flat_map(of_seed).collect()
}

/// Attention to all that was read, and the models with a state of one size, at the farthest distance that fits the texts
/// they learned from. Attention with a window is neither.
fn verdict(kind: RecallKind, asked: &[(&Measured, &Recalled)]) -> String {
    let name = match kind {
        RecallKind::Recall => "Recall",
        RecallKind::Needle => "Needle",
    };
    let fits = |distance: &&usize| asked.iter().all(|(_, found)| **distance + 2 <= found.length);
    let Some(&far) = asked.first().and_then(|(_, found)| found.distances.iter().rev().find(fits)) else {
        return format!("{name}: not tested, the texts are too short.");
    };
    let mut ranked: Vec<(&Measured, f64)> =
        asked.iter().filter_map(|(one, found)| Some((*one, found.at(far)?))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let list: Vec<String> = ranked.iter().map(|(one, share)| format!("{} {:.0} %", one.name, 100.0 * share)).collect();
    let list = format!("Right {far} tokens back: {}.", list.join(", "));
    let Some(&(_, attention)) = ranked.iter().find(|(one, _)| one.attends_to_all) else {
        return format!("{name}: not tested, there is no attention to compare with. {list}");
    };
    let states = ranked.iter().filter(|(one, _)| !one.architecture.attends());
    let states: Vec<(&str, f64)> = states.map(|(one, share)| (one.name.as_str(), *share)).collect();
    if states.is_empty() {
        return format!("{name}: not tested, there is no recurrent state to compare with. {list}");
    }
    let chance = asked.first().map_or(0.0, |(_, found)| found.chance);
    let as_good: Vec<&str> =
        states.iter().filter(|(_, share)| share + APART > attention).map(|(name, _)| *name).collect();
    let plain = states.iter().find(|(name, _)| *name == "rnn");
    let plain_is_least = plain
        .is_none_or(|(_, plain)| *plain < chance + APART || states.iter().all(|(_, share)| share + APART > *plain));
    let but = if plain_is_least { "" } else { ", and the plain state does not hold least" };
    match as_good.len() {
        _ if attention < chance + APART => {
            format!("{name}: not borne out with this budget, in which attention has not learned the task. {list}")
        }
        0 if plain_is_least => format!("{name}: borne out here. {list}"),
        0 => format!("{name}: borne out in part, no state does as well as attention{but}. {list}"),
        count if count == states.len() => {
            format!("{name}: not borne out here, recurrent states do as well. {list}")
        }
        _ => format!("{name}: borne out in part, {} as well as attention{but}. {list}", does(&as_good)),
    }
}

fn does(names: &[&str]) -> String {
    format!("{} {}", listed(names), if names.len() == 1 { "does" } else { "do" })
}

#[cfg(test)]
mod tests {
    use weft_train::ArchitectureKind;

    use super::*;

    fn measured(name: &str, architecture: ArchitectureKind, correct: [usize; 2]) -> Measured {
        let at = |(distance, correct)| RecallAccuracy { distance, questions: QUESTIONS, correct };
        let found = vec![(1, vec![at((8, correct[0])), at((60, correct[1]))])];
        let recalled = vec![Recalled {
            kind: RecallKind::Recall,
            chance: 0.125,
            length: 64,
            parameters: 123_456,
            distances: distances(64),
            seeds: found,
        }];
        Measured { recalled, ..Measured::blank(name, architecture) }
    }

    fn said(all: &[Measured]) -> String {
        section(all).map_or_else(String::new, |section| section.verdict)
    }

    #[test]
    fn the_verdict_follows_the_answers() {
        let said = |gpt: [usize; 2], rnn: [usize; 2], lstm: [usize; 2]| {
            said(&[
                measured("gpt", ArchitectureKind::Gpt, gpt),
                measured("rnn", ArchitectureKind::RecurrentLm, rnn),
                measured("lstm", ArchitectureKind::RecurrentLm, lstm),
            ])
        };
        let far = "Right 60 tokens back: gpt 98 %, lstm 50 %, rnn 12 %.";
        assert_eq!(said([200, 196], [100, 25], [200, 100]), format!("Recall: borne out here. {far}"));
        assert!(said([200, 196], [100, 25], [200, 190]).starts_with("Recall: borne out in part, lstm does as well"));
        assert!(said([200, 196], [200, 196], [200, 190]).starts_with("Recall: not borne out here, recurrent"));
        assert!(said([30, 26], [30, 25], [30, 25]).contains("attention has not learned the task"));
        // The plain network is to be last, unless it only guesses.
        let found = said([200, 196], [200, 150], [200, 100]);
        assert!(found.contains("borne out in part, no state does as well as attention, and the plain"), "{found}");
        assert!(said([200, 196], [200, 40], [200, 10]).starts_with("Recall: borne out here."));
        let alone = self::said(&[measured("rnn", ArchitectureKind::RecurrentLm, [1, 1])]);
        assert!(alone.starts_with("Recall: not tested, there is no attention"), "{alone}");
    }

    #[test]
    fn every_state_is_held_against_the_best_attention() {
        let mut all = [
            measured("gpt", ArchitectureKind::Gpt, [200, 100]),
            measured("llama", ArchitectureKind::Llama, [200, 196]),
            measured("mamba", ArchitectureKind::Mamba, [200, 100]),
            measured("rwkv7", ArchitectureKind::Rwkv7, [200, 195]),
        ];
        let found = said(&all);
        assert!(found.starts_with("Recall: borne out in part, rwkv7 does as well as attention. "), "{found}");
        // With a window it is no attention to all, nor a state of one size.
        all[1].attends_to_all = false;
        let found = said(&all);
        assert!(found.starts_with("Recall: not borne out here, recurrent states do as well. "), "{found}");
    }

    #[test]
    fn the_parameters_stand_beside_the_answers() {
        let found = section(&[measured("gpt", ArchitectureKind::Gpt, [200, 196])]);
        let Some(Section { body, files, .. }) = found else { panic!("nobody was asked") };
        assert!(body.contains(&format!("<td>gpt</td><td>{}</td>", grouped(123_456))), "{body}");
        assert_eq!(files[0].rows[1], ["gpt", "recall", "1", "123456", "60", "200", "196"]);
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
