//! Faulty access of an actor to the backend: any call can be delayed or lost.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::json::Json;
use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::limits::{LimiterChange, LimiterKey, LimiterState, Successor};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::ports::{
    ClaimResult, CommitResult, Delivery, Heartbeat, Hint, InsertResult, ListQuery, Page, Queue, Receipt,
    Settlement, StoreError, TaskStore,
};
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::Change;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use super::ledger::{Key, key};
use crate::model::backend_quirks::{Habit, Habits};
use crate::model::calls::Call;
use crate::simulation::context::{Service, Stage, short, yield_once};

/// Access of one actor to the backend.
#[derive(Clone)]
pub struct Faulty {
    stage: Arc<Stage>,
    actor: String,
    inner: Backend,
}

impl Faulty {
    /// Returns the backend as `actor` sees it.
    pub fn backend(stage: &Arc<Stage>, actor: &str, inner: &Backend) -> Backend {
        let way = Arc::new(Self { stage: stage.clone(), actor: actor.to_owned(), inner: inner.clone() });
        // Without any configuration, the registry is not made faulty. So runs without limits are the same as
        // before limits were added.
        let registry = if stage.plan.has_configuration() { way.clone() } else { inner.config.clone() };
        Backend { store: way.clone(), queue: way.clone(), config: registry, limiters: way }
    }

    /// Makes a call, and retries it as the SDK does if it fails. All tries keep the number of the call.
    async fn call<T, F>(
        &self,
        service: Service,
        what: String,
        effect: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let call = self.stage.calls.begin();
        let mut answer = self.attempt(service, &what, call, &effect).await;
        for _ in 0..self.stage.plan.cloud.retries {
            if answer.is_ok() {
                break;
            }
            answer = self.attempt(service, &what, call, &effect).await;
            if answer.is_ok() {
                self.stage.note(Habit::SucceedsAtRetry);
            }
        }
        answer
    }

    /// Makes one try of a call. Other calls may come before and after it, and it may fail before or after its
    /// effect.
    async fn attempt<T, F>(
        &self,
        service: Service,
        what: &str,
        call: Call,
        effect: &impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let plan = &self.stage.plan;
        let (fails, loses_reply) = (self.stage.happens(plan.fails), self.stage.happens(plan.loses_reply));
        self.delay_call().await;
        if fails || self.stage.is_away(service) {
            self.stage.trace(&self.actor, format_args!("{what}: fails"));
            return Err(StoreError::Unavailable("simulated".to_owned()));
        }
        if self.stage.is_throttled(service) {
            self.stage.note(Habit::Throttles);
            self.stage.trace(&self.actor, format_args!("{what}: throttled"));
            return Err(StoreError::Overloaded);
        }
        let answer = match service {
            // A store answers at once, so no other actor can act under this call's number.
            Service::Store => {
                self.stage.calls.enter(call);
                let answer = effect().await;
                self.stage.calls.leave();
                answer
            }
            Service::Queue => effect().await,
        };
        self.stage.trace(
            &self.actor,
            format_args!("{what}{}", if loses_reply { ": done, reply lost" } else { "" }),
        );
        self.delay_call().await;
        if loses_reply {
            Err(StoreError::Unavailable("simulated, although the call took effect".to_owned()))
        } else {
            answer
        }
    }

    async fn delay_call(&self) {
        let (stage, plan) = (&self.stage, &self.stage.plan);
        if stage.happens(plan.hangs) {
            stage.time.sleep_until(stage.time.now() + Duration::from_secs(stage.dice.between(61, 200))).await;
        } else if stage.happens(plan.is_slow) {
            stage
                .time
                .sleep_until(stage.time.now() + Duration::from_millis(stage.dice.between(1, 8_000)))
                .await;
        } else if stage.dice.per_mille(700) {
            yield_once().await;
        }
    }

    /// Fails for a poisoned task: some claimants get an error, others crash.
    async fn fail_if_poisoned(&self, name: &TaskKey) -> Result<(), StoreError> {
        if !self.stage.is_poisoned(name) {
            return Ok(());
        }
        self.stage.trace(&self.actor, format_args!("cannot claim {}", short(name)));
        if name.id.to_bytes()[15].is_multiple_of(2) {
            self.stage.ledger().killed.insert(self.actor.clone());
            std::future::pending::<()>().await;
        }
        Err(StoreError::Unavailable("simulated, for this task only".to_owned()))
    }

