//! Dates of the Gregorian calendar, as FAT and ISO 9660 store them and programs print them.

/// A date and a time of day, of no zone.
#[derive(Debug, Clone, Copy)]
pub struct Date {
    /// The year, 0 to 65535.
    pub year: u16,
    /// The month, from 1 on.
    pub month: u8,
    /// The day of the month, from 1 on.
    pub day: u8,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The minute.
    pub minute: u8,
    /// The second; 60 if one was put in.
    pub second: u8,
}

impl Date {
    /// Returns the seconds since 1970; none for a date that no calendar has.
    pub fn seconds(self) -> Option<i64> {
        let in_range = (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 61;
        // The days before a month, in a year that begins with March.
        let (year, month) = match self.month {
            1 | 2 => (i64::from(self.year) - 1, i64::from(self.month) + 9),
            month => (i64::from(self.year), i64::from(month) - 3),
        };
        let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + (153 * month + 2) / 5
            + i64::from(self.day)
            - 719_469;
        let minutes = (days * 24 + i64::from(self.hour)) * 60 + i64::from(self.minute);
        in_range.then_some(minutes * 60 + i64::from(self.second))
    }
}

#[cfg(test)]
mod tests {
    use super::Date;

    #[test]
    fn dates_become_seconds() {
        let seconds = |year, month, day, hour, minute, second| {
            let date = Date {
                year,
                month,
                day,
                hour,
                minute,
                second,
            };
            date.seconds()
        };
        assert_eq!(seconds(1970, 1, 1, 0, 0, 0), Some(0));
        assert_eq!(seconds(2000, 2, 29, 12, 0, 0), Some(951_825_600));
        assert_eq!(seconds(2038, 1, 19, 3, 14, 7), Some(i64::from(i32::MAX)));
        assert_eq!(seconds(1969, 12, 31, 23, 59, 59), Some(-1));
        assert_eq!(seconds(1980, 0, 1, 0, 0, 0), None);
        assert_eq!(seconds(1980, 1, 1, 24, 0, 0), None);
    }
}
