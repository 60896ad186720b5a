//! Tests of the decisions of one limiter.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::limits::Limits;
use crate::limits::backoff::hold_backoff;
use crate::limits::breaker::{BreakerPolicy, BreakerState, CallHealth};
use crate::limits::concurrency::HolderId;
use crate::limits::rate::{MAX_RESERVATION_AHEAD, RateLimit};
use crate::limits::scope::{InvalidLimitScope, LimitScope};
use crate::limits::state::{
    AcquireRequest, AcquireResult, CallReport, Denied, LimiterChange, LimiterState, Permit,
};
use crate::types::held_reason::HeldReason;
use crate::types::intervals::LEASE;
use crate::types::jitter_sample::JitterSample;
use crate::types::name::Name;
use crate::types::time::Timestamp;

const ME: HolderId = HolderId(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000) + Duration::from_millis(millis)
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn rate_limit(rate: u32) -> RateLimit {
    RateLimit { rate: count(rate), period: Duration::from_secs(1), burst: count(1) }
}

fn request() -> AcquireRequest {
    AcquireRequest {
        holder: ME,
        reservation: None,
        has_due_reservation_elsewhere: false,
        holds: 0,
        jitter: JitterSample::from_bits(0),
    }
}

fn report(health: CallHealth) -> CallReport {
    CallReport { health, took: Duration::from_millis(50), pause_until: None }
}

fn go(answer: AcquireResult) -> Permit {
    match answer {
        AcquireResult::Granted(permit) => permit,
        AcquireResult::Denied(wait) => panic!("{wait:?}"),
    }
}

fn wait(answer: AcquireResult) -> Denied {
    match answer {
        AcquireResult::Denied(wait) => wait,
        AcquireResult::Granted(permit) => panic!("{permit:?}"),
    }
}

#[test]
fn names_are_read_back() {
    let name = || Name::new("billing").unwrap();
    for of in [
        LimitScope::Endpoint(name()),
        LimitScope::Batch(name(), 0xfee1_dead_0000_0001),
        LimitScope::Key(name()),
        LimitScope::Kind(name()),
        LimitScope::Queue(name()),
        LimitScope::Tenant,
    ] {
        assert_eq!(of.to_string().parse(), Ok(of));
    }
    for text in ["", "billing", "endpoint/", "endpoint/a/b", "tenant/billing", "batch/billing/x", "batch//0"]
    {
        assert_eq!(text.parse::<LimitScope>(), Err(InvalidLimitScope), "{text}");
    }
}

#[test]
fn patience_doubles_up_to_a_limit() {
    let wait = |times, bits| hold_backoff(times, JitterSample::from_bits(bits)).as_millis();
    assert_eq!(
        [0, 1, 2, 9, 10, 1_000].map(|times| wait(times, 0)),
        [500, 1_000, 2_000, 256_000, 450_000, 450_000]
    );
    assert_eq!((wait(0, u64::MAX), wait(30, u64::MAX)), (1_000, 900_000));
}

#[test]
fn unlimited_task_starts_at_once() {
    let mut limiter = LimiterState::default();
    assert_eq!(
        limiter.acquire(&Limits::default(), &request(), at(0)),
        AcquireResult::Granted(Permit::default())
    );
    assert_eq!(limiter, LimiterState::default());
}

#[test]
fn reservation_is_kept_and_not_made_twice() {
    let (mut limiter, limits) =
        (LimiterState::default(), Limits { rate: Some(rate_limit(10)), ..Limits::default() });
    go(limiter.acquire(&limits, &request(), at(0)));
    let reserved = wait(limiter.acquire(&limits, &request(), at(0)));
    let next = wait(limiter.acquire(&limits, &request(), at(0)));
    assert_eq!((reserved.reason, reserved.until, next.until), (HeldReason::RateLimited, at(102), at(204)));
    let request = AcquireRequest { reservation: reserved.reservation, ..request() };
    assert_eq!(go(limiter.acquire(&limits, &request, reserved.until)).reservation, reserved.reservation);
    let late = wait(limiter.acquire(&limits, &request, at(122)));
    assert_eq!(late.until, at(184), "a late task starts one interval after the last start");
}

