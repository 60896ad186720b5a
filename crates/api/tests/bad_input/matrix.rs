//! Access matrix of every route: required scopes, and only the client's own data. The rows come from the
//! OpenAPI document, so a route that it describes incompletely fails here.

use std::collections::BTreeSet;

use nobat_core::auth::scope::Scope;
use serde_json::Value;

use crate::world::{Answer, World};

/// Operations without a key. They reveal no tenant's data. The source verifies a webhook.
const PUBLIC: [&str; 5] = ["healthz", "readyz", "openapi", "receive_webhook", "answer_challenge"];

/// Operations of receivers. Their credential is a completion token, see `completions.rs`.
const OF_RECEIVERS: [&str; 2] = ["complete_task", "fail_task"];

/// Operations on the whole installation. No tenant owns what they read and change.
const OF_THE_INSTALLATION: [&str; 9] = [
    "create_key",
    "list_keys",
    "get_key",
    "rotate_key",
    "revoke_key",
    "put_tenant",
    "get_tenant",
    "list_tenants",
    "read_audit",
];

/// Operation of the document.
struct Row {
    id: String,
    /// True if the route takes the header `Idempotency-Key`.
    takes_key: bool,
    method: String,
    path: String,
    scope: Option<Scope>,
}

fn rows() -> Vec<Row> {
    let document: Value = serde_json::from_str(&nobat_api::openapi().to_json().unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, row)| (path, method, row))
    });
    operations
        .map(|(path, method, row)| {
            let security = row["security"].as_array().unwrap().first();
            let scopes = security.and_then(|security| security["key"].as_array().cloned());
            let takes_token = security.is_some_and(|security| security["completion_token"].is_array());
            let id = row["operationId"].as_str().unwrap().to_owned();
            assert_eq!(takes_token, OF_RECEIVERS.contains(&id.as_str()), "{path}");
            let scope = scopes.map(|scopes| {
                assert_eq!(scopes.len(), 1, "{path}: a route requires one scope");
                scopes[0].as_str().unwrap().parse().unwrap()
            });
            let mut parameters = row["parameters"].as_array().into_iter().flatten();
            let takes_key = parameters.any(|parameter| parameter["name"] == "Idempotency-Key");
            Row { id, takes_key, method: method.to_uppercase(), path: path.clone(), scope }
        })
        .collect()
}

impl Row {
    /// Returns a valid body.
    fn body(&self) -> &'static str {
        match self.id.as_str() {
            "submit_task" => r#"{"kind":"noop"}"#,
            "submit_batch" => r#"{"tasks":[{"kind":"noop"}]}"#,
            "create_key" => r#"{"scopes":["work"]}"#,
            "put_tenant" | "put_queue" | "put_kind" | "put_limits" => "{}",
            "put_endpoint" => r#"{"url":"https://example.com"}"#,
            "publish_event" | "test_subscription" => r#"{"type":"order.created"}"#,
            "replay_event" => r#"{"subscription":"acme"}"#,
            "put_subscription" => SUBSCRIPTION,
            "put_schedule" => SCHEDULE,
            "put_source" => SOURCE,
            "cancel_task"
            | "replay_task"
            | "rotate_key"
            | "revoke_key"
            | "get_task"
            | "explain_task"
            | "list_tasks"
            | "get_event"
            | "list_events"
            | "get_subscription"
            | "list_subscriptions"
            | "remove_subscription"
            | "get_schedule"
            | "list_schedules"
            | "remove_schedule"
            | "pause_schedule"
            | "resume_schedule"
            | "run_schedule"
            | "get_source"
            | "list_sources"
            | "remove_source"
            | "get_key"
            | "list_keys"
            | "get_tenant"
            | "list_tenants"
            | "read_audit"
            | "set_callback_secret"
            | "rotate_callback_secret"
            | "get_callback_secret"
            | "remove_callback_secret"
            | "get_endpoint"
            | "list_endpoints"
            | "remove_endpoint"
            | "rotate_endpoint_secret"
            | "pause_endpoint"
            | "resume_endpoint"
            | "test_endpoint"
            | "get_queue"
            | "get_kind"
            | "get_limits" => "",
            other => panic!("the operation {other} has no row in `Row::body`; add a valid body"),
        }
    }

    async fn ask(&self, world: &World, key: &str, id: &str) -> Answer {
        world
            .ask_with(
                key,
                &self.method,
                &self.path.replace("{id}", id).replace("{name}", "acme"),
                self.body(),
            )
            .await
    }
}

