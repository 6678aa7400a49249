//! The calls that are made for every job or chunk. They name their engine by a number and are functions of their own: a
//! method of a class takes three times as long to find what is behind `this`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use framewright_core::job::{ErrorCode, Options, Spec, spec::Rules};
use framewright_core::manager::{Manager, NOT_TAKEN};
use napi::bindgen_prelude::Result;
use napi_derive::napi;

use crate::engine::{code, fields};
use crate::error::{failure, thrown};

thread_local! {
    /// The managers of the engines of this thread's JavaScript, by their numbers, which are never used twice.
    static MANAGERS: RefCell<BTreeMap<u32, Arc<Manager>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Codes of a run's end begin below this, where they stand in place of a chunk.
const ENDED: f64 = -10.0;

/// An engine was made on this thread.
pub fn add(manager: &Arc<Manager>) {
    MANAGERS.with_borrow_mut(|managers| managers.insert(manager.number(), manager.clone()));
}

/// The engine was collected: calls that still name it fail.
pub fn remove(number: u32) {
    // The manager ends outside of the table. At the end of its thread there may be no table any more.
    let manager = MANAGERS.try_with(|managers| managers.borrow_mut().remove(&number));
    drop(manager);
}

/// Calls the manager of an engine. Nothing that is called here comes back to JavaScript.
fn with<T>(number: u32, call: impl FnOnce(&Manager) -> T) -> Result<T> {
    MANAGERS.with_borrow(|managers| managers.get(&number).map(|manager| call(manager))).ok_or_else(|| failure(ErrorCode::Internal, "The engine is gone"))
}

/// Takes a job given as JSON; gives its ticket. With `hold` it waits for `admit`.
#[napi(catch_unwind)]
pub fn submit(engine: u32, id: String, spec: String, options: String, public: String, needs_command: bool, hold: bool) -> Result<u32> {
    let options = Options::parse(&options).map_err(thrown)?;
    let spec = Spec::parse(&spec, Rules { needs_command }, &options).map_err(thrown)?;
    with(engine, |manager| manager.submit(&id, spec, options, fields(&public), hold))?.map_err(thrown)
}

/// Starts jobs; gives four numbers of each: ticket, run, its `extent` (-1: to be asked for, the job is not just as it was
/// submitted), and its first chunk as `next` gives it (-4: to be asked for). Chunks are taken where `take` says so.
#[napi(catch_unwind)]
pub fn ready(engine: u32, most: u32, take: bool) -> Result<Vec<f64>> {
    let ready = with(engine, |manager| manager.ready(most as usize, take))?;
    let numbers = |ready: framewright_core::manager::Ready| {
        let extent = ready.fresh.map_or(-1.0, |(total, done)| f64::from(total) + f64::from(done) * 4_294_967_296.0);
        [f64::from(ready.ticket), f64::from(ready.run), extent, ready.first.unwrap_or(NOT_TAKEN)]
    };
    Ok(ready.into_iter().flat_map(numbers).collect())
}

/// Whether jobs wait that could be started now.
#[napi(catch_unwind)]
pub fn has_ready(engine: u32) -> Result<bool> {
    with(engine, Manager::has_ready)
}

/// The next chunk for a free slot: its position plus 2^32 times its attempt; below 0: there is none.
#[napi(catch_unwind)]
pub fn next(engine: u32, ticket: u32) -> Result<f64> {
    with(engine, |manager| manager.next(ticket))
}

/// A chunk is done; gives the next one. With `run` above 0 the run of that number ends with its last chunk, if nothing is
/// to be done after it, which is told as -10 plus what `advance` gives.
#[napi(catch_unwind)]
pub fn complete(engine: u32, ticket: u32, run: u32, index: u32, attempt: u32, duration_ms: f64) -> Result<f64> {
    with(engine, |manager| {
        if run == 0 {
            return manager.complete(ticket, index, attempt, duration_ms, None);
        }
        match manager.complete_to_end(ticket, run, index, attempt, duration_ms) {
            Ok(next) => next,
            Err(ended) => ENDED + code(ended),
        }
    })
}

/// JSON array of notices; null: none.
#[napi(catch_unwind)]
pub fn take_notices(engine: u32) -> Result<Option<String>> {
    let notices = with(engine, |manager| manager.notices.take())?;
    Ok(if notices.is_empty() { None } else { serde_json::to_string(&notices).ok() })
}

/// Tells by a notice with this token once the durable store has what is true of a job that is owned here. True: it has.
#[napi(catch_unwind)]
pub fn tell_committed(engine: u32, id: String, token: u32) -> Result<bool> {
    with(engine, |manager| manager.tell_committed(&id, token))?.map_err(thrown)
}