#[test]
fn task_without_a_slot_keeps_its_reservation() {
    let twice = RateLimit { burst: count(2), ..rate_limit(1) };
    let (mut limiter, limits) =
        (LimiterState::default(), Limits { rate: Some(twice), concurrency: Some(count(1)), breaker: None });
    let running = go(limiter.acquire(&limits, &request(), at(0)));
    let held = wait(limiter.acquire(&limits, &request(), at(0)));
    assert_eq!(held.reason, HeldReason::ConcurrencyLimited);
    let request = AcquireRequest { reservation: held.reservation, ..request() };
    limiter.complete(&limits, running, ME, &report(CallHealth::Good), held.until);
    assert_eq!(go(limiter.acquire(&limits, &request, held.until)).reservation, held.reservation);
    assert!(held.reservation.is_some());
}

#[test]
fn task_without_a_slot_waits_longer_each_time() {
    let (mut limiter, limits) =
        (LimiterState::default(), Limits { concurrency: Some(count(1)), ..Limits::default() });
    let quick = go(limiter.acquire(&limits, &request(), at(0)));
    limiter.complete(
        &limits,
        quick,
        ME,
        &CallReport { took: Duration::from_millis(1), ..report(CallHealth::Good) },
        at(1),
    );
    go(limiter.acquire(&limits, &request(), at(1)));
    let waits = [0, 1, 5, 10, 15, 1_000].map(|times| {
        let now = at(100_000_000 + u64::from(times));
        limiter.recount(ME, 1, now);
        wait(limiter.acquire(&limits, &AcquireRequest { holds: times, ..request() }, now))
            .until
            .since(now)
            .as_millis()
    });
    assert_eq!(
        waits,
        [1, 2, 32, 1_024, 10_000, 10_000],
        "the delay doubles from the average of one millisecond"
    );
}

#[test]
fn returned_pass_is_free_for_the_next_task() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
    let (mut limiter, limits) =
        (LimiterState::default(), Limits { rate: Some(rate_limit(1)), concurrency: Some(count(1)), breaker });
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    limiter.cancel(permit, ME, at(0));
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    limiter.complete(&limits, permit, ME, &report(CallHealth::Bad), at(0));
    let probe = go(limiter.acquire(&limits, &request(), at(30_000)));
    assert!(probe.is_probe);
    limiter.cancel(probe, ME, at(30_000));
    assert!(go(limiter.acquire(&limits, &request(), at(30_000))).is_probe);
}

#[test]
fn open_breaker_allows_a_probe_after_its_duration() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
    let (mut limiter, limits) = (LimiterState::default(), Limits { breaker, ..Limits::default() });
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    limiter.complete(&limits, permit, ME, &report(CallHealth::Bad), at(0));
    let half = AcquireRequest { holds: 3, jitter: JitterSample::from_bits(1 << 63), ..request() };
    let held = wait(limiter.acquire(&limits, &half, at(0)));
    assert_eq!((held.reason, held.until), (HeldReason::CircuitOpen, at(34_000)));
    let patient = AcquireRequest { holds: 99, jitter: JitterSample::from_bits(u64::MAX), ..request() };
    assert_eq!(wait(limiter.acquire(&limits, &patient, at(0))).until, at(0) + MAX_RESERVATION_AHEAD);
    let probe = go(limiter.acquire(&limits, &half, at(34_000)));
    wait(limiter.acquire(&limits, &request(), at(34_000)));
    limiter.complete(&limits, probe, ME, &report(CallHealth::Good), at(34_050));
    assert!(!go(limiter.acquire(&limits, &request(), at(34_050))).is_probe);
}

