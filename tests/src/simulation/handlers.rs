//! Handlers that follow the script in their payload, and record what they do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::{RecordKind, RecordName};
use nobat_core::limits::{LimitScope, LimiterKey, Limits};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::time::Timestamp;
use nobat_worker::handler::context::TaskContext;
use nobat_worker::handler::failure::Failure;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handler::{BatchOutcome, Handler};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ledger::{ExecutionEnd, key};
use super::starts::Right;
use crate::sample;
use crate::simulation::context::{Stage, short};
use crate::simulation::external_server::{BUSY, DOWN, Mood};

/// Script of a task: its behavior when it is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// Number that identifies the task.
    pub number: u64,
    /// Number of attempts of a generation that fail before one succeeds.
    pub failures: u32,
    /// Kind of failure of these attempts.
    pub failure: Wrong,
    /// Duration in seconds.
    pub seconds: u64,
    /// Reaction to a cancellation.
    pub manners: Manners,
    /// Limit key of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// Queue of the task, unless it is the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Endpoint of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// Kind of failure of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// Error that another attempt may cure.
    #[default]
    Error,
    /// Error that asks for a pause.
    Pause,
    /// Permanent error.
    Permanent,
    /// Panic.
    Panic,
    /// The attempt never returns.
    Hang,
    /// The attempt crashes its process.
    Kill,
}

/// Reaction of a handler to a cancellation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manners {
    /// It stops.
    #[default]
    Heeds,
    /// It goes on.
    Ignores,
}

/// Error code of [`Wrong::Permanent`].
pub const PERMANENT: &str = "permanent";

/// Result of an execution, which names it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// Number of the execution in the ledger.
    pub execution: usize,
}

#[derive(Clone)]
struct Player {
    stage: Arc<Stage>,
    actor: String,
}

/// Kind that every worker knows.
struct Work(Player);

/// Kind that only one worker knows.
struct Rare(Player);

/// Receiver of callbacks.
struct Receiver(Player);

/// Returns the handlers of a worker. Only the first worker knows kind `rare`.
pub fn handlers(stage: &Arc<Stage>, actor: &str, place: usize) -> Handlers {
    let player = Player { stage: stage.clone(), actor: actor.to_owned() };
    let all = Handlers::new().with(Work(player.clone())).with(Receiver(player.clone()));
    if place == 0 { all.with(Rare(player)) } else { all }
}

impl Handler for Work {
    const KIND: &'static str = "work";
    type Input = Script;
    type Output = Done;

    fn check_for_endpoint(&self, _: &Script) -> Option<Result<(), Vec<FieldError>>> {
        Some(Ok(()))
    }

    async fn run(&self, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        self.0.play(Self::KIND, script, context).await
    }

    fn batch_key(&self, script: &Script) -> Option<u64> {
        script.batch_key()
    }

    async fn run_batch<'a>(&'a self, batch: Vec<(Script, &'a TaskContext)>) -> BatchOutcome<Done> {
        self.0.play_together(Self::KIND, batch).await
    }
}

impl Handler for Rare {
    const KIND: &'static str = "rare";
    type Input = Script;
    type Output = Done;

    async fn run(&self, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        self.0.play(Self::KIND, script, context).await
    }
}

/// Request of a callback. Submissions are checked with a request that has no body yet.
#[derive(Deserialize)]
struct Request {
    body: Option<Box<RawValue>>,
}

impl Handler for Receiver {
    const KIND: &'static str = "http";
    type Input = Request;
    type Output = Done;

    async fn run(&self, request: Request, context: &TaskContext) -> Result<Done, Failure> {
        let length = request.body.map_or(0, |body| body.get().len());
        let failures = u32::from(length.is_multiple_of(5));
        self.0.play(Self::KIND, Script { failures, ..Script::default() }, context).await
    }
}

impl Script {
    /// Returns the key that tasks of one batch have in common, or `None` for a task that goes alone.
    fn batch_key(&self) -> Option<u64> {
        (!self.number.is_multiple_of(5)).then_some(self.number % 2)
    }

    /// Returns true if the attempt ends at once and fails only with its own error: in a batch it then ends as
    /// it does alone.
    fn is_plain(&self) -> bool {
        let is_its_own = matches!(self.failure, Wrong::Error | Wrong::Pause | Wrong::Permanent);
        self.seconds == 0 && (self.failures == 0 || is_its_own)
    }

