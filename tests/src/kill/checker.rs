//! Comparison of the submitted tasks with the calls that the ledger recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::kill::history::What;
use crate::kill::ledger::Execution;
use crate::kill::{Crash, Evidence};

/// Result of the check. Pieces of work are named by their keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of pieces of work that clients tried to submit.
    pub attempted: usize,
    /// Number of pieces of work that the program accepted with 202.
    pub acknowledged: usize,
    /// Number of kills.
    pub kills: usize,
    /// Number of pieces of work without an answer that were done nevertheless.
    pub recovered: usize,
    /// Number of pieces of work without an answer that were never done.
    pub vanished: usize,
    /// Number of executions beyond the first of each task.
    pub duplicated: usize,
    /// Pieces of work that were accepted with 202, and were never done or are no longer stored.
    pub lost: BTreeSet<u64>,
    /// Pieces of work that were done although no client submitted them, or although they were refused.
    pub unexpected: BTreeSet<u64>,
    /// Pieces of work that became more than one task.
    pub doubled: BTreeSet<u64>,
    /// Pieces of work that were repeated without a killed attempt on record.
    pub unexplained: BTreeSet<u64>,
    /// Tasks that have not ended.
    pub stuck: BTreeSet<String>,
    /// Tasks that ended without success. The ledger never refuses a call.
    pub failed: BTreeSet<String>,
    /// Maximum number of repetitions: all running tasks at each kill.
    pub bound: usize,
}

/// Clients' knowledge of one piece of work.
#[derive(Default)]
struct Known {
    tasks: BTreeSet<String>,
    unknown: bool,
}

/// Checks the evidence.
pub fn check(evidence: &Evidence) -> Verdict {
    let known = known(evidence);
    let done = by(&evidence.executions, |execution| execution.key);
    let tasks_of = |key: u64| -> BTreeSet<&str> {
        let seen = known.get(&key).into_iter().flat_map(|known| &known.tasks).map(String::as_str);
        seen.chain(done.get(&key).into_iter().flatten().map(|execution| execution.task.as_str())).collect()
    };
    let is_unanswered = |known: &&Known| known.tasks.is_empty() && known.unknown;
    let unanswered = || known.iter().filter(|(_, known)| is_unanswered(known)).map(|(key, _)| key);
    let repeated = by(&evidence.executions, |execution| execution.task.clone());
    Verdict {
        attempted: known.len(),
        acknowledged: known.values().filter(|known| !known.tasks.is_empty()).count(),
        kills: evidence.kills.len(),
        recovered: unanswered().filter(|key| done.contains_key(key)).count(),
        vanished: unanswered().filter(|key| !done.contains_key(key)).count(),
        duplicated: repeated.values().map(|executions| executions.len() - 1).sum(),
        lost: keys(&known, |key, known| {
            known.tasks.iter().any(|task| !done.contains_key(&key) || !evidence.tasks.contains_key(task))
        }),
        unexpected: done
            .keys()
            .filter(|key| known.get(key).is_none_or(Known::has_no_task))
            .copied()
            .collect(),
        doubled: keys(&known, |key, _| tasks_of(key).len() > 1),
        unexplained: repeated.values().flat_map(|executions| unexplained(executions, evidence)).collect(),
        stuck: of_status(evidence, |status| {
            !matches!(status, "succeeded" | "failed" | "canceled" | "expired")
        }),
        failed: of_status(evidence, |status| matches!(status, "failed" | "canceled" | "expired")),
        bound: evidence.kills.len() * evidence.concurrency,
    }
}

fn known(evidence: &Evidence) -> BTreeMap<u64, Known> {
    let mut all: BTreeMap<u64, Known> = BTreeMap::new();
    for event in &evidence.history {
        let known = all.entry(event.key).or_default();
        match &event.what {
            What::Ok { task } => drop(known.tasks.insert(task.clone())),
            What::Unknown => known.unknown = true,
            What::Invoke | What::Fail => {}
        }
    }
    all
}

impl Known {
    /// Returns true if no task can exist for this piece of work.
    fn has_no_task(&self) -> bool {
        self.tasks.is_empty() && !self.unknown
    }
}

fn by<K: Ord>(executions: &[Execution], name: impl Fn(&Execution) -> K) -> BTreeMap<K, Vec<&Execution>> {
    let mut all: BTreeMap<K, Vec<&Execution>> = BTreeMap::new();
    for execution in executions {
        all.entry(name(execution)).or_default().push(execution);
    }
    all
}

