//! Dates as days since 1970-01-01, and as text `YYYY-MM-DD` where people read them.
//!
//! Text of this form has the order of the days, so rows stand in the same order in JSON and in runs.
//! The formulas are those of the proleptic Gregorian calendar with years that begin in March, so that the leap day is the
//! last of its year (Howard Hinnant, "chrono-compatible low-level date algorithms").

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Days from 1970-01-01 to a date.
pub const fn days(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day.
pub const fn civil(days: i32) -> (i32, i32, i32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// `YYYY-MM-DD`.
pub fn to_text(days: i32) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Reads `YYYY-MM-DD`; none for anything else, and for days that no month has.
pub fn from_text(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |part: &[u8]| part.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i32::from(digit - b'0')));
    let date = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..])?);
    let days = days(date.0, date.1.clamp(1, 12), date.2);
    (civil(days) == date).then_some(days)
}

/// Writes text where people read it, the number elsewhere. For `#[serde(with = "date")]`.
pub fn serialize<S: Serializer>(days: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() { serializer.serialize_str(&to_text(*days)) } else { days.serialize(serializer) }
}

/// Reads what [`serialize`] writes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    if !deserializer.is_human_readable() {
        return i32::deserialize(deserializer);
    }
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    from_text(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a date, YYYY-MM-DD")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(1992, 1, 1), 8_035);
        let mut next = days(1800, 1, 1);
        for year in 1800..2200 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let months = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(months) {
                for day in 1..=length {
                    assert_eq!(days(year, month, day), next);
                    assert_eq!(civil(next), (year, month, day));
                    assert_eq!(from_text(&to_text(next)), Some(next));
                    next += 1;
                }
            }
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "1998-2-01", "1998-02-30", "1998-13-01", "1998-00-01", "1998-01-00", "98-01-01", "1998/01/01", "+998-01-01"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
