//! Runs the actors, one step of one of them at a time, in an order that the dice decide.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nobat_core::time::Timestamp;

use super::dice::Dice;
use crate::time::Time;

/// Something that acts on its own, as a process does: it can be killed at any point where it waits, and started anew.
pub struct Actor {
    /// What it is called in the trace.
    pub name: String,
    start: Box<dyn Fn() -> BoxFuture<'static, ()>>,
    life: Life,
    woken: Arc<Woken>,
    /// It does nothing before this moment: it was stopped in its tracks, or is being started again.
    away_until: Timestamp,
}

enum Life {
    NotStarted,
    Running(BoxFuture<'static, ()>),
    Over,
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// An actor did something.
    Acted(usize),
    /// Nobody had anything to do, so time went on.
    TimePassed,
    /// Nobody has anything to do, and nobody ever will.
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

/// All actors, and the time they live in.
pub struct Executor {
    time: Arc<Time>,
    actors: Vec<Actor>,
}

impl Executor {
    /// Nobody yet.
    pub fn new(time: Arc<Time>) -> Self {
        Self { time, actors: Vec::new() }
    }

    /// Adds an actor, which begins, and begins anew after a crash, as `start` says.
    pub fn add(&mut self, name: String, start: impl Fn() -> BoxFuture<'static, ()> + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.actors.push(Actor { name, start: Box::new(start), life: Life::NotStarted, woken, away_until: Timestamp::EPOCH });
    }

    /// Who they are.
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Whether that actor has done all it had to do.
    pub fn is_over(&self, actor: usize) -> bool {
        matches!(self.actors[actor].life, Life::Over)
    }

    /// Kills an actor where it stands, and starts it anew after a while.
    pub fn crash(&mut self, actor: usize, after: Duration) {
        let actor = &mut self.actors[actor];
        if !matches!(actor.life, Life::Over) {
            actor.life = Life::NotStarted;
            actor.away_until = self.time.now() + after;
        }
    }

    /// Holds an actor where it stands, as SIGSTOP does: its timers go on, and it notices nothing until it goes on itself.
    pub fn freeze(&mut self, actor: usize, duration: Duration) {
        self.actors[actor].away_until = self.time.now() + duration;
    }

    /// Lets one actor of those who can go on take one step, or time pass until somebody can.
    pub fn step(&mut self, dice: &Dice) -> Step {
        let now = self.time.now();
        let able: Vec<usize> = (0..self.actors.len()).filter(|actor| self.actors[*actor].can_go_on(now)).collect();
        if let Some(actor) = dice.pick(&able) {
            return match catch_unwind(AssertUnwindSafe(|| self.actors[actor].go_on())) {
                Ok(()) => Step::Acted(actor),
                Err(_) => Step::Panicked(actor),
            };
        }
        let returns = self.actors.iter().filter(|actor| !matches!(actor.life, Life::Over)).map(|actor| actor.away_until);
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