    /// Returns the limit scopes of the task, without that of its endpoint.
    fn limiters(&self, kind: &str) -> Vec<LimitScope> {
        let (key, queue) = (self.limit_key.as_deref(), self.queue.as_deref());
        let named = [
            key.map(|key| LimitScope::Key(sample::name(key))),
            queue.map(|queue| LimitScope::Queue(sample::name(queue))),
        ];
        named.into_iter().flatten().chain([LimitScope::Kind(sample::name(kind))]).collect()
    }

    /// Returns the limit scope of the task's endpoint.
    fn limiter_of_endpoint(&self) -> Option<LimitScope> {
        self.endpoint.as_deref().map(|endpoint| LimitScope::Endpoint(sample::name(endpoint)))
    }
}

/// Limited attempt. Dropping it ends the attempt.
struct UnderWay {
    stage: Arc<Stage>,
    limiters: Vec<(LimiterKey, usize)>,
}

/// Started execution.
struct Begun {
    /// Number of the execution in the ledger.
    execution: usize,
    _under_way: UnderWay,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for (limiter, place) in &self.limiters {
            self.stage.starts().ends(limiter, *place);
        }
    }
}

impl Player {
    /// Runs a task alone.
    async fn play(&self, kind: &str, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        let of_endpoint = script.limiter_of_endpoint();
        let _at_endpoint =
            of_endpoint.map(|limiter| self.starts(vec![limiter], context, self.claimed_at(context)));
        let (mood, begun) = (self.mood(&script), self.begins(kind, &script, context));
        self.follow_script(mood, begun, script, context).await
    }

    /// Runs a batch as one request: the endpoint sees one start, and has one mood for all.
    async fn play_together(&self, kind: &str, batch: Vec<(Script, &TaskContext)>) -> BatchOutcome<Done> {
        let Some((first, context)) = batch.first() else { return Ok(Vec::new()) };
        self.check_batch(&batch);
        // The leader was claimed before its companions.
        let claimed_at = batch
            .iter()
            .map(|(_, context)| self.claimed_at(context))
            .min()
            .unwrap_or_else(|| self.stage.time.now());
        let _at_endpoint =
            first.limiter_of_endpoint().map(|limiter| self.starts(vec![limiter], context, claimed_at));
        let mood = self.mood(first);
        let is_plain = batch.len() == 1 || batch.iter().all(|(script, _)| script.is_plain());
        if !is_plain {
            let mut ledger = self.stage.ledger();
            ledger.meddled_with.extend(batch.iter().map(|(_, context)| key(&context.name)));
        }
        // All executions begin before any runs, because one of them may crash the process.
        let parts =
            batch.into_iter().map(|(script, context)| (self.begins(kind, &script, context), script, context));
        let parts: Vec<(Begun, Script, &TaskContext)> = parts.collect();
        Ok(join_all(
            parts
                .into_iter()
                .map(|(begun, script, context)| self.follow_script(mood, begun, script, context)),
        )
        .await)
    }

    /// Checks that all tasks of a batch have the same endpoint, tenant and batch key, and that the batch is
    /// not too large.
    fn check_batch(&self, batch: &[(Script, &TaskContext)]) {
        let most = self
            .stage
            .plan
            .partner
            .as_ref()
            .and_then(|partner| partner.batch)
            .map_or(0, |batch| batch.max_items.get());
        let is_alike = |pair: &[(Script, &TaskContext)]| {
            let of = |(script, context): &(Script, &TaskContext)| {
                (script.endpoint.clone(), script.batch_key(), context.name.tenant.clone())
            };
            of(&pair[0]) == of(&pair[1])
        };
        if batch.len() > most as usize || !batch.windows(2).all(is_alike) {
            let names: Vec<String> = batch.iter().map(|(_, context)| short(&context.name)).collect();
            self.stage.violate(format!("{names:?} must not be in one batch"));
        }
    }

    fn mood(&self, script: &Script) -> Mood {
        let partner = self
            .stage
            .plan
            .partner
            .as_ref()
            .filter(|_| script.endpoint.is_some() && self.stage.is_troubled());
        partner.map_or(Mood::Well, |partner| partner.mood(self.stage.passed()))
    }

    fn begins(&self, kind: &str, script: &Script, context: &TaskContext) -> Begun {
        let execution = self.stage.ledger().begins(&context.name, context.number);
        let under_way = self.starts(script.limiters(kind), context, self.claimed_at(context));
        self.stage
            .trace(&self.actor, format_args!("runs {}, attempt {}", short(&context.name), context.attempt));
        Begun { execution, _under_way: under_way }
    }