    /// Loses, doubles and delays hints on their way into the queue.
    fn disturb_hints(&self, hints: Vec<Hint>) -> Vec<Hint> {
        let (stage, plan) = (&self.stage, &self.stage.plan);
        let mut sent = Vec::new();
        for hint in hints {
            let late = if stage.happens(plan.delays_hint) { stage.dice.between(1, 600) } else { 0 };
            if stage.happens(plan.doubles_hint) {
                sent.push(Hint {
                    delay: hint.delay + Duration::from_secs(stage.dice.below(100)),
                    ..hint.clone()
                });
            }
            if !stage.happens(plan.loses_hint) {
                sent.push(Hint { delay: hint.delay + Duration::from_secs(late), ..hint });
            }
        }
        stage.dice.shuffle(&mut sent);
        sent
    }
}

#[async_trait]
impl TaskStore for Faulty {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        let first = tasks.first().map(|task| short(&task.key())).unwrap_or_default();
        let count = tasks.len();
        self.call(Service::Store, format!("inserts {first} ({count})"), || {
            self.inner.store.insert(tasks.clone(), now)
        })
        .await
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.call(Service::Store, format!("gets {}", short(name)), || self.inner.store.get(name, now)).await
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        self.fail_if_poisoned(name).await?;
        let claim = self
            .call(Service::Store, format!("claims {}", short(name)), || {
                self.inner.store.claim(name, until, now)
            })
            .await;
        match &claim {
            Ok(ClaimResult::Granted(task)) => {
                self.stage
                    .trace(&self.actor, format_args!("claimed {} with token {}", short(name), task.token));
                self.stage.ledger().given(&self.actor, name, task.token, self.stage.time.now());
            }
            Ok(ClaimResult::Refused(refused, _)) => {
                self.stage.trace(&self.actor, format_args!("did not claim {}: {refused}", short(name)));
            }
            _ => {}
        }
        claim
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        let (name, status) = (change.task.key(), change.task.status(now));
        let what =
            format!("commits {} as {}, version {}", short(&name), status.as_str(), change.task.version);
        let effect = || async {
            let committed = self.inner.store.commit(change.clone(), now).await?;
            if let CommitResult::Done(task) = &committed
                && !self.stage.ledger().has_written(&self.actor, task)
            {
                self.stage.violate(format!(
                    "{}: {} recorded an outcome with another process's token",
                    short(&name),
                    self.actor
                ));
            }
            Ok(committed)
        };
        let committed = self.call(Service::Store, what, effect).await;
        if let Ok(CommitResult::Conflict) = &committed {
            self.stage.trace(&self.actor, format_args!("meets a conflict over {}", short(&name)));
        }
        committed
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        let beat = || self.inner.store.heartbeat(name, token, until, progress.clone());
        self.call(Service::Store, format!("renews the lease of {} with token {token}", short(name)), beat)
            .await
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.call(Service::Store, "lists".to_owned(), || self.inner.store.list(query, now)).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        self.call(Service::Store, "reads due tasks".to_owned(), || self.inner.store.due(limit, now)).await
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        self.call(Service::Store, format!("postpones {}", short(&task.key())), || {
            self.inner.store.postpone(task, until)
        })
        .await
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        self.call(Service::Store, format!("counts waiting tasks of {tenant}"), || {
            self.inner.store.waiting(tenant, at_most)
        })
        .await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.call(Service::Store, "prunes".to_owned(), || self.inner.store.prune(limit, now)).await
    }

    async fn changed(&self, name: &TaskKey) {
        self.inner.store.changed(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.call(Service::Store, "checks that the store is writable".to_owned(), || {
            self.inner.store.ready(now)
        })
        .await
    }
}

impl Faulty {
    async fn write_limiter(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let written = self.inner.limiters.write(name, limiter, over, now).await?;
        if written == WriteResult::Done {
            let limits =
                self.stage.plan.limits.iter().find(|laid| laid.of == name.scope).map(|laid| laid.limits);
            let state = limiter.state(&limits.unwrap_or_default(), now);
            self.stage.starts().stands(name, &state, self.stage.time.now());
        }
        Ok(written)
    }
}

/// Access of a process that changes a limiter state without asking for a start, which renews none of its
/// slots.
struct Aside<'a>(&'a Faulty);

