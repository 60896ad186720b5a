//! The header `Idempotency-Key`: short, printable, and equal with and without quotes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/api/src/http/structured_field.rs"]
mod quoted;

fuzz_target!(|value: &[u8]| {
    let Some(key) = quoted::parse(value) else { return };
    assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{key:?}");
    let again = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
    assert_eq!(quoted::parse(again.as_bytes()).as_deref(), Some(&*key));
    match value {
        [b'"', ..] => assert_eq!(again.as_bytes(), value, "a quoted key has one spelling"),
        bare => assert_eq!(bare, key.as_bytes()),
    }
});
