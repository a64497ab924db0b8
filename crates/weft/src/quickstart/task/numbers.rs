//! Whole numbers below a million: drawn, in digits, and in English words.

use super::random::Draws;

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// A number below a million. Drawn evenly, nine in ten would have six digits; so the length is drawn first. Zeros
/// change the words most and would be rare, so some numbers get more of them.
pub(super) fn draw(draws: &mut Draws) -> u32 {
    let length = *draws.choose(&[1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6]);
    let has_more_zeros = draws.below(4) == 0;
    let mut number = 0;
    for position in 0..length {
        let digit = if position == 0 && length > 1 { 1 + draws.below(9) } else { draws.below(10) };
        let is_zero = position > 0 && has_more_zeros && draws.below(2) == 0;
        number = number * 10 + if is_zero { 0 } else { digit };
    }
    number
}

/// The number in digits, with a comma before the last three or without.
pub(super) fn digits(number: u32, with_comma: bool) -> String {
    if with_comma && number >= 1000 { format!("{},{:03}", number / 1000, number % 1000) } else { number.to_string() }
}

/// The number in words, with the British `and`: `twenty-three thousand one hundred and five`.
pub(super) fn words(number: u32) -> String {
    let (thousands, rest) = (number / 1000, number % 1000);
    match (thousands, rest) {
        (0, _) => below_thousand(rest),
        (_, 0) => format!("{} thousand", below_thousand(thousands)),
        (_, 1..100) => format!("{} thousand and {}", below_thousand(thousands), below_thousand(rest)),
        _ => format!("{} thousand {}", below_thousand(thousands), below_thousand(rest)),
    }
}

fn below_thousand(number: u32) -> String {
    let (hundreds, rest) = (number / 100, number % 100);
    match (hundreds, rest) {
        (0, _) => below_hundred(rest),
        (_, 0) => format!("{} hundred", SMALL[hundreds as usize]),
        _ => format!("{} hundred and {}", SMALL[hundreds as usize], below_hundred(rest)),
    }
}

fn below_hundred(number: u32) -> String {
    match (number / 10, number % 10) {
        (0 | 1, _) => SMALL[number as usize].to_owned(),
        (tens, 0) => TENS[tens as usize].to_owned(),
        (tens, ones) => format!("{}-{}", TENS[tens as usize], SMALL[ones as usize]),
    }
}