#[async_trait]
impl LimiterStore for Aside<'_> {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        self.0
            .call(Service::Store, format!("reads limiter {}", name.scope), || {
                self.0.inner.limiters.read(name)
            })
            .await
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let what = format!("changes limiter {}, version {}", name.scope, over + 1);
        self.0.call(Service::Store, what, || self.0.write_limiter(name, limiter, over, now)).await
    }
}

#[async_trait]
impl LimiterStore for Faulty {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        let asked_at = self.stage.time.now();
        let kept = self
            .call(Service::Store, format!("reads limiter {}", name.scope), || self.inner.limiters.read(name))
            .await?;
        self.stage.starts().reads(
            &self.actor,
            name,
            asked_at,
            self.stage.time.now(),
            self.stage.plan.clocks_apart(),
        );
        Ok(kept)
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let what = format!("writes limiter {}, version {}", name.scope, over + 1);
        let apart = self.stage.plan.clocks_apart();
        self.stage.starts().writes(&self.actor, name);
        let effect = || async {
            let written = self.write_limiter(name, limiter, over, now).await?;
            if written == WriteResult::Done {
                self.stage.starts().has_written(&self.actor, name, now, self.stage.time.now(), apart);
            }
            Ok(written)
        };
        self.call(Service::Store, what, effect).await
    }

    async fn change(
        &self,
        name: &LimiterKey,
        change: LimiterChange,
        now: Timestamp,
    ) -> Result<Option<Successor>, StoreError> {
        Aside(self).change(name, change, now).await
    }
}

#[async_trait]
impl ConfigStore for Faulty {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        let what = format!("looks up {} {}", name.kind.as_str(), name.name);
        self.call(Service::Store, what, || self.inner.config.find(name)).await
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        sort: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.call(Service::Store, "lists records".to_owned(), || {
            self.inner.config.page(tenant, sort, after, limit)
        })
        .await
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        let effect = || async {
            let recorded = self
                .inner
                .config
                .write_with_tasks(records.clone(), tasks.clone(), entry.clone(), now)
                .await?;
            if recorded == RecordResult::Done {
                let (mut closed, now) = (self.stage.closed(), self.stage.time.now());
                for record in &records {
                    closed.written(record, now);
                }
            }
            Ok(recorded)
        };
        let about = entry.as_ref().map_or("no request", |entry| &entry.target);
        self.call(Service::Store, format!("writes {} records about {about}", records.len()), effect).await
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        let effect = || async {
            let recorded = self.inner.config.remove(name, version, entry.clone()).await?;
            if recorded == RecordResult::Done {
                self.stage.closed().removed(name, self.stage.time.now());
            }
            Ok(recorded)
        };
        self.call(Service::Store, format!("removes {} {}", name.kind.as_str(), name.name), effect).await
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        self.call(Service::Store, "reads the audit trail".to_owned(), || self.inner.config.audit(query, now))
            .await
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        self.call(Service::Store, format!("takes requests of {tenant}"), || {
            self.inner.config.take(tenant, rate, wanted, now)
        })
        .await
    }
}

#[async_trait]
impl Queue for Faulty {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        let named: Vec<(Key, u32)> = hints.iter().map(|hint| (key(&hint.name), hint.redrives)).collect();
        let spoilt = self.disturb_hints(hints);
        let what = format!("sends {} hints as {}", named.len(), spoilt.len());
        self.call(Service::Queue, what, || self.inner.queue.send(spoilt.clone())).await?;
        for (task, redrives) in named {
            if redrives > 0 {
                self.stage.note(Habit::HintsDeadLetter);
            }
            self.stage.ledger().hinted(task, redrives, self.stage.time.now());
        }
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let brought = AtomicU64::new(0);
        let receive = || async {
            let deliveries = self.inner.queue.receive(max).await?;
            brought.fetch_add(u64::from(!deliveries.is_empty()), Ordering::Relaxed);
            Ok(deliveries)
        };
        let received = self.call(Service::Queue, "receives".to_owned(), receive).await;
        let arrived = u64::from(received.as_ref().is_ok_and(|deliveries| !deliveries.is_empty()));
        for _ in arrived..brought.into_inner() {
            self.stage.note(Habit::LosesReceived);
        }
        received
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        let count = settlements.len();
        self.call(Service::Queue, format!("settles {count}"), || self.inner.queue.settle(settlements.clone()))
            .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call(Service::Queue, "checks that the queue is available".to_owned(), || {
            self.inner.queue.ready()
        })
        .await
    }
}
