//! Limiter with a backlog, in virtual time: tasks stay within the limits and use them fully.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::limits::{
    AcquireRequest, AcquireResult, BreakerPolicy, CallHealth, CallReport, HolderId, LimiterState, Limits,
    Permit, RateLimit, Reservation,
};
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;

/// Event at a time, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Over { task: usize, is_good: bool },
    Due(usize),
}

/// A task that waits.
#[derive(Clone, Copy, Default)]
struct Task {
    reservation: Option<Reservation>,
    times: u32,
    looks: u32,
    attempts: u32,
}

/// Workers, tasks and the receiver.
struct World {
    limits: Limits,
    limiter: LimiterState,
    workers: usize,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    order: u64,
    tasks: Vec<Task>,
    /// Due tasks that wait for a worker.
    line: VecDeque<usize>,
    passes: BTreeMap<usize, (Permit, u64)>,
    starts: Vec<u64>,
    most_at_once: usize,
    done: usize,
    random: u64,
}

const EPOCH: i64 = 1_800_000_000_000;

impl World {
    fn new(limits: Limits, workers: usize, tasks: usize) -> Self {
        let mut world = Self {
            limits,
            limiter: LimiterState::default(),
            workers,
            now: 0,
            agenda: BinaryHeap::new(),
            order: 0,
            tasks: vec![Task::default(); tasks],
            line: VecDeque::new(),
            passes: BTreeMap::new(),
            starts: Vec::new(),
            most_at_once: 0,
            done: 0,
            random: 1,
        };
        (0..tasks).for_each(|task| world.plan(0, Happening::Due(task)));
        world
    }

    fn plan(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.agenda.push(Reverse((at, self.order, happening)));
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(EPOCH + i64::try_from(self.now).unwrap())
    }

    fn jitter(&mut self) -> JitterSample {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        JitterSample::from_bits(self.random)
    }

    /// Lets time pass until `end`. `answers` takes a time and returns the receiver's latency, and true if the
    /// receiver responds with success.
    fn run_until(&mut self, end: u64, answers: impl Fn(u64) -> (u64, bool)) {
        while let Some(Reverse((at, _, happening))) =
            self.agenda.peek().copied().filter(|Reverse((at, ..))| *at <= end)
        {
            self.agenda.pop();
            self.now = at;
            match happening {
                Happening::Due(task) => self.line.push_back(task),
                Happening::Over { task, is_good } => self.end(task, is_good),
            }
            while self.passes.len() < self.workers
                && let Some(task) = self.line.pop_front()
            {
                self.begin(task, &answers);
            }
        }
        self.now = end;
    }

    fn begin(&mut self, number: usize, answers: &impl Fn(u64) -> (u64, bool)) {
        let (jitter, now) = (self.jitter(), self.time());
        let task = &mut self.tasks[number];
        task.looks += 1;
        let request = AcquireRequest {
            holder: HolderId(1),
            reservation: task.reservation,
            has_due_reservation_elsewhere: false,
            holds: task.times,
            jitter,
        };
        match self.limiter.acquire(&self.limits, &request, now) {
            AcquireResult::Granted(permit) => {
                *task = Task { reservation: None, times: 0, attempts: task.attempts + 1, ..*task };
                self.passes.insert(number, (permit, self.now));
                self.most_at_once = self.most_at_once.max(self.passes.len());
                self.starts.push(self.now);
                let (takes, is_good) = answers(self.now);
                self.plan(self.now + takes, Happening::Over { task: number, is_good });
            }
            AcquireResult::Denied(wait) => {
                *task = Task { reservation: wait.reservation, times: task.times + 1, ..*task };
                assert!(wait.until > now, "{wait:?} at {now}");
                let until = u64::try_from(wait.until.millis() - EPOCH).unwrap();
                self.plan(until, Happening::Due(number));
            }
        }
    }

    fn end(&mut self, number: usize, is_good: bool) {
        let (permit, since) = self.passes.remove(&number).unwrap();
        let health = if is_good { CallHealth::Good } else { CallHealth::Bad };
        let report = CallReport { health, took: Duration::from_millis(self.now - since), pause_until: None };
        self.limiter.complete(&self.limits, permit, HolderId(1), &report, self.time());
        if is_good {
            self.done += 1;
        } else {
            self.plan(self.now + 10_000, Happening::Due(number));
        }
    }

    /// Returns the maximum number of starts in any period of this length.
    fn most_within(&self, length: u64) -> usize {
        let mut first = 0;
        self.starts
            .iter()
            .enumerate()
            .map(|(place, start)| {
                while *start - self.starts[first] >= length {
                    first += 1;
                }
                place - first + 1
            })
            .max()
            .unwrap_or(0)
    }
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn rate_limit(rate: u32, burst: u32) -> RateLimit {
    RateLimit { rate: count(rate), period: Duration::from_secs(1), burst: count(burst) }
}

const TEN_MINUTES: u64 = 600_000;

#[test]
fn rate_and_concurrency_are_kept_and_used() {
    for burst in [50, 10, 1] {
        let limits = Limits { rate: Some(rate_limit(50, burst)), concurrency: Some(count(4)), breaker: None };
        let mut world = World::new(limits, 64, 40_000);
        world.run_until(TEN_MINUTES, |now| (20 + now % 29, true));
        let most = world.most_within(1_000);
        assert!(most < 50 + burst as usize, "burst {burst}: {most} in a second");
        assert!(world.most_at_once <= 4);
        let used = world.starts.len();
        assert!(used >= 30_000 * 95 / 100, "burst {burst}: {used} starts of 30,000");
        let looks: u32 = world.tasks.iter().map(|task| task.looks).sum();
        assert!(looks < 2 * 40_000, "burst {burst}: {looks} looks");
    }
}

#[test]
fn slots_are_used_for_any_task_duration() {
    for takes in [5, 200, 3_000] {
        let limits = Limits { concurrency: Some(count(4)), ..Limits::default() };
        let tasks = usize::try_from(5 * TEN_MINUTES / takes).unwrap().min(100_000);
        let mut world = World::new(limits, 64, tasks);
        world.run_until(TEN_MINUTES, |_| (takes, true));
        let most = usize::try_from(4 * TEN_MINUTES / takes).unwrap().min(tasks);
        assert!(
            world.most_at_once <= 4 && world.done >= most * 9 / 10,
            "{takes} ms: {} of {most}",
            world.done
        );
    }
}

#[test]
fn outage_of_half_an_hour_costs_only_probes() {
    let breaker = BreakerPolicy::default();
    let limits = Limits { rate: Some(rate_limit(100, 100)), concurrency: None, breaker: Some(breaker) };
    let mut world = World::new(limits, 64, 10_000);
    let half_an_hour = 1_800_000;
    world.run_until(half_an_hour, |_| (20, false));
    let attempts: u32 = world.tasks.iter().map(|task| task.attempts).sum();
    // Attempts that were running when the circuit breaker opened, attempts that began during the first nine
    // failures, and about one probe every thirty seconds.
    assert!(attempts <= 64 + 9 + 60, "{attempts}");
    world.run_until(half_an_hour + 1_200_000, |_| (20, true));
    assert_eq!(world.done, 10_000);
}
