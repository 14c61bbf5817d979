//! A time zone as iCalendar defines one (RFC 5545 3.6.5): each change of its clocks while a series may run.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::{Dst, Offset, TimeZone},
};

use super::content_line::Lines;

/// A series without a last day has the changes of so many years. Readers know most zones by name, and for longer.
const MAX_YEARS: i16 = 50;

/// Changes of the same kind: to summer time, or back.
struct Changes {
    from: Offset,
    to: Offset,
    dst: Dst,
    name: String,
    /// What the clock showed at each.
    at: Vec<DateTime>,
}

/// Writes a zone for a series, by its IANA name: from the year before its first day to the year after its last.
pub(super) fn write(lines: &mut Lines, iana: &str, first: Date, last: Option<Date>) {
    let Ok(zone) = TimeZone::get(iana) else { return };
    let until = last.map_or(first.year().saturating_add(MAX_YEARS), |last| last.year().saturating_add(1));
    let Some(changes) = changes(&zone, first.year().saturating_sub(1), until) else { return };
    lines.raw("BEGIN", "VTIMEZONE");
    lines.raw("TZID", iana);
    for kind in changes {
        let component = if kind.dst.is_dst() { "DAYLIGHT" } else { "STANDARD" };
        let times: Vec<String> = kind.at.iter().map(|at| at.strftime("%Y%m%dT%H%M%S").to_string()).collect();
        lines.raw("BEGIN", component);
        if let Some((first, more)) = times.split_first() {
            lines.raw("DTSTART", first);
            if !more.is_empty() {
                lines.raw("RDATE", &more.join(","));
            }
        }
        lines.raw("TZOFFSETFROM", &offset(kind.from));
        lines.raw("TZOFFSETTO", &offset(kind.to));
        lines.text("TZNAME", &kind.name);
        lines.raw("END", component);
    }
    lines.raw("END", "VTIMEZONE");
}

/// What changes between the beginnings of two years, and what is so at the first of them; none beyond the calendar.
fn changes(zone: &TimeZone, from_year: i16, until_year: i16) -> Option<Vec<Changes>> {
    let new_year = |year: i16| -> Option<Timestamp> {
        Some(Date::new(year, 1, 1).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let (from, until) = (new_year(from_year)?, new_year(until_year.saturating_add(1))?);
    let before = zone.to_offset_info(from);
    let mut offset = before.offset();
    let mut all = vec![Changes {
        from: offset,
        to: offset,
        dst: before.dst(),
        name: before.abbreviation().to_owned(),
        at: vec![offset.to_datetime(from)],
    }];
    for change in zone.following(from).take_while(|change| change.timestamp() < until) {
        let at = offset.to_datetime(change.timestamp());
        let (to, name) = (change.offset(), change.abbreviation());
        match all.iter_mut().find(|one| (one.from, one.to) == (offset, to) && one.name == name) {
            Some(same) => same.at.push(at),
            None => {
                all.push(Changes { from: offset, to, dst: change.dst(), name: name.to_owned(), at: vec![at] })
            }
        }
        offset = to;
    }
    Some(all)
}

/// `+0530`; with seconds where there are any.
fn offset(offset: Offset) -> String {
    let (sign, seconds) = (if offset.is_negative() { '-' } else { '+' }, offset.seconds().unsigned_abs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match seconds {
        0 => format!("{sign}{hours:02}{minutes:02}"),
        seconds => format!("{sign}{hours:02}{minutes:02}{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(iana: &str, first: Date, last: Option<Date>) -> String {
        let mut lines = Lines::default();
        write(&mut lines, iana, first, last);
        String::from_utf8(lines.into_bytes()).unwrap().replace("\r\n ", "").replace("\r\n", "\n")
    }

    #[test]
    fn clocks_change_when_they_did() {
        let text = zone("Europe/Berlin", jiff::civil::date(2026, 5, 1), Some(jiff::civil::date(2026, 9, 1)));
        for part in [
            "BEGIN:VTIMEZONE\nTZID:Europe/Berlin\n",
            "DTSTART:20250330T020000\nRDATE:20260329T020000,20270328T020000\nTZOFFSETFROM:+0100\nTZOFFSETTO:+0200\nTZNAME:CEST\n",
            "DTSTART:20251026T030000\nRDATE:20261025T030000,20271031T030000\nTZOFFSETFROM:+0200\nTZOFFSETTO:+0100\nTZNAME:CET\n",
            "END:VTIMEZONE\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_zone_without_summer_time_has_one_part_and_a_series_without_end_has_many_years() {
        let text = zone("Asia/Kolkata", jiff::civil::date(2026, 5, 1), None);
        assert_eq!(text.matches("BEGIN:STANDARD").count(), 1);
        assert!(text.contains("TZOFFSETTO:+0530"));
        assert!(zone("America/New_York", jiff::civil::date(2026, 5, 1), None).contains("20760308T020000"));
        assert_eq!(zone("No/Where", jiff::civil::date(2026, 5, 1), None), "");
    }
}
