//! Turns dates of the Gregorian calendar into days since 1970-01-01, and back.

/// Three-letter names, as access logs write them.
pub(super) const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    /// 1970 or later.
    pub year: u64,
    /// 0 is January.
    pub month: usize,
    /// From 1.
    pub day: u64,
}

impl Date {
    /// Days from 1970-01-01 to this date, or `None` if the calendar has no such date.
    pub fn days(self) -> Option<u64> {
        let exists = self.year >= 1970 && self.month < 12 && (1..=month_days(self.year, self.month)).contains(&self.day);
        exists.then(|| {
            let months: u64 = (0..self.month).map(|m| month_days(self.year, m)).sum();
            days_before_year(self.year) + months + self.day - 1
        })
    }

    /// The date that many days after 1970-01-01.
    pub fn from_days(days: u64) -> Date {
        // 400 years have 146,097 days. The estimate is off by one at most.
        let mut year = 1970 + days / 146_097 * 400 + days % 146_097 * 400 / 146_097;
        while days_before_year(year) > days {
            year -= 1;
        }
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut rest = days - days_before_year(year);
        let mut month = 0;
        while rest >= month_days(year, month) {
            rest -= month_days(year, month);
            month += 1;
        }
        Date { year, month, day: rest + 1 }
    }
}

fn days_before_year(year: u64) -> u64 {
    let leap_years_through = |y: u64| y / 4 - y / 100 + y / 400;
    365 * (year - 1970) + leap_years_through(year - 1) - leap_years_through(1969)
}

fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let mut before = Date::from_days(0);
        assert_eq!((before.year, before.month, before.day), (1970, 0, 1));
        for days in 1..2 * 146_097 {
            let date = Date::from_days(days);
            assert_eq!(date.days(), Some(days), "{date:?}");
            let same_month = date.month == before.month && date.day == before.day + 1;
            let next_month = date.day == 1 && date.month == (before.month + 1) % 12;
            assert!(same_month || next_month, "{before:?} then {date:?}");
            before = date;
        }
    }

    #[test]
    fn days_that_no_calendar_has_are_none() {
        for (year, month, day) in [(2015, 1, 29), (2100, 1, 29), (2015, 3, 31), (2015, 0, 0), (2015, 11, 32), (2015, 12, 1), (1969, 11, 31)]
        {
            assert_eq!(Date { year, month, day }.days(), None);
        }
        // 2000-02-29, which a rule without the 400 years would not have.
        let leap = Date { year: 2000, month: 1, day: 29 };
        assert_eq!(leap.days(), Some(11_016));
    }
}
