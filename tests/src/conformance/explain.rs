//! Explanations by the API of why a task is not running, from what the backend holds.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use nobat_api::ask;
use nobat_api::{AccessPolicy, App, AppConfig, AuthMode};
use nobat_core::config::endpoint::NoEndpointTester;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::limits::{
    AcquireRequest, AcquireResult, HolderId, LimitScope, LimiterKey, LimiterState, Limits, RateLimit,
    ScopedReservation,
};
use nobat_core::ports::limiter_store::WriteResult;
use nobat_core::secrets::vault::Without;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{Task, Wait};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::Name;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::World;
use crate::sample;

/// Registry that accepts every kind.
pub struct Any;

impl KindRegistry for Any {
    fn check(&self, _: &Name, _: &Json, _: Target) -> Result<Option<Wait>, KindError> {
        Ok(None)
    }

    fn check_authority(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

fn app(world: &World) -> App {
    App::new(AppConfig {
        backend: world.backend.clone(),
        clock: world.time.clock(),
        kinds: Arc::new(Any),
        access_policy: AccessPolicy { keys: AuthMode::Never, admitted: Vec::new(), proxies: Vec::new() },
        recount: Duration::ZERO,
        max_timeout: Duration::from_mins(1),
        max_wait: Duration::ZERO,
        tester: Arc::new(NoEndpointTester),
        vault: Arc::new(Without),
        cursor_key: [0; 32],
        epoch: ConfigEpoch::default(),
        shutdown: CancellationToken::new(),
    })
}

async fn get(app: &App, path: &str) -> Value {
    let (status, body) = ask(app.clone(), Method::GET, path, None).await;
    assert!(status.is_success(), "{status}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

async fn put(app: &App, path: &str, body: Value) {
    let (status, body) = ask(app.clone(), Method::PUT, path, Some(body.to_string())).await;
    assert!(status.is_success(), "{status}: {body:?}");
}

/// Returns a task that is held for a minute.
async fn held(world: &World, number: u128, reason: HeldReason, promise: Option<ScopedReservation>) -> Task {
    let mut task = sample::task(number, world.now());
    task.options.limit_key = Some(sample::name("customer-42"));
    let task = world.claim(&world.insert(task).await).await;
    let until = world.now() + Duration::from_mins(1);
    world.bring(&task, Event::Hold { token: task.token, reason, until, reserved: promise.into() }).await
}

/// The explanation names a pause as long as it lasts. When the pause ends, the task is woken.
pub async fn names_a_pause_while_it_lasts(world: World) {
    let app = app(&world);
    let task = held(&world, 1, HeldReason::Paused, None).await;
    let path = format!("/v1/tasks/{}/explain", task.id);
    put(&app, "/v1/queues/default", json!({"paused": true})).await;
    let paused = get(&app, &path).await;
    assert_eq!(
        (&paused["code"], &paused["blocked_by"]),
        (&json!("paused"), &json!({"type": "queue", "name": "default"}))
    );
    assert_eq!(paused["until"], json!(task.due_at));
    put(&app, "/v1/queues/default", json!({"paused": false})).await;
    let over = get(&app, &path).await;
    assert_eq!((&over["code"], &over["held"]), (&json!("queued"), &json!(null)));
    assert_eq!(world.get(&task).await.due_at, world.now(), "the task is due now, not at the end of its hold");
}

/// The explanation and the API show the limiter state as stored.
pub async fn names_a_rate_and_its_reservations(world: World) {
    let (app, now) = (app(&world), world.now());
    put(&app, "/v1/limits/customer-42", json!({"rate": 1, "period": 10})).await;
    let count = const { NonZeroU32::new(1).unwrap() };
    let limits = Limits {
        rate: Some(RateLimit { rate: count, period: Duration::from_secs(10), burst: count }),
        ..Limits::default()
    };
    let (mut limiter, of) = (LimiterState::default(), LimitScope::Key(sample::name("customer-42")));
    let ask = AcquireRequest {
        holder: HolderId(1),
        reservation: None,
        has_due_reservation_elsewhere: false,
        holds: 0,
        jitter: JitterSample::from_bits(0),
    };
    let AcquireResult::Granted(_) = limiter.acquire(&limits, &ask, now) else {
        panic!("the first start is granted")
    };
    let AcquireResult::Denied(wait) = limiter.acquire(&limits, &ask, now) else {
        panic!("the second start is reserved")
    };
    let name = LimiterKey { tenant: sample::task(1, now).tenant, scope: of.clone() };
    assert_eq!(world.backend.limiters.write(&name, &limiter, 0, now).await.unwrap(), WriteResult::Done);
    let task = held(
        &world,
        1,
        HeldReason::RateLimited,
        wait.reservation.map(|reservation| ScopedReservation { scope: of, reservation }),
    )
    .await;
    let told = get(&app, &format!("/v1/tasks/{}/explain", task.id)).await;
    let reason = format!(
        "limit key customer-42 has a rate of 1 every 10 s (reserved starts: 1); the task's start is reserved for {}",
        task.due_at
    );
    assert_eq!((&told["code"], &told["reason"]), (&json!("rate_limited"), &json!(reason)));
    let state = json!({"tokens": 0, "reserved_starts": 1, "running": null, "paused_until": null, "circuit_breaker": null});
    assert_eq!(get(&app, "/v1/limits/customer-42").await["state"], state);
}
