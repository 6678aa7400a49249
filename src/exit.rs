//! No child outlives this process: when it exits, or when one of its JavaScript environments ends, what they started is
//! killed.

use std::cell::OnceCell;
use std::sync::{Mutex, Once, PoisonError};

use framewright_core::executor::process::ProcessGroups;
use napi::bindgen_prelude::Env;

static ALL: Mutex<Vec<ProcessGroups>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

thread_local! {
    static GROUPS: OnceCell<ProcessGroups> = const { OnceCell::new() };
}

extern "C" fn close_all() {
    // At exit another thread may have been stopped with the lock in its hands: waiting would hang the process.
    if let Ok(all) = ALL.try_lock() {
        for groups in all.iter() {
            groups.close();
        }
    }
}

/// The process groups of the environment whose thread this is.
pub fn groups(env: &Env) -> ProcessGroups {
    GROUPS.with(|cell| {
        cell.get_or_init(|| {
            let groups = ProcessGroups::default();
            ALL.lock().unwrap_or_else(PoisonError::into_inner).push(groups.clone());
            // `process.exit` on the main thread runs no environment hooks, only those of C.
            AT_EXIT.call_once(|| {
                // SAFETY: a function without arguments that does not unwind.
                unsafe { libc::atexit(close_all) };
            });
            let mine = groups.clone();
            let _ = env.add_env_cleanup_hook(mine, |groups| groups.close());
            groups
        })
        .clone()
    })
}
