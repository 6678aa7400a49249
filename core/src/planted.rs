//! Faults for the chaos harness to find. They exist only in builds with the feature `planted-faults`, which a release build
//! refuses, and there the variable `FRAMEWRIGHT_PLANTED` chooses one. Everywhere else nothing is planted, and the compiler
//! knows it.

#[cfg(all(feature = "planted-faults", not(debug_assertions)))]
compile_error!("planted-faults breaks what framewright promises: it is for debug builds of the chaos harness only");

/// What can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SQLite commits take a write whatever version and owner the job has.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    VersionCheck,
    /// A manager neither renews its lease nor notices that it ended.
    LeaseRenewal,
}

/// Whether a fault is planted in this process.
#[cfg(feature = "planted-faults")]
pub fn is_planted(fault: Fault) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| match std::env::var("FRAMEWRIGHT_PLANTED").ok()?.as_str() {
        "version-check" => Some(Fault::VersionCheck),
        "lease-renewal" => Some(Fault::LeaseRenewal),
        other => panic!("FRAMEWRIGHT_PLANTED is version-check or lease-renewal, not {other:?}"),
    });
    *chosen == Some(fault)
}

/// Nothing is.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub const fn is_planted(_: Fault) -> bool {
    false
}
