use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::tokenizer::TokenizerKind;

fn tasks() -> impl Strategy<Value = RecallTask> {
    let recall = (1..=LETTERS, 0..200usize).prop_map(|(pairs, more)| RecallTask {
        kind: RecallKind::Recall,
        pairs,
        length: 4 * pairs + more,
    });
    let needle = (4..300usize).prop_map(|length| RecallTask { kind: RecallKind::Needle, pairs: 1, length });
    prop_oneof![recall, needle]
}

/// Capitals stand in pairs and in answers.
fn pairs_of(text: &RecallText) -> usize {
    text.text.bytes().filter(u8::is_ascii_uppercase).count() - text.questions.len()
}

/// Everything that a text promises, read off the text itself.
fn check(task: &RecallTask, found: &RecallText, length: usize, questions: usize) {
    let text = found.text.as_bytes();
    assert_eq!(text.len(), length, "{task:?} {found:?}");
    assert!(found.text.chars().all(|character| RecallTask::ALPHABET.contains(character)));
    assert_eq!(found.questions.len(), questions);
    let places = |wanted: u8| (0..text.len()).filter(|&place| text[place] == wanted).collect::<Vec<_>>();
    for question in &found.questions {
        let (key, answer) = (text[question.place], text[question.place + 1]);
        assert!(key.is_ascii_lowercase() && answer.is_ascii_uppercase(), "{found:?}");
        // The key stood as far before as was said and not since; each time before its value, which stands nowhere else.
        let (keys, answers) = (places(key), places(answer));
        let number = keys.iter().position(|&place| place == question.place).unwrap();
        assert_eq!(keys[number] - keys[number - 1], question.distance, "{found:?}");
        assert_eq!(answers, keys.iter().map(|place| place + 1).collect::<Vec<_>>(), "{found:?}");
    }
    let count = |is_kind: fn(&u8) -> bool| text.iter().filter(|byte| is_kind(byte)).count();
    assert_eq!(count(u8::is_ascii_lowercase), task.pairs + questions);
    assert_eq!(count(u8::is_ascii_uppercase), task.pairs + questions);
    assert!(found.questions.is_sorted_by_key(|question| question.place));
}

proptest! {
    #[test]
    fn answers_are_right_and_distances_as_said(task in tasks(), seed: u64, index: u64) {
        task.check().unwrap();
        let questions = |pairs: usize| match task.kind {
            RecallKind::Recall => ((task.length - 2 * pairs) / 3).max(1),
            RecallKind::Needle => 1,
        };
        let training = task.training_text(seed, index);
        let pairs = pairs_of(&training);
        prop_assert!((1..=task.pairs).contains(&pairs));
        check(&RecallTask { pairs, ..task }, &training, task.length, questions(pairs));
        check(&task, &task.validation_text(index), task.length, questions(task.pairs));
    }

    #[test]
    fn a_test_text_asks_once_at_its_distance(task in tasks(), distance in 2..500usize, index: u64) {
        let text = task.test_text(distance, index);
        prop_assert_eq!(text.questions[0].distance, distance);
        check(&task, &text, task.length_at(distance), 1);
    }

    #[test]
    fn a_text_depends_on_task_seed_and_number_only(task in tasks(), seed: u64, index: u64) {
        prop_assert_eq!(task.training_text(seed, index), task.training_text(seed, index));
        let others = [
            task.training_text(seed ^ 1, index),
            task.training_text(seed, index ^ 1),
            task.validation_text(index),
        ];
        // Four letters and some digits may agree by chance; a text of many does not.
        if task.length >= 20 {
            prop_assert!(!others.contains(&task.training_text(seed, index)));
        }
        prop_assert_eq!(task.training_hash(seed), task.training_hash(seed));
        prop_assert!(task.training_hash(seed) != task.training_hash(seed ^ 1));
        let longer = RecallTask { length: task.length + 1, ..task };
        prop_assert!(task.training_hash(seed) != longer.training_hash(seed));
    }
}

/// Written down: another text would be another task, and runs could not be resumed.
#[test]
fn the_texts_stay_what_they_are() {
    let shown = |kind| RecallTask { length: 24, pairs: if kind == RecallKind::Recall { 3 } else { 1 }, kind };
    let texts = [RecallKind::Recall, RecallKind::Needle].map(|kind| shown(kind).training_text(1, 0).text);
    assert_eq!(texts, ["eBfEcH2cHeB8eB04cH9fE5eB", "73918122nQ984404439815nQ"]);
}

