use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str) -> Timing {
    Timing::Cron(CronTiming::new(expression, zone.parse().unwrap()).unwrap())
}

/// Returns the planned times after `after`, and checks that the search backwards finds the same ones.
fn planned(timing: &Timing, after: &str, count: usize) -> Vec<String> {
    let mut at = time(after);
    let mut times = Vec::new();
    for _ in 0..count {
        let Some(next) = timing.next_after(at) else { break };
        assert_eq!(timing.last_until(next), Some(next));
        assert!(timing.last_until(next - Duration::from_millis(1)) < Some(next));
        times.push(next.to_string());
        at = next;
    }
    times
}

#[test]
fn cron_gives_its_planned_times_in_its_zone() {
    let rows = [
        // Hourly at :05 in Ashgabat, which is five hours ahead of UTC.
        (
            "5 * * * *",
            "Asia/Ashgabat",
            "2026-12-01T00:00:00Z",
            ["2026-12-01T00:05:00.000Z", "2026-12-01T01:05:00.000Z"],
        ),
        (
            "0 9 * * *",
            "Asia/Ashgabat",
            "2026-12-01T05:00:00Z",
            ["2026-12-02T04:00:00.000Z", "2026-12-03T04:00:00.000Z"],
        ),
        // The last day of the month, also in a leap year.
        (
            "0 0 L * *",
            "UTC",
            "2028-02-01T00:00:00Z",
            ["2028-02-29T00:00:00.000Z", "2028-03-31T00:00:00.000Z"],
        ),
        (
            "*/10 * * * * *",
            "UTC",
            "2026-12-01T00:00:05Z",
            ["2026-12-01T00:00:10.000Z", "2026-12-01T00:00:20.000Z"],
        ),
        ("@daily", "UTC", "2026-12-01T00:00:00Z", ["2026-12-02T00:00:00.000Z", "2026-12-03T00:00:00.000Z"]),
        (
            "0 12 * * MON",
            "UTC",
            "2026-12-01T00:00:00Z",
            ["2026-12-07T12:00:00.000Z", "2026-12-14T12:00:00.000Z"],
        ),
        // In Berlin, 02:00 to 03:00 is missing on 2027-03-28 and occurs twice on 2027-10-31.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-03-27T12:00:00Z",
            ["2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-10-30T12:00:00Z",
            ["2027-10-31T00:30:00.000Z", "2027-11-01T01:30:00.000Z"],
        ),
        // A schedule with `*` in its hours follows the clock.
        (
            "30 * * * *",
            "Europe/Berlin",
            "2027-10-31T00:00:00Z",
            ["2027-10-31T00:30:00.000Z", "2027-10-31T01:30:00.000Z"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2027-03-28T00:00:00Z",
            ["2027-03-28T00:30:00.000Z", "2027-03-28T01:30:00.000Z"],
        ),
    ];
    for (expression, zone, after, expected) in rows {
        assert_eq!(planned(&cron(expression, zone), after, 2), expected, "{expression} {zone} {after}");
    }
}

#[test]
fn every_gives_multiples_since_the_epoch() {
    let every = Timing::Every(Duration::from_secs(10));
    assert_eq!(
        planned(&every, "2026-12-01T00:00:05Z", 2),
        ["2026-12-01T00:00:10.000Z", "2026-12-01T00:00:20.000Z"]
    );
    assert_eq!(every.last_until(time("2026-12-01T00:00:10Z")), Some(time("2026-12-01T00:00:10Z")));
}

#[test]
fn at_gives_its_times_and_ends() {
    let at = Timing::At(vec![time("2026-12-01T00:00:00Z"), time("2026-12-05T00:00:00Z")]);
    assert_eq!(
        planned(&at, "2026-11-30T00:00:00Z", 5),
        ["2026-12-01T00:00:00.000Z", "2026-12-05T00:00:00.000Z"]
    );
    assert_eq!(at.next_after(time("2026-12-05T00:00:00Z")), None);
    assert_eq!(at.last_until(time("2026-11-30T00:00:00Z")), None);
}

#[test]
fn invalid_expressions_and_zones_are_refused() {
    for expression in ["", "* * * *", "61 * * * *", "* * * * * * *", "@sometimes", "* * * * МОН", "@reboot"]
    {
        assert!(CronTiming::new(expression, "UTC".parse().unwrap()).is_err(), "{expression}");
    }
    for zone in ["", "Mars/Olympus", "UTC+5", "../etc/passwd"] {
        assert!(zone.parse::<Zone>().is_err(), "{zone}");
    }
    assert_eq!("asia/ashgabat".parse::<Zone>().unwrap().to_string(), "Asia/Ashgabat");
}

/// Zones with and without clock changes, on both hemispheres, with offsets of parts of hours.
const ZONES: [&str; 12] = [
    "UTC",
    "Asia/Ashgabat",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "America/St_Johns",
];

/// Compares fixed times of day with a calculation by the calendar alone, over 400 days.
#[test]
fn daily_times_agree_with_the_calendar_in_all_zones() {
    let start = time("2026-12-01T00:00:00Z");
    for zone in ZONES {
        for (hour, minute) in [(0, 0), (1, 30), (2, 15), (2, 30), (3, 0), (12, 5), (23, 59)] {
            let timing = cron(&format!("{minute} {hour} * * *"), zone);
            let calendar = TimeZone::get(zone).unwrap();
            let mut date =
                jiff::Timestamp::from_millisecond(start.millis()).unwrap().to_zoned(calendar.clone()).date();
            let mut at = start;
            for _ in 0..400 {
                let next = timing.next_after(at).unwrap();
                let wanted = date.at(hour, minute, 0, 0);
                let mut expected = Timestamp::from_millis(
                    calendar.to_ambiguous_zoned(wanted).compatible().unwrap().timestamp().as_millisecond(),
                );
                if calendar.to_ambiguous_zoned(wanted).is_ambiguous()
                    && calendar.to_ambiguous_zoned(wanted).unambiguous().is_err()
                    && calendar.to_ambiguous_zoned(wanted).earlier().unwrap()
                        != calendar.to_ambiguous_zoned(wanted).later().unwrap()
                    && is_gap(&calendar, wanted)
                {
                    expected = end_of_gap(&calendar, wanted);
                }
                if expected <= at {
                    date = date.tomorrow().unwrap();
                    continue;
                }
                assert_eq!(next, expected, "{zone} {date} {hour}:{minute}");
                at = next;
                date = date.tomorrow().unwrap();
            }
        }
    }
}

fn is_gap(zone: &TimeZone, wanted: jiff::civil::DateTime) -> bool {
    zone.to_ambiguous_zoned(wanted).earlier().unwrap().datetime() != wanted
}

/// Returns the first minute after the gap that contains this time of day.
fn end_of_gap(zone: &TimeZone, wanted: jiff::civil::DateTime) -> Timestamp {
    let mut at = wanted;
    while is_gap(zone, at) {
        at = at.checked_add(jiff::Span::new().minutes(1)).unwrap();
    }
    Timestamp::from_millis(zone.to_ambiguous_zoned(at).earlier().unwrap().timestamp().as_millisecond())
}
