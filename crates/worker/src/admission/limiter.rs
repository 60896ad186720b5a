//! Asks limiters for permission to start, on behalf of all tasks of a process.
//!
//! A process makes one write after the other to each limiter. Requests that arrive during a write wait for it and share the next one. The
//! first request that waits makes that write for all. There is no background task, because a Lambda function cannot have one.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nobat_core::limits::{
    AcquireRequest, AcquireResult, BatchDecision, BatchLimits, BatchMember, BreakerState, CallReport, Denied, HolderId, LimitScope,
    LimiterChange, LimiterKey, LimiterState, Limits, Permit, ScopedReservation, Successor,
};
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::ports::{Clock, Random, StoreError};
use nobat_core::task::HoldState;
use nobat_core::types::id::TaskId;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::yield_now;

/// Access to all limiters of a task.
pub struct Limiter {
    limiters: Arc<dyn LimiterStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Identifies this process in the slot counts.
    holder: HolderId,
    lanes: Mutex<HashMap<LimiterKey, Arc<LimiterSlot>>>,
}

/// A limiter and its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopedLimits {
    /// Key of the limiter.
    pub name: LimiterKey,
    /// Limits that apply to it.
    pub limits: Limits,
}

/// Answer to a task that wants to start.
pub enum Entry {
    /// The task may start. Return the permits through [`Limiter::complete`] or [`Limiter::cancel`]. Dropped permits are given back with the next
    /// write.
    Granted(Permits),
    /// The task must wait.
    Denied {
        /// Reason, and the time to ask again.
        wait: Denied,
        /// The reservation that the task holds until then.
        scoped: Option<ScopedReservation>,
    },
}

/// Permits of a task for one start, one of each limiter.
#[derive(Default)]
pub struct Permits(Vec<HeldPermit>);

/// The permit of one limiter.
struct HeldPermit {
    limited: ScopedLimits,
    permit: Permit,
    slot: Option<Slot>,
}

/// A concurrency slot in use. Dropping it lowers the process's count, even if that was not written.
struct Slot(Arc<LimiterSlot>);

/// One limiter, as this process knows it.
#[derive(Default)]
struct LimiterSlot {
    waiting: Mutex<Vec<Request>>,
    /// State last read or written. The task that holds the lock writes for all.
    seen: tokio::sync::Mutex<Option<CachedState>>,
    /// Number of the limiter's slots that this process uses.
    slots: AtomicU32,
}

struct CachedState {
    kept: VersionedState,
    at: Timestamp,
}

struct Request {
    limits: Limits,
    what: LimiterOp,
    reply: oneshot::Sender<Result<OpReply, StoreError>>,
    /// The returned slot. It counts as used until the write is done or has failed.
    _returned: Option<Slot>,
}

/// Operation on a limiter.
#[derive(Clone, Copy)]
enum LimiterOp {
    Gather(BatchLimits, BatchMember),
    PutOff(Timestamp),
    Change(LimiterChange),
    Take(TaskId),
    Enter(AcquireRequest),
    GiveBack(Permit),
    Leave(Permit, CallReport),
    /// Only reports that this process is alive.
    Renew,
}

impl LimiterOp {
    /// Returns the operation to send again if the first one may have been applied.
    fn once_more(self) -> Self {
        match self {
            Self::GiveBack(permit) => Self::GiveBack(permit.without_capacity()),
            Self::Leave(permit, report) => Self::Leave(permit.without_capacity(), report),
            // The slot may belong to another task by now.
            Self::Change(LimiterChange::ReleaseReservation(_)) => Self::Renew,
            other => other,
        }
    }
}

enum OpReply {
    /// Reply to `Enter`, with the slot that the task now has, if any.
    Entered(AcquireResult, Option<Slot>),
    /// Reply to `Gather`.
    Placed(BatchDecision),
    /// Reply to `Take`.
    Taken(Vec<TaskId>),
    /// Reply to `Change`.
    Changed(Option<Successor>),
    Noted,
}

/// A reply before it is written.
enum Said {
    Answer(AcquireResult),
    Place(BatchDecision),
    Taken(Vec<TaskId>),
    Changed(Option<Successor>),
    Nothing,
}

/// Maximum age of the cached state. A write checks its version, so an old state matters only for replies that need no write.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// Maximum number of tries to write to a limiter that other processes write to as well.
const MAX_TRIES: u32 = 20;

/// Upper bound of the random pause between the first two tries, in milliseconds. It doubles with each try.
const FIRST_PAUSE: u64 = 2;

