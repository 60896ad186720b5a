//! What an actor has of the backend: a way to it on which anything can be held up or lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::backend::Backend;
use nobat_core::json::Json;
use nobat_core::lifecycle::Change;
use nobat_core::ports::{
    Beat, Claim, Committed, Delivery, Hint, Inserted, ListQuery, Page, Queue, Receipt, Settlement, Store, StoreError, TaskName,
};
use nobat_core::task::Task;
use nobat_core::time::Timestamp;

use super::stage::{Service, Stage, short, step_aside};

/// One actor's way to a store and a queue.
#[derive(Clone)]
pub struct Faulty {
    stage: Arc<Stage>,
    actor: String,
    inner: Backend,
}

impl Faulty {
    /// The backend as `actor` sees it.
    pub fn backend(stage: &Arc<Stage>, actor: &str, inner: &Backend) -> Backend {
        let way = Arc::new(Self { stage: stage.clone(), actor: actor.to_owned(), inner: inner.clone() });
        Backend { store: way.clone(), queue: way }
    }

    /// Makes a call, which others come in front of and after, and which may fail before its effect or after it.
    async fn call<T>(&self, service: Service, what: String, effect: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let plan = &self.stage.plan;
        let (fails, loses_reply) = (self.stage.happens(plan.fails), self.stage.happens(plan.loses_reply));
        self.hold_up().await;
        if fails || self.stage.is_away(service) {
            self.stage.trace(&self.actor, format_args!("{what}: fails"));
            return Err(StoreError::Unavailable("simulated".to_owned()));
        }
        let answer = effect.await;
        self.stage.trace(&self.actor, format_args!("{what}{}", if loses_reply { ": done, reply lost" } else { "" }));
        self.hold_up().await;
        if loses_reply { Err(StoreError::Unavailable("simulated, though it was done".to_owned())) } else { answer }
    }

    async fn hold_up(&self) {
        let (stage, plan) = (&self.stage, &self.stage.plan);
        if stage.happens(plan.hangs) {
            stage.time.sleep_until(stage.time.now() + Duration::from_secs(stage.dice.between(61, 200))).await;
        } else if stage.happens(plan.is_slow) {
            stage.time.sleep_until(stage.time.now() + Duration::from_millis(stage.dice.between(1, 8_000))).await;
        } else if stage.dice.per_mille(700) {
            step_aside().await;
        }
    }

    /// What becomes of a hint on its way into the queue.
    fn spoil(&self, hints: Vec<Hint>) -> Vec<Hint> {
        let (stage, plan) = (&self.stage, &self.stage.plan);
        let mut sent = Vec::new();
        for hint in hints {
            let late = if stage.happens(plan.delays_hint) { stage.dice.between(1, 600) } else { 0 };
            if stage.happens(plan.doubles_hint) {
                sent.push(Hint { delay: hint.delay + Duration::from_secs(stage.dice.below(100)), ..hint.clone() });
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
impl Store for Faulty {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError> {
        let first = tasks.first().map(|task| short(&task.name())).unwrap_or_default();
        let count = tasks.len();
        self.call(Service::Store, format!("inserts {first} ({count})"), self.inner.store.insert(tasks, now)).await
    }

    async fn get(&self, name: &TaskName, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.call(Service::Store, format!("gets {}", short(name)), self.inner.store.get(name, now)).await
    }

    async fn claim(&self, name: &TaskName, until: Timestamp, now: Timestamp) -> Result<Claim, StoreError> {
        let claim = self.call(Service::Store, format!("claims {}", short(name)), self.inner.store.claim(name, until, now)).await;
        match &claim {
            Ok(Claim::Granted(task)) => {
                self.stage.trace(&self.actor, format_args!("has {} with token {}", short(name), task.token));
                self.stage.ledger().given(&self.actor, name, task.token);
            }
            Ok(Claim::Refused(refused, _)) => self.stage.trace(&self.actor, format_args!("has not {}: {refused}", short(name))),
            _ => {}
        }
        claim
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<Committed, StoreError> {
        let (name, status) = (change.task.name(), change.task.status(now));
        let what = format!("commits {} as {}, version {}", short(&name), status.as_str(), change.task.version);
        let effect = async {
            let committed = self.inner.store.commit(change, now).await?;
            if let Committed::Done(task) = &committed
                && !self.stage.ledger().has_written(&self.actor, task)
            {
                self.stage.violate(format!("{}: {} brought an outcome under another's token", short(&name), self.actor));
            }
            Ok(committed)
        };
        let committed = self.call(Service::Store, what, effect).await;
        if let Ok(Committed::Conflict) = &committed {
            self.stage.trace(&self.actor, format_args!("meets a conflict over {}", short(&name)));
        }
        committed
    }

    async fn beat(&self, name: &TaskName, token: u64, until: Timestamp, progress: Option<Json>) -> Result<Beat, StoreError> {
        let beat = self.inner.store.beat(name, token, until, progress);
        self.call(Service::Store, format!("beats for {} with token {token}", short(name)), beat).await
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.call(Service::Store, "lists".to_owned(), self.inner.store.list(query, now)).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        self.call(Service::Store, "looks for what is due".to_owned(), self.inner.store.due(limit, now)).await
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        self.call(Service::Store, format!("postpones {}", short(&task.name())), self.inner.store.postpone(task, until)).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.call(Service::Store, "prunes".to_owned(), self.inner.store.prune(limit, now)).await
    }

    async fn changed(&self, name: &TaskName) {
        self.inner.store.changed(name).await;
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call(Service::Store, "asks whether the store is there".to_owned(), self.inner.store.ready()).await
    }
}

#[async_trait]
impl Queue for Faulty {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        let (count, spoilt) = (hints.len(), self.spoil(hints));
        self.call(Service::Queue, format!("sends {count} hints as {}", spoilt.len()), self.inner.queue.send(spoilt)).await
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        self.call(Service::Queue, "receives".to_owned(), self.inner.queue.receive(max)).await
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        let count = settlements.len();
        self.call(Service::Queue, format!("settles {count}"), self.inner.queue.settle(settlements)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call(Service::Queue, "asks whether the queue is there".to_owned(), self.inner.queue.ready()).await
    }
}
