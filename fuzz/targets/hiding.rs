//! A secret in place of texts, to see that nothing repeats what it was told.

use serde_json::Value;

/// What must not be seen again.
pub const SECRET: &str = "hunter2hunter2";

/// The body with the secret in place of every text, less the fields that are to stay; `None`, if there is nothing to hide, or if the secret
/// would be seen anyway.
pub fn hidden(body: &[u8], stays: fn(&str, &Value) -> bool) -> Option<Vec<u8>> {
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    let is_named = String::from_utf8_lossy(body).contains("unter2");
    (!is_named && hide(&mut value, stays)).then(|| serde_json::to_vec(&value).expect("JSON"))
}

/// Whether there was a text to hide.
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
