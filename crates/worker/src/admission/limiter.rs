//! Requests permits from limiters, for all tasks of a process.
//!
//! A process makes one write at a time to each limiter. Requests that arrive during a write wait for the next
//! write. The first waiting request makes this write for all of them. There is no background task, because a
//! Lambda function cannot have one.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nobat_core::limits::{
    AcquireRequest, AcquireResult, BatchDecision, BatchLimits, BatchMember, BreakerState, CallReport, Denied,
    HolderId, LimitScope, LimiterChange, LimiterKey, LimiterState, Limits, Permit, ScopedReservation,
    Successor,
};
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::ports::{Clock, Random, StoreError};
use nobat_core::task::HoldState;
use nobat_core::types::id::TaskId;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::yield_now;

/// Access of one process to all limiters.
pub struct Limiter {
    limiters: Arc<dyn LimiterStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Id of this process in the slot counts of the limiters.
    holder: HolderId,
    known: Mutex<HashMap<LimiterKey, Arc<SharedLimiter>>>,
}

/// Limiter, with the limits that apply to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopedLimits {
    /// Key of the limiter.
    pub name: LimiterKey,
    /// Limits that apply to the limiter.
    pub limits: Limits,
}

/// Result of [`Limiter::acquire`].
pub enum Entry {
    /// The task may start. Return the permits through [`Limiter::complete`] or [`Limiter::cancel`]. Dropped
    /// permits are given back with the next write.
    Granted(Permits),
    /// The task must wait.
    Denied {
        /// Reason for the wait, and the time of the next request for permits.
        wait: Denied,
        /// Reservation that the task keeps while it waits. `None`: the task keeps no reservation.
        scoped: Option<ScopedReservation>,
    },
}

/// Permits of a task for one start, one from each limiter.
#[derive(Default)]
pub struct Permits(Vec<HeldPermit>);

/// The permit of one limiter.
struct HeldPermit {
    limited: ScopedLimits,
    permit: Permit,
    slot: Option<Slot>,
}

/// Concurrency slot in use. Dropping the slot lowers this process's slot count. The next write to the limiter
/// stores the count.
struct Slot(Arc<SharedLimiter>);

/// State of one limiter, which all tasks of this process share.
#[derive(Default)]
struct SharedLimiter {
    waiting: Mutex<Vec<Box<dyn Operation>>>,
    /// Limiter state of the last read or write. The task that holds the lock writes the operations of all
    /// tasks.
    seen: tokio::sync::Mutex<Option<CachedState>>,
    /// Number of the limiter's slots that this process uses.
    slots: AtomicU32,
}

struct CachedState {
    kept: VersionedState,
    at: Timestamp,
}

/// Operation on a limiter's state. Several operations share one write.
trait Operation: Send {
    /// Applies the operation to the state, and keeps the result.
    fn apply(&mut self, state: &mut LimiterState, now: Timestamp);

    /// Sends the result of the last [`Self::apply`] to the requester, after the write.
    ///
    /// The caller holds the lock of the cached state, so no write can happen between the reply and the change
    /// of the slot count.
    fn succeed(self: Box<Self>, limiter: &Arc<SharedLimiter>);

    /// Tells the requester that the operation was not written.
    fn fail(self: Box<Self>, error: StoreError);
}

/// Operation, with the channel for its result.
struct Pending<T, F> {
    run: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<(T, Option<Slot>), StoreError>>,
    /// Slot that the operation gives back. The slot counts as used until the write is done or has failed.
    returned: Option<Slot>,
}

/// Result of an operation on a limiter's state.
trait OperationResult: Send + 'static {
    /// Returns true if the operation took a concurrency slot.
    fn takes_slot(&self) -> bool {
        false
    }
}

impl OperationResult for AcquireResult {
    fn takes_slot(&self) -> bool {
        matches!(self, Self::Granted(permit) if permit.has_slot())
    }
}

impl OperationResult for BatchDecision {}
impl OperationResult for Option<Successor> {}
impl OperationResult for Vec<TaskId> {}
impl OperationResult for () {}

impl<T: OperationResult, F: FnMut(&mut LimiterState, Timestamp) -> T + Send> Operation for Pending<T, F> {
    fn apply(&mut self, state: &mut LimiterState, now: Timestamp) {
        self.result = Some((self.run)(state, now));
    }

