//! Timestamps: every accepted one is shown as RFC 3339 and reads back as the same time.
#![no_main]

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use nobat_core::types::time::Timestamp;

/// `2026-12-01T08:00:00.000Z`
const LENGTH: usize = 24;

fuzz_target!(|text: &str| {
    let read: Option<Timestamp> = text.parse().ok();
    let in_json: Option<Timestamp> =
        serde_json::to_string(text).ok().and_then(|json| serde_json::from_str(&json).ok());
    assert_eq!(read, in_json, "a query and JSON accept the same timestamps");
    let Some(moment) = read else { return };
    let shown = moment.to_string();
    assert_eq!(shown.len(), LENGTH, "{shown}");
    let other = DateTime::parse_from_rfc3339(text)
        .unwrap_or_else(|error| panic!("{text:?} was accepted as {shown}: {error}"));
    // The parsers map a leap second to different seconds.
    if !text.contains(":60") {
        // Clamps as the reader does.
        assert_eq!(Timestamp::from_millis(other.timestamp_millis()), moment, "{text:?}");
    }
    assert_eq!(shown.parse::<Timestamp>().ok(), Some(moment), "{shown}");
    assert_eq!(Timestamp::from_millis(moment.millis()), moment);
});
