//! Dates and times as programs print them.

use hako_guest::date::Date;

/// Returns the seconds since 1970-01-01 of a date (`2026-11-22`, `2026/11/22` or `20261122`) and a time
/// (`19:22:17`, a fraction is dropped), both of one time zone; none if they are no such texts.
pub fn seconds(date: &str, time: &str) -> Option<i64> {
    let digits: String = date.chars().filter(|c| !matches!(c, '-' | '/')).collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut parts = time.split(['.', ':']);
    let mut next = || parts.next().filter(|part| part.len() == 2)?.parse().ok();
    let date = Date {
        year: digits.get(0..4)?.parse().ok()?,
        month: digits.get(4..6)?.parse().ok()?,
        day: digits.get(6..8)?.parse().ok()?,
        hour: next()?,
        minute: next()?,
        second: next()?,
    };
    date.seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_seconds() {
        for (date, time, expected) in [
            ("1970-01-01", "00:00:00", 0),
            ("2000-02-29", "12:00:00", 951_825_600),
            ("2026/11/22", "19:22:17", 1_795_375_337),
            ("20261122", "19:22:17.500", 1_795_375_337),
            ("1969-12-31", "23:59:59", -1),
        ] {
            assert_eq!(seconds(date, time), Some(expected), "{date} {time}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for (date, time) in [
            ("", ""),
            ("2026-13-01", "00:00:00"),
            ("2026-00-01", "00:00:00"),
            ("2026-01-32", "00:00:00"),
            ("2026-01-01", "24:00:00"),
            ("2026-01-01", "0:0:0"),
            ("2026-01-01", "-1:00:00"),
            ("20260101é", "00:00:00"),
            ("99999999999", "00:00:00"),
        ] {
            assert_eq!(seconds(date, time), None, "{date} {time}");
        }
    }
}
