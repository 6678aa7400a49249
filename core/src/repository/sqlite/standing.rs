//! Where a job stands between owners; the numbers are in the database.

/// What of its ownership a job has behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Standing {
    /// It never had an owner.
    New = 0,
    /// It has one.
    Owned = 1,
    /// It was given back for the next one.
    Released = 2,
    /// Nobody owns it, and nobody is to go on with it by itself. Is in no index of claims.
    Cleared = 3,
}

impl Standing {
    /// The standing of that number; of another one, what is never claimed.
    pub fn of(number: i64) -> Standing {
        match number {
            0 => Standing::New,
            1 => Standing::Owned,
            2 => Standing::Released,
            _ => Standing::Cleared,
        }
    }
}
