//! API keys for tests, created as the program creates them, without a server.

use nobat_core::auth::api_key::{Key, KeyText};
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::auth::scope::Scopes;
use nobat_core::config::record::Record;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::backend::Backend;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

/// Creates a key in this backend and returns its text.
pub async fn make(backend: &Backend, tenant: &Tenant, scopes: Scopes, now: Timestamp) -> KeyText {
    let text = KeyText::new(rand::random());
    let key = Key {
        digest: text.digest(),
        tenant: tenant.clone(),
        label: "made for a test".to_owned(),
        scopes,
        networks: Vec::new(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
        replaced: None,
        version: 1,
    };
    let object = key.id().to_string();
    let entry = Entry {
        tenant: tenant.clone(),
        at: now,
        actor: Actor::Operator,
        action: Action::KeyCreated,
        target: object,
        mark: rand::random(),
    };
    let written =
        backend.config.write(vec![Record::from(&key)], entry).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(written, RecordResult::Done);
    text
}
