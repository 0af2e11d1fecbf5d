//! Dates of the Gregorian calendar as numbers.

/// Returns the seconds since 1970-01-01 of a date (`2026-11-22`, `2026/11/22` or `20261122`) and a time
/// (`19:22:17`, a fraction is dropped), both of one time zone; none if they are no such texts.
pub fn seconds(date: &str, time: &str) -> Option<i64> {
    let digits: String = date.chars().filter(|c| !matches!(c, '-' | '/')).collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i64>().ok();
    let days = days(part(0..4)?, part(4..6)?, part(6..8)?)?;
    let mut parts = time.split(['.', ':']);
    let mut next = |most: i64| {
        let part = parts.next()?;
        let number: i64 = part.parse().ok()?;
        (part.len() == 2 && (0..=most).contains(&number)).then_some(number)
    };
    let (hours, minutes, seconds) = (next(23)?, next(59)?, next(60)?);
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

/// Returns the days since 1970-01-01. Years begin in March here, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468)
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
