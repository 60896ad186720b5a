//! Task ids: each has exactly one text form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::types::id::TaskId;

fuzz_target!(|text: &str| {
    let read: Result<TaskId, _> = text.parse();
    let in_json: Option<TaskId> =
        serde_json::to_string(text).ok().and_then(|json| serde_json::from_str(&json).ok());
    assert_eq!(read.as_ref().ok(), in_json.as_ref(), "JSON and a path accept the same ids");
    if let Ok(id) = read {
        assert_eq!(id.to_string(), text);
        assert_eq!(TaskId::from_bytes(id.to_bytes()), id);
    }
});
