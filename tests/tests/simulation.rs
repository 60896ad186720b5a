//! The promises hold in every simulated run, and a broken one is noticed.

use nobat_tests::simulation::sabotage::Sabotage;
use nobat_tests::simulation::{Subject, simulate, simulate_with};

/// How many runs are made on each backend; `simulate` makes any number of them.
const SEEDS: u64 = 1_000;

fn run(subject: Subject, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(violation) = simulate(seed, subject) {
            panic!("{violation}");
        }
    }
}

/// Every run that ever broke a promise is on record, and none does so again.
#[test]
fn what_was_broken_once_stays_mended() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let (subject, seed) = line.split_once(' ').unwrap();
        run(subject.parse().unwrap(), std::iter::once(seed.parse().unwrap()));
    }
}

#[test]
fn promises_hold_on_sqlite() {
    run(Subject::Sqlite, 0..SEEDS);
}

#[test]
fn promises_hold_on_a_store_and_a_queue_that_stand_apart() {
    run(Subject::Model, 0..SEEDS);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for subject in Subject::ALL {
        for seed in 0..20 {
            assert_eq!(simulate(seed, subject).unwrap(), simulate(seed, subject).unwrap(), "seed {seed}");
        }
    }
}

/// A harness that never fails proves nothing: each way to break a promise is found in a fraction of the runs above.
#[test]
fn broken_promises_are_noticed() {
    for subject in Subject::ALL {
        for sabotage in Sabotage::ALL.into_iter().filter(|sabotage| sabotage.concerns(subject)) {
            let noticed = (0..SEEDS / 5).find_map(|seed| simulate_with(seed, subject, Some(sabotage)).err());
            assert!(noticed.is_some(), "{sabotage:?} was not noticed on {subject:?}");
        }
    }
}
