//! The Node.js addon of framewright: the only Rust here that knows napi. Thin: classes hold an `Arc` of the core's, and
//! numbers, strings and JSON texts cross. It is internal to the package; its TypeScript layer is the public surface.

#![cfg_attr(test, allow(dead_code, reason = "what only JavaScript calls is left out of a test build"))]

mod adapter;
mod durable;
mod engine;
mod error;
mod exit;
mod files;
mod spec;
mod store;
mod table;

use napi_derive::napi;

/// The version of this addon; the package refuses one that is not its own.
#[napi(catch_unwind)]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Every error code, for the test that compares it with the public type.
#[napi(catch_unwind)]
pub fn error_codes() -> Vec<String> {
    framewright_core::job::ErrorCode::ALL.iter().map(|code| code.to_string()).collect()
}

/// Two workers: one may be busy with output while the other starts processes. JavaScript is never waited for.
#[napi_derive::module_init]
fn init() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("framewright").enable_all().build();
    if let Ok(runtime) = runtime {
        napi::bindgen_prelude::create_custom_tokio_runtime(runtime);
    }
}
