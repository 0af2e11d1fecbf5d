//! Dates of the Gregorian calendar.

/// Returns year, month, day, hour, minute and second in UTC of a time in seconds since 1970.
pub fn utc(time: u64) -> [u64; 6] {
    let (days, seconds) = (time / 86_400, time % 86_400);
    let (year, month, day) = date(days);
    [
        year,
        month,
        day,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    ]
}

/// Returns year, month and day of a day since 1970-01-01 in the Gregorian calendar, counted in
/// years that begin with March and eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    /// Days from 0000-03-01 to 1970-01-01.
    const DAYS_TO_1970: u64 = 719_468;
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    match month {
        0..10 => (year, month + 3, day_of_month),
        _ => (year + 1, month - 9, day_of_month),
    }
}