fn keys(known: &BTreeMap<u64, Known>, is_so: impl Fn(u64, &Known) -> bool) -> BTreeSet<u64> {
    known.iter().filter(|(key, known)| is_so(**key, known)).map(|(key, _)| *key).collect()
}

fn of_status(evidence: &Evidence, is_so: impl Fn(&str) -> bool) -> BTreeSet<String> {
    evidence.tasks.iter().filter(|(_, task)| is_so(&task.status)).map(|(id, _)| id.clone()).collect()
}

/// Returns the keys of one task's executions that were repeated without a reason.
///
/// A repetition has a reason if the attempt is on record as crashed and a kill lies between its recorded
/// start and end. The ledger's times prove nothing: a busy ledger may record a call after its caller died.
/// One attempt makes one call, so of two calls with the same attempt number one has no reason.
fn unexplained(executions: &[&Execution], evidence: &Evidence) -> BTreeSet<u64> {
    let mut attempts: Vec<&Execution> = executions.to_vec();
    attempts.sort_by_key(|execution| execution.attempt);
    let was_killed =
        |crash: &Crash| evidence.kills.iter().any(|kill| kill.over >= crash.from && kill.sent <= crash.to);
    let is_explained = |execution: &Execution| {
        let mut crashes = evidence.tasks.get(&execution.task).into_iter().flat_map(|task| &task.crashed);
        crashes.any(|crash| crash.attempt == execution.attempt && was_killed(crash))
    };
    let repeated = attempts.windows(2).filter_map(|pair| match pair {
        [first, next] if first.attempt < next.attempt && is_explained(first) => None,
        [first, ..] => Some(first.key),
        [] => None,
    });
    repeated.collect()
}

impl Verdict {
    /// Returns true if no violation was found.
    pub fn is_clean(&self) -> bool {
        let is_nothing_wrong = [&self.lost, &self.unexpected, &self.doubled, &self.unexplained]
            .iter()
            .all(|keys| keys.is_empty());
        is_nothing_wrong && self.stuck.is_empty() && self.failed.is_empty() && self.duplicated <= self.bound
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, meaning) in [
            ("kills", self.kills, ""),
            ("attempted", self.attempted, ""),
            ("acknowledged", self.acknowledged, "answered with 202"),
            ("recovered", self.recovered, "no response, but executed"),
            ("vanished", self.vanished, "no response, and never executed"),
            ("duplicated", self.duplicated, "executed again after a kill"),
        ] {
            writeln!(f, "{}", format!("{name:<14}{count:>8}  {meaning}").trim_end())?;
        }
        writeln!(f, "{:<14}{:>8}  must be 0:", "", "")?;
        violation(f, "lost", &self.lost)?;
        violation(f, "stuck", &self.stuck)?;
        violation(f, "failed", &self.failed)?;
        violation(f, "unexpected", &self.unexpected)?;
        violation(f, "doubled", &self.doubled)?;
        violation(f, "unexplained", &self.unexplained)
    }
}

/// Writes the number of violations and the first 5 of them.
fn violation<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, name: &str, found: &BTreeSet<T>) -> fmt::Result {
    let some: Vec<String> = found.iter().take(5).map(|one| format!("{one:?}")).collect();
    writeln!(f, "{}", format!("{name:<14}{:>8}  {}", found.len(), some.join(", ")).trim_end())
}

#[cfg(test)]
mod tests {
    use nobat_core::types::time::Timestamp;

    use super::*;
    use crate::kill::history::Event;
    use crate::kill::{Kill, Standing};

    fn second(second: i64) -> Timestamp {
        Timestamp::from_millis(1_000 * second)
    }

    /// Run of one piece of work, number 7, whose task is `a`, with one kill from second 10 to 11.
    #[derive(Default)]
    struct Made(Evidence);

    impl Made {
        fn up() -> Self {
            let kills = vec![Kill { sent: second(10), over: second(11) }];
            Self(Evidence { kills, concurrency: 4, ..Evidence::default() }).asked(What::Invoke)
        }

        fn asked(mut self, what: What) -> Self {
            self.0.history.push(Event { at: second(0), client: 1, key: 7, what });
            self
        }

        fn accepted(self) -> Self {
            self.asked(What::Ok { task: "a".to_owned() })
        }

        fn done(self, attempt: u64) -> Self {
            self.done_as("a", attempt)
        }

        fn done_as(mut self, task: &str, attempt: u64) -> Self {
            self.0.executions.push(Execution { at: second(20), key: 7, task: task.to_owned(), attempt });
            self
        }