/// Limit of that upper bound, in milliseconds.
const MAX_PAUSE: u64 = 100;

/// Number of cached limiters from which on the unused ones are dropped.
const MAX_LANES: usize = 10_000;

impl ScopedLimits {
    fn not_at_all(name: &LimiterKey) -> Self {
        Self { name: name.clone(), limits: Limits::default() }
    }
}

impl Permits {
    /// Returns true if one of the permits belongs to that limiter.
    fn are_of(&self, limiter: &LimitScope) -> bool {
        self.0.iter().any(|held| held.limited.name.scope == *limiter)
    }

    /// Marks the permit of the limiter that granted `scoped`, so that giving the permit back keeps the reservation.
    pub(crate) fn keeping(mut self, scoped: Option<&ScopedReservation>) -> Self {
        for held in self.0.iter_mut().filter(|held| scoped.is_some_and(|scoped| scoped.scope == held.limited.name.scope)) {
            held.permit = held.permit.keeping_reservation();
        }
        self
    }

    /// Returns true if no limiter was asked.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if one of the permits holds a slot. The limiter reclaims slots of a process that stops renewing.
    pub fn have_slots(&self) -> bool {
        self.0.iter().any(|held| held.slot.is_some())
    }
}

impl Limiter {
    /// Creates a limiter to those limiters.
    pub fn new(limiters: Arc<dyn LimiterStore>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let holder = HolderId(random.next_u64());
        Self { limiters, clock, random, holder, lanes: Mutex::default() }
    }

    /// Asks each limiter in turn. If one refuses, gives back the permits of the others and those in `permits`.
    ///
    /// A task holds at most one reservation. If it waits with a different one, or without, the reservation that it came with is given back.
    pub async fn acquire(&self, limiters: &[ScopedLimits], turn: &HoldState, mut permits: Permits) -> Result<Entry, StoreError> {
        let came_with = turn.reservations.rate.as_ref();
        let called = came_with.filter(|scoped| scoped.reservation.at() <= self.clock.now());
        for limited in limiters {
            let is_own = |scoped: &&ScopedReservation| scoped.scope == limited.name.scope;
            let ask = AcquireRequest {
                holder: self.holder,
                reservation: came_with.filter(is_own).map(|scoped| scoped.reservation),
                has_due_reservation_elsewhere: called.is_some_and(|scoped| !is_own(&scoped)),
                holds: turn.holds,
                jitter: JitterSample::from_bits(self.random.next_u64()),
            };
            match self.ask_to_enter(limited, ask).await {
                Ok((AcquireResult::Granted(permit), slot)) => permits.0.push(HeldPermit { limited: limited.clone(), permit, slot }),
                Ok((AcquireResult::Denied(wait), _)) => {
                    // If this limiter grants no reservation, the task keeps the one that is due elsewhere.
                    let scoped = wait.reservation.map(|reservation| ScopedReservation { scope: limited.name.scope.clone(), reservation });
                    let scoped = scoped.or_else(|| called.cloned());
                    let is_settled =
                        |before: &&ScopedReservation| is_own(before) || scoped.as_ref() == Some(before) || permits.are_of(&before.scope);
                    if let Some(ScopedReservation { scope: of, reservation }) = came_with.filter(|before| !is_settled(before)) {
                        let name = LimiterKey { scope: of.clone(), ..limited.name.clone() };
                        self.change(&name, LimiterChange::ReleaseReservation(*reservation)).await;
                    }
                    self.cancel(permits.keeping(scoped.as_ref())).await;
                    return Ok(Entry::Denied { wait, scoped });
                }
                Err(error) => {
                    // The task keeps its reservation and asks again.
                    self.cancel(permits.keeping(came_with)).await;
                    return Err(error);
                }
            }
        }
        Ok(Entry::Granted(permits))
    }

    /// Gives back unused permits.
    pub async fn cancel(&self, permits: Permits) {
        for HeldPermit { limited, permit, slot } in permits.0 {
            self.tell(&limited, LimiterOp::GiveBack(permit), slot).await;
        }
    }

    /// Reports the result of a start. The pause in `report` applies only to the limiter `resting`.
    ///
    /// If the write fails, the report is lost. The next write corrects the slot counts; otherwise they expire.
    pub async fn complete(&self, permits: Permits, report: &CallReport, resting: Option<&LimitScope>) {
        for HeldPermit { limited, permit, slot } in permits.0 {
            let report = CallReport { pause_until: report.pause_until.filter(|_| resting == Some(&limited.name.scope)), ..*report };
            // Without a circuit breaker, a slot or a pause, there is nothing to record.
            if limited.limits.breaker.is_some() || slot.is_some() || report.pause_until.is_some() {
                self.tell(&limited, LimiterOp::Leave(permit, report), slot).await;
            }
        }
    }

