//! Events: their fan-out to subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::subscription::{EventBody, Subscription};
use nobat_core::events::cloud_event::{CloudEvent, Defaults};
use nobat_core::events::filter::Filter;
use nobat_core::ports::ListQuery;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::service::fan_out::FanOut;
use nobat_core::submission::event::{EventContext, TYPE_LABEL, event_task};
use nobat_core::task::{Task, TaskOrigin};
use nobat_core::types::name::Tenant;
use serde_json::value::RawValue;

use super::World;
use crate::conformance::explain::Any;
use crate::sample;

/// Event of this type, accepted now.
fn event(world: &World, event_type: &str, id: &str) -> Task {
    let text = format!(r#"{{"type":"{event_type}","id":"{id}","data":{{"n":1}}}}"#);
    let raw: &RawValue = serde_json::from_str(&text).unwrap();
    let defaults = Defaults { id: String::new(), time: world.now() };
    let event = CloudEvent::from_json(raw, false, &defaults).unwrap();
    let context = EventContext { tenant: &Tenant::default(), submitted_by: None, hops: 0, now: world.now() };
    event_task(&event, None, context)
}

/// Distinguishes audit entries of the same time.
static MARKS: AtomicU64 = AtomicU64::new(0);

async fn subscribe(world: &World, name: &str, topic: &str, version: u64) {
    let subscription = Subscription {
        topic: topic.parse().unwrap(),
        filter: Filter::default(),
        filter_text: None,
        task: sample::json(r#"{"kind":"mail"}"#),
        body: EventBody::Event,
        paused: false,
        created_at: world.now(),
        version,
    };
    let record = subscription.record(&Tenant::default(), &sample::name(name));
    let entry = Entry {
        tenant: Tenant::default(),
        at: world.now(),
        actor: Actor::Operator,
        action: Action::SubscriptionChanged,
        target: name.to_owned(),
        mark: MARKS.fetch_add(1, Ordering::Relaxed),
    };
    assert_eq!(world.backend.config.write(vec![record], entry).await.unwrap(), RecordResult::Done);
}

fn cache(world: &World) -> ConfigCache {
    ConfigCache::new(Arc::clone(&world.backend.config), world.time.clock(), ConfigEpoch::default())
}

/// Runs the fan-out of an event. Returns the subscriptions that have tasks.
async fn fan_out(world: &World, config_cache: &ConfigCache, event: &Task) -> Vec<String> {
    let fan_out = FanOut {
        backend: &world.backend,
        config_cache,
        kinds: &Any,
        max_timeout: Duration::from_mins(1),
        now: world.now(),
    };
    let outcome = fan_out.run(event).await.unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    outcome.subscriptions.iter().map(ToString::to_string).collect()
}

async fn tasks_of_kind_mail(world: &World) -> Vec<Task> {
    let query = ListQuery { kind: Some(sample::name("mail")), ..ListQuery::all(Tenant::default(), 100) };
    world.backend.store.list(&query, world.now()).await.unwrap().tasks
}

/// Each subscription that selects the event gets one task, however often the fan-out runs.
pub async fn event_creates_one_task_for_each_subscription(world: World) {
    for (name, topic) in [("stock", "order.*"), ("all", "#"), ("other", "invoice.*")] {
        subscribe(&world, name, topic, 1).await;
    }
    let config_cache = cache(&world);
    let event = world.insert(event(&world, "order.created", "1")).await;
    for _ in 0..2 {
        assert_eq!(fan_out(&world, &config_cache, &event).await, ["all", "stock"]);
    }
    let tasks = tasks_of_kind_mail(&world).await;
    assert_eq!(tasks.len(), 2);
    // Another process that did not see the tasks of the first creates none either.
    assert_eq!(fan_out(&world, &cache(&world), &event).await, ["all", "stock"]);
    assert_eq!(tasks_of_kind_mail(&world).await, tasks);
    for task in &tasks {
        let origin = task.options.origin.as_ref();
        assert!(matches!(origin, Some(TaskOrigin::Event { event: of, .. }) if of.0 == event.id));
    }
}

/// A subscription gets the events that are accepted after it was written, also if a process has the
/// subscriptions in its cache.
pub async fn subscription_gets_events_after_it_was_written(world: World) {
    subscribe(&world, "first", "#", 1).await;
    let config_cache = cache(&world);
    world.time.advance(Duration::from_millis(1));
    let before = world.insert(event(&world, "a", "1")).await;
    world.time.advance(Duration::from_millis(1));
    assert_eq!(fan_out(&world, &config_cache, &before).await, ["first"]);
    subscribe(&world, "second", "#", 1).await;
    world.time.advance(Duration::from_millis(1));
    let after = world.insert(event(&world, "a", "2")).await;
    world.time.advance(Duration::from_millis(1));
    assert_eq!(fan_out(&world, &config_cache, &after).await, ["first", "second"]);
}

/// More subscriptions than one page of records are all read.
pub async fn all_subscriptions_get_the_event(world: World) {
    let names: Vec<String> = (0..120).map(|number| format!("s{number:03}")).collect();
    for name in &names {
        subscribe(&world, name, "#", 1).await;
    }
    let event = world.insert(event(&world, "a", "1")).await;
    assert_eq!(fan_out(&world, &cache(&world), &event).await, names);
}

/// Events are listed by the labels of their tasks.
pub async fn lists_events_by_type(world: World) {
    for (event_type, id) in [("a", "1"), ("b", "2"), ("a", "3")] {
        world.insert(event(&world, event_type, id)).await;
        world.time.advance(Duration::from_secs(1));
    }
    let labels = [(TYPE_LABEL.to_owned(), "a".to_owned())].into();
    let query = ListQuery { labels, ..ListQuery::all(Tenant::default(), 100) };
    let found = world.backend.store.list(&query, world.now()).await.unwrap().tasks;
    let types: Vec<&str> = found.iter().map(|task| task.options.labels[TYPE_LABEL].as_str()).collect();
    assert_eq!(types, ["a", "a"]);
}
