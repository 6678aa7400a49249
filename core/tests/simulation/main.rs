//! What a store promises when things go wrong, over random histories of the simulated store: two owners write, claim and
//! renew while calls fail, acknowledgements get lost and the power goes. The checks know nothing of how the store works;
//! they compare what the owners were told with what is there. Two planted faults show that they can fail.
//!
//! A failing history is shrunk and printed by proptest; `PROPTEST_CASES=100000` looks longer.

mod disk;
mod history;
mod managers;
mod world;

use std::collections::BTreeSet;

use framewright_core::repository::simulated::SimulatedDisk;
use history::{Step, steps};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use world::{Reached, Violation, live};

/// A disk whose clock stands still.
fn disk() -> SimulatedDisk {
    SimulatedDisk::with_standing_clock(1_700_000_000_000.0)
}

fn config() -> Config {
    let config = Config::default();
    Config { cases: config.cases.max(500), failure_persistence: None, ..config }
}

fn keeps_its_promises(history: Vec<Step>, disk: SimulatedDisk) -> Result<(), TestCaseError> {
    let (violations, _) = live(history, disk);
    if violations.is_empty() { Ok(()) } else { Err(TestCaseError::fail(format!("{violations:?}"))) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_acknowledged_is_lost_whatever_happens(history in steps()) {
        keeps_its_promises(history, disk())?;
    }
}

/// The same random histories each time.
fn histories() -> impl Iterator<Item = Vec<Step>> {
    let mut runner = TestRunner::deterministic();
    (0..200).map(move |_| steps().new_tree(&mut runner).expect("a history").current())
}

#[test]
fn the_histories_reach_what_they_are_about() {
    let mut sum = Reached::default();
    for history in histories() {
        let (violations, reached) = live(history, disk());
        assert_eq!(violations, BTreeSet::new());
        sum.accepted += reached.accepted;
        sum.refused += reached.refused;
        sum.found += reached.found;
        sum.repeated += reached.repeated;
        sum.claimed += reached.claimed;
        sum.fenced += reached.fenced;
        sum.deleted += reached.deleted;
    }
    let Reached { accepted, refused, found, repeated, claimed, fenced, deleted } = sum;
    assert!(accepted > 1_000 && [refused, found, repeated, claimed, fenced, deleted].iter().all(|&count| count > 30), "{sum:?}");
}

/// The shortest history that finds a planted fault, and what it finds.
fn found(plant: fn(&SimulatedDisk, bool)) -> (String, Vec<Step>) {
    let result = TestRunner::new(config()).run(&steps(), |history| {
        let disk = disk();
        plant(&disk, true);
        keeps_its_promises(history, disk)
    });
    match result {
        Err(TestError::Fail(reason, history)) => (reason.message().to_owned(), history),
        other => panic!("the planted fault must be found, it is {other:?}"),
    }
}

#[test]
fn a_store_that_does_not_sync_is_found() {
    let (reason, history) = found(SimulatedDisk::skip_sync);
    // The lease that was renewed last is lost as well.
    assert!(["{Lost, TakenBack}", "{TakenBack}", "{LiveOwner}"].contains(&&*reason), "{reason} by {history:?}");
    assert!(history.len() <= 8, "{history:?}");

    let history = vec![Step::Create { owner: 0 }, Step::WriteBack, Step::Write { owner: 0, jobs: vec![0], events: 1 }, Step::PowerLoss { owners: false }];
    let disk = disk();
    disk.skip_sync(true);
    assert_eq!(live(history.clone(), disk).0, BTreeSet::from([Violation::Lost, Violation::TakenBack]));
    assert_eq!(live(history, self::disk()).0, BTreeSet::new());
}

#[test]
fn a_store_that_does_not_check_versions_is_found() {
    let (reason, history) = found(SimulatedDisk::skip_version_check);
    assert!(reason.contains("SameVersion"), "{reason} by {history:?}");
    assert!(history.len() <= 8, "{history:?}");
}

#[test]
fn each_planted_fault_breaks_its_own_promise() {
    let [mut unsynced, mut unchecked] = [BTreeSet::new(), BTreeSet::new()];
    for history in histories() {
        for (seen, plant) in [(&mut unsynced, SimulatedDisk::skip_sync as fn(&SimulatedDisk, bool)), (&mut unchecked, SimulatedDisk::skip_version_check)] {
            let disk = disk();
            plant(&disk, true);
            seen.extend(live(history.clone(), disk).0);
        }
    }
    assert!(unsynced.contains(&Violation::Lost), "{unsynced:?}");
    assert!(unsynced.is_subset(&BTreeSet::from([Violation::Lost, Violation::TakenBack, Violation::LiveOwner])), "{unsynced:?}");
    assert_eq!(unchecked, BTreeSet::from([Violation::SameVersion]));
}