    fn succeed(self: Box<Self>, limiter: &Arc<SharedLimiter>) {
        drop(self.returned);
        let Some(result) = self.result else { return };
        let slot = result.takes_slot().then(|| Slot::of(limiter));
        // The requester may have been dropped. Its slot is then dropped with the reply.
        let _ = self.reply.send(Ok((result, slot)));
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Distinguishes the first sending of an operation from a repetition after a lost reply. A repeated operation
/// may have been applied already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    First,
    Again,
}

/// Maximum age of the cached limiter state. A write checks the version of the state, so an old state affects
/// only operations that change nothing.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// Maximum number of tries to write to a limiter that other processes write to as well.
const MAX_TRIES: u32 = 20;

/// Upper bound of the random pause between the first two tries of a write, in milliseconds. The bound doubles
/// with each try.
const FIRST_PAUSE: u64 = 2;

/// Maximum of the random pause between two tries of a write, in milliseconds.
const MAX_PAUSE: u64 = 100;

/// Number of cached limiters at which this process drops unused limiters from the cache.
const MAX_KNOWN: usize = 10_000;

impl Permits {
    /// Returns true if one of the permits belongs to this limiter.
    fn are_of(&self, limiter: &LimitScope) -> bool {
        self.0.iter().any(|held| held.limited.name.scope == *limiter)
    }

    /// Changes the permit of the limiter that granted the reservation `scoped`. The task then keeps this
    /// reservation when the permit is given back.
    pub(crate) fn keeping(mut self, scoped: Option<&ScopedReservation>) -> Self {
        for held in self
            .0
            .iter_mut()
            .filter(|held| scoped.is_some_and(|scoped| scoped.scope == held.limited.name.scope))
        {
            held.permit = held.permit.keeping_reservation();
        }
        self
    }

    /// Returns true if there are no permits.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if one of the permits holds a slot. The limiter reclaims the slots of a process that
    /// stops renewing them.
    pub fn have_slots(&self) -> bool {
        self.0.iter().any(|held| held.slot.is_some())
    }
}

impl Limiter {
    /// Creates the access of this process to the limiters of a store.
    pub fn new(limiters: Arc<dyn LimiterStore>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let holder = HolderId(random.next_u64());
        Self { limiters, clock, random, holder, known: Mutex::default() }
    }