    /// Reports that this process is alive, so that its slots do not expire. Call it at least once per half lease.
    pub async fn renew(&self, permits: &Permits) {
        for held in permits.0.iter().filter(|held| held.slot.is_some()) {
            self.tell(&held.limited, LimiterOp::Renew, None).await;
        }
    }

    /// Adds a task to a batch and returns its position.
    pub async fn join_batch(&self, name: &LimiterKey, gathered: BatchLimits, member: BatchMember) -> Result<BatchDecision, StoreError> {
        let placed = |reply| if let OpReply::Placed(place) = reply { Some(place) } else { None };
        self.ask(&ScopedLimits::not_at_all(name), LimiterOp::Gather(gathered, member), placed).await
    }

    /// Records that the batch cannot be sent before `until`.
    pub async fn defer_batch(&self, name: &LimiterKey, until: Timestamp) {
        self.tell(&ScopedLimits::not_at_all(name), LimiterOp::PutOff(until), None).await;
    }

    /// Applies a change, in the same write as other requests. Returns the batch's new leader, if it changed.
    pub async fn change(&self, name: &LimiterKey, change: LimiterChange) -> Option<Successor> {
        match self.tell(&ScopedLimits::not_at_all(name), LimiterOp::Change(change), None).await {
            Some(OpReply::Changed(successor)) => successor,
            _ => None,
        }
    }

    /// Takes all members of the batch if it contains `id`. Returns an empty list if another task has taken it along.
    pub async fn take_batch(&self, name: &LimiterKey, id: TaskId) -> Result<Vec<TaskId>, StoreError> {
        let taken = |reply| if let OpReply::Taken(members) = reply { Some(members) } else { None };
        self.ask(&ScopedLimits::not_at_all(name), LimiterOp::Take(id), taken).await
    }

    async fn ask_to_enter(&self, limited: &ScopedLimits, ask: AcquireRequest) -> Result<(AcquireResult, Option<Slot>), StoreError> {
        let entered = |reply| if let OpReply::Entered(answer, slot) = reply { Some((answer, slot)) } else { None };
        self.ask(limited, LimiterOp::Enter(ask), entered).await
    }

    async fn ask<T>(&self, limited: &ScopedLimits, what: LimiterOp, read: impl Fn(OpReply) -> Option<T>) -> Result<T, StoreError> {
        let lane = self.lane(&limited.name);
        loop {
            // No reply means that the task that was writing was dropped before it finished.
            if let Some(answer) = self.exchange(&lane, limited, what, None).await.transpose()?.and_then(&read) {
                return Ok(answer);
            }
        }
    }

    async fn tell(&self, limited: &ScopedLimits, mut what: LimiterOp, mut returned: Option<Slot>) -> Option<OpReply> {
        let lane = self.lane(&limited.name);
        loop {
            match self.exchange(&lane, limited, what, returned.take()).await {
                // The task that was writing was dropped before or after its write. The next write reports the slot count, so the slot is
                // freed in any case.
                None => what = what.once_more(),
                Some(Ok(reply)) => return Some(reply),
                Some(Err(error)) => {
                    tracing::warn!(limiter = %limited.name.scope, %error, "a limiter could not store the outcome of a start");
                    return None;
                }
            }
        }
    }

