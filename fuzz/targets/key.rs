//! API keys, their ids, completion tokens, and secrets: each has one text form, and `Debug` prints none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::auth::api_key::{KeyId, KeyText};
use nobat_core::secrets::vault::MasterKey;
use nobat_core::secrets::webhook::WebhookSecret;
use nobat_core::task::CompletionToken;

fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<CompletionToken>() {
        assert!(token.as_str() == text);
        assert!(!format!("{token:?}").contains(&text[token.tenant().as_str().len() + 1..]));
    }
    if let Ok(key) = text.parse::<KeyText>() {
        assert!(key.as_str() == text && text.starts_with(KeyText::PREFIX));
        assert!(!format!("{key:?}").contains(&text[KeyText::PREFIX.len()..]));
        let id = key.digest().id();
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!((id.to_string().as_str(), id.name().as_str()), (text, text));
    }
    if let Ok(secret) = text.parse::<WebhookSecret>() {
        assert_eq!(secret.to_text(), text);
        assert!((24..=64).contains(&secret.as_bytes().len()));
        assert!(!format!("{secret:?}").contains(&text["whsec_".len()..]));
    }
    if let Ok(key) = text.parse::<MasterKey>() {
        assert_eq!(key.to_text(), text.trim());
        assert!(!format!("{key:?}").contains(text.trim()));
    }
});