        fn kept(mut self, status: &str, crashed: &[Crash]) -> Self {
            self.0
                .tasks
                .insert("a".to_owned(), Standing { status: status.to_owned(), crashed: crashed.to_vec() });
            self
        }

        fn verdict(&self) -> Verdict {
            check(&self.0)
        }
    }

    #[test]
    fn successful_run_is_clean() {
        let verdict = Made::up().accepted().done(1).kept("succeeded", &[]).verdict();
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(
            (verdict.attempted, verdict.acknowledged, verdict.duplicated, verdict.recovered),
            (1, 1, 0, 0)
        );
    }

    #[test]
    fn accepted_and_never_executed_work_is_lost() {
        let verdict = Made::up().accepted().kept("succeeded", &[]).verdict();
        assert!(verdict.lost == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn executed_work_without_a_stored_task_is_lost() {
        let verdict = Made::up().accepted().done(1).verdict();
        assert!(verdict.lost == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn work_without_an_accepted_request_is_unexpected() {
        let mut made = Made::up().asked(What::Fail).kept("succeeded", &[]);
        assert!(made.verdict().is_clean(), "a refused request alone is no violation");
        made = made.done(1);
        assert_eq!(made.verdict().unexpected, BTreeSet::from([7]), "the work was refused, but executed");
        made.0.history.clear();
        assert_eq!(made.verdict().unexpected, BTreeSet::from([7]), "the work was never submitted");
        assert!(!made.verdict().is_clean());
    }

    #[test]
    fn unanswered_request_may_have_been_executed_or_not() {
        let vanished = Made::up().asked(What::Unknown).verdict();
        assert!(vanished.is_clean() && (vanished.recovered, vanished.vanished) == (0, 1), "{vanished}");
        let recovered = Made::up().asked(What::Unknown).done(1).kept("succeeded", &[]).verdict();
        assert!(recovered.is_clean() && (recovered.recovered, recovered.vanished) == (1, 0), "{recovered}");
    }

    fn crash(attempt: u64, from: i64, to: i64) -> Crash {
        Crash { attempt, from: second(from), to: second(to) }
    }

    #[test]
    fn repetition_is_explained_by_a_recorded_killed_attempt() {
        let verdict = Made::up().accepted().done(1).done(2).kept("succeeded", &[crash(1, 9, 12)]).verdict();
        assert!(verdict.is_clean() && verdict.duplicated == 1, "{verdict}");
    }

    #[test]
    fn repetition_without_a_kill_in_the_attempt_is_unexplained() {
        for (from, to) in [(1, 9), (12, 13)] {
            let verdict =
                Made::up().accepted().done(1).done(2).kept("succeeded", &[crash(1, from, to)]).verdict();
            assert!(verdict.unexplained == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
        }
    }

    #[test]
    fn repetition_without_a_recorded_crash_is_unexplained() {
        for crashed in [&[] as &[Crash], &[crash(2, 9, 12)]] {
            let verdict = Made::up().accepted().done(1).done(2).kept("succeeded", crashed).verdict();
            assert!(verdict.unexplained == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
        }
    }

    #[test]
    fn two_calls_of_one_attempt_are_unexplained() {
        let verdict = Made::up().accepted().done(1).done(1).kept("succeeded", &[crash(1, 9, 12)]).verdict();
        assert!(verdict.unexplained == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn two_tasks_for_one_piece_of_work_are_doubled() {
        let verdict = Made::up().accepted().done(1).done_as("b", 1).kept("succeeded", &[]).verdict();
        assert!(verdict.doubled == BTreeSet::from([7]) && !verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn unended_task_is_stuck_and_unsuccessful_task_has_failed() {
        for status in ["queued", "running", "retrying"] {
            let verdict = Made::up().accepted().done(1).kept(status, &[]).verdict();
            assert!(verdict.stuck.len() == 1 && !verdict.is_clean(), "{verdict}");
        }
        let verdict = Made::up().accepted().done(1).kept("failed", &[]).verdict();
        assert!(verdict.failed.len() == 1 && !verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn more_repetitions_than_running_tasks_are_not_clean() {
        let made = (1..=6).fold(Made::up().accepted(), Made::done);
        let verdict = made.kept("succeeded", &[1, 2, 3, 4, 5].map(|attempt| crash(attempt, 9, 12))).verdict();
        assert!(
            verdict.unexplained.is_empty() && verdict.duplicated == 5 && !verdict.is_clean(),
            "{verdict}"
        );
    }
}