    fn lane(&self, name: &LimiterKey) -> Arc<LimiterSlot> {
        let mut lanes = lock(&self.lanes);
        if lanes.len() >= MAX_LANES {
            // A limiter in use is referenced elsewhere as well.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(name.clone()).or_default())
    }

    /// Sends an operation and waits until this or another task has written it. `None` if the writing task was dropped before it finished.
    async fn exchange(
        &self,
        lane: &Arc<LimiterSlot>,
        limited: &ScopedLimits,
        what: LimiterOp,
        returned: Option<Slot>,
    ) -> Option<Result<OpReply, StoreError>> {
        let (reply, mut answer) = oneshot::channel();
        lock(&lane.waiting).push(Request { limits: limited.limits, what, reply, _returned: returned });
        // Lets concurrent requests join the same write.
        yield_now().await;
        let mut seen = lane.seen.lock().await;
        match answer.try_recv() {
            Err(TryRecvError::Empty) => {
                let requests = mem::take(&mut *lock(&lane.waiting));
                self.write(lane, &limited.name, requests, &mut seen).await;
                answer.try_recv().ok()
            }
            answered => answered.ok(),
        }
    }

    /// Applies all requests and writes the result.
    async fn write(&self, lane: &Arc<LimiterSlot>, name: &LimiterKey, requests: Vec<Request>, last: &mut Option<CachedState>) {
        let mut seen = last.take();
        for attempt in 0..MAX_TRIES {
            let now = self.clock.now();
            let fresh = seen.take().filter(|seen| seen.at <= now && now < seen.at + FRESH);
            let kept = match fresh {
                Some(seen) => seen.kept,
                None => match self.limiters.read(name).await {
                    Ok(kept) => kept,
                    Err(error) => return fail(requests, &error),
                },
            };
            let mut limiter = kept.limiter.clone();
            limiter.recount(self.holder, lane.slots.load(Ordering::Relaxed), now);
            let answers: Vec<Said> = requests.iter().map(|request| self.apply(&mut limiter, request, now)).collect();
            if limiter == kept.limiter {
                *last = Some(CachedState { kept, at: now });
                return reply(lane, requests, answers);
            }
            match self.limiters.write(name, &limiter, kept.version, now).await {
                Ok(WriteResult::Done) => {
                    tell_of_changes(name, &kept.limiter, &limiter);
                    *last = Some(CachedState { kept: VersionedState { version: kept.version + 1, limiter }, at: now });
                    return reply(lane, requests, answers);
                }
                Ok(WriteResult::Conflict(kept)) => seen = Some(CachedState { kept, at: now }),
                Err(error) => return fail(requests, &error),
            }
            let longest = (FIRST_PAUSE << attempt.min(10)).min(MAX_PAUSE);
            self.clock.sleep(Duration::from_millis(self.random.next_u64() % (longest + 1))).await;
        }
        fail(requests, &StoreError::Overloaded);
    }

    fn apply(&self, limiter: &mut LimiterState, request: &Request, now: Timestamp) -> Said {
        match request.what {
            LimiterOp::Gather(gathered, member) => return Said::Place(limiter.join_batch(gathered, &member, now)),
            LimiterOp::Take(id) => return Said::Taken(limiter.take_batch(id)),
            LimiterOp::PutOff(until) => limiter.defer_batch(until),
            LimiterOp::Change(change) => return Said::Changed(limiter.change(change, now)),
            LimiterOp::Enter(ask) => return Said::Answer(limiter.acquire(&request.limits, &ask, now)),
            LimiterOp::GiveBack(permit) => limiter.cancel(permit, self.holder, now),
            LimiterOp::Leave(permit, report) => limiter.complete(&request.limits, permit, self.holder, &report, now),
            LimiterOp::Renew => {}
        }
        Said::Nothing
    }
}

/// Logs changes of the circuit breaker after they are written. Only the process that writes them logs them.
fn tell_of_changes(name: &LimiterKey, before: &LimiterState, after: &LimiterState) {
    for change in after.changes_since(before) {
        let (tenant, limiter, state) = (&name.tenant, &name.scope, change.to.as_str());
        if change.to == BreakerState::Open {
            tracing::warn!(%tenant, %limiter, state, at = %change.at, "circuit breaker opened; its tasks are held");
        } else {
            tracing::info!(%tenant, %limiter, state, at = %change.at, "circuit breaker closed or let a probe start");
        }
    }
}

/// Sends the replies. The lock is held, so no write can happen between the reply and the change of the slot count.
fn reply(lane: &Arc<LimiterSlot>, requests: Vec<Request>, answers: Vec<Said>) {
    for (request, said) in requests.into_iter().zip(answers) {
        let reply = match said {
            Said::Answer(answer) => {
                let slot = matches!(&answer, AcquireResult::Granted(permit) if permit.has_slot()).then(|| Slot::of(lane));
                OpReply::Entered(answer, slot)
            }
            Said::Place(place) => OpReply::Placed(place),
            Said::Taken(members) => OpReply::Taken(members),
            Said::Changed(successor) => OpReply::Changed(successor),
            Said::Nothing => OpReply::Noted,
        };
        // The requester may have been dropped. Its slot is then dropped with the reply.
        let _ = request.reply.send(Ok(reply));
    }
}

fn fail(requests: Vec<Request>, error: &StoreError) {
    for request in requests {
        let _ = request.reply.send(Err(StoreError::Unavailable(error.to_string())));
    }
}

impl Slot {
    fn of(lane: &Arc<LimiterSlot>) -> Self {
        lane.slots.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lane))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No code leaves inconsistent data behind under these locks, so a poisoned lock is safe to use.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