    /// Asks the limiters for permits, one after the other. If a limiter refuses, gives back the permits of
    /// the other limiters and the permits in `permits`.
    ///
    /// A task holds at most one reservation. If a refused task gets another reservation or no reservation,
    /// gives the task's previous reservation back.
    pub async fn acquire(
        &self,
        limiters: &[ScopedLimits],
        hold: &HoldState,
        mut permits: Permits,
    ) -> Result<Entry, StoreError> {
        let came_with = hold.reservations.rate.as_ref();
        let called = came_with.filter(|scoped| scoped.reservation.at() <= self.clock.now());
        for limited in limiters {
            let is_own = |scoped: &&ScopedReservation| scoped.scope == limited.name.scope;
            let request = AcquireRequest {
                holder: self.holder,
                reservation: came_with.filter(is_own).map(|scoped| scoped.reservation),
                has_due_reservation_elsewhere: called.is_some_and(|scoped| !is_own(&scoped)),
                holds: hold.holds,
                jitter: JitterSample::from_bits(self.random.next_u64()),
            };
            let limits = limited.limits;
            match self.ask(&limited.name, move |state, now| state.acquire(&limits, &request, now)).await {
                Ok((AcquireResult::Granted(permit), slot)) => {
                    permits.0.push(HeldPermit { limited: limited.clone(), permit, slot });
                }
                Ok((AcquireResult::Denied(wait), _)) => {
                    // If this limiter grants no reservation, the task keeps its due reservation at another
                    // limiter.
                    let scoped = wait.reservation.map(|reservation| ScopedReservation {
                        scope: limited.name.scope.clone(),
                        reservation,
                    });
                    let scoped = scoped.or_else(|| called.cloned());
                    let is_settled = |before: &&ScopedReservation| {
                        is_own(before) || scoped.as_ref() == Some(before) || permits.are_of(&before.scope)
                    };
                    if let Some(ScopedReservation { scope: of, reservation }) =
                        came_with.filter(|before| !is_settled(before))
                    {
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
        let holder = self.holder;
        for HeldPermit { limited, permit, slot } in permits.0 {
            let cancel = move |state: &mut LimiterState, now, sent| {
                state.cancel(with_capacity(permit, sent), holder, now);
            };
            self.tell(&limited.name, slot, cancel).await;
        }
    }

    /// Reports the result of an attempt. The pause in `report` applies only to the limiter `pause_scope`.
    ///
    /// If the write fails, the report is lost. The next write corrects the slot count. Without a next write,
    /// the slots expire after a lease (60 s).
    pub async fn complete(&self, permits: Permits, report: &CallReport, pause_scope: Option<&LimitScope>) {
        let holder = self.holder;
        for HeldPermit { limited: ScopedLimits { name, limits }, permit, slot } in permits.0 {
            let report = CallReport {
                pause_until: report.pause_until.filter(|_| pause_scope == Some(&name.scope)),
                ..*report
            };
            // Without a circuit breaker, a slot or a pause, there is nothing to record.
            if limits.breaker.is_some() || slot.is_some() || report.pause_until.is_some() {
                let complete = move |state: &mut LimiterState, now, sent| {
                    state.complete(&limits, with_capacity(permit, sent), holder, &report, now);
                };
                self.tell(&name, slot, complete).await;
            }
        }
    }

    /// Reports that this process is alive, so that its slots do not expire. Call this function at least every
    /// half lease (30 s).
    pub async fn renew(&self, permits: &Permits) {
        for held in permits.0.iter().filter(|held| held.slot.is_some()) {
            // Every write recounts the slots of this process.
            self.tell(&held.limited.name, None, |_, _, _| ()).await;
        }
    }

    /// Adds a task to a batch. The result says if the task leads the batch or waits.
    pub async fn join_batch(
        &self,
        name: &LimiterKey,
        limits: BatchLimits,
        member: BatchMember,
    ) -> Result<BatchDecision, StoreError> {
        Ok(self.ask(name, move |state, now| state.join_batch(limits, &member, now)).await?.0)
    }

    /// Records that the batch cannot be sent before `until`.
    pub async fn defer_batch(&self, name: &LimiterKey, until: Timestamp) {
        self.tell(name, None, move |state, _, _| state.defer_batch(until)).await;
    }

    /// Applies a change, in the same write as other requests. Returns the batch's new leader, if the change
    /// gave the batch a new leader.
    pub async fn change(&self, name: &LimiterKey, change: LimiterChange) -> Option<Successor> {
        let apply = move |state: &mut LimiterState, now, sent| match (change, sent) {
            // The reservation's slot may belong to another task by now.
            (LimiterChange::ReleaseReservation(_), Sent::Again) => None,
            _ => state.change(change, now),
        };
        self.tell(name, None, apply).await.flatten()
    }

    /// Removes and returns all members of the batch if `id` is one of them. Returns an empty list if another
    /// leader has taken `id` into its batch.
    pub async fn take_batch(&self, name: &LimiterKey, id: TaskId) -> Result<Vec<TaskId>, StoreError> {
        Ok(self.ask(name, move |state, _| state.take_batch(id)).await?.0)
    }

    /// Sends an operation whose result the task needs. Returns the result, and the concurrency slot if the
    /// operation took a slot.
    async fn ask<T: OperationResult>(
        &self,
        name: &LimiterKey,
        run: impl FnMut(&mut LimiterState, Timestamp) -> T + Copy + Send + 'static,
    ) -> Result<(T, Option<Slot>), StoreError> {
        let limiter = self.shared(name);
        loop {
            // No reply means that the writing task was dropped before it finished. The operation is then sent
            // again.
            if let Some(result) = self.exchange(&limiter, name, run, None).await {
                return result;
            }
        }
    }

    /// Sends an operation whose failure does not stop the task. Returns the result, or `None` if the
    /// operation could not be stored.
    async fn tell<T: OperationResult>(
        &self,
        name: &LimiterKey,
        mut returned: Option<Slot>,
        mut run: impl FnMut(&mut LimiterState, Timestamp, Sent) -> T + Copy + Send + 'static,
    ) -> Option<T> {
        let (limiter, mut sent) = (self.shared(name), Sent::First);
        loop {
            match self
                .exchange(&limiter, name, move |state, now| run(state, now, sent), returned.take())
                .await
            {
                // The task that was writing was dropped before or after its write. The next write reports the
                // slot count, so the slot is freed in any case.
                None => sent = Sent::Again,
                Some(Ok((result, _))) => return Some(result),
                Some(Err(error)) => {
                    tracing::warn!(limiter = %name.scope, %error, "a limiter could not be updated; its counts stay wrong until the next write, or until the counts expire");
                    return None;
                }
            }
        }
    }

    fn shared(&self, name: &LimiterKey) -> Arc<SharedLimiter> {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            // A limiter in use has a second reference.
            known.retain(|_, limiter| Arc::strong_count(limiter) > 1);
        }
        Arc::clone(known.entry(name.clone()).or_default())
    }

    /// Sends an operation and waits until this task or another task has written the operation. `None` if the
    /// writing task was dropped before it finished.
    async fn exchange<T: OperationResult>(
        &self,
        limiter: &Arc<SharedLimiter>,
        name: &LimiterKey,
        run: impl FnMut(&mut LimiterState, Timestamp) -> T + Send + 'static,
        returned: Option<Slot>,
    ) -> Option<Result<(T, Option<Slot>), StoreError>> {
        let (reply, mut answer) = oneshot::channel();
        limiter.waiting.lock().push(Box::new(Pending { run, result: None, reply, returned }));
        // Lets concurrent requests join the same write.
        yield_now().await;
        let mut seen = limiter.seen.lock().await;
        match answer.try_recv() {
            Err(TryRecvError::Empty) => {
                let operations = mem::take(&mut *limiter.waiting.lock());
                self.write(limiter, name, operations, &mut seen).await;
                answer.try_recv().ok()
            }
            answered => answered.ok(),
        }
    }

    /// Applies all operations and writes the result.
    async fn write(
        &self,
        limiter: &Arc<SharedLimiter>,
        name: &LimiterKey,
        mut operations: Vec<Box<dyn Operation>>,
        last: &mut Option<CachedState>,
    ) {
        let fail = |operations: Vec<Box<dyn Operation>>, error: &StoreError| {
            for operation in operations {
                operation.fail(StoreError::Unavailable(error.to_string()));
            }
        };
        let mut seen = last.take();
        for attempt in 0..MAX_TRIES {
            let now = self.clock.now();
            let fresh = seen.take().filter(|seen| seen.at <= now && now < seen.at + FRESH);
            let kept = match fresh {
                Some(seen) => seen.kept,
                None => match self.limiters.read(name).await {
                    Ok(kept) => kept,
                    Err(error) => return fail(operations, &error),
                },
            };
            let mut state = kept.limiter.clone();
            state.recount(self.holder, limiter.slots.load(Ordering::Relaxed), now);
            for operation in &mut operations {
                operation.apply(&mut state, now);
            }
            let version = if state == kept.limiter {
                kept.version
            } else {
                match self.limiters.write(name, &state, kept.version, now).await {
                    Ok(WriteResult::Done) => log_changes(name, &kept.limiter, &state),
                    Ok(WriteResult::Conflict(kept)) => {
                        seen = Some(CachedState { kept, at: now });
                        let longest = (FIRST_PAUSE << attempt.min(10)).min(MAX_PAUSE);
                        self.clock.sleep(Duration::from_millis(self.random.next_u64() % (longest + 1))).await;
                        continue;
                    }
                    Err(error) => return fail(operations, &error),
                }
                kept.version + 1
            };
            *last = Some(CachedState { kept: VersionedState { version, limiter: state }, at: now });
            for operation in operations {
                operation.succeed(limiter);
            }
            return;
        }
        fail(operations, &StoreError::Overloaded);
    }
}

/// Returns the permit to report. After a lost reply, this permit has no reservation and no slot, because
/// another task may have them by now.
fn with_capacity(permit: Permit, sent: Sent) -> Permit {
    if sent == Sent::First { permit } else { permit.without_capacity() }
}

/// Logs the circuit breaker's changes that this process has just written. Other processes do not log these
/// changes.
fn log_changes(name: &LimiterKey, before: &LimiterState, after: &LimiterState) {
    for change in after.changes_since(before) {
        let (tenant, limiter, state) = (&name.tenant, &name.scope, change.to.as_str());
        if change.to == BreakerState::Open {
            tracing::warn!(%tenant, %limiter, state, at = %change.at, "circuit breaker opened; the endpoint's tasks are held");
        } else if change.to == BreakerState::Closed {
            tracing::info!(%tenant, %limiter, state, at = %change.at, "circuit breaker closed; all tasks of the endpoint may start");
        } else {
            tracing::info!(%tenant, %limiter, state, at = %change.at, "circuit breaker is half-open; one probe may start");
        }
    }
}

impl Slot {
    fn of(limiter: &Arc<SharedLimiter>) -> Self {
        limiter.slots.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(limiter))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.fetch_sub(1, Ordering::Relaxed);
    }
}
