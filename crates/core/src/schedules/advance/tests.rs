use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::schedules::timing::CronTiming;

const MINUTE: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::EPOCH + Duration::from_secs(1_000_000_000 - 1_000_000_000 % 86_400 + seconds)
}

fn every(seconds: u64, overlap: Overlap, missed: Missed) -> Rules {
    Rules { timing: Timing::Every(Duration::from_secs(seconds)), overlap, missed }
}

fn outcomes(state: &ScheduleState) -> Vec<(Timestamp, DecisionOutcome)> {
    state.decisions.iter().map(|decision| (decision.planned_at, decision.outcome)).collect()
}

#[test]
fn planned_times_are_started_once_and_in_order() {
    let rules = every(10, Overlap::Allow, Missed::Once);
    let first = advance(&rules, ScheduleState::new(at(0)), false, at(25));
    assert_eq!((first.start, first.wake_at), (vec![at(10), at(20)], Some(at(30))));
    let early = advance(&rules, first.state.clone(), false, at(29));
    assert_eq!((early.start, early.wake_at), (vec![], Some(at(30))));
    let back = advance(&rules, first.state, false, at(0));
    assert_eq!((back.start, back.wake_at), (vec![], Some(at(30))), "a clock that was set back repeats none");
}

#[test]
fn running_task_delays_or_skips_the_next_one() {
    let start = ScheduleState::new(at(0));
    let skipped = advance(&every(10, Overlap::Skip, Missed::Once), start.clone(), true, at(11));
    assert_eq!((skipped.start, skipped.wake_at), (vec![], Some(at(20))));
    assert_eq!(outcomes(&skipped.state), [(at(10), DecisionOutcome::SkippedOverlap)]);
    let queue = every(10, Overlap::Queue, Missed::Once);
    let waiting = advance(&queue, start.clone(), true, at(11));
    assert_eq!((waiting.start, waiting.wake_at), (vec![], Some(at(11) + MIN_QUEUE_RECHECK)));
    // The planned time waits for longer than the grace. It is not missed.
    let mut state = waiting.state;
    for seconds in (20..500).step_by(10) {
        let step = advance(&queue, state, true, at(seconds));
        assert_eq!(step.start, []);
        state = step.state;
    }
    let later = advance(&queue, state, false, at(500));
    assert_eq!((later.start, later.wake_at), (vec![at(10)], Some(at(500) + MIN_QUEUE_RECHECK)));
    let allowed = advance(&every(10, Overlap::Allow, Missed::Once), start, true, at(11));
    assert_eq!(allowed.start, [at(10)]);
}

#[test]
fn missed_times_follow_their_rule() {
    // From 00:00:00 to 01:00:30, with a planned time each minute, no worker ran.
    let now = at(3_630);
    let run = |missed| advance(&every(60, Overlap::Allow, missed), ScheduleState::new(at(0)), false, now);
    let late = [at(3_360), at(3_420), at(3_480), at(3_540), at(3_600)];
    let skip = run(Missed::Skip);
    assert_eq!(skip.start, late, "less than the grace ago, so not missed");
    let once = run(Missed::Once);
    assert_eq!((once.start[0], &once.start[1..]), (at(3_300), &late[..]));
    let hour = advance(&every(600, Overlap::Allow, Missed::Once), ScheduleState::new(at(0)), false, now);
    assert_eq!(outcomes(&hour.state)[0], (at(2_400), DecisionOutcome::Missed));
    assert_eq!(hour.start, [at(3_000), at(3_600)]);
    let all = run(Missed::All);
    assert_eq!((all.start.len(), all.wake_at), (60, Some(at(3_660))));
    let many = advance(&every(1, Overlap::Allow, Missed::All), ScheduleState::new(at(0)), false, now);
    assert_eq!((many.start.len(), many.wake_at), (MAX_STARTS, Some(at(101))), "the rest follows at once");
}

#[test]
fn queue_checks_long_tasks_less_often_and_catches_up() {
    let rules = every(1, Overlap::Queue, Missed::All);
    let mut step = advance(&rules, ScheduleState::new(at(0)), false, at(600));
    for _ in 0..100 {
        let now = step.wake_at.unwrap();
        step = advance(&rules, step.state, false, now);
        assert_eq!((step.start.len(), step.wake_at), (1, Some(now + MIN_QUEUE_RECHECK)), "twice a second");
    }
    let long = advance(&rules, step.state, true, at(600 + 300));
    assert!(long.wake_at > Some(at(900) + MINUTE / 3), "{:?}", long.wake_at);
}

#[test]
fn outage_counts_as_missed_also_while_a_time_waits() {
    for (missed, expected) in [(Missed::Skip, vec![]), (Missed::Once, vec![at(86_400 - 300)])] {
        let rules = every(60, Overlap::Queue, missed);
        // 00:01 and 00:02 wait for a long task. Then no worker runs for a day.
        let mut state = ScheduleState::new(at(0));
        for seconds in [60, 120] {
            state = advance(&rules, state, true, at(seconds)).state;
        }
        let mut started = Vec::new();
        for _ in 0..20 {
            let step = advance(&rules, state, false, at(86_400));
            started.extend(step.start);
            state = step.state;
        }
        let recent = [at(86_160), at(86_220), at(86_280), at(86_340), at(86_400)];
        let all: Vec<_> = [at(60), at(120)].into_iter().chain(expected).chain(recent).collect();
        assert_eq!(started, all, "{missed:?}");
    }
}

