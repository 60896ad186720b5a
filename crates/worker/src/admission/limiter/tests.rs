//! Tests of the limiter over a store with a version.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use async_trait::async_trait;
use futures_util::future::{join_all, poll_immediate};
use nobat_core::limits::{BreakerPolicy, CallHealth, LimitScope, RateLimit};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::Tenant;

use super::*;
use crate::admission::limiter::{Entry, FRESH, Limiter, Permits, ScopedLimits};

/// In-memory limiters. Tests can insert concurrent writes and lose replies.
#[derive(Default)]
struct Memory {
    kept: Mutex<HashMap<LimiterKey, VersionedState>>,
    reads: AtomicU32,
    writes: AtomicU32,
    lost: AtomicU32,
}

impl Memory {
    fn put(&self, name: &LimiterKey, limiter: &LimiterState, over: u64) -> WriteResult {
        let mut all = self.kept.lock();
        let kept = all.entry(name.clone()).or_default();
        if kept.version != over {
            return WriteResult::Conflict(kept.clone());
        }
        *kept = VersionedState { version: over + 1, limiter: limiter.clone() };
        WriteResult::Done
    }
}

#[async_trait]
impl LimiterStore for Memory {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
        Ok(self.kept.lock().get(name).cloned().unwrap_or_default())
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        _now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
        let written = self.put(name, limiter, over);
        // The writer has no reply yet.
        yield_now().await;
        if written != WriteResult::Done {
            return Ok(written);
        }
        let is_lost =
            self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_lost { Err(StoreError::Unavailable("lost".to_owned())) } else { Ok(WriteResult::Done) }
    }
}

#[derive(Default)]
struct Still(Mutex<Duration>);

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + *self.0.lock()
    }

    async fn sleep(&self, _duration: Duration) {
        yield_now().await;
    }
}

struct Lots(AtomicU32);

impl Random for Lots {
    fn next_u64(&self) -> u64 {
        u64::from(self.0.fetch_add(1, Ordering::Relaxed)) << 40
    }
}

struct World {
    limiters: Arc<Memory>,
    clock: Arc<Still>,
}

impl World {
    fn new() -> Self {
        Self { limiters: Arc::default(), clock: Arc::default() }
    }

    /// Creates a limiter with its own holder, as a separate process would.
    fn limiter(&self, number: u32) -> Limiter {
        Limiter::new(self.limiters.clone(), self.clock.clone(), Arc::new(Lots(AtomicU32::new(number << 20))))
    }

