//! Executor that runs the actors, one step of one actor at a time, in a random order from the seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nobat_core::types::time::Timestamp;

use crate::simulation::rng::Dice;
use crate::time::Time;

/// Actor, such as a process. It can be killed at any point where it waits, and restarted.
pub struct Actor {
    /// Name in the trace.
    pub name: String,
    start: Box<dyn Fn() -> BoxFuture<'static, ()>>,
    life: Life,
    woken: Arc<Woken>,
    /// Time before which the actor does nothing, because it is frozen or restarting.
    away_until: Timestamp,
}

enum Life {
    NotStarted,
    Running(BoxFuture<'static, ()>),
    Over,
}

/// Result of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// An actor did something.
    Acted(usize),
    /// No actor had anything to do, so time passed.
    TimePassed,
    /// No actor has anything to do, now or later.
    Stuck,
    /// An actor panicked.
    Panicked(usize),
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All actors and their virtual time.
pub struct Executor {
    time: Arc<Time>,
    actors: Vec<Actor>,
}

impl Executor {
    /// Creates an executor without actors.
    pub fn new(time: Arc<Time>) -> Self {
        Self { time, actors: Vec::new() }
    }

    /// Adds an actor. `start` starts it, at first and after a crash.
    pub fn add(&mut self, name: String, start: impl Fn() -> BoxFuture<'static, ()> + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.actors.push(Actor {
            name,
            start: Box::new(start),
            life: Life::NotStarted,
            woken,
            away_until: Timestamp::EPOCH,
        });
    }

    /// Returns all actors.
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Returns true if the actor has finished.
    pub fn is_over(&self, actor: usize) -> bool {
        matches!(self.actors[actor].life, Life::Over)
    }

    /// Kills an actor and restarts it after `after`.
    pub fn crash(&mut self, actor: usize, after: Duration) {
        let actor = &mut self.actors[actor];
        if !matches!(actor.life, Life::Over) {
            actor.life = Life::NotStarted;
            actor.away_until = self.time.now() + after;
        }
    }

    /// Freezes an actor, as SIGSTOP does: its timers run, but it notices nothing until it continues.
    pub fn freeze(&mut self, actor: usize, duration: Duration) {
        self.actors[actor].away_until = self.time.now() + duration;
    }

    /// Runs one step of a random actor that can continue, or advances the time until one can.
    pub fn step(&mut self, dice: &Dice) -> Step {
        let now = self.time.now();
        let able: Vec<usize> =
            (0..self.actors.len()).filter(|actor| self.actors[*actor].can_go_on(now)).collect();
        if let Some(actor) = dice.pick(&able) {
            return match catch_unwind(AssertUnwindSafe(|| self.actors[actor].go_on())) {
                Ok(()) => Step::Acted(actor),
                Err(_) => Step::Panicked(actor),
            };
        }
        let returns = self
            .actors
            .iter()
            .filter(|actor| !matches!(actor.life, Life::Over))
            .map(|actor| actor.away_until);
        match returns.chain(self.time.next_deadline()).filter(|moment| *moment > now).min() {
            Some(next) => {
                self.time.advance_to(next);
                Step::TimePassed
            }
            None => Step::Stuck,
        }
    }
}

impl Actor {
    fn can_go_on(&self, now: Timestamp) -> bool {
        let has_work = match self.life {
            Life::NotStarted => true,
            Life::Running(_) => self.woken.0.load(Ordering::Relaxed),
            Life::Over => false,
        };
        has_work && self.away_until <= now
    }

    fn go_on(&mut self) {
        if matches!(self.life, Life::NotStarted) {
            self.life = Life::Running((self.start)());
        }
        let Life::Running(future) = &mut self.life else { return };
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        if let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.life = Life::Over;
        }
    }
}
