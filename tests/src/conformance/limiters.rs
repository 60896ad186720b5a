//! Limiter states.

use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::limits::{
    AcquireRequest, AcquireResult, BreakerPolicy, CallHealth, CallReport, HolderId, LimitScope,
    LimiterChange, LimiterKey, LimiterState, Limits, RateLimit,
};
use nobat_core::ports::limiter_store::{IDLE, VersionedState, WriteResult};
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;

use super::{Removal, World};
use crate::sample;

/// Returns a limiter state with every part set: slots in use, reserved starts, an open circuit breaker, a
/// pause.
fn busy(now: Timestamp) -> LimiterState {
    let count = const { NonZeroU32::new(1).unwrap() };
    let breaker = BreakerPolicy { minimum_calls: count, ..BreakerPolicy::default() };
    let rate_limit = RateLimit {
        rate: count,
        period: Duration::from_secs(1),
        burst: const { NonZeroU32::new(3).unwrap() },
    };
    let limits = Limits { rate: Some(rate_limit), concurrency: NonZeroU32::new(2), breaker: Some(breaker) };
    let mut limiter = LimiterState::default();
    for pause in [None, Some(now + Duration::from_mins(1))] {
        let ask = AcquireRequest {
            holder: HolderId(u64::MAX),
            reservation: None,
            has_due_reservation_elsewhere: false,
            holds: 0,
            jitter: JitterSample::from_bits(0),
        };
        if let AcquireResult::Granted(pass) = limiter.acquire(&limits, &ask, now)
            && let Some(until) = pause
        {
            let report = CallReport {
                health: CallHealth::Bad,
                took: Duration::from_millis(7),
                pause_until: Some(until),
            };
            limiter.complete(&limits, pass, HolderId(u64::MAX), &report, now);
        }
    }
    assert_eq!(limiter.running(now), 1);
    limiter
}

fn name(of: LimitScope) -> LimiterKey {
    LimiterKey { tenant: sample::tenant("acme"), scope: of }
}

fn billing() -> LimiterKey {
    name(LimitScope::Endpoint(sample::name("billing")))
}

/// A state is read back as written, and every write increments the version.
pub async fn reads_back_the_written_state(world: World) {
    let limiters = &world.backend.limiters;
    assert_eq!(limiters.read(&billing()).await.unwrap(), VersionedState::default());
    for (version, limiter) in [(1, busy(world.now())), (2, LimiterState::default()), (3, busy(world.now()))] {
        assert_eq!(
            limiters.write(&billing(), &limiter, version - 1, world.now()).await.unwrap(),
            WriteResult::Done
        );
        assert_eq!(limiters.read(&billing()).await.unwrap(), VersionedState { version, limiter });
    }
}

/// A write over another version than the stored one returns the stored state and writes nothing.
pub async fn refuses_to_write_over_another_version(world: World) {
    let (limiters, now) = (&world.backend.limiters, world.now());
    assert_eq!(
        limiters.write(&billing(), &busy(now), 3, now).await.unwrap(),
        WriteResult::Conflict(VersionedState::default())
    );
    assert_eq!(limiters.write(&billing(), &busy(now), 0, now).await.unwrap(), WriteResult::Done);
    let stands = VersionedState { version: 1, limiter: busy(now) };
    for over in [0, 2] {
        assert_eq!(
            limiters.write(&billing(), &LimiterState::default(), over, now).await.unwrap(),
            WriteResult::Conflict(stands.clone())
        );
    }
    assert_eq!(limiters.read(&billing()).await.unwrap(), stands);
}

/// A limiter state belongs to one tenant and one scope.
pub async fn keeps_limiters_apart(world: World) {
    let (limiters, now) = (&world.backend.limiters, world.now());
    let of = || sample::name("billing");
    let others = [
        LimitScope::Key(of()),
        LimitScope::Kind(of()),
        LimitScope::Queue(of()),
        LimitScope::Tenant,
        LimitScope::Endpoint(sample::name("billing2")),
    ];
    assert_eq!(limiters.write(&billing(), &busy(now), 0, now).await.unwrap(), WriteResult::Done);
    let elsewhere = LimiterKey { tenant: sample::tenant("acme2"), ..billing() };
    for other in others.map(name).into_iter().chain([elsewhere]) {
        assert_eq!(limiters.read(&other).await.unwrap(), VersionedState::default(), "{other:?}");
        assert_eq!(
            limiters.write(&other, &LimiterState::default(), 0, now).await.unwrap(),
            WriteResult::Done
        );
    }
    assert_eq!(limiters.read(&billing()).await.unwrap().limiter, busy(now));
}

/// `Lift` ends the pause of the named limiter only and keeps the rest of its state. Without a pause, it
/// writes nothing.
pub async fn lift_ends_the_pause_of_one_limiter(world: World) {
    let (backend, now) = (&world.backend, world.now());
    let resting = |kept: &VersionedState| kept.limiter.state(&Limits::default(), now).paused_until.is_some();
    for name in [billing(), name(LimitScope::Key(sample::name("billing")))] {
        assert_eq!(backend.limiters.write(&name, &busy(now), 0, now).await.unwrap(), WriteResult::Done);
    }
    backend.limiters.change(&billing(), LimiterChange::ClearPause, now).await.unwrap();
    let lifted = backend.limiters.read(&billing()).await.unwrap();
    assert!(!resting(&lifted) && lifted.limiter.running(now) == 1, "{lifted:?}");
    backend.limiters.change(&billing(), LimiterChange::ClearPause, now).await.unwrap();
    assert_eq!(
        backend.limiters.read(&billing()).await.unwrap(),
        lifted,
        "without a pause, nothing is written"
    );
    assert!(
        resting(&backend.limiters.read(&name(LimitScope::Key(sample::name("billing")))).await.unwrap()),
        "the other limiter stays paused"
    );
}

/// A limiter state that is not written for longer than [`IDLE`] is pruned and starts anew.
pub async fn prunes_idle_limiters(world: World) {
    let limiters = &world.backend.limiters;
    let used = name(LimitScope::Tenant);
    for (name, over) in [(&billing(), 0), (&used, 0)] {
        limiters.write(name, &busy(world.now()), over, world.now()).await.unwrap();
    }
    world.time.advance(IDLE);
    limiters.write(&used, &LimiterState::default(), 1, world.now()).await.unwrap();
    world.time.advance(Duration::from_millis(1));
    if world.removal == Removal::ByPruning {
        assert_eq!(world.backend.store.prune(10, world.now()).await.unwrap(), 1);
        assert_eq!(limiters.read(&billing()).await.unwrap(), VersionedState::default());
    }
    assert_eq!(limiters.read(&used).await.unwrap().version, 2);
}
