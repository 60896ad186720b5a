//! `Retry-After`: reading any value terminates, and every pause in it counts.
//!
//! The input is a field value.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use nobat_delivery::retry_after::read;

fuzz_target!(|value: &[u8]| {
    // 2026-12-01T08:00:00Z
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_112_000);
    let pause = read(value, now);
    assert_eq!(read(&[b" ", value, b"\t"].concat(), now), pause, "spaces around a value are ignored");
    if let Ok(text) = std::str::from_utf8(value) {
        assert!(
            read(&[value, b", 7"].concat(), now) >= pause.max(Some(Duration::from_secs(7))),
            "the longest pause counts"
        );
        let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            assert_eq!(pause, text.parse().ok().map(Duration::from_secs));
        }
        if text.trim_start().starts_with('-') && !text.contains(',') {
            assert_eq!(pause, None, "no pause is negative");
        }
    } else {
        assert_eq!(pause, None);
    }
});