/// Subscription that selects every event.
const SUBSCRIPTION: &str = r##"{"topic":"#","task":{"kind":"noop"}}"##;

/// Schedule that creates a task each hour.
const SCHEDULE: &str = r#"{"every":3600,"task":{"kind":"noop"}}"#;

/// Source that publishes the requests of one address as events.
const SOURCE: &str = r#"{"verify":{"networks":["203.0.113.7"]},"event":{"type":"paid"}}"#;

async fn submitted(world: &World, tenant: &str) -> String {
    accepted(world, tenant, "/v1/tasks", r#"{"kind":"noop"}"#).await
}

async fn published(world: &World, tenant: &str) -> String {
    accepted(world, tenant, "/v1/events", r#"{"type":"order.created"}"#).await
}

/// Returns the id of a new object.
async fn accepted(world: &World, tenant: &str, path: &str, body: &str) -> String {
    let key = world.key(tenant, "tasks:write").await;
    let answer = world.ask_with(&key, "POST", path, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Creates an endpoint of this tenant with the name `acme`.
async fn put_endpoint_acme(world: &World, tenant: &str) {
    put_acme(world, tenant, "endpoints", r#"{"url":"https://example.com"}"#).await;
}

/// Creates a configuration object of this tenant with the name `acme`.
async fn put_acme(world: &World, tenant: &str, collection: &str, body: &str) {
    let key = world.key(tenant, "config:write").await;
    let answer = world.ask_with(&key, "PUT", &format!("/v1/{collection}/acme"), body).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

#[tokio::test]
async fn every_route_requires_exactly_its_scope() {
    let world = World::guarded().await;
    for row in rows() {
        let Some(needed) = row.scope else {
            let is_known = PUBLIC.contains(&row.id.as_str()) || OF_RECEIVERS.contains(&row.id.as_str());
            assert!(is_known, "{} requires no key and is not in PUBLIC", row.id);
            continue;
        };
        let (task, thing) = (submitted(&world, "acme").await, row.path.starts_with("/v1/keys"));
        if row.path.starts_with("/v1/endpoints/") {
            put_endpoint_acme(&world, "acme").await;
        }
        if row.path.starts_with("/v1/subscriptions/") || row.id == "replay_event" {
            put_acme(&world, "acme", "subscriptions", SUBSCRIPTION).await;
        }
        if row.path.starts_with("/v1/schedules/") {
            put_acme(&world, "acme", "schedules", SCHEDULE).await;
        }
        if row.path.starts_with("/v1/sources/") {
            put_acme(&world, "acme", "sources", SOURCE).await;
        }
        for scope in Scope::ALL {
            let key = world.key("acme", scope.as_str()).await;
            let id = match () {
                () if thing => id_of(&world.key("acme", "work").await),
                () if row.path.starts_with("/v1/events/") => published(&world, "acme").await,
                () => task.clone(),
            };
            let answer = row.ask(&world, &key, &id).await;
            if scope == needed {
                assert!(
                    ![401, 403, 404].contains(&answer.status),
                    "{} with {scope:?}: {}",
                    row.id,
                    answer.text()
                );
            } else {
                let problem = answer.problem(403, "missing_scope");
                assert!(problem["detail"].as_str().unwrap().contains(needed.as_str()), "{problem}");
            }
        }
    }
}

#[tokio::test]
async fn every_route_but_the_public_ones_requires_a_key() {
    let world = World::guarded().await;
    let task = submitted(&world, "acme").await;
    for row in rows().iter().filter(|row| row.scope.is_some()) {
        let path = row.path.replace("{id}", &task).replace("{name}", "acme");
        let answer = world
            .ask(format!("{} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", row.method))
            .await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"nobat\""));
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn task_of_another_tenant_looks_like_a_missing_one() {
    let world = World::guarded().await;
    let (theirs, their_event) = (submitted(&world, "acme").await, published(&world, "acme").await);
    for row in rows()
        .iter()
        .filter(|row| row.scope.is_some() && row.path.contains("{id}"))
        .filter(|row| !OF_THE_INSTALLATION.contains(&row.id.as_str()))
    {
        let key = world.key("other", row.scope.unwrap().as_str()).await;
        let (id, nothing, code) = if row.path.starts_with("/v1/events/") {
            (&their_event, "event_01jd0000000000000000000000", "event_not_found")
        } else {
            (&theirs, "task_01jd0000000000000000000000", "task_not_found")
        };
        let (foreign, missing) = (row.ask(&world, &key, id).await, row.ask(&world, &key, nothing).await);
        let (mut foreign, mut missing) = (foreign.problem(404, code), missing.problem(404, code));
        foreign["instance"].take();
        missing["instance"].take();
        assert_eq!(foreign, missing, "{}", row.id);
    }
    let all = Scope::ALL.map(Scope::as_str).join(",");
    let task = world
        .ask_with(&world.key("acme", &all).await, "GET", &format!("/v1/tasks/{theirs}"), "")
        .await
        .json();
    assert_eq!(task["status"], "queued", "the task of the other tenant is unchanged");
}

/// A name belongs to one tenant. Another tenant's record of the same name is neither visible nor changed.
#[tokio::test]
async fn endpoint_of_another_tenant_looks_like_a_missing_one() {
    let world = World::guarded().await;
    put_endpoint_acme(&world, "acme").await;
    let (theirs, ours) = (world.key("acme", "config:write").await, world.key("other", "config:write").await);
    let before = world.ask_with(&theirs, "GET", "/v1/endpoints/acme", "").await.json();
    for row in rows().iter().filter(|row| row.path.starts_with("/v1/endpoints/") && row.id != "put_endpoint")
    {
        row.ask(&world, &ours, "").await.problem(404, "endpoint_not_found");
    }
    assert_eq!(world.ask_with(&ours, "GET", "/v1/endpoints", "").await.json()["data"], serde_json::json!([]));
    put_endpoint_acme(&world, "other").await;
    assert_eq!(world.ask_with(&ours, "POST", "/v1/endpoints/acme/pause", "").await.json()["paused"], true);
    assert_eq!(
        world.ask_with(&theirs, "GET", "/v1/endpoints/acme", "").await.json(),
        before,
        "the endpoint of the other tenant is unchanged"
    );
    put_acme(&world, "acme", "subscriptions", SUBSCRIPTION).await;
    for row in
        rows().iter().filter(|row| row.path.starts_with("/v1/subscriptions/") && row.id != "put_subscription")
    {
        row.ask(&world, &ours, "").await.problem(404, "subscription_not_found");
    }
    put_acme(&world, "acme", "schedules", SCHEDULE).await;
    for row in rows().iter().filter(|row| row.path.starts_with("/v1/schedules/") && row.id != "put_schedule")
    {
        row.ask(&world, &ours, "").await.problem(404, "schedule_not_found");
    }
    put_acme(&world, "acme", "sources", SOURCE).await;
    for row in rows().iter().filter(|row| row.path.starts_with("/v1/sources/") && row.id != "put_source") {
        row.ask(&world, &ours, "").await.problem(404, "source_not_found");
    }
    for path in ["/v1/queues/acme", "/v1/kinds/acme"] {
        assert_eq!(world.ask_with(&ours, "PUT", path, r#"{"paused":true}"#).await.json()["paused"], true);
        assert_eq!(world.ask_with(&theirs, "GET", path, "").await.json()["paused"], false, "{path}");
    }
    assert_eq!(world.ask_with(&ours, "PUT", "/v1/limits/acme", r#"{"rate":1}"#).await.json()["rate"], 1);
    assert_eq!(world.ask_with(&theirs, "GET", "/v1/limits/acme", "").await.json()["rate"], Value::Null);
}

#[test]
fn every_admin_operation_is_classified() {
    let rows = rows();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for id in OF_THE_INSTALLATION.iter().chain(&PUBLIC).chain(&OF_RECEIVERS) {
        assert!(known.contains(id), "{id} is not in the document");
    }
    for row in rows.iter().filter(|row| row.scope == Some(Scope::Admin)) {
        assert!(
            OF_THE_INSTALLATION.contains(&row.id.as_str()),
            "{} requires `admin` and is not in OF_THE_INSTALLATION",
            row.id
        );
    }
}

fn id_of(key: &str) -> String {
    key.parse::<nobat_core::auth::api_key::KeyText>().unwrap().digest().id().to_string()
}

#[tokio::test]
async fn every_post_accepts_or_refuses_an_idempotency_key() {
    const HEADER: &str = "Idempotency-Key: order-7\r\n";
    let world = World::guarded().await;
    // A provider's request names its event in its own way.
    for row in rows().iter().filter(|row| row.method == "POST" && row.scope.is_some()) {
        let key = world.key("acme", row.scope.unwrap().as_str()).await;
        put_endpoint_acme(&world, "acme").await;
        let id = if row.path.starts_with("/v1/keys") {
            id_of(&world.key("acme", "work").await)
        } else if row.path.starts_with("/v1/events/") {
            published(&world, "acme").await
        } else {
            submitted(&world, "acme").await
        };
        if row.id == "replay_event" || row.path.starts_with("/v1/subscriptions/") {
            put_acme(&world, "acme", "subscriptions", SUBSCRIPTION).await;
        }
        if row.path.starts_with("/v1/schedules/") {
            put_acme(&world, "acme", "schedules", SCHEDULE).await;
        }
        if row.id == "replay_task" {
            let writer = world.key("acme", "tasks:write").await;
            assert_eq!(
                world.ask_with(&writer, "POST", &format!("/v1/tasks/{id}/cancel"), "").await.status,
                200
            );
        }
        let path = row.path.replace("{id}", &id).replace("{name}", "acme");
        let post = async |body: &str| world.ask_from(HEADER, &key, "POST", &path, body).await;
        let before = world.store.all();
        let first = post(row.body()).await;
        if !row.takes_key {
            let problem = first.problem(400, "idempotency_key_not_supported");
            assert!(
                problem["detail"].as_str().unwrap().contains("without the header"),
                "{}: {problem}",
                row.id
            );
            assert_eq!(world.store.all(), before, "{}", row.id);
            continue;
        }
        assert!(
            [200, 202].contains(&first.status) && first.header("idempotency-replayed").is_none(),
            "{}: {}",
            row.id,
            first.text()
        );
        let (done, again) = (world.store.all(), post(row.body()).await);
        assert_eq!(
            (again.status, again.header("idempotency-replayed")),
            (first.status, Some("true")),
            "{}",
            row.id
        );
        assert_eq!(again.json(), first.json(), "{}", row.id);
        assert_eq!(world.store.all(), done, "{}: the request is carried out once", row.id);
        // With another valid body, the same key belongs to another request.
        let other = if row.body().is_empty() { "{}".to_owned() } else { format!(" {}", row.body()) };
        post(&other).await.problem(422, "idempotency_key_reused");
    }
}