#[test]
fn schedule_without_another_planned_time_ends() {
    let rules = Rules { timing: Timing::At(vec![at(10)]), overlap: Overlap::Skip, missed: Missed::Once };
    let done = advance(&rules, ScheduleState::new(at(0)), false, at(10));
    assert_eq!((done.start, done.wake_at), (vec![at(10)], None));
    assert_eq!(advance(&rules, done.state, false, at(9_999)).start, []);
}

/// Returns the delay until the next decision: mostly at the wake time, sometimes late, early or after a jump.
fn jump(bits: u64, wake_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let due = wake_at.unwrap_or(now + MINUTE);
    match bits % 16 {
        0 => due + Duration::from_hours(bits % 7),
        1 => now - Duration::from_hours(bits % 5),
        2 => due - Duration::from_millis(30),
        3 => due + Duration::from_secs(bits % 90),
        _ => due,
    }
}

proptest! {
    /// The clock may jump at any time. No planned time is started twice or out of order, and with `all` none is
    /// lost.
    #[test]
    fn no_planned_time_is_started_twice(
        seconds in 1_u64..7_200, bits in proptest::collection::vec(any::<u64>(), 1..60), missed in 0_usize..3,
    ) {
        let missed = [Missed::Skip, Missed::Once, Missed::All][missed];
        let rules = every(seconds, Overlap::Allow, missed);
        let (mut state, mut now, mut wake_at) = (ScheduleState::new(at(0)), at(0), None);
        let mut started = Vec::new();
        for bits in bits {
            now = jump(bits, wake_at, now);
            let step = advance(&rules, state, false, now);
            prop_assert!(step.start.iter().all(|planned| *planned <= now));
            started.extend(step.start);
            prop_assert!(step.state.decisions.len() <= ScheduleState::KEPT);
            (state, wake_at) = (step.state, step.wake_at);
        }
        prop_assert!(started.is_sorted_by(|one, other| one < other));
        if missed == Missed::All {
            let step = Duration::from_secs(seconds);
            let is_next = |pair: &[Timestamp]| pair[0] + step == pair[1];
            prop_assert!(started.windows(2).all(is_next), "none is left out");
        }
    }
}

/// 1,000 schedules over 400 days of virtual time in 12 zones, with clock jumps of hours both ways: each
/// planned time is decided exactly once, and started unless it is missed.
#[test]
fn a_thousand_schedules_over_400_days_start_each_time_once() {
    const ZONES: [&str; 12] = [
        "UTC",
        "Asia/Ashgabat",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Asia/Kolkata",
        "Asia/Tokyo",
        "Australia/Lord_Howe",
        "Pacific/Auckland",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "America/St_Johns",
    ];
    let begin: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let end = begin + Duration::from_hours(400 * 24);
    let mut decided = 0;
    for number in 0..1_000_u32 {
        let expression = match number % 5 {
            0 => format!("{} {} * * *", number % 60, number % 24),
            1 => format!("{} */{} * * *", number % 60, 2 + number % 5),
            2 => format!("30 2 {} * *", 1 + number % 28),
            3 => format!("0 {} L * *", number % 24),
            _ => format!("15 {} * * MON-FRI", number % 24),
        };
        let zone = ZONES[number as usize % ZONES.len()].parse().unwrap();
        let timing = Timing::Cron(CronTiming::new(&expression, zone).unwrap());
        let missed = [Missed::Skip, Missed::Once, Missed::All][number as usize % 3];
        let rules = Rules { timing: timing.clone(), overlap: Overlap::Allow, missed };
        let mut state = ScheduleState::new(begin);
        let (mut now, mut wake_at, mut looks) = (begin, timing.next_after(begin), 0_u64);
        let mut started: BTreeMap<Timestamp, u32> = BTreeMap::new();
        while now < end {
            looks += 1;
            let bits = looks.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            // One look of 256 comes hours late, and one after the clock was set back.
            now = match bits % 256 {
                0 => wake_at.unwrap_or(end) + Duration::from_hours(1 + bits % 30),
                1 => now - Duration::from_hours(1 + bits % 5),
                _ => wake_at.unwrap_or(end),
            };
            let step = advance(&rules, state, false, now);
            for planned in step.start {
                *started.entry(planned).or_default() += 1;
            }
            (state, wake_at) = (step.state, step.wake_at);
        }
        assert!(started.values().all(|times| *times == 1), "{expression}");
        if missed == Missed::All {
            let mut at = begin;
            while let Some(planned) = timing.next_after(at).filter(|planned| *planned <= state.through) {
                assert!(started.contains_key(&planned), "{expression} lost {planned}");
                at = planned;
            }
        }
        decided += started.len();
    }
    assert!(decided > 100_000, "{decided}");
}