#[test]
fn questions_stand_everywhere() {
    let recall = RecallTask { kind: RecallKind::Recall, pairs: 4, length: 24 };
    let all = |text: &dyn Fn(u64) -> RecallText| {
        (0..2000).flat_map(|index| text(index).questions).map(|question| question.distance).collect::<HashSet<_>>()
    };
    assert_eq!(all(&|index| recall.training_text(7, index)), (2..=22).collect());
    let full = (0..2000).filter(|&index| pairs_of(&recall.training_text(7, index)) == 4).count();
    assert!((1150..1350).contains(&full), "{full} of 2000 have all pairs, wanted five eighths");
    let needle = RecallTask { kind: RecallKind::Needle, pairs: 1, length: 24 };
    assert_eq!(all(&|index| needle.training_text(7, index)), (2..=22).collect());
    // Every pair is asked that can be.
    let pairs = |distance| {
        let text = |index| recall.test_text(distance, index).questions[0].place - distance;
        (0..200).map(|index| text(index) / 2).collect::<HashSet<_>>()
    };
    assert_eq!([pairs(2), pairs(5), pairs(8), pairs(22), pairs(23)].map(|pairs| pairs.len()), [1, 2, 4, 1, 4]);
}

#[test]
fn impossible_tasks_are_errors() {
    let message = |kind, pairs, length| RecallTask { kind, pairs, length }.check().unwrap_err().to_string();
    assert_eq!(message(RecallKind::Recall, 27, 1000), "pairs is 27, wanted 1 to 26, the letters that there are");
    assert_eq!(message(RecallKind::Recall, 0, 10), "pairs is 0, wanted 1 to 26, the letters that there are");
    assert_eq!(message(RecallKind::Needle, 2, 10), "pairs is 2, wanted 1 for a needle");
    assert!(message(RecallKind::Recall, 8, 31).starts_with("length is 31, wanted at least 4 tokens for each pair"));
}

#[test]
fn only_answers_are_targets_whatever_the_tokenizer() {
    let text = |kind| match kind {
        // Alphabets of their own: all letters are there, and longer tokens, too.
        TokenizerKind::Characters => RecallTask::ALPHABET.to_owned(),
        _ => format!("{} aQ aQ aQ bZ bZ bZ", RecallTask::ALPHABET),
    };
    for kind in [TokenizerKind::Characters, TokenizerKind::ByteBpe, TokenizerKind::Bpe] {
        let tokenizer = Tokenizer::train(kind, 400, std::iter::once(Ok(text(kind)))).unwrap();
        let task = RecallTask::new(RecallKind::Recall);
        let texts: Vec<_> = (0..3).map(|index| task.training_text(1, index)).collect();
        let batch = RecallTokens::new(&tokenizer).unwrap().collate(&texts);
        assert_eq!((batch.rows, batch.time), (3, task.length - 1));
        for (row, text) in texts.iter().enumerate() {
            let targets = &batch.targets[row * batch.time..][..batch.time];
            let answers = targets.iter().filter(|&&target| target >= 0).map(|&target| target as u32);
            let wanted = text.questions.iter().map(|question| &text.text[question.place + 1..question.place + 2]);
            assert_eq!(tokenizer.decode(&answers.collect::<Vec<_>>()).unwrap(), wanted.collect::<String>(), "{kind}");
            let inputs: Vec<u32> = batch.inputs[row * batch.time..][..batch.time].iter().map(|&id| id as u32).collect();
            assert_eq!(tokenizer.decode(&inputs).unwrap(), text.text[..batch.time], "{kind}");
        }
    }
}

#[test]
fn a_tokenizer_without_letters_is_refused() {
    let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": {"type": "WordLevel",
        "vocab": {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "0": 4}, "unk_token": "<unk>"}}"#;
    let tokenizer = Tokenizer::from_json(json).unwrap();
    let error = RecallTokens::new(&tokenizer).unwrap_err();
    assert_eq!(error.to_string(), "the tokenizer has no token of its own for `1`, which the recall tasks write");
    assert!(error.hint().is_some());
}
