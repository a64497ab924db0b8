//! `weft compare --quick`: a generated text, and settings with which everything ends in about ten minutes on two cores.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use weft_models::checkpoint::write_whole;
use weft_text::CounterRng;
use weft_train::Overrides;

use super::plan::Base;
use crate::error::{Error, Result};

/// Stories of the text to learn from and of that to validate on.
const STORIES: [u64; 2] = [4000, 60];
/// What errors and lists call the origin of these settings.
const FROM: &str = "--quick";

/// Writes the texts into `folder`/data and returns the settings of runs of half a minute or less.
///
/// # Errors
/// A folder that cannot be written.
pub(super) fn prepare(folder: &Path, seed: u64) -> Result<Base> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).map_err(|error| Error::file("make the folder", &data, &error))?;
    let paths: [PathBuf; 2] = ["stories.txt", "held-out.txt"].map(|name| data.join(name));
    let mut all = Overrides::new();
    // Held-out stories are drawn from a stream of their own.
    for (stream, (path, key)) in paths.iter().zip(["data.train", "data.validation"]).enumerate() {
        let text: String = (0..STORIES[stream]).map(|index| story(seed, stream as u64, index)).collect();
        write_whole(path, text.as_bytes())?;
        let whole = std::path::absolute(path).map_err(|error| Error::file("find", path, &error))?;
        all.set_value(key, vec![whole.display().to_string()], FROM)?;
    }
    all.set_value("tokenizer.kind", "characters", FROM)?;
    all.set_value("model.size", "200k", FROM)?;
    all.set_value("model.dropout", 0.0, FROM)?;
    all.set_value("training.minutes", 0.4, FROM)?;
    all.set_value("training.batch_tokens", 2048, FROM)?;
    all.set_value("training.warmup_steps", 20, FROM)?;
    all.set_value("training.validation_interval", 25, FROM)?;
    // So narrow, GPT-2's own leaves attention flat for longer than the run.
    let mut attention = Overrides::new();
    attention.set_value("model.initializer_range", 0.1, FROM)?;
    let mut probe = Overrides::new();
    probe.set_value("training.minutes", 0.25, FROM)?;
    probe.set_value("training.warmup_steps", 20, FROM)?;
    probe.set_value("training.validation_interval", 50, FROM)?;
    Ok(Base { text: all, attention, probe })
}

const NAMES: [&str; 12] =
    ["Ada", "Bruno", "Clara", "Edgar", "Frieda", "Hugo", "Ida", "Jonas", "Lina", "Mira", "Otto", "Vera"];
const COLOURS: [&str; 8] = ["red", "blue", "green", "black", "white", "brass", "silver", "wooden"];
const THINGS: [&str; 10] = ["key", "cup", "lantern", "book", "drum", "knife", "letter", "bell", "coat", "map"];
const PLACES: [&str; 10] =
    ["mill", "barn", "harbour", "cellar", "tower", "garden", "school", "forest", "kitchen", "boat"];
const WEATHER: [&str; 6] = [
    "It rained all night.",
    "The snow fell without a sound.",
    "A warm wind came from the sea.",
    "The fog did not lift until noon.",
    "No star could be seen.",
    "The sun went down behind the hills.",
];
const NUMBERS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// A paragraph in which there is something to learn at several ranges: words (letters), sentences (words), a count that
/// goes on (tens of letters), and who has what and where, asked again at the end (a hundred letters and more).
fn story(seed: u64, stream: u64, index: u64) -> String {
    let random = CounterRng::new(seed, &[stream, index]);
    let mut drawn = 0;
    let mut below = |bound: usize| {
        drawn += 1;
        random.below(drawn, bound as u64) as usize
    };
    let first = below(NAMES.len());
    let names = [NAMES[first], NAMES[(first + 1 + below(NAMES.len() - 1)) % NAMES.len()]];
    let owned: [[&str; 3]; 2] = std::array::from_fn(|_| {
        [COLOURS[below(COLOURS.len())], THINGS[below(THINGS.len())], PLACES[below(PLACES.len())]]
    });
    let mut text = String::new();
    for (name, [colour, thing, place]) in names.iter().zip(owned) {
        let _ = write!(text, "{name} keeps the {colour} {thing} in the {place}. ");
    }
    text += WEATHER[below(WEATHER.len())];
    let count = below(NUMBERS.len() - 2);
    let _ = write!(
        text,
        " The miller counted {} sacks, then {} sacks, then {} sacks. ",
        NUMBERS[count],
        NUMBERS[count + 1],
        NUMBERS[count + 2]
    );
    let second = below(2);
    for which in [second, 1 - second] {
        let (name, [colour, thing, place]) = (names[which], owned[which]);
        let _ = write!(text, "{name} went to the {place} and took the {colour} {thing}. ");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_ask_for_what_they_told() {
        for index in 0..50 {
            let text = story(1, 0, index);
            assert_eq!(text, story(1, 0, index));
            assert_ne!(text, story(1, 1, index));
            let words: Vec<&str> = text.split([' ', '.', '\n']).filter(|word| !word.is_empty()).collect();
            for told in words.windows(8).filter(|words| words[1] == "keeps") {
                let (name, thing, place) = (told[0], told[3..5].join(" "), told[7]);
                let asked = format!("{name} went to the {place} and took the {thing}.");
                assert!(text.contains(&asked), "{asked:?} is not in {text:?}");
            }
        }
    }
}
