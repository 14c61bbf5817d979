//! Time zones by the names Outlook uses, with their rules: the same on every machine, whatever it has installed.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Windows' name, IANA's name, rule.
const ZONES: [(&str, &str, &str); 9] = [
    ("UTC", "Etc/UTC", "UTC0"),
    ("W. Europe Standard Time", "Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"),
    ("Romance Standard Time", "Europe/Paris", "CET-1CEST,M3.5.0,M10.5.0/3"),
    ("GMT Standard Time", "Europe/London", "GMT0BST,M3.5.0/1,M10.5.0"),
    ("Eastern Standard Time", "America/New_York", "EST5EDT,M3.2.0,M11.1.0"),
    ("Pacific Standard Time", "America/Los_Angeles", "PST8PDT,M3.2.0,M11.1.0"),
    ("India Standard Time", "Asia/Kolkata", "IST-5:30"),
    ("Tokyo Standard Time", "Asia/Tokyo", "JST-9"),
    ("AUS Eastern Standard Time", "Australia/Sydney", "AEST-10AEDT,M10.1.0,M4.1.0/3"),
];
const DAY_SECONDS: i64 = 86_400;

/// Days since 1970-01-01.
pub(crate) type Day = i32;

/// One of the zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone(usize);

impl Zone {
    pub(crate) const UTC: Self = Self(0);
    pub(crate) const COUNT: usize = ZONES.len();

    /// The zone with this number, for generation.
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number % ZONES.len())
    }

    /// By either name, whose case does not matter.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let same = |known: &str| known.eq_ignore_ascii_case(name.trim());
        ZONES.iter().position(|(windows, iana, _)| same(windows) || same(iana)).map(Self)
    }

    /// Windows' name, which Outlook gives back whatever was given.
    pub(crate) fn name(self) -> &'static str {
        ZONES[self.0].0
    }

    fn rules(self) -> TimeZone {
        static RULES: OnceLock<Vec<TimeZone>> = OnceLock::new();
        let all = RULES.get_or_init(|| {
            let rule =
                |(_, _, rule): &(_, _, &str)| TimeZone::posix(rule).expect("the table's rules are right");
            ZONES.iter().map(rule).collect()
        });
        all[self.0].clone()
    }

    /// When a clock on the wall there shows this.
    pub(crate) fn instant(self, wall: DateTime) -> i64 {
        wall.to_zoned(self.rules()).map_or(0, |zoned| zoned.timestamp().as_millisecond())
    }

    /// What a clock on the wall there shows.
    pub(crate) fn wall(self, instant_ms: i64) -> DateTime {
        let instant = Timestamp::from_millisecond(instant_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        instant.to_zoned(self.rules()).datetime()
    }
}

/// The number of a date.
pub(crate) fn day_of(date: Date) -> Day {
    let midnight = Zone::UTC.instant(date.to_datetime(Time::midnight()));
    Day::try_from(midnight.div_euclid(DAY_SECONDS * 1000)).unwrap_or(0)
}

/// The date of a number.
pub(crate) fn date_of(day: Day) -> Date {
    Zone::UTC.wall(i64::from(day) * DAY_SECONDS * 1000).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summer_time_shifts_the_instant_and_not_the_wall_clock() {
        let berlin = Zone::find("europe/berlin").unwrap();
        assert_eq!(berlin, Zone::find("W. Europe Standard Time").unwrap());
        assert_eq!(Zone::find("Nowhere"), None);
        for (wall, utc) in
            [("2026-07-01T09:00:00", "2026-07-01T07:00:00"), ("2026-12-01T09:00:00", "2026-12-01T08:00:00")]
        {
            let wall: DateTime = wall.parse().unwrap();
            let instant = berlin.instant(wall);
            assert_eq!(Zone::UTC.wall(instant).to_string(), utc);
            assert_eq!(berlin.wall(instant), wall);
        }
        let date: Date = "2026-11-30".parse().unwrap();
        assert_eq!(date_of(day_of(date)), date);
        assert_eq!(day_of("1970-01-02".parse().unwrap()), 1);
    }
}
