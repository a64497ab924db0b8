//! How eight languages write a date.
//!
//! Only ways that leave no doubt: the year has four digits, the month is a name or, between dots, stands in the
//! middle. A weekday is always the right one.

use super::calendar::Date;
use super::random::Draws;

/// The words of a language and the patterns it puts them in. In a pattern
///
/// ```text
/// {d}   the day            5         {dd}  with two digits       05
/// {o}   as an ordinal      5th       {n}   the month's number    3
/// {nn}  with two digits    03        {M}   its name              March
/// {m}   shortened          Mar       {W}   the weekday           Thursday
/// {w}   shortened          Thu       {y}   the year              2026
/// ```
pub(super) struct Language {
    months: [&'static str; 12],
    short_months: [&'static str; 12],
    /// From Monday.
    weekdays: [&'static str; 7],
    short_weekdays: [&'static str; 7],
    ordinal: fn(u32) -> String,
    pub(super) patterns: &'static [&'static str],
}

/// The date in a language and a pattern of its own, each drawn.
pub(super) fn written(date: Date, draws: &mut Draws) -> String {
    let language = draws.choose(LANGUAGES);
    let pattern: &&str = draws.choose(language.patterns);
    language.write(date, pattern)
}

impl Language {
    /// Fills a pattern in.
    pub(super) fn write(&self, date: Date, pattern: &str) -> String {
        let mut text = String::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(&self.part(date, name));
            rest = after;
        }
        text + rest
    }

    fn part(&self, date: Date, name: &str) -> String {
        let month = date.month as usize - 1;
        match name {
            "d" => date.day.to_string(),
            "dd" => format!("{:02}", date.day),
            "o" => (self.ordinal)(date.day),
            "n" => date.month.to_string(),
            "nn" => format!("{:02}", date.month),
            "M" => self.months[month].to_owned(),
            "m" => self.short_months[month].to_owned(),
            "W" => self.weekdays[date.weekday()].to_owned(),
            "w" => self.short_weekdays[date.weekday()].to_owned(),
            _ => date.year.to_string(),
        }
    }
}

fn english_ordinal(day: u32) -> String {
    let ending = match (day / 10, day % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{day}{ending}")
}

/// Most Romance languages count only the first of a month.
fn first_as(day: u32, first: &str) -> String {
    if day == 1 { first.to_owned() } else { day.to_string() }
}

/// The languages, each as likely.
pub(super) const LANGUAGES: &[Language] = &[
    // English
    Language {
        months: [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        short_months: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
        weekdays: ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        short_weekdays: ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
        ordinal: english_ordinal,
        patterns: &[
            "{M} {d}, {y}",
            "{d} {M} {y}",
            "{W}, {M} {d}, {y}",
            "{W}, {d} {M} {y}",
            "{M} {o}, {y}",
            "the {o} of {M} {y}",
            "{m} {d}, {y}",
            "{w}, {d} {m} {y}",
            "{dd}/{m}/{y}",
        ],
    },
    // German
    Language {
        months: [
            "Januar",
            "Februar",
            "März",
            "April",
            "Mai",
            "Juni",
            "Juli",
            "August",
            "September",
            "Oktober",
            "November",
            "Dezember",
        ],
        short_months: ["Jan.", "Feb.", "März", "Apr.", "Mai", "Juni", "Juli", "Aug.", "Sept.", "Okt.", "Nov.", "Dez."],
        weekdays: ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        short_weekdays: ["Mo", "Di", "Mi", "Do", "Fr", "Sa", "So"],
        ordinal: |day| format!("{day}."),
        patterns: &[
            "{o} {M} {y}",
            "{W}, {o} {M} {y}",
            "{W}, den {o} {M} {y}",
            "{o} {m} {y}",
            "{w}, {o} {m} {y}",
            "{dd}.{nn}.{y}",
            "{d}.{n}.{y}",
            "{w}, {dd}.{nn}.{y}",
        ],
    },
    // French
    Language {
        months: [
            "janvier",
            "février",
            "mars",
            "avril",
            "mai",
            "juin",
            "juillet",
            "août",
            "septembre",
            "octobre",
            "novembre",
            "décembre",
        ],
        short_months: [
            "janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc.",
        ],
        weekdays: ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        short_weekdays: ["lun.", "mar.", "mer.", "jeu.", "ven.", "sam.", "dim."],
        ordinal: |day| first_as(day, "1er"),
        patterns: &["{o} {M} {y}", "{W} {o} {M} {y}", "le {o} {M} {y}", "{o} {m} {y}", "{w} {o} {m} {y}"],
    },
    // Spanish
    Language {
        months: [
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ],
        short_months: ["ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sept", "oct", "nov", "dic"],
        weekdays: ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
        short_weekdays: ["lun", "mar", "mié", "jue", "vie", "sáb", "dom"],
        ordinal: |day| day.to_string(),
        patterns: &[
            "{d} de {M} de {y}",
            "{W}, {d} de {M} de {y}",
            "el {d} de {M} de {y}",
            "{d} {m} {y}",
            "{w}, {d} {m} {y}",
            "{d}/{m}/{y}",
        ],
    },
    // Italian
    Language {
        months: [
            "gennaio",
            "febbraio",
            "marzo",
            "aprile",
            "maggio",
            "giugno",
            "luglio",
            "agosto",
            "settembre",
            "ottobre",
            "novembre",
            "dicembre",
        ],
        short_months: ["gen", "feb", "mar", "apr", "mag", "giu", "lug", "ago", "set", "ott", "nov", "dic"],
        weekdays: ["lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"],
        short_weekdays: ["lun", "mar", "mer", "gio", "ven", "sab", "dom"],
        ordinal: |day| first_as(day, "1º"),
        patterns: &["{o} {M} {y}", "{W} {o} {M} {y}", "{d} {m} {y}", "{w} {d} {m} {y}", "{d}/{m}/{y}"],
    },
    // Portuguese
    Language {
        months: [
            "janeiro",
            "fevereiro",
            "março",
            "abril",
            "maio",
            "junho",
            "julho",
            "agosto",
            "setembro",
            "outubro",
            "novembro",
            "dezembro",
        ],
        short_months: ["jan.", "fev.", "mar.", "abr.", "mai.", "jun.", "jul.", "ago.", "set.", "out.", "nov.", "dez."],
        weekdays: ["segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo"],
        short_weekdays: ["seg.", "ter.", "qua.", "qui.", "sex.", "sáb.", "dom."],
        ordinal: |day| first_as(day, "1º"),
        patterns: &["{o} de {M} de {y}", "{W}, {o} de {M} de {y}", "{d} de {m} de {y}", "{w}, {d} {m} {y}"],
    },
    // Dutch
    Language {
        months: [
            "januari",
            "februari",
            "maart",
            "april",
            "mei",
            "juni",
            "juli",
            "augustus",
            "september",
            "oktober",
            "november",
            "december",
        ],
        short_months: ["jan", "feb", "mrt", "apr", "mei", "jun", "jul", "aug", "sep", "okt", "nov", "dec"],
        weekdays: ["maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"],
        short_weekdays: ["ma", "di", "wo", "do", "vr", "za", "zo"],
        ordinal: |day| day.to_string(),
        patterns: &["{d} {M} {y}", "{W} {d} {M} {y}", "{d} {m} {y}", "{w} {d} {m} {y}", "{dd}-{m}-{y}"],
    },
    // Russian
    Language {
        months: [
            "января",
            "февраля",
            "марта",
            "апреля",
            "мая",
            "июня",
            "июля",
            "августа",
            "сентября",
            "октября",
            "ноября",
            "декабря",
        ],
        short_months: [
            "янв.",
            "февр.",
            "мар.",
            "апр.",
            "мая",
            "июн.",
            "июл.",
            "авг.",
            "сент.",
            "окт.",
            "нояб.",
            "дек.",
        ],
        weekdays: ["понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"],
        short_weekdays: ["пн", "вт", "ср", "чт", "пт", "сб", "вс"],
        ordinal: |day| day.to_string(),
        patterns: &["{d} {M} {y}", "{d} {M} {y} г.", "{W}, {d} {M} {y} г.", "{w}, {d} {m} {y}"],
    },
];
