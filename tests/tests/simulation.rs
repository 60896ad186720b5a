//! The promises hold in every simulated run, and sabotage is detected.

use nobat_tests::model::backend_quirks::Habit;
use nobat_tests::simulation::sabotage::Sabotage;
use nobat_tests::simulation::{Subject, Summary, simulate, simulate_with};

/// Number of runs on each backend. The program `simulate` makes any number of them.
const SEEDS: u64 = 800;

fn run(subject: Subject, seeds: impl Iterator<Item = u64>) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        match simulate(seed, subject) {
            Ok(summary) => total += summary,
            Err(violation) => panic!("{violation}"),
        }
    }
    total
}

/// Runs all recorded seeds that once broke a promise.
#[test]
fn recorded_failing_seeds_pass() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let (subject, seed) = line.split_once(' ').unwrap();
        run(subject.parse().unwrap(), std::iter::once(seed.parse().unwrap()));
    }
}

#[test]
fn guarantees_hold_on_sqlite() {
    run(Subject::Sqlite, 0..SEEDS);
}

#[test]
fn guarantees_hold_on_a_separate_store_and_queue() {
    let total = run(Subject::Model, 0..SEEDS);
    let missed: Vec<Habit> = Habit::ALL.into_iter().filter(|habit| total.shown.times(*habit) == 0).collect();
    assert!(missed.is_empty(), "no run showed these habits of the cloud: {missed:?}");
}

#[test]
fn same_seed_gives_the_same_run() {
    for subject in Subject::ALL {
        for seed in 0..20 {
            assert_eq!(simulate(seed, subject).unwrap(), simulate(seed, subject).unwrap(), "seed {seed}");
        }
    }
}

/// Checks that each kind of sabotage is detected in the runs above. A harness that never fails proves
/// nothing.
#[test]
fn every_kind_of_sabotage_is_detected() {
    let mut undetected = Vec::new();
    for subject in Subject::ALL {
        for sabotage in Sabotage::ALL.into_iter().filter(|sabotage| sabotage.concerns(subject)) {
            if (0..SEEDS).all(|seed| simulate_with(seed, subject, Some(sabotage)).is_ok()) {
                undetected.push((subject, sabotage));
            }
        }
    }
    assert!(undetected.is_empty(), "undetected: {undetected:?}");
}
