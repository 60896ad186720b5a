//! Replaces texts by a secret, to check that errors and records do not repeat it.

use serde_json::Value;

/// The secret, which must not appear again.
pub const SECRET: &str = "hunter2hunter2";

/// Returns the body with the secret in place of every text, except in fields that `stays` selects. `None` if
/// there is no text to replace, or if the secret could appear anyway.
pub fn hidden(body: &[u8], stays: fn(&str, &Value) -> bool) -> Option<Vec<u8>> {
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    let is_named = String::from_utf8_lossy(body).contains("unter2");
    (!is_named && hide(&mut value, stays)).then(|| serde_json::to_vec(&value).expect("valid JSON"))
}

/// Replaces texts. Returns true if there was one.
fn hide(value: &mut Value, stays: fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::String(text) => {
            SECRET.clone_into(text);
            true
        }
        Value::Array(values) => values.iter_mut().fold(false, |hidden, value| hide(value, stays) | hidden),
        Value::Object(fields) => {
            let others = fields.iter_mut().filter(|(name, value)| !stays(name, value));
            others.fold(false, |hidden, (_, value)| hide(value, stays) | hidden)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
