//! What the stores on database servers share: [`judge`] decides what becomes of a group of writes, [`connections`] keeps
//! connections and bounds every call, [`event_rows`] packs the events of a write into a row, [`page`] puts jobs together,
//! [`no_delay`] sees to it that nothing written waits to be sent.
//!
//! The statements themselves differ too much between the dialects to be shared: they stand in [`super::postgres`] and
//! [`super::mysql`].

pub(super) mod connections;
pub(super) mod event_rows;
pub(super) mod judge;
pub(super) mod no_delay;
pub(super) mod page;

/// What a claim may find in `claimable`, a column that is derived from state, hold and standing whenever a job is
/// written, so that one small index answers "what can be taken over" however many jobs are done.
pub(super) mod claimable {
    /// Nobody is to go on with it by itself.
    pub const NEVER: i16 = 0;
    /// Pending, and never had an owner.
    pub const NEW: i16 = 1;
    /// Given back by its last owner.
    pub const RELEASED: i16 = 2;
    /// Owned: to be taken over when its owner is dead.
    pub const OWNED: i16 = 3;
}

/// Keys for new jobs: the numbers that their rows in other tables have. Taken from the store in blocks.
#[derive(Default)]
pub(super) struct Keys {
    pub next: i64,
    pub end: i64,
}

impl Keys {
    /// So many, if there are so many left.
    pub fn take(&mut self, count: i64) -> Option<std::ops::Range<i64>> {
        (self.end - self.next >= count).then(|| {
            self.next += count;
            self.next - count..self.next
        })
    }
}

/// The password of a URL, as it is written there.
pub(super) fn password_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    (!password.is_empty()).then(|| password.to_owned())
}

/// A text without a password.
pub(super) fn without(password: Option<&str>, text: String) -> String {
    match password {
        Some(password) => text.replace(password, "***"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_found_wherever_it_is() {
        assert_eq!(password_of("postgres://me:se%40cret@host/db?x=a:b@c").as_deref(), Some("se%40cret"));
        assert_eq!(password_of("postgres://me:p@ss@host/db").as_deref(), Some("p@ss"));
        assert_eq!(password_of("postgres://me@host/db"), None);
        assert_eq!(password_of("host/db"), None);
    }
}
