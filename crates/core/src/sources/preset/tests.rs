use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::sources::verify::{Unverified, Verifier};
use crate::types::time::Timestamp;

/// Signed request that a provider publishes, or that tests of its client libraries contain.
#[derive(Deserialize)]
struct Vector {
    provider: PresetName,
    source: String,
    valid: bool,
    secret: String,
    headers: BTreeMap<String, String>,
    body: String,
    #[serde(default)]
    url: Option<String>,
    /// Time of the test in seconds since the Unix epoch.
    #[serde(default)]
    now: i64,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

impl Vector {
    fn verify(&self) -> Result<(), Unverified> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = InboundRequest::new(headers, None, self.body.as_bytes());
        let preset = self.provider.preset();
        let verifier = Verifier {
            scheme: Some(&preset.scheme),
            tolerance: Duration::from_mins(5),
            networks: &[],
            url: self.url.as_deref(),
            absent: preset.absent.as_deref(),
        };
        verifier.verify(&request, &[&self.secret], Timestamp::from_millis(self.now * 1_000))
    }
}

/// Twilio signs JSON by a hash in the URL, and some spellings of a URL in another way. nobat refuses both.
fn is_unsupported(vector: &Vector) -> bool {
    let is_form = vector.headers.get("Content-Type").is_none_or(|text| text.contains("urlencoded"));
    vector.provider == PresetName::Twilio
        && (!is_form
            || vector.url.as_deref().is_some_and(|url| url.contains("bodySHA256") || url.contains('\'')))
}

#[test]
fn presets_accept_the_vectors_of_the_providers() {
    let (mut accepted, mut refused) = (BTreeMap::<PresetName, usize>::new(), 0);
    for vector in vectors().into_iter().filter(|vector| !is_unsupported(vector)) {
        let verified = vector.verify();
        assert_eq!(verified.is_ok(), vector.valid, "{verified:?}: {}", vector.source);
        if vector.valid {
            *accepted.entry(vector.provider).or_default() += 1;
        } else {
            refused += 1;
        }
    }
    assert!(accepted.len() >= 9 && refused >= 15, "{accepted:?}, {refused} refused");
}

#[test]
fn altered_vectors_are_refused() {
    for mut vector in vectors().into_iter().filter(|vector| vector.valid && !is_unsupported(vector)) {
        let body = std::mem::take(&mut vector.body);
        // Adyen signs only some fields, all of which are in quotes.
        for (index, character) in body.char_indices().filter(|(_, character)| character.is_ascii_digit()) {
            let other = if character == '1' { '2' } else { '1' };
            vector.body = format!("{}{other}{}", &body[..index], &body[index + 1..]);
            let is_signed = vector.provider != PresetName::Adyen;
            assert!(!is_signed || vector.verify().is_err(), "{}: {}", vector.source, vector.body);
        }
        vector.body = body;
        vector.secret = vector.secret.replace(char::is_alphanumeric, "7");
        assert!(vector.verify().is_err(), "{}", vector.source);
    }
}

#[test]
fn old_and_future_signatures_are_refused() {
    let mut count = 0;
    for mut vector in vectors().into_iter().filter(|vector| vector.valid && !is_unsupported(vector)) {
        let Scheme::Hmac(scheme) = &vector.provider.preset().scheme else { continue };
        if scheme.timestamp.is_none() {
            continue;
        }
        let now = vector.now;
        for (seconds, expected) in
            [(-900, Err(Unverified::Timestamp)), (900, Err(Unverified::Timestamp)), (0, Ok(()))]
        {
            vector.now = now + seconds;
            assert_eq!(vector.verify(), expected, "{}", vector.source);
        }
        count += 1;
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn adyen_request_with_a_second_item_is_refused() {
    let mut vector =
        vectors().into_iter().find(|vector| vector.provider == PresetName::Adyen && vector.valid).unwrap();
    let signed: serde_json::Value = serde_json::from_str(&vector.body).unwrap();
    let item = signed["notificationItems"][0].clone();
    for second in [item.clone(), serde_json::json!({}), serde_json::Value::Null] {
        let mut body = signed.clone();
        body["notificationItems"].as_array_mut().unwrap().push(second);
        vector.body = body.to_string();
        assert_eq!(vector.verify(), Err(Unverified::Malformed), "{}", vector.body);
    }
    // Two programs could read different items of a field that is given twice.
    vector.body = format!(r#"{{"notificationItems":[{{}}],"notificationItems":[{item}]}}"#);
    assert_eq!(vector.verify(), Err(Unverified::Missing));
}

#[test]
fn slack_check_of_the_url_is_answered() {
    let challenge = PresetName::Slack.preset().challenge.as_ref().unwrap();
    let answer = |body: &str| challenge.answer(&InboundRequest::new(vec![], None, body.as_bytes()));
    assert_eq!(answer(r#"{"type":"url_verification","challenge":"3eZb"}"#).as_deref(), Some("3eZb"));
    assert_eq!(answer(r#"{"type":"event_callback","challenge":"3eZb"}"#), None);
}
