use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::calendar::{Date, NUM_DAYS};
use super::*;

/// The weekday by Zeller's congruence, from 0 for Monday: independent of the counting of days.
fn zeller(date: Date) -> usize {
    let (year, month) = if date.month < 3 { (date.year - 1, date.month + 12) } else { (date.year, date.month) };
    let (century, year) = (year / 100, year % 100);
    let from_saturday = (date.day + 13 * (month + 1) / 5 + year + year / 4 + century / 4 + 5 * century) % 7;
    (from_saturday as usize + 5) % 7
}

/// Words back to the number: each word is looked up, `thousand` closes what came before it.
fn number_of(words: &str) -> u32 {
    let small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
                 seventeen eighteen nineteen";
    let tens = "twenty thirty forty fifty sixty seventy eighty ninety";
    let (mut total, mut current) = (0, 0);
    for word in words.split([' ', '-']) {
        if let Some(value) = small.split(' ').position(|name| name == word) {
            current += value as u32;
        } else if let Some(value) = tens.split(' ').position(|name| name == word) {
            current += 10 * (value as u32 + 2);
        } else {
            match word {
                "hundred" => current *= 100,
                "thousand" => (total, current) = (total + 1000 * current, 0),
                "and" => {}
                _ => panic!("{word} is not a number word"),
            }
        }
    }
    total + current
}

fn is_valid_iso(text: &str) -> bool {
    let parts: Vec<u32> = text.split('-').map(|part| part.parse().unwrap()).collect();
    let [year, month, day] = parts[..] else { return false };
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    text.len() == 10 && (1900..2100).contains(&year) && (1..=12).contains(&month) && {
        (1..=lengths[month as usize - 1]).contains(&day)
    }
}

#[test]
fn the_calendar_is_right() {
    let mut previous = String::new();
    for index in 0..NUM_DAYS {
        let date = Date::from_day(index);
        assert_eq!(date.day_index(), index);
        assert!(is_valid_iso(&date.iso()), "{}", date.iso());
        assert!(date.iso() > previous, "{} after {previous}", date.iso());
        assert_eq!(date.weekday(), zeller(date), "{}", date.iso());
        previous = date.iso();
    }
    assert_eq!((Date::from_day(0).iso(), previous), ("1900-01-01".to_owned(), "2099-12-31".to_owned()));
    let weekday = |year, month, day| Date { year, month, day }.weekday();
    // The first landing on the Moon was on a Sunday, the millennium began on a Saturday.
    assert_eq!([weekday(1969, 7, 20), weekday(2000, 1, 1), weekday(2026, 11, 25)], [6, 5, 2]);
}

#[test]
fn dates_are_written_as_their_languages_do() {
    let date = Date { year: 2026, month: 11, day: 25 };
    let first = Date { year: 2000, month: 3, day: 1 };
    let all = |date: Date| -> Vec<String> {
        let languages = dates::LANGUAGES.iter();
        languages.flat_map(|language| language.patterns.iter().map(|pattern| language.write(date, pattern))).collect()
    };
    let (written, first) = (all(date), all(first));
    for text in [
        "Wednesday, November 25, 2026",
        "the 25th of November 2026",
        "25/Nov/2026",
        "Mittwoch, den 25. November 2026",
        "Mi, 25.11.2026",
        "mercredi 25 novembre 2026",
        "miércoles, 25 de noviembre de 2026",
        "mercoledì 25 novembre 2026",
        "quarta-feira, 25 de novembro de 2026",
        "woensdag 25 november 2026",
        "среда, 25 ноября 2026 г.",
    ] {
        assert!(written.iter().any(|found| found == text), "{text} is missing in {written:?}");
    }
    for text in ["March 1st, 2000", "1.3.2000", "01.03.2000", "1er mars 2000", "1º de março de 2000", "01/Mar/2000"] {
        assert!(first.iter().any(|found| found == text), "{text} is missing in {first:?}");
    }
    assert!(written.iter().chain(&first).all(|text| !text.contains(['{', '}'])));
}

/// Two languages may write a date alike, but never two dates.
#[test]
fn no_text_means_two_dates() {
    let mut meanings: HashMap<String, Date> = HashMap::new();
    for index in (0..NUM_DAYS).filter(|index| index / 366 % 29 == 0) {
        let date = Date::from_day(index);
        for language in dates::LANGUAGES {
            for pattern in language.patterns {
                let text = language.write(date, pattern);
                let meaning = *meanings.entry(text.clone()).or_insert(date);
                assert_eq!(meaning, date, "{text}");
            }
        }
    }
}

