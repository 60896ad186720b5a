//! JSON of clients: accepted exactly if it can be read again, also inside a response, and kept byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::json::Json;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|text: &str| {
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return };
    let taken = Json::from_outside(raw);
    let sevenfold = format!("[[[[[[[{}]]]]]]]", without_numbers(raw.get()));
    let readable = serde_json::from_str::<Value>(&sevenfold);
    assert_eq!(taken.is_ok(), readable.is_ok(), "accepted: {taken:?}, readable: {readable:?}");
    let Ok(json) = taken else { return };
    assert_eq!(json.get(), raw.get());
    // Read back from a store, and inside a response.
    let kept = Json::from_text(json.get().to_owned()).expect("accepted JSON reads back");
    assert_eq!(kept, json);
    let shown = serde_json::to_string(&[kept]).expect("valid JSON");
    assert_eq!(shown, format!("[{}]", raw.get()));
});

/// Replaces each number by a zero. Numbers that nobat only carries may exceed those that it can compute with.
fn without_numbers(json: &str) -> String {
    let (mut text, mut in_string, mut in_number) = (String::new(), false, false);
    let mut characters = json.chars();
    while let Some(character) = characters.next() {
        let continues = in_number && matches!(character, '0'..='9' | '.' | 'e' | 'E' | '+' | '-');
        in_number = !in_string && (continues || matches!(character, '0'..='9' | '-'));
        match character {
            _ if continues => {}
            _ if in_number => text.push('0'),
            '\\' => text.extend(['\\'].into_iter().chain(characters.next())),
            other => {
                in_string ^= other == '"';
                text.push(other);
            }
        }
    }
    text
}
