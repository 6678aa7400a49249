//! One process at a time: what is behind `LocalWorkerAdapter.execute`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framewright_core::executor::process::{self, Finished, ProcessError, ProcessGroups, ProcessOptions, ProcessSpec, Stream};
use framewright_core::job::{Error, ErrorCode};
use napi::Status;
use napi::bindgen_prelude::{Env, FnArgs, Function, PromiseRaw, Result};
use napi::threadsafe_function::ThreadsafeFunction;
use napi_derive::napi;
use parking_lot::{Condvar, Mutex};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::error::{failure, thrown};
use crate::exit;

type Pieces = ThreadsafeFunction<FnArgs<(bool, String)>, (), FnArgs<(bool, String)>, Status, false, true>;

/// The environment of this process as JavaScript sees it now, or only some names of it; or `own`, names and values by turns: a
/// worker thread has one of its own, and may not read that of the process while the main thread writes to it.
///
/// Taken on the JavaScript thread: `process.env.X = ...` writes to the very environment that another thread would read.
pub fn environment(own: Option<Vec<String>>, only: Option<&[String]>) -> Vec<(OsString, OsString)> {
    let wanted = |name: &OsStr| only.is_none_or(|only| only.iter().any(|wanted| name == wanted.as_str()));
    match own {
        Some(own) => {
            let mut own = own.into_iter().map(OsString::from);
            std::iter::from_fn(|| own.next().zip(own.next())).filter(|(name, _)| wanted(name)).collect()
        }
        None => std::env::vars_os().filter(|(name, _)| wanted(name)).collect(),
    }
}

/// Grace and kept output from what the adapter was made with.
pub fn process_options(kill_grace_ms: f64, keep_output_bytes: f64) -> ProcessOptions {
    let kill_grace = Duration::try_from_secs_f64(kill_grace_ms / 1000.0).unwrap_or(Duration::MAX / 4);
    ProcessOptions { kill_grace, keep_output: keep_output_bytes as usize, ..ProcessOptions::default() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<(String, String)>,
    #[serde(default)]
    own: Option<Vec<String>>,
    #[serde(default)]
    inherit: Option<Vec<String>>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    timeout: Option<f64>,
    kill_grace_ms: f64,
    keep_output_bytes: f64,
}

/// A process that is being run.
#[napi]
pub struct ProcessRun {
    token: CancellationToken,
    groups: ProcessGroups,
    request: Option<Request>,
}

#[napi]
impl ProcessRun {
    /// `request`: JSON of program, arguments and options.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, request: String) -> Result<Self> {
        let request: Request = serde_json::from_str(&request).map_err(|error| failure(ErrorCode::Validation, error.to_string()))?;
        Ok(Self { token: CancellationToken::new(), groups: exit::groups(env), request: Some(request) })
    }

    /// Starts it; the promise settles when nothing of it is alive any more. `onOutput(isStderr, text)` hears the pieces.
    #[napi(catch_unwind, ts_args_type = "onOutput: ((isStderr: boolean, text: string) => void) | null", ts_return_type = "Promise<string>")]
    pub fn run<'env>(&mut self, env: &'env Env, on_output: Option<Function<'env, FnArgs<(bool, String)>, ()>>) -> Result<PromiseRaw<'env, String>> {
        let request = self.request.take().ok_or_else(|| failure(ErrorCode::Internal, "A process can be run only once"))?;
        let pieces: Option<Arc<Pieces>> = match on_output {
            Some(function) => Some(Arc::new(function.build_threadsafe_function().weak::<true>().build_callback(|context| Ok(context.value))?)),
            None => None,
        };
        let mut variables = environment(request.own, request.inherit.as_deref());
        variables.extend(request.env.iter().map(|(name, value)| (name.into(), value.into())));
        let options = process_options(request.kill_grace_ms, request.keep_output_bytes);
        let spec = ProcessSpec { program: request.command, args: request.args, env: variables, cwd: request.cwd.map(PathBuf::from) };
        let (token, groups, timeout) = (self.token.clone(), self.groups.clone(), request.timeout);
        env.spawn_future(async move {
            let wants = pieces.is_some();
            let backlog = Arc::new(Backlog::default());
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<(bool, String)>();
            let delivered = backlog.clone();
            let deliver = tokio::spawn(async move {
                while let Some(piece) = receiver.recv().await {
                    let bytes = piece.1.len();
                    if let Some(pieces) = &pieces {
                        let _ = pieces.call_async_catch(piece.into()).await;
                    }
                    delivered.less(bytes);
                }
            });
            let mut on_output = |stream: Stream, text: &str| {
                if wants {
                    // A slow reader slows the program down, as a full pipe does, and not this process's memory.
                    backlog.more(text.len());
                    let _ = sender.send((stream == Stream::Stderr, text.to_owned()));
                }
            };
            let limited = token.child_token();
            let limit = async {
                match timeout {
                    Some(ms) => tokio::time::sleep(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX / 4)).await,
                    None => std::future::pending().await,
                }
            };
            let outcome = {
                let running = process::run(spec, &options, &groups, &limited, &mut on_output);
                tokio::pin!(running);
                tokio::select! {
                    finished = &mut running => finished.map(|finished| (finished, false)),
                    () = limit => {
                        limited.cancel();
                        running.await.map(|finished| (finished, true))
                    }
                }
            };
            drop(sender);
            // The last piece is heard before the promise settles.
            let _ = deliver.await;
            settle(outcome, timeout)
        })
    }

    /// Stops it: SIGTERM, grace, SIGKILL.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.token.cancel();
    }
}

/// Bytes of output that JavaScript has not heard yet.
#[derive(Default)]
struct Backlog {
    bytes: Mutex<usize>,
    room: Condvar,
}

impl Backlog {
    const MOST: usize = 4 * 1024 * 1024;

    fn more(&self, bytes: usize) {
        let mut waiting = self.bytes.lock();
        if *waiting > Self::MOST {
            tokio::task::block_in_place(|| {
                while *waiting > Self::MOST {
                    self.room.wait(&mut waiting);
                }
            });
        }
        *waiting += bytes;
    }

    fn less(&self, bytes: usize) {
        let mut waiting = self.bytes.lock();
        *waiting = waiting.saturating_sub(bytes);
        self.room.notify_all();
    }
}

fn settle(outcome: std::result::Result<(Finished, bool), ProcessError>, timeout: Option<f64>) -> Result<String> {
    match outcome {
        Ok((_, true)) => Err(failure(ErrorCode::Timeout, format!("The process took longer than {} ms", timeout.unwrap_or_default()))),
        Ok((finished, false)) if finished.stopped => Err(failure(ErrorCode::Aborted, "The process was stopped")),
        Ok((finished, false)) => {
            let mut result = serde_json::json!({
                "exitCode": finished.exit_code,
                "stdout": finished.stdout,
                "stderr": finished.stderr,
                "durationMs": finished.duration.as_secs_f64() * 1000.0,
            });
            if let Some(signal) = finished.signal {
                result["signal"] = signal.into();
            }
            Ok(result.to_string())
        }
        Err(error) => Err(thrown(Error::new(ErrorCode::SpawnFailed, error.to_string()))),
    }
}
