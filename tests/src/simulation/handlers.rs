//! Handlers that do as their payload says, and write it down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nobat_worker::context::TaskContext;
use nobat_worker::handler::{Failure, Handler, Handlers};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ledger::ExecutionEnd;
use super::stage::{Stage, short};

/// What a task does when it is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// Tells tasks apart.
    pub number: u64,
    /// How many attempts of a generation go wrong before one goes well.
    pub failures: u32,
    /// How they go wrong.
    pub failure: Wrong,
    /// How many seconds it takes.
    pub seconds: u64,
    /// Whether it stops when it is called off.
    pub manners: Manners,
}

/// How an attempt goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// With an error after which another attempt may help.
    #[default]
    Error,
    /// With an error that asks for a pause.
    Pause,
    /// With an error after which none will.
    Permanent,
    /// With a panic.
    Panic,
    /// It takes for ever.
    Hang,
    /// It brings its whole process down.
    Kill,
}

/// What a handler does when it is called off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manners {
    /// It stops.
    #[default]
    Heeds,
    /// It goes on.
    Ignores,
}

/// The code of [`Wrong::Permanent`].
pub const PERMANENT: &str = "permanent";

/// What a run returns: which one it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// Its number in the ledger.
    pub execution: usize,
}

#[derive(Clone)]
struct Player {
    stage: Arc<Stage>,
    actor: String,
}

/// The kind that every worker knows.
struct Work(Player);

/// The kind that only one worker knows.
struct Rare(Player);

/// Where callbacks arrive.
struct Receiver(Player);

/// What a worker of this name runs. The first one knows a kind that the others do not.
pub fn handlers(stage: &Arc<Stage>, actor: &str, place: usize) -> Handlers {
    let player = Player { stage: stage.clone(), actor: actor.to_owned() };
    let all = Handlers::new().with(Work(player.clone())).with(Receiver(player.clone()));
    if place == 0 { all.with(Rare(player)) } else { all }
}

impl Handler for Work {
    const KIND: &'static str = "work";
    type Input = Script;
    type Output = Done;

    async fn run(&self, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        self.0.play(script, context).await
    }
}

impl Handler for Rare {
    const KIND: &'static str = "rare";
    type Input = Script;
    type Output = Done;

    async fn run(&self, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        self.0.play(script, context).await
    }
}

/// The request that a callback is. A submission is checked with a request that has no body yet.
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
        self.0.play(Script { failures, ..Script::default() }, context).await
    }
}

impl Player {
    async fn play(&self, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        let execution = self.stage.ledger().begins(&self.actor, &context.name);
        self.stage.trace(&self.actor, format_args!("runs {} for the {}. time", short(&context.name), context.attempt));
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
            Wrong::Permanent => Failure::permanent(PERMANENT, "it will never work"),
            Wrong::Pause => Failure::retry_after(Duration::from_secs(40), "busy", "come back later"),
            // Not by `panic!`, whose hook would write to the terminal.
            Wrong::Panic => std::panic::resume_unwind(Box::new("as the script says")),
            Wrong::Error | Wrong::Hang | Wrong::Kill => Failure::retry("broken", "it broke"),
        })
    }

    async fn take(&self, duration: Duration, manners: Manners, context: &TaskContext) -> Result<(), Failure> {
        let sleep = self.stage.time.sleep_until(self.stage.time.now() + duration);
        if manners == Manners::Ignores {
            sleep.await;
            return Ok(());
        }
        match select(sleep, Box::pin(context.canceled())).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Failure::retry("stopped", "it was called off")),
        }
    }
}
