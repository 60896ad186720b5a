//! Clients that submit, cancel, replay, list and await tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, select};
use nobat_core::config::endpoint::EndpointStatus;
use nobat_core::json::decode;
use nobat_core::ports::{Clock, InsertResult, ListQuery, Random};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::submission::{Submission, SubmissionContext};
use nobat_core::task::lifecycle::{Event, ReplayKey, TransitionError};
use nobat_core::task::{CancelRequest, Fingerprint, Outcome, State, Task, TaskKey};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_worker::handler::registry::Handlers;
use serde_json::json;

use super::handlers::{Manners, Script, Wrong, handlers};
use super::ledger::{Key, key};
use super::limits::{KEYS, QUEUE};
use crate::model::backend_quirks::Habits;
use crate::model::table::RECENT_LAG;
use crate::sample;
use crate::simulation::config_mutator::Keeper;
use crate::simulation::context::{Stage, short};
use crate::simulation::external_server::PARTNER;
use crate::simulation::rng::Dice;

/// Returns a client that makes `left` requests in all, across restarts.
pub fn client(
    stage: Arc<Stage>,
    actor: String,
    clock: Arc<dyn Clock>,
    backend: Backend,
    left: Arc<AtomicU32>,
) -> BoxFuture<'static, ()> {
    let kinds = handlers(&stage, &actor, 0);
    let client = Client { stage, actor, backend, clock, kinds };
    Box::pin(async move {
        while left.load(Ordering::Relaxed) > 0 {
            left.fetch_sub(1, Ordering::Relaxed);
            client.request().await;
            let pause = client.stage.some_time(client.stage.plan.pause);
            client.clock.sleep(pause).await;
        }
        if client.stage.plan.is_calm()
            && !client.stage.plan.limits.is_empty()
            && client.stage.dice.per_mille(500)
        {
            client.cancel_everything().await;
        }
        if client.stage.plan.changes > 0 {
            client.keeper().open_everything().await;
        }
    })
}

struct Client {
    stage: Arc<Stage>,
    actor: String,
    backend: Backend,
    clock: Arc<dyn Clock>,
    kinds: Handlers,
}

/// Number of tries of a request that is not answered.
const TRIES: u32 = 3;
/// Number of idempotency keys to choose from: few, so that clients use the same ones.
const IDEMPOTENCY_KEYS: u64 = 4;

impl Client {
    async fn request(&self) {
        if self.stage.happens(self.stage.plan.cloud.lists) {
            return self.list().await;
        }
        if self.stage.happens(self.stage.plan.changes) {
            return self.keeper().change().await;
        }
        match self.stage.dice.below(10) {
            0..=3 => self.submit(1).await,
            4 | 5 => self.submit(self.stage.dice.between(2, self.stage.plan.largest_request)).await,
            6 => self.cancel().await,
            7 => self.replay().await,
            _ => self.wait().await,
        }
    }

