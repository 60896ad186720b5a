//! Sources: the configuration from the request's body to the record, and a provider's request from its bytes to
//! the stored event. Configuration, header and body are separated by tabs.
//! A request without a valid proof is never verified.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nobat_core::config::source::Source;
use nobat_core::events::cloud_event::CloudEvent;
use nobat_core::json::decode::read_object;
use nobat_core::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};
use nobat_core::sources::request::InboundRequest;
use nobat_core::submission::SubmissionContext;
use nobat_core::submission::source::{SourceContext, SourceSubmission};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use nobat_delivery::{Client, Guard};
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;

/// 2026-12-01T08:00:00Z
const NOW: i64 = 1_796_112_000_000;
/// Secret that no input contains, because it is longer than every input.
const SECRET: [u8; 8_192] = [b'x'; 8_192];

static KINDS: LazyLock<Handlers> =
    LazyLock::new(|| Handlers::new().with(Http::new(Client::new(Guard::default()))));
static VAULT: LazyLock<Vault> =
    LazyLock::new(|| Vault::new(MasterKey::new([7; MASTER_KEY_BYTES]), Vec::new()));

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == b'\t');
    let [configuration, header, body] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let Ok(source) = read_source(configuration) else { return };
    let record = source.record(&Tenant::default(), &name());
    assert_eq!(Source::from_text(&record.body, source.version).expect("the record reads back"), source);

    let header = std::str::from_utf8(header).unwrap_or_default();
    let names = ["x-signature", "stripe-signature", "authorization", "x-event-id", "content-type"];
    let request = InboundRequest::new(names.map(|name| (name, header)).to_vec(), None, body);
    if source.proof.is_some() {
        let verified = source.verifier().verify(&request, &[SECRET], Timestamp::from_millis(NOW));
        assert!(verified.is_err(), "a request without a valid proof");
    }
    let event = source.event(&name(), &request, Timestamp::from_millis(NOW));
    assert_eq!(CloudEvent::from_stored(&event.to_json()).expect("the event reads back"), event);
    assert!(!event.id.is_empty() && !event.event_type.is_empty());
});

fn name() -> Name {
    Name::new("x").expect("a name")
}

fn read_source(configuration: &[u8]) -> Result<Source, ()> {
    let submission: SourceSubmission = read_object(configuration).map_err(|_| ())?;
    let now = Timestamp::from_millis(NOW);
    let template = SubmissionContext {
        tenant: &Tenant::default(),
        id: TaskId::new(now, 0),
        fingerprint: None,
        submitted_by: None,
        max_payload: None,
        max_timeout: Duration::from_hours(12),
        kinds: &*KINDS,
        endpoint: None,
        then_endpoint: None,
        queue: None,
        hops: 0,
        now,
    };
    let seal = |secret: &[u8]| VAULT.seal("source/default/x", secret, [1; 12]);
    let context = SourceContext { current: None, seal: &seal, renew: &Clone::clone, template: &template };
    submission.into_source(&context).map_err(|errors| {
        let is_pointer = |pointer: &str| pointer.is_empty() || pointer.starts_with('/');
        assert!(!errors.is_empty() && errors.iter().all(|error| is_pointer(&error.pointer)), "{errors:?}");
    })
}
