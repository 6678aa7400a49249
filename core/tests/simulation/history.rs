//! Random histories: what owners do, and what goes wrong.

use proptest::prelude::*;

/// What goes wrong with the next call of an owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// It is committed, and nobody hears of it.
    LostAcknowledgement,
    /// It fails.
    Failure,
    /// There is no room.
    Full,
    /// Nobody is there.
    Away,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// An owner creates a job, and has it.
    Create { owner: usize },
    /// An owner writes jobs that it believes to have, in one group; the same one may be among them more than once.
    Write { owner: usize, jobs: Vec<usize>, events: usize },
    /// Both write against the version that is stored, whoever has the job.
    Clash { job: usize },
    /// An owner writes against a version that is past.
    Past { owner: usize, job: usize, back: u64 },
    /// An owner deletes a job that it believes to have.
    Delete { owner: usize, job: usize },
    /// An owner takes over what is orphaned.
    Claim { owner: usize },
    /// An owner renews its lease.
    Renew { owner: usize },
    /// Time passes.
    Pass { milliseconds: u64 },
    /// The next call of an owner goes wrong.
    Trouble(Trouble),
    /// The power goes; with it the owners' processes (others take their place), or only the store.
    PowerLoss { owners: bool },
    /// The system writes back what was not synced.
    WriteBack,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0..2_usize;
    let job = || 0..8_usize;
    let trouble = prop_oneof![Just(Trouble::LostAcknowledgement), Just(Trouble::Failure), Just(Trouble::Full), Just(Trouble::Away)];
    let step = prop_oneof![
        3 => owner().prop_map(|owner| Step::Create { owner }),
        8 => (owner(), prop::collection::vec(job(), 1..4), 1..3_usize).prop_map(|(owner, jobs, events)| Step::Write { owner, jobs, events }),
        2 => job().prop_map(|job| Step::Clash { job }),
        1 => (owner(), job(), 1..4_u64).prop_map(|(owner, job, back)| Step::Past { owner, job, back }),
        1 => (owner(), job()).prop_map(|(owner, job)| Step::Delete { owner, job }),
        3 => owner().prop_map(|owner| Step::Claim { owner }),
        3 => owner().prop_map(|owner| Step::Renew { owner }),
        2 => (1..2_000_u64).prop_map(|milliseconds| Step::Pass { milliseconds }),
        3 => trouble.prop_map(Step::Trouble),
        2 => any::<bool>().prop_map(|owners| Step::PowerLoss { owners }),
        1 => Just(Step::WriteBack),
    ];
    prop::collection::vec(step, 1..60)
}
