//! The days from 1900-01-01 to 2099-12-31 in the Gregorian calendar.

/// The first year.
const FIRST_YEAR: u32 = 1900;
/// The days of two centuries: 48 leap years, since 1900 is none.
pub(super) const NUM_DAYS: u32 = 200 * 365 + 49;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Date {
    pub(super) year: u32,
    /// From 1.
    pub(super) month: u32,
    /// From 1.
    pub(super) day: u32,
}

impl Date {
    /// The day that comes `index` days after 1900-01-01; `index` is less than [`NUM_DAYS`].
    pub(super) fn from_day(index: u32) -> Self {
        let mut rest = index;
        let mut year = FIRST_YEAR;
        while rest >= days_in_year(year) {
            rest -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while rest >= days_in_month(year, month) {
            rest -= days_in_month(year, month);
            month += 1;
        }
        Self { year, month, day: rest + 1 }
    }

    /// How many days after 1900-01-01 it is.
    pub(super) fn day_index(self) -> u32 {
        let years: u32 = (FIRST_YEAR..self.year).map(days_in_year).sum();
        let months: u32 = (1..self.month).map(|month| days_in_month(self.year, month)).sum();
        years + months + self.day - 1
    }

    /// From 0 for Monday, which 1900-01-01 was.
    pub(super) fn weekday(self) -> usize {
        (self.day_index() % 7) as usize
    }

    /// As `2026-11-25`.
    pub(super) fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in_year(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