#[test]
fn numbers_read_as_in_britain() {
    for (number, wanted) in [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (101, "one hundred and one"),
        (1000, "one thousand"),
        (1005, "one thousand and five"),
        (1200, "one thousand two hundred"),
        (23_105, "twenty-three thousand one hundred and five"),
        (300_000, "three hundred thousand"),
        (999_999, "nine hundred and ninety-nine thousand nine hundred and ninety-nine"),
    ] {
        assert_eq!(numbers::words(number), wanted);
    }
    assert_eq!(
        [numbers::digits(999, true), numbers::digits(1005, true), numbers::digits(1005, false)],
        ["999", "1,005", "1005"]
    );
}

#[test]
fn words_say_every_number() {
    assert!((0..1_000_000).all(|number| number_of(&numbers::words(number)) == number));
}

#[test]
fn both_tasks_all_languages_and_all_lengths_are_drawn() {
    let pairs = pairs(1, 20_000);
    let num_dates = pairs.iter().filter(|pair| pair.kind == TaskKind::Date).count();
    assert!((9_000..11_000).contains(&num_dates), "{num_dates}");
    for word in ["the ", "den ", "le ", "el ", "lunedì", "terça-feira", "zondag", "среда"] {
        assert!(pairs.iter().any(|pair| pair.source.contains(word)), "{word}");
    }
    for length in 1..=6 {
        let found = pairs.iter().filter(|pair| pair.kind == TaskKind::Number && pair.source.len() == length).count();
        assert!(found > 50, "{found} numbers of {length} digits");
    }
    let months: HashSet<&str> =
        pairs.iter().filter(|pair| pair.kind == TaskKind::Date).map(|pair| &pair.target[5..7]).collect();
    assert_eq!(months.len(), 12);
}

#[test]
fn one_value_in_ten_is_held_out_whatever_the_seed() {
    let held_out = (0..NUM_DAYS).filter(|&index| side_of_date(Date::from_day(index)) == Side::HeldOut).count();
    assert!((6_900..7_700).contains(&held_out), "{held_out}");
    assert!((0..100).all(|number| side_of_number(number) == Side::Training));
    let sides = |seed: u64| {
        let (train, held_out) = train_and_held_out(seed, 20_000, 2_000);
        let targets = |pairs: Vec<TaskPair>| pairs.into_iter().map(|pair| pair.target).collect::<HashSet<_>>();
        (targets(train), targets(held_out))
    };
    let ((train, held_out), (other_train, other_held_out)) = (sides(1), sides(2));
    assert!(train.is_disjoint(&held_out) && train.is_disjoint(&other_held_out));
    assert!(other_train.is_disjoint(&held_out) && other_train.is_disjoint(&other_held_out));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn pairs_are_right_and_depend_on_the_seed_only(seed: u64, count in 0usize..300) {
        let drawn = pairs(seed, count);
        prop_assert_eq!(&drawn, &pairs(seed, count));
        prop_assert_eq!(&drawn[..count / 2], &pairs(seed, count / 2)[..]);
        for TaskPair { source, target, kind } in &drawn {
            match kind {
                TaskKind::Date => prop_assert!(is_valid_iso(target) && source.contains(&target[..4]), "{source} {target}"),
                TaskKind::Number => prop_assert_eq!(number_of(target), source.replace(',', "").parse::<u32>().unwrap()),
            }
        }
        if count > 50 {
            prop_assert_ne!(drawn, pairs(seed ^ 1, count));
        }
    }

    #[test]
    fn the_split_has_no_source_and_no_date_in_common(seed: u64, train in 0usize..2000, held_out in 0usize..300) {
        let (training, held_out_pairs) = train_and_held_out(seed, train, held_out);
        prop_assert_eq!((training.len(), held_out_pairs.len()), (train, held_out));
        let texts: HashSet<&String> = training.iter().flat_map(|pair| [&pair.source, &pair.target]).collect();
        prop_assert!(held_out_pairs.iter().all(|pair| !texts.contains(&pair.source) && !texts.contains(&pair.target)));
        let sources: HashSet<&String> = held_out_pairs.iter().map(|pair| &pair.source).collect();
        prop_assert_eq!(sources.len(), held_out);
        prop_assert_eq!((training, held_out_pairs), train_and_held_out(seed, train, held_out));
    }
}
