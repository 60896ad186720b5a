//! Completions by receivers: `POST /v1/tasks/{id}/complete` and `/fail`, whose credential is a completion token.

use std::time::Duration;

use nobat_api::{AccessPolicy, AuthMode};
use nobat_core::json::Json;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{CompletionToken, TaskKey};
use nobat_core::types::name::Tenant;
use serde_json::{Value, json};

use crate::world::{Answer, World, post};

const ROUTES: [(&str, &str); 2] =
    [("complete", r#"{"result":{"invoice":7}}"#), ("fail", r#"{"error":{"message":"declined"}}"#)];

/// Task of a tenant, with the token of its running attempt.
pub(crate) struct Called {
    tenant: &'static str,
    id: String,
    token: String,
}

impl Called {
    fn name(&self) -> TaskKey {
        TaskKey { tenant: Tenant::new(self.tenant).unwrap(), id: self.id.parse().unwrap() }
    }

    async fn apply(&self, world: &World, event: Event) {
        world.backend.apply(&self.name(), None, event, world.clock_now()).await.unwrap();
    }

    /// Stores that the receiver has accepted the call.
    async fn accept(&self, world: &World) {
        let until = world.clock_now() + Duration::from_hours(1);
        self.apply(world, Event::Wait { token: 1, result: Json::null(), until }).await;
    }

    /// Ends the attempt and claims the task again, as a worker does after the time-out.
    async fn time_out(&self, world: &World) {
        world.clock.advance(Duration::from_hours(1));
        let until = world.clock_now() + Duration::from_mins(1);
        self.apply(world, Event::Claim { until }).await;
    }

    pub(crate) async fn report(&self, world: &World, route: &str, body: &str) -> Answer {
        report(world, &self.id, &format!("Nobat-Completion-Token: {}\r\n", self.token), route, body).await
    }
}

async fn report(world: &World, id: &str, headers: &str, route: &str, body: &str) -> Answer {
    world.ask(post(&format!("/v1/tasks/{id}/{route}"), headers, body)).await
}

/// Submits and claims a task, and issues a token.
pub(crate) async fn called(world: &World, tenant: &'static str) -> Called {
    let key = world.key(tenant, "tasks:write").await;
    let answer = world.ask_with(&key, "POST", "/v1/tasks", r#"{"kind":"noop","labels":{"a":"b"}}"#).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let token = CompletionToken::new(Tenant::new(tenant).unwrap(), rand::random());
    let task = Called { tenant, id, token: token.as_str().to_owned() };
    task.apply(world, Event::Claim { until: world.clock_now() + Duration::from_mins(1) }).await;
    task.apply(world, Event::IssueToken { token: 1, digest: token.digest() }).await;
    task
}

async fn read(world: &World, task: &Called) -> Value {
    let key = world.key(task.tenant, "tasks:read,payload:view").await;
    world.ask_with(&key, "GET", &format!("/v1/tasks/{}", task.id), "").await.json()
}

#[tokio::test]
async fn completion_ends_a_waiting_and_a_running_task() {
    let world = World::guarded().await;
    for waits in [true, false] {
        for (route, body) in ROUTES {
            let task = called(&world, "acme").await;
            if waits {
                task.accept(&world).await;
            }
            let answer = task.report(&world, route, body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("idempotency-replayed"), None);
            let (shown, stored) = (answer.json(), read(&world, &task).await);
            assert_eq!(shown["status"], if route == "complete" { "succeeded" } else { "failed" });
            for field in ["payload", "result", "attempts", "submitted_by", "endpoint"] {
                assert!(shown.get(field).is_none(), "{field}");
            }
            assert_eq!((&shown["labels"], &shown["progress"]), (&json!({}), &Value::Null));
            assert_eq!(stored["status"], shown["status"]);
            if route == "complete" {
                assert_eq!(stored["result"], json!({"invoice": 7}));
            } else {
                assert_eq!(stored["error"], json!({"code": "handler_error", "message": "declined"}));
            }
            let again = task.report(&world, route, body).await;
            assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
            assert_eq!(again.json(), shown);
            task.report(&world, route, &format!(" {body}")).await.problem(409, "wait_ended");
            let (other, body) = ROUTES[usize::from(route == "complete")];
            task.report(&world, other, body).await.problem(409, "wait_ended");
        }
    }
}

#[tokio::test]
async fn failure_with_retry_waits_for_the_next_attempt() {
    let world = World::guarded().await;
    let task = called(&world, "acme").await;
    task.accept(&world).await;
    assert_eq!(read(&world, &task).await["held"]["reason"], "waiting");
    let long = "x".repeat(2_000);
    let body = json!({"error": {"code": "card.declined", "message": long}, "retry": true}).to_string();
    let answer = task.report(&world, "fail", &body).await.json();
    assert_eq!((&answer["status"], &answer["attempt"]), (&json!("retrying"), &json!(1)));
    assert_eq!(answer["error"], json!({"code": "card.declined", "message": long[..1_000]}));
    assert_eq!(task.report(&world, "fail", &body).await.header("idempotency-replayed"), Some("true"));
    assert_eq!(read(&world, &task).await["attempts"][0]["outcome"], "failed");
}

/// A client must not find out which tasks and tenants exist.
#[tokio::test]
async fn every_wrong_token_gets_the_same_answer() {
    let world = World::guarded().await;
    let (task, other, foreign) =
        (called(&world, "acme").await, called(&world, "acme").await, called(&world, "other").await);
    let plain = called(&world, "acme").await;
    let all = world.key("acme", "tasks:write,tasks:read,tasks:replay,config:write,admin").await;
    let secret = task.token.split_once(':').unwrap().1;
    let header = |token: &str| format!("Nobat-Completion-Token: {token}\r\n");
    let before = read(&world, &task).await;
    for (route, body) in ROUTES {
        let mut answers = Vec::new();
        for (id, headers) in [
            (&task.id, String::new()),
            (&task.id, format!("Authorization: Bearer {all}\r\n")),
            (&task.id, format!("Authorization: Bearer {}\r\n", task.token)),
            (&task.id, header("")),
            (&task.id, header("guess")),
            (&task.id, header(secret)),
            (&task.id, header(&format!("other:{secret}"))),
            (&task.id, header(&other.token)),
            (&task.id, header(&foreign.token)),
            (&task.id, header(&task.token) + &header(&task.token)),
            (&task.id, header(&format!("{}=", task.token))),
            (&foreign.id, header(&task.token)),
            (&plain.id, header(&task.token)),
            (&"task_01jd0000000000000000000000".to_owned(), header(&task.token)),
            (&"nothing".to_owned(), header(&task.token)),
        ] {
            world.clock.advance(Duration::from_secs(30));
            let answer = report(&world, id, &headers, route, body).await;
            let challenge = Some("Nobat-Completion-Token realm=\"nobat\"");
            assert_eq!(answer.header("www-authenticate"), challenge);
            let mut problem = answer.problem(401, "invalid_completion_token");
            problem["instance"].take();
            answers.push(problem);
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:#?}");
    }
    assert_eq!(read(&world, &task).await, before);
}

#[tokio::test]
async fn address_guessing_tokens_is_blocked_and_a_valid_token_is_not() {
    let world = World::guarded().await;
    let task = called(&world, "acme").await;
    let (start, last) = task.token.split_at(task.token.len() - 1);
    let guess = format!("{start}{}", if last == "A" { "E" } else { "A" });
    let guess = Called { tenant: "acme", id: task.id.clone(), token: guess };
    for _ in 0..20 {
        guess.report(&world, "complete", "{}").await.problem(401, "invalid_completion_token");
    }
    let refused = guess.report(&world, "complete", "{}").await;
    refused.problem(429, "too_many_auth_failures");
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.ask_with("nb_live_guess", "GET", "/v1/tasks", "").await.problem(429, "too_many_auth_failures");
    assert_eq!(task.report(&world, "complete", "{}").await.status, 200);
}

#[tokio::test]
async fn token_is_spent_when_its_wait_has_ended() {
    let world = World::guarded().await;
    for (route, body) in ROUTES {
        let timed_out = called(&world, "acme").await;
        timed_out.accept(&world).await;
        timed_out.time_out(&world).await;
        timed_out.report(&world, route, body).await.problem(409, "wait_ended");

        let interrupted = called(&world, "acme").await;
        interrupted.apply(&world, Event::Interrupt { token: 1 }).await;
        interrupted.report(&world, route, body).await.problem(409, "wait_ended");

        let canceled = called(&world, "acme").await;
        canceled.accept(&world).await;
        let key = world.key("acme", "tasks:write").await;
        let path = format!("/v1/tasks/{}/cancel", canceled.id);
        assert_eq!(world.ask_with(&key, "POST", &path, "").await.json()["status"], "canceled");
        canceled.report(&world, route, body).await.problem(409, "task_ended");
    }
}

#[tokio::test]
async fn invalid_report_names_its_fields_and_changes_nothing() {
    let world = World::guarded().await;
    let task = called(&world, "acme").await;
    let before = read(&world, &task).await;
    for (route, body, pointer) in [
        ("complete", "[]", ""),
        ("complete", "null", ""),
        ("complete", r#"{"outcome":1}"#, ""),
        ("fail", "{}", ""),
        ("fail", r#"{"error":"no"}"#, "/error"),
        ("fail", r#"{"error":["no"]}"#, "/error"),
        ("fail", r#"{"error":{}}"#, "/error"),
        ("fail", r#"{"error":{"message":7}}"#, "/error/message"),
        ("fail", r#"{"error":{"message":"no","code":"a b"}}"#, "/error/code"),
        ("fail", r#"{"error":{"message":"no","code":""}}"#, "/error/code"),
        ("fail", r#"{"error":{"message":"no"},"retry":"yes"}"#, "/retry"),
        ("fail", r#"{"error":{"message":"no"},"retry":1}"#, "/retry"),
    ] {
        let answer = task.report(&world, route, body).await;
        let problem = answer.problem(422, "validation_failed");
        let found = problem["errors"][0]["pointer"].as_str().unwrap();
        assert!(found.starts_with(pointer), "{body}: {problem}");
    }
    for (route, body) in [("complete", ""), ("complete", "{"), ("fail", r#"{"retry":true,"retry":true}"#)] {
        task.report(&world, route, body).await.problem(400, "malformed_json");
    }
    let large = format!(r#"{{"result":"{}"}}"#, "x".repeat(256 * 1024));
    task.report(&world, "complete", &large).await.problem(413, "body_too_large");
    let path = format!("/v1/tasks/{}/complete", task.id);
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nNobat-Completion-Token: {}\r\n", task.token);
    world.ask(format!("{head}Content-Length: 2\r\n\r\n{{}}")).await.problem(415, "unsupported_media_type");
    assert_eq!(read(&world, &task).await, before);
    // A completion without a result has the result `null`, in either form.
    assert_eq!(task.report(&world, "complete", r#"{"result":null}"#).await.status, 200);
    assert_eq!(read(&world, &task).await["result"], Value::Null);
}

#[tokio::test]
async fn completion_counts_against_the_request_rate_of_its_tenant() {
    let world = World::guarded().await;
    let task = called(&world, "acme").await;
    let admin = world.key("root", "admin").await;
    let put =
        world.ask_with(&admin, "PUT", "/v1/tenants/acme", r#"{"request_rate":{"rate":1,"burst":1}}"#).await;
    assert!([200, 201].contains(&put.status), "{}", put.text());
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(task.report(&world, "complete", "{}").await.status, 200);
    let refused = task.report(&world, "complete", "{}").await;
    refused.problem(429, "rate_limited");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(task.report(&world, "complete", "{}").await.status, 200, "a repeated completion");
}

/// The token is the credential, also on a server that has no API keys and serves its own machine only.
#[tokio::test]
async fn completion_needs_an_admitted_address_and_no_key() {
    let policy = |admitted| AccessPolicy { keys: AuthMode::NotYet, admitted, proxies: Vec::new() };
    let world = World::behind(policy(vec!["192.0.2.0/24".parse().unwrap()])).await;
    let id = "task_01jd0000000000000000000000";
    report(&world, id, "", "complete", "{}").await.problem(403, "address_not_allowed");
    let world = World::behind(policy(Vec::new())).await;
    report(&world, id, "", "complete", "{}").await.problem(401, "invalid_completion_token");
}
