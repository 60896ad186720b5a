//! Handlers that do as their payload says, and write it down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nobat_core::flow::{FlowName, FlowOf};
use nobat_core::name::Name;
use nobat_worker::context::TaskContext;
use nobat_worker::handler::{Failure, Handler, Handlers};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ledger::ExecutionEnd;
use super::limits::Laid;
use super::stage::{Stage, short};
use super::starts::Right;

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
    /// The flow key that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_key: Option<String>,
    /// The queue that it is in, if that is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
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
        self.0.play(Self::KIND, script, context).await
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
        self.0.play(Self::KIND, Script { failures, ..Script::default() }, context).await
    }
}

impl Script {
    fn is_of(&self, kind: &str, of: &FlowOf) -> bool {
        let name = of.name().map(Name::as_str);
        match of {
            FlowOf::Key(_) => name == self.flow_key.as_deref(),
            FlowOf::Queue(_) => name == self.queue.as_deref(),
            FlowOf::Kind(_) => name == Some(kind),
            _ => false,
        }
    }
}

/// An attempt that is limited. It is over when this is dropped, however that comes about.
struct UnderWay {
    stage: Arc<Stage>,
    flows: Vec<(FlowName, usize)>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for (flow, place) in &self.flows {
            self.stage.starts().ends(flow, *place);
        }
    }
}

impl Player {
    async fn play(&self, kind: &str, script: Script, context: &TaskContext) -> Result<Done, Failure> {
        let execution = self.stage.ledger().begins(&context.name, context.number);
        let _under_way = self.starts(kind, &script, context);
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

    /// Notes that a task starts, of every flow that it is of.
    fn starts(&self, kind: &str, script: &Script, context: &TaskContext) -> UnderWay {
        let (stage, mut flows) = (&self.stage, Vec::new());
        let claimed_at = stage.ledger().given_at(&self.actor, &context.name, context.number).unwrap_or_else(|| stage.time.now());
        let right = Right { actor: self.actor.clone(), claimed_at, apart: stage.plan.clocks_apart() };
        for Laid { of, limits } in stage.plan.limits.iter().filter(|laid| script.is_of(kind, &laid.of)) {
            let flow = FlowName { tenant: context.name.tenant.clone(), of: of.clone() };
            match stage.starts().begins(&flow, limits, &right, stage.time.now()) {
                Ok(place) => flows.push((flow, place)),
                Err(what) => stage.violate(what),
            }
        }
        UnderWay { stage: stage.clone(), flows }
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