    async fn follow_script(
        &self,
        mood: Mood,
        begun: Begun,
        script: Script,
        context: &TaskContext,
    ) -> Result<Done, Failure> {
        let execution = begun.execution;
        match mood {
            Mood::Well => {}
            Mood::Down => {
                let mut ledger = self.stage.ledger();
                ledger.ends(execution, ExecutionEnd::Failed);
                ledger.meddled_with.insert(key(&context.name));
                return Err(Failure::retry(DOWN, "the API is down"));
            }
            Mood::Busy(rest) => {
                let mut ledger = self.stage.ledger();
                ledger.ends(execution, ExecutionEnd::Failed);
                ledger.puts_off(&context.name);
                return Err(Failure::defer(rest, BUSY, "the API is overloaded"));
            }
        }
        let is_to_fail = context.attempt <= script.failures;
        if is_to_fail && script.failure == Wrong::Kill {
            self.stage.ledger().killed.insert(self.actor.clone());
            std::future::pending::<()>().await;
        }
        let seconds = if is_to_fail && script.failure == Wrong::Hang { 1_000_000 } else { script.seconds };
        if seconds > 0 {
            if script.number.is_multiple_of(2) {
                context.progress(&seconds);
            }
            self.take(Duration::from_secs(seconds), script.manners, context).await?;
        }
        if !is_to_fail {
            self.stage.ledger().ends(execution, ExecutionEnd::Returned);
            return Ok(Done { execution });
        }
        self.stage.ledger().ends(execution, ExecutionEnd::Failed);
        Err(match script.failure {
            Wrong::Permanent => Failure::permanent(PERMANENT, "the task cannot succeed"),
            Wrong::Pause => Failure::retry_after(Duration::from_secs(40), "busy", "busy, try later"),
            // `panic!` would run the hook, which writes to the terminal.
            Wrong::Panic => std::panic::resume_unwind(Box::new("the script's panic")),
            Wrong::Error | Wrong::Hang | Wrong::Kill => Failure::retry("broken", "the handler failed"),
        })
    }

    fn claimed_at(&self, context: &TaskContext) -> Timestamp {
        self.stage
            .ledger()
            .given_at(&self.actor, &context.name, context.number)
            .unwrap_or_else(|| self.stage.time.now())
    }

    /// Records a start in these limit scopes by a task that was claimed at `claimed_at`.
    fn starts(&self, of: Vec<LimitScope>, context: &TaskContext, claimed_at: Timestamp) -> UnderWay {
        let (stage, tenant) = (&self.stage, &context.name.tenant);
        let right = Right { actor: self.actor.clone(), claimed_at, apart: stage.plan.clocks_apart() };
        let records: Vec<RecordName> = of.iter().filter_map(|of| record_name(of, context)).collect();
        if let Err(what) = stage.closed().begins(&records, claimed_at, right.apart) {
            stage.violate(format!("{}: {what}", short(&context.name)));
        }
        let mut under_way = UnderWay { stage: stage.clone(), limiters: Vec::new() };
        for of in of {
            let limits = stage
                .plan
                .limits
                .iter()
                .find(|laid| laid.of == of)
                .map_or(Limits::default(), |laid| laid.limits);
            let limiter = LimiterKey { tenant: tenant.clone(), scope: of };
            match stage.starts().begins(&limiter, &limits, &right, stage.time.now()) {
                Ok(place) => under_way.limiters.push((limiter, place)),
                Err(what) => stage.violate(format!("{}: {what}", short(&context.name))),
            }
        }
        under_way
    }

    async fn take(&self, duration: Duration, manners: Manners, context: &TaskContext) -> Result<(), Failure> {
        let sleep = self.stage.time.sleep_until(self.stage.time.now() + duration);
        if manners == Manners::Ignores {
            sleep.await;
            return Ok(());
        }
        match select(sleep, Box::pin(context.canceled())).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Failure::retry("stopped", "the attempt is stopped")),
        }
    }
}

/// Returns the record that can pause the tasks of a limit scope, if one can exist.
fn record_name(of: &LimitScope, context: &TaskContext) -> Option<RecordName> {
    let sort = match of {
        LimitScope::Endpoint(_) => RecordKind::Endpoint,
        LimitScope::Queue(_) => RecordKind::Queue,
        LimitScope::Kind(_) => RecordKind::Kind,
        _ => return None,
    };
    Some(QueueConfig::record_name(&context.name.tenant, sort, of.name()?))
}