    fn keeper(&self) -> Keeper<'_> {
        Keeper { stage: &self.stage, actor: &self.actor, backend: &self.backend, clock: &*self.clock }
    }

    /// Submits tasks, with or without an idempotency key, and repeats the request up to [`TRIES`] times until
    /// it is answered.
    async fn submit(&self, count: u64) {
        let dice = &self.stage.dice;
        let tenant = if dice.per_mille(800) { Tenant::default() } else { sample::tenant("other") };
        let idempotency_key =
            dice.per_mille(500).then(|| format!("key-{count}-{}", dice.below(IDEMPOTENCY_KEYS)));
        // Requests with the same key nearly always have the same body.
        let of_key =
            idempotency_key.as_ref().filter(|_| dice.per_mille(900)).map(|key| Dice::seeded(hash(key)));
        let bodies: Vec<String> = (0..count).map(|_| self.body(of_key.as_ref().unwrap_or(dice))).collect();
        let fingerprint = idempotency_key.as_ref().map(|_| fingerprint(&bodies));
        for _ in 0..TRIES {
            let now = self.clock.now();
            let id = |index| match &idempotency_key {
                Some(key) => TaskId::from_key(&tenant, "/v1/tasks", key, index),
                None => TaskId::new(now, u128::from(dice.next_u64())),
            };
            let tasks: Vec<Task> = bodies
                .iter()
                .enumerate()
                .map(|(index, body)| self.task(body, &tenant, id(index), fingerprint))
                .collect();
            for task in &tasks {
                self.stage.ledger().asked_for.entry(key(&task.key())).or_insert_with(|| task.payload.clone());
            }
            if let Ok(inserted) = self.backend.accept(tasks.clone(), now).await {
                self.check_response(&tasks, inserted);
                return;
            }
        }
    }

    fn check_response(&self, asked: &[Task], inserted: InsertResult) {
        let tasks = match inserted {
            // The key belongs to another request, so this one is refused and nothing is accepted.
            InsertResult::Existing(tasks)
                if tasks.iter().any(|task| task.options.fingerprint != asked[0].options.fingerprint) =>
            {
                return;
            }
            InsertResult::Created(tasks) | InsertResult::Existing(tasks) => tasks,
        };
        for asked in asked {
            let Some(task) = tasks.iter().find(|task| task.id == asked.id) else {
                self.stage.violate(format!(
                    "{} was submitted, but the response does not contain it",
                    short(&asked.key())
                ));
                continue;
            };
            if task.payload != asked.payload {
                self.stage.violate(format!("{} has the payload of another request", short(&task.key())));
            }
            self.stage.trace(&self.actor, format_args!("is told that {} is accepted", short(&task.key())));
            self.stage.ledger().accepted.insert(key(&task.key()));
        }
    }

    fn task(&self, body: &str, tenant: &Tenant, id: TaskId, fingerprint: Option<Fingerprint>) -> Task {
        let endpoint =
            self.stage.plan.partner.as_ref().map(|partner| partner.endpoint(EndpointStatus::Open, 1));
        let submission: Submission =
            decode::read(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        let max_timeout = Duration::from_hours(12);
        let intake = SubmissionContext {
            tenant,
            id,
            fingerprint,
            max_timeout,
            kinds: &self.kinds,
            submitted_by: None,
            max_payload: None,
            endpoint: endpoint.as_ref(),
            then_endpoint: None,
            queue: None,
            hops: 0,
            now: self.clock.now(),
        };
        let mut task = submission.into_task(&intake).unwrap_or_else(|invalid| panic!("{invalid:?}: {body}"));
        if !self.stage.plan.is_calm() && hash(body).is_multiple_of(8) {
            task.options.expires_at = Some(task.due_at + Duration::from_secs(1 + hash(body) % 300));
        }
        task
    }

    /// Returns the JSON of a submission.
    fn body(&self, dice: &Dice) -> String {
        let number = dice.next_u64();
        let (limit_key, queue) = self.limits_of(number);
        let mut script = Script {
            number,
            failures: dice.pick(&[0, 0, 0, 1, 2, 9]).unwrap_or(0),
            failure: self.failure(dice),
            seconds: dice.pick(&[0, 0, 0, 0, 1, 5, 30, 130]).unwrap_or(0),
            manners: dice.pick(&[Manners::Heeds, Manners::Ignores]).unwrap_or_default(),
            limit_key,
            queue,
            endpoint: None,
        };
        let kind = if dice.per_mille(900) { "work" } else { "rare" };
        script.endpoint = self.endpoint_of(kind, number);
        let mut body = json!({
            "kind": kind,
            "payload": &script,
            "delay": dice.pick(&[0.0, 0.0, 0.0, 1.5, 30.0, 1_500.0]),
            "timeout": dice.pick(&[7.5, 40.5, 200.5]).map(|timeout: f64| timeout.min(self.longest_timeout())),
            "retry": if dice.per_mille(700) {
                json!({"delays": (0..dice.below(4)).map(|_| dice.between(1, 90)).collect::<Vec<_>>()})
            } else {
                json!({"max_attempts": dice.between(1, 4), "initial_delay": 5, "max_delay": 60})
            },
        });
        if let Some(key) = &script.limit_key {
            body["limit_key"] = json!(key);
        }
        if let Some(queue) = &script.queue {
            body["queue"] = json!(queue);
        }
        if let Some(endpoint) = &script.endpoint {
            body["endpoint"] = json!(endpoint);
        }
        if dice.per_mille(500) {
            let mut on = Outcome::ALL.map(Outcome::as_str).to_vec();
            dice.shuffle(&mut on);
            on.truncate(usize::try_from(dice.between(1, 4)).unwrap_or(1));
            body["callback"] = json!({"url": "https://example.com/done", "on": on});
        }
        body.to_string()
    }

    /// Returns a task's limit key and queue, or nothing if the run has no limits.
    fn limits_of(&self, number: u64) -> (Option<String>, Option<String>) {
        if !self.stage.plan.has_configuration() {
            return (None, None);
        }
        let dice = Dice::seeded(number);
        let key = dice.pick(&[Some(KEYS[0]), Some(KEYS[0]), Some(KEYS[1]), None]).flatten();
        (key.map(str::to_owned), dice.per_mille(300).then(|| QUEUE.to_owned()))
    }

    /// Returns the endpoint of a task, if it has one.
    fn endpoint_of(&self, kind: &str, number: u64) -> Option<String> {
        let goes =
            self.stage.plan.partner.is_some() && kind == "work" && Dice::seeded(!number).per_mille(600);
        goes.then(|| PARTNER.to_owned())
    }

    /// Returns the longest timeout of a task, in seconds. A function stops a little before it is killed, and
    /// tasks must time out before that.
    fn longest_timeout(&self) -> f64 {
        self.stage.plan.cloud.function_timeout.map_or(f64::INFINITY, |timeout| timeout.as_secs_f64() - 5.0)
    }

    fn failure(&self, dice: &Dice) -> Wrong {
        let failures = [
            Wrong::Error,
            Wrong::Error,
            Wrong::Pause,
            Wrong::Permanent,
            Wrong::Panic,
            Wrong::Hang,
            Wrong::Kill,
        ];
        match dice.pick(&failures).unwrap_or_default() {
            // In a calm run no process crashes.
            Wrong::Kill if self.stage.plan.is_calm() => Wrong::Error,
            failure => failure,
        }
    }

    fn random_task(&self) -> Option<TaskKey> {
        let accepted: Vec<Key> = self.stage.ledger().accepted.iter().cloned().collect();
        self.stage.dice.pick(&accepted).map(|(tenant, id)| TaskKey { tenant, id })
    }

    /// Cancels a random task.
    async fn cancel(&self) {
        if let Some(name) = self.random_task() {
            self.cancel_one(&name).await;
        }
    }

    /// Cancels all tasks, most of which hold reservations. None of these may be left over.
    async fn cancel_everything(&self) {
        let accepted: Vec<Key> = self.stage.ledger().accepted.iter().cloned().collect();
        for (tenant, id) in accepted {
            self.cancel_one(&TaskKey { tenant, id }).await;
        }
    }

    async fn cancel_one(&self, name: &TaskKey) {
        self.apply_event(name, Event::Cancel, TransitionError::Ended, |task| match &task.state {
            State::Ended(ended) => ended.end == Outcome::Canceled,
            State::Running(lease) => lease.cancel == CancelRequest::Requested,
            State::Waiting(_) => false,
        })
        .await;
    }

    /// Replays a random task.
    async fn replay(&self) {
        let Some(name) = self.random_task() else { return };
        let key = if self.stage.dice.per_mille(500) { ReplayKey::Same } else { ReplayKey::New };
        let is_anew =
            |task: &Task| matches!(task.state, State::Waiting(_)) && task.attempt == 0 && task.generation > 1;
        self.apply_event(&name, Event::Replay { key, generation: None }, TransitionError::NotEnded, is_anew)
            .await;
    }

    /// Applies an event to a task. The result must be as expected, or refused with `reason`.
    async fn apply_event(
        &self,
        name: &TaskKey,
        event: Event,
        reason: TransitionError,
        is_expected: impl Fn(&Task) -> bool,
    ) {
        self.stage.ledger().meddled_with.insert(key(name));
        let is_right = match self.backend.apply(name, None, event, self.clock.now()).await {
            Ok(task) => is_expected(&task),
            Err(ApplyError::Refused(refused)) => refused == reason,
            Err(ApplyError::Missing) => false,
            Err(ApplyError::Store(_)) => true,
        };
        if !is_right {
            self.stage.violate(format!("{}: the response to a client's change is impossible", short(name)));
        }
    }

    /// Lists all tasks of a tenant. None may be shown twice or out of order, and none that was accepted a
    /// while ago may be missing.
    async fn list(&self) {
        let tenant = Tenant::default();
        let accepted: BTreeSet<Key> =
            self.stage.ledger().accepted.iter().filter(|(of, _)| *of == tenant).cloned().collect();
        self.clock.sleep(RECENT_LAG).await;
        let limit = usize::try_from(self.stage.dice.between(1, 20)).unwrap_or(1);
        let mut query = ListQuery::all(tenant, limit);
        let mut shown: Vec<Task> = Vec::new();
        loop {
            let Ok(page) = self.backend.store.list(&query, self.clock.now()).await else { return };
            shown.extend(page.tasks);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        if !shown.is_sorted_by(|one, next| (one.created_at, one.id) > (next.created_at, next.id)) {
            self.stage.violate("a list is out of order, or shows a task twice".to_owned());
        }
        let shown: BTreeSet<Key> = shown.iter().map(|task| key(&task.key())).collect();
        if let Some((tenant, id)) = accepted.difference(&shown).next() {
            self.stage.violate(format!(
                "{}: a list omits the task",
                short(&TaskKey { tenant: tenant.clone(), id: *id })
            ));
        }
    }

    /// Waits for the end of a task, as a request with `wait` does.
    async fn wait(&self) {
        let Some(name) = self.random_task() else { return };
        let give_up = self.clock.now() + Duration::from_secs(25);
        while self.clock.now() < give_up {
            let changed = self.backend.store.changed(&name);
            match self.backend.store.get(&name, self.clock.now()).await {
                Err(_) => return,
                Ok(None) => self.stage.violate(format!("{} was accepted, but is not stored", short(&name))),
                Ok(Some(task)) if matches!(task.state, State::Ended(_)) => return,
                Ok(Some(_)) => {}
            }
            select(changed, self.clock.sleep(give_up.since(self.clock.now()))).await;
        }
    }
}

/// Returns the FNV-1a hash of a text, as a seed.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn fingerprint(bodies: &[String]) -> Fingerprint {
    let dice = Dice::seeded(hash(&bodies.concat()));
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&dice.next_u64().to_be_bytes());
    }
    Fingerprint(bytes)
}