/// A probe usually ends long before its lease would. The tasks that wait for it then start soon.
#[test]
fn task_waits_for_a_probe_no_longer_than_the_open_duration() {
    let open_duration = Duration::from_secs(5);
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), open_duration, ..BreakerPolicy::default() });
    let (mut limiter, limits) = (LimiterState::default(), Limits { breaker, ..Limits::default() });
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    limiter.complete(&limits, permit, ME, &report(CallHealth::Bad), at(0));
    go(limiter.acquire(&limits, &request(), at(5_000)));
    assert_eq!(wait(limiter.acquire(&limits, &request(), at(5_100))).until, at(10_100));
    // Shortly before the probe is given up, the next task may become the probe.
    let end = 5_000 + u64::try_from(LEASE.as_millis()).unwrap();
    assert_eq!(wait(limiter.acquire(&limits, &request(), at(end - 100))).until, at(end));
}

#[test]
fn probe_without_a_slot_is_left_to_the_next_task() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
    let (mut limiter, limits) =
        (LimiterState::default(), Limits { breaker, concurrency: Some(count(2)), ..Limits::default() });
    let [failing, hanging] = [(); 2].map(|()| go(limiter.acquire(&limits, &request(), at(0))));
    limiter.complete(&limits, failing, ME, &report(CallHealth::Bad), at(0));
    let narrow = Limits { concurrency: Some(count(1)), ..limits };
    assert_eq!(wait(limiter.acquire(&narrow, &request(), at(30_000))).reason, HeldReason::ConcurrencyLimited);
    limiter.complete(&narrow, hanging, ME, &report(CallHealth::Good), at(30_001));
    assert!(
        go(limiter.acquire(&narrow, &request(), at(30_001))).is_probe,
        "the outcome of an attempt from before is ignored"
    );
}

#[test]
fn no_task_starts_during_a_pause_of_the_receiver() {
    for (rate_limit, expected) in
        [(Some(rate_limit(10)), [at(60_000), at(60_102)]), (None, [at(60_000), at(60_000)])]
    {
        let (mut limiter, limits) =
            (LimiterState::default(), Limits { rate: rate_limit, ..Limits::default() });
        let permit = go(limiter.acquire(&limits, &request(), at(0)));
        let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Bad) };
        limiter.complete(&limits, permit, ME, &asked, at(0));
        let waits = [(); 2].map(|()| wait(limiter.acquire(&limits, &request(), at(1_000))));
        assert_eq!(waits.map(|wait| wait.until), expected);
        assert_eq!(waits[0].reason, HeldReason::RetryAfter);
        let first = AcquireRequest { reservation: waits[0].reservation, ..request() };
        go(limiter.acquire(&limits, &first, at(60_000)));
    }
}

#[test]
fn calls_begun_before_recovery_do_not_reopen_the_breaker() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(2), ..BreakerPolicy::default() });
    let limits = Limits { breaker, ..Limits::default() };
    let mut limiter = LimiterState::default();
    let passes: Vec<Permit> = (0..6).map(|_| go(limiter.acquire(&limits, &request(), at(0)))).collect();
    let (bad, state) = (report(CallHealth::Bad), |limiter: &LimiterState| limiter.breaker.state());
    passes[..2].iter().for_each(|permit| limiter.complete(&limits, *permit, ME, &bad, at(100)));
    let probe = go(limiter.acquire(&limits, &request(), at(40_000)));
    limiter.complete(&limits, probe, ME, &report(CallHealth::Good), at(40_050));
    assert_eq!(state(&limiter), BreakerState::Closed);
    let hung = CallReport { took: Duration::from_mins(1), ..bad };
    passes[2..4].iter().for_each(|permit| limiter.complete(&limits, *permit, ME, &hung, at(60_000)));
    assert_eq!(state(&limiter), BreakerState::Closed);
    passes[4..].iter().for_each(|permit| limiter.complete(&limits, *permit, ME, &bad, at(60_000)));
    assert_eq!(state(&limiter), BreakerState::Open);
}