    fn in_use(&self) -> u32 {
        self.limiters.kept.lock().values().map(|kept| kept.limiter.running(self.clock.now())).sum()
    }
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn limited(limits: Limits) -> [ScopedLimits; 1] {
    [ScopedLimits { name: LimiterKey { tenant: Tenant::default(), scope: LimitScope::Tenant }, limits }]
}

fn parallel(most: u32) -> [ScopedLimits; 1] {
    limited(Limits { concurrency: Some(count(most)), ..Limits::default() })
}

fn report(verdict: CallHealth) -> CallReport {
    CallReport { health: verdict, took: Duration::from_millis(5), pause_until: None }
}

async fn enter(limiter: &Limiter, limiters: &[ScopedLimits]) -> Result<Permits, Denied> {
    match limiter.acquire(limiters, &HoldState::default(), Permits::default()).await.unwrap() {
        Entry::Granted(permits) => Ok(permits),
        Entry::Denied { wait, .. } => Err(wait),
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_write() {
    let world = World::new();
    let rate_limit = RateLimit { rate: count(100), period: Duration::from_secs(1), burst: count(7) };
    let (limiter, limiters) = (
        world.limiter(1),
        limited(Limits { rate: Some(rate_limit), concurrency: Some(count(100)), breaker: None }),
    );
    let entered = join_all((0..10).map(|_| enter(&limiter, &limiters))).await;
    assert_eq!(entered.iter().filter(|entered| entered.is_ok()).count(), 7);
    assert_eq!(
        (world.limiters.reads.load(Ordering::Relaxed), world.limiters.writes.load(Ordering::Relaxed)),
        (1, 1)
    );
    let permits = entered.into_iter().filter_map(Result::ok);
    join_all(
        permits.map(|permits| async { limiter.complete(permits, &report(CallHealth::Good), None).await }),
    )
    .await;
    assert_eq!((world.limiters.writes.load(Ordering::Relaxed), world.in_use()), (2, 0));
}

#[tokio::test]
async fn limiter_without_limits_is_read_but_not_written() {
    let world = World::new();
    let permits = enter(&world.limiter(1), &limited(Limits::default())).await.unwrap();
    world.limiter(1).complete(permits, &report(CallHealth::Bad), None).await;
    assert_eq!(
        (world.limiters.reads.load(Ordering::Relaxed), world.limiters.writes.load(Ordering::Relaxed)),
        (1, 0)
    );
}

#[tokio::test]
async fn processes_share_one_concurrency_limit() {
    let world = World::new();
    let (gates, limiters) = ([1, 2, 3].map(|number| world.limiter(number)), parallel(4));
    for round in 0..20 {
        let entered = join_all((0..30).map(|number| enter(&gates[(number + round) % 3], &limiters))).await;
        let permits: Vec<(usize, Permits)> = entered
            .into_iter()
            .enumerate()
            .filter_map(|(number, entered)| Some((number, entered.ok()?)))
            .collect();
        assert_eq!((permits.len(), world.in_use()), (4, 4));
        join_all(permits.into_iter().map(|(number, permits)| {
            let limiter = &gates[(number + round) % 3];
            async move { limiter.complete(permits, &report(CallHealth::Good), None).await }
        }))
        .await;
        assert_eq!(world.in_use(), 0);
    }
}

#[tokio::test]
async fn lost_write_reply_leaks_no_slot() {
    let world = World::new();
    let (limiter, limiters) = (world.limiter(1), parallel(2));
    let first = enter(&limiter, &limiters).await.unwrap();
    world.limiters.lost.store(1, Ordering::Relaxed);
    assert!(limiter.acquire(&limiters, &HoldState::default(), Permits::default()).await.is_err());
    assert_eq!(world.in_use(), 2, "the write whose reply was lost took a slot");
    let second = enter(&limiter, &limiters).await.unwrap();
    world.limiters.lost.store(1, Ordering::Relaxed);
    limiter.complete(first, &report(CallHealth::Good), None).await;
    limiter.complete(second, &report(CallHealth::Good), None).await;
    assert_eq!(world.in_use(), 0);
}

#[tokio::test]
async fn slot_of_dropped_task_is_freed_by_the_next_write() {
    let world = World::new();
    let (limiter, limiters) = (world.limiter(1), parallel(1));
    drop(enter(&limiter, &limiters).await.unwrap());
    assert!(enter(&limiter, &limiters).await.is_ok());
}

#[tokio::test]
async fn waiting_operation_is_written_after_its_writer_is_dropped() {
    let world = World::new();
    let (limiter, limiters) = (world.limiter(1), parallel(2));
    let mut dropped = Box::pin(enter(&limiter, &limiters));
    // The task waits for the answer to its read.
    for _ in 0..2 {
        assert!(poll_immediate(&mut dropped).await.is_none());
    }
    let mut other = Box::pin(enter(&limiter, &limiters));
    assert!(poll_immediate(&mut other).await.is_none());
    drop(dropped);
    assert!(other.await.is_ok());
    assert_eq!(world.in_use(), 1);
}

#[tokio::test]
async fn operation_repeated_after_a_dropped_writer_counts_once() {
    let world = World::new();
    let rate_limit = RateLimit { rate: count(1), period: Duration::from_mins(1), burst: count(3) };
    let (limiter, limiters) = (
        world.limiter(1),
        limited(Limits { rate: Some(rate_limit), concurrency: Some(count(3)), breaker: None }),
    );
    let first = enter(&limiter, &limiters).await.unwrap();
    let second = enter(&limiter, &limiters).await.unwrap();
    let third = enter(&limiter, &limiters).await.unwrap();
    let good = report(CallHealth::Good);
    let mut dropped = Box::pin(limiter.complete(first, &good, None));
    let mut other = Box::pin(limiter.cancel(third));
    assert!(poll_immediate(&mut dropped).await.is_none() && poll_immediate(&mut other).await.is_none());
    while world.in_use() == 3 {
        assert!(poll_immediate(&mut dropped).await.is_none(), "the writer has no reply yet");
    }
    drop(dropped);
    other.await;
    assert_eq!(world.in_use(), 1, "only the second task still runs");
    *world.clock.0.lock() += FRESH;
    let others = world.limiter(2);
    assert!(enter(&others, &limiters).await.is_ok(), "a start that was given back is free");
    assert!(enter(&others, &limiters).await.is_err(), "it is free only once");
    limiter.complete(second, &good, None).await;
}

#[tokio::test]
async fn slot_is_kept_while_it_is_renewed() {
    let world = World::new();
    let (limiter, other, limiters) = (world.limiter(1), world.limiter(2), parallel(1));
    let permits = enter(&limiter, &limiters).await.unwrap();
    for _ in 0..10 {
        *world.clock.0.lock() += Duration::from_secs(20);
        limiter.renew(&permits).await;
        assert!(enter(&other, &limiters).await.is_err());
    }
    *world.clock.0.lock() += Duration::from_secs(61);
    assert!(enter(&other, &limiters).await.is_ok(), "a slot that is not renewed is freed");
}

#[tokio::test]
async fn refusal_by_one_limiter_frees_slots_of_the_others() {
    let world = World::new();
    let limiter = world.limiter(1);
    let [wide] = parallel(5);
    // Uses one in-memory limiter as if it were two.
    let [narrow] = limited(Limits { concurrency: Some(count(1)), ..Limits::default() });
    let wait = enter(&limiter, &[wide, narrow]).await.err().unwrap();
    assert_eq!((wait.reason, world.in_use()), (HeldReason::ConcurrencyLimited, 0));
}

/// A task that waits for two rates must not lose its reservation at the first rate. The lower rate alone sets
/// the throughput.
#[tokio::test]
async fn task_with_two_rates_starts_at_the_lower_rate() {
    for (wide, narrow) in [(10, 5), (5, 10), (5, 5), (6, 5)] {
        let world = World::new();
        let limiter = world.limiter(1);
        let rate_limit =
            |rate| RateLimit { rate: count(rate), period: Duration::from_secs(1), burst: count(1) };
        let scoped_limits = |of, rate| ScopedLimits {
            name: LimiterKey { tenant: Tenant::default(), scope: of },
            limits: Limits { rate: Some(rate_limit(rate)), ..Limits::default() },
        };
        let name = |text| nobat_core::types::name::Name::new(text).unwrap();
        let limiters = [
            scoped_limits(LimitScope::Endpoint(name("e")), wide),
            scoped_limits(LimitScope::Key(name("k")), narrow),
        ];
        let begun = world.clock.now();
        // Twelve tasks arrive per second. Each task asks again at the time that its limiter states.
        let mut waiting: BTreeMap<(Timestamp, u64), HoldState> = (0..12 * 60)
            .map(|number| {
                ((begun + Duration::from_millis(number * 1_000 / 12), number), HoldState::default())
            })
            .collect();
        let mut starts = 0;
        while let Some(((at, number), hold)) =
            waiting.pop_first().filter(|((at, _), _)| *at < begun + Duration::from_mins(1))
        {
            *world.clock.0.lock() = at.since(begun);
            match limiter.acquire(&limiters, &hold, Permits::default()).await.unwrap() {
                Entry::Granted(permits) => {
                    starts += 1;
                    limiter.complete(permits, &report(CallHealth::Good), None).await;
                }
                Entry::Denied { wait, scoped } => {
                    let hold = HoldState { holds: hold.holds + 1, reservations: scoped.into(), ..hold };
                    waiting.insert((wait.until.max(at + Duration::from_millis(1)), number), hold);
                }
            }
        }
        let allowed = 60 * wide.min(narrow);
        assert!(
            (allowed * 95 / 100..=allowed + 1).contains(&starts),
            "{starts} of {allowed} by {wide} and {narrow} a second"
        );
    }
}

/// A task that holds a reservation at one limiter and waits at another keeps one reservation. The slot of the
/// other reservation is free.
#[tokio::test]
async fn replaced_reservation_is_given_back() {
    let world = World::new();
    let limiter = world.limiter(1);
    let rate_limit = RateLimit { rate: count(1), period: Duration::from_secs(10), burst: count(1) };
    let limits = Limits { rate: Some(rate_limit), ..Limits::default() };
    let scoped_limits = |text: &str| ScopedLimits {
        name: LimiterKey {
            tenant: Tenant::default(),
            scope: LimitScope::Key(nobat_core::types::name::Name::new(text).unwrap()),
        },
        limits,
    };
    let limiters = [scoped_limits("a"), scoped_limits("b")];
    let ahead = |place: usize| {
        let kept = world.limiters.kept.lock().get(&limiters[place].name).cloned().unwrap_or_default();
        kept.limiter.state(&limits, world.clock.now()).reserved_starts.unwrap()
    };
    let waiting = async |limiters: &[ScopedLimits], scoped: Option<ScopedReservation>| {
        let hold = HoldState { reservations: scoped.into(), ..HoldState::default() };
        match limiter.acquire(limiters, &hold, Permits::default()).await.unwrap() {
            Entry::Denied { scoped, .. } => scoped,
            Entry::Granted(_) => panic!("the task may start"),
        }
    };
    enter(&limiter, &limiters[1..]).await.unwrap();
    let at_second = waiting(&limiters[1..], None).await;
    assert_eq!((at_second.as_ref().unwrap().scope == limiters[1].name.scope, ahead(1)), (true, 1));
    // The reservation is not due: the first limiter refuses before the second is asked.
    enter(&limiter, &limiters[..1]).await.unwrap();
    let at_first = waiting(&limiters, at_second).await;
    assert_eq!(
        (at_first.as_ref().unwrap().scope == limiters[0].name.scope, ahead(0), ahead(1)),
        (true, 1, 0)
    );
    // The first reservation is due. Its start is used, then given back when the second limiter refuses. The
    // task keeps its first reservation.
    *world.clock.0.lock() += Duration::from_secs(11);
    enter(&limiter, &limiters[1..]).await.unwrap();
    let again = waiting(&limiters, at_first.clone()).await;
    assert_eq!((again, ahead(1)), (at_first, 0));
}

#[tokio::test]
async fn failures_open_the_breaker_for_all_processes() {
    let world = World::new();
    let (limiter, other, limiters) = (
        world.limiter(1),
        world.limiter(2),
        limited(Limits { breaker: Some(BreakerPolicy::default()), ..Limits::default() }),
    );
    assert!(enter(&other, &limiters).await.is_ok());
    for _ in 0..10 {
        let permits = enter(&limiter, &limiters).await.unwrap();
        limiter.complete(permits, &report(CallHealth::Bad), None).await;
    }
    assert_eq!(enter(&limiter, &limiters).await.err().unwrap().reason, HeldReason::CircuitOpen);
    assert!(enter(&other, &limiters).await.is_ok(), "each process caches a limiter for a second");
    *world.clock.0.lock() += FRESH;
    assert_eq!(enter(&other, &limiters).await.err().unwrap().reason, HeldReason::CircuitOpen);
}