#[test]
fn lifted_pause_keeps_the_rate() {
    let limits = Limits { rate: Some(rate_limit(10)), ..Limits::default() };
    let mut limiter = LimiterState::default();
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Bad) };
    limiter.complete(&limits, permit, ME, &asked, at(0));
    assert_eq!(wait(limiter.acquire(&limits, &request(), at(1_000))).until, at(60_000));
    limiter.clear_pause(at(2_000));
    go(limiter.acquire(&limits, &request(), at(2_000)));
    assert_eq!(wait(limiter.acquire(&limits, &request(), at(2_000))).reason, HeldReason::RateLimited);
    let waiting = (0..20).map(|_| wait(limiter.acquire(&limits, &request(), at(2_000))).until).max().unwrap();
    limiter.clear_pause(at(3_000));
    assert!(at(4_000) < waiting, "{waiting}");
    go(limiter.acquire(&limits, &request(), at(3_000)));
    assert_eq!(limiter.state(&limits, at(3_000)).reserved_starts, Some(0), "reservations start again");
}

#[test]
fn task_held_for_another_reason_returns_its_reservation() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
    let limits = Limits { rate: Some(rate_limit(1)), breaker, ..Limits::default() };
    let mut limiter = LimiterState::default();
    let permit = go(limiter.acquire(&limits, &request(), at(0)));
    let held = wait(limiter.acquire(&limits, &request(), at(0)));
    limiter.complete(&limits, permit, ME, &report(CallHealth::Bad), at(10));
    let reserved = |limiter: &LimiterState, millis| limiter.state(&limits, at(millis)).reserved_starts;
    assert_eq!(reserved(&limiter, 10), Some(1));
    let open = wait(limiter.acquire(
        &limits,
        &AcquireRequest { reservation: held.reservation, ..request() },
        at(20),
    ));
    assert_eq!((open.reason, reserved(&limiter, 20)), (HeldReason::CircuitOpen, Some(0)));
    let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Unknown) };
    limiter.complete(&limits, Permit::default(), ME, &asked, at(30));
    let paused = wait(limiter.acquire(&limits, &request(), at(40)));
    let again = wait(limiter.acquire(
        &limits,
        &AcquireRequest { reservation: paused.reservation, ..request() },
        at(50),
    ));
    assert_eq!(
        (paused.until, again.reservation, reserved(&limiter, 50)),
        (at(60_000), paused.reservation, Some(1)),
        "the task keeps its one reservation"
    );
    limiter.change(LimiterChange::ReleaseReservation(paused.reservation.unwrap()), at(60));
    assert_eq!(reserved(&limiter, 60), Some(0));
}

#[test]
fn task_with_a_reservation_elsewhere_does_not_queue() {
    let limits = Limits { rate: Some(rate_limit(10)), ..Limits::default() };
    let mut limiter = LimiterState::default();
    go(limiter.acquire(&limits, &request(), at(0)));
    let line: Vec<Denied> = (0..50).map(|_| wait(limiter.acquire(&limits, &request(), at(0)))).collect();
    assert!(line.last().unwrap().until > at(4_000));
    let called = AcquireRequest { has_due_reservation_elsewhere: true, ..request() };
    let told = wait(limiter.acquire(&limits, &called, at(10)));
    assert_eq!((told.reservation, told.reason), (None, HeldReason::RateLimited));
    assert!(at(10) < told.until && told.until < at(102), "{told:?}");
    go(limiter.acquire(&limits, &called, told.until));
    let next = wait(limiter.acquire(
        &limits,
        &AcquireRequest { reservation: line[0].reservation, ..request() },
        at(102),
    ));
    assert!(next.reservation == line[0].reservation && next.until < at(250), "{next:?}");
}

#[test]
fn limiter_state_is_read_back_as_stored() {
    let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
    let limits = Limits { rate: Some(rate_limit(3)), concurrency: Some(count(2)), breaker };
    let mut limiter = LimiterState::default();
    for health in [CallHealth::Good, CallHealth::Bad] {
        assert_eq!(LimiterState::from_text(&limiter.to_text()).unwrap(), limiter);
        let permit = go(limiter.acquire(&limits, &request(), at(0)));
        limiter.complete(&limits, permit, ME, &report(health), at(1));
        limiter.cancel(Permit { is_probe: false, ..permit }, ME, at(1));
    }
    assert_eq!(LimiterState::from_text(&limiter.to_text()).unwrap(), limiter);
    assert!(LimiterState::from_text("[]").is_err() || LimiterState::from_text("7").is_err());
}
