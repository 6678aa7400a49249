//! Drives a run natively: chunks as processes, with their time limits, output and files, and no event loop involved.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::output_places::{is_pattern, prepare_folder, publish_made_from, put_folder, remove_blocking, remove_leftovers, remove_made_from};
use super::outputs::OutputFile;
use super::{Entry, Manager, Notice, WAIT};
use crate::executor::merge::{publish, temporary_beside};
use crate::executor::process::{self, Finished, ProcessError, ProcessOptions, ProcessSpec, Stream};
use crate::job::options::{Options, VerifyOutput};
use crate::job::output_progress::ProgressReader;
use crate::job::placeholder::{self, Values};
use crate::job::spec::Chunk;
use crate::job::{ErrorCode, ErrorInfo, Spec, command};
use crate::repository::durable::LogStream;

/// How chunks are run as processes.
#[derive(Debug, Clone)]
pub struct ProcessDriver {
    /// What every child's environment begins with.
    pub env: Arc<Vec<(OsString, OsString)>>,
    /// Grace and kept output.
    pub process: ProcessOptions,
    /// Hand pieces of output over as [`Notice::Output`].
    pub tell_output: bool,
    /// Tell of chunks as [`Notice::Begun`] and [`Notice::Chunk`].
    pub tell_chunks: bool,
}

struct Driven {
    manager: Arc<Manager>,
    entry: Arc<Entry>,
    driver: ProcessDriver,
    spec: Arc<Spec>,
    options: Arc<Options>,
    token: CancellationToken,
    leave: CancellationToken,
}

enum Outcome {
    Completed(Finished),
    Stopped,
    Failed { error: ErrorInfo, fatal: bool },
}

impl Manager {
    /// Runs the chunks of a started job as processes until none is left, then pushes [`Notice::Ran`]. Needs a tokio
    /// runtime around it.
    pub async fn drive(self: Arc<Self>, ticket: u32, driver: ProcessDriver) {
        let Some(entry) = self.entry(ticket) else { return };
        let begun = {
            let run = entry.run.lock();
            let mut slot = entry.cell.lock();
            match (&*run, slot.job()) {
                (Some(run), Ok(job)) => Some((job.spec.clone(), job.options.clone(), run.token.clone(), run.leave.clone(), run.kill.clone())),
                _ => None,
            }
        };
        if let Some((spec, options, token, leave, kill)) = begun {
            let driver = ProcessDriver { process: ProcessOptions { kill_now: kill, ..driver.process }, ..driver };
            let driven = Arc::new(Driven { manager: self.clone(), entry, driver, spec, options, token, leave });
            driven.run(ticket).await;
        }
        self.notices.push(Notice::Ran { ticket });
    }
}

impl Driven {
    async fn run(self: &Arc<Self>, ticket: u32) {
        // A task for each slot: one that has to wait until its output is heard holds up no other.
        let mut flights = JoinSet::new();
        let job_limit = async {
            match self.options.timeouts.job_ms {
                Some(ms) => tokio::time::sleep(duration(ms)).await,
                None => std::future::pending().await,
            }
            let error = ErrorInfo::new(ErrorCode::Timeout, format!("The job took longer than {} ms", self.options.timeouts.job_ms.unwrap_or_default()));
            self.manager.time_out(ticket, error);
            std::future::pending::<()>().await;
        };
        tokio::pin!(job_limit);
        loop {
            let mut wait = None;
            loop {
                let next = self.manager.next(ticket);
                if next >= 0.0 {
                    flights.spawn(self.clone().slot(ticket, next));
                    continue;
                }
                if next == WAIT {
                    wait = Some(self.manager.wait_ms(ticket));
                }
                break;
            }
            if flights.is_empty() && wait.is_none() {
                return;
            }
            let retry = async {
                match wait {
                    Some(ms) => tokio::time::sleep(duration(ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = flights.join_next(), if !flights.is_empty() => {
                    if let Some(Err(error)) = ended {
                        self.manager.lost(ticket, format!("A chunk's task died: {error}"));
                    }
                }
                () = retry => {}
                () = self.leave.cancelled(), if flights.is_empty() => return,
                () = &mut job_limit => {}
            }
        }
    }

    /// Runs one chunk after the other until there is none for now.
    async fn slot(self: Arc<Self>, ticket: u32, mut next: f64) {
        while next >= 0.0 {
            next = self.chunk(ticket, next).await;
        }
    }

    /// Runs one attempt and tells how it went; gives the next chunk.
    async fn chunk(&self, ticket: u32, next: f64) -> f64 {
        let index = (next % 4_294_967_296.0) as u32;
        let attempt = (next / 4_294_967_296.0) as u32;
        let chunk = self.spec.chunk(index);
        let manager = &self.manager;
        match self.attempt(ticket, index, attempt, &chunk).await {
            Outcome::Completed(finished) => {
                if finished.cut_bytes > 0 {
                    manager.warn(&self.entry.cell.id, &format!("{} bytes of the output of chunk {} were cut", finished.cut_bytes, chunk.id), None);
                }
                let duration_ms = finished.duration.as_secs_f64() * 1000.0;
                let answer = manager.complete(ticket, index, attempt, duration_ms, Some((&finished.stdout, &finished.stderr)));
                if self.driver.tell_chunks {
                    let (completed, total) = self.done();
                    manager.notices.push(Notice::Chunk {
                        ticket,
                        chunk_id: chunk.id,
                        completed,
                        total,
                        exit_code: finished.exit_code,
                        duration_ms,
                        stdout: finished.stdout,
                        stderr: finished.stderr,
                    });
                }
                answer
            }
            Outcome::Stopped => {
                manager.stopped(ticket, index, attempt);
                super::LEAVE
            }
            Outcome::Failed { error, fatal } => manager.fail(ticket, index, attempt, error, fatal),
        }
    }

    fn done(&self) -> (u32, u32) {
        let mut slot = self.entry.cell.lock();
        slot.job().map_or((0, 0), |job| (job.completed_chunks(), job.rows.total()))
    }

    fn resolve(&self, path: &str) -> PathBuf {
        match &self.options.job_dir {
            Some(folder) => Path::new(&**folder).join(path),
            None => PathBuf::from(path),
        }
    }

    async fn attempt(&self, ticket: u32, index: u32, attempt: u32, chunk: &Chunk) -> Outcome {
        let fatal = |code, message: String| Outcome::Failed { error: ErrorInfo::new(code, message), fatal: true };
        let words = match (&chunk.argv, &chunk.command) {
            (Some(argv), _) => argv.clone(),
            (None, Some(text)) => match command::split(text) {
                Ok(words) => words,
                Err(error) => return fatal(ErrorCode::Validation, format!("Chunk {} failed: command: {error}", chunk.id)),
            },
            (None, None) => return fatal(ErrorCode::Validation, format!("Chunk {} failed: it has no command", chunk.id)),
        };
        // Written under another name and renamed once it is whole: a failed attempt leaves nothing behind.
        let named = words.iter().any(|word| placeholder::mentions(word, "outputFile"));
        let temporary = chunk.output_file.as_ref().filter(|output| named && !is_pattern(output)).map(|output| {
            let tag = format!("{}-{}", attempt, &uuid::Uuid::new_v4().simple().to_string()[..8]);
            temporary_beside(Path::new(output), &tag).to_string_lossy().into_owned()
        });
        let values = Values {
            chunk_id: chunk.id,
            start_frame: chunk.start_frame,
            end_frame: chunk.end_frame(),
            frame_count: chunk.frame_count,
            frame_step: chunk.frame_step.unwrap_or(1),
            output_file: temporary.as_deref().or(chunk.output_file.as_deref()),
            job_id: &self.entry.cell.id,
            attempt,
        };
        let mut words = words.iter().map(|word| placeholder::render(word, &values).into_owned());
        let Some(program) = words.next() else { return fatal(ErrorCode::Validation, format!("Chunk {} failed: it has no command", chunk.id)) };
        let mut env: Vec<(OsString, OsString)> = self.driver.env.to_vec();
        env.extend(self.options.env.iter().map(|(name, value)| (name.into(), value.into())));
        if self.manager.durable.is_some() {
            env.push((super::owner::OWNER_VARIABLE.into(), OsString::from(&*self.manager.owner())));
        }
        env.extend(placeholder::env(&values).into_iter().map(|(name, value)| (name.into(), value.into())));
        let spec = ProcessSpec { program, args: words.collect(), env, cwd: self.options.job_dir.as_ref().map(|folder| PathBuf::from(&**folder)) };

        let final_file = chunk.output_file.as_ref().map(|output| self.resolve(output));
        let file = temporary.as_ref().map(|output| self.resolve(output)).or_else(|| final_file.clone());
        if let Some(final_file) = &final_file {
            let (path, folder, inside) = (final_file.clone(), self.resolve(""), !self.options.allow_outside_paths);
            let again = attempt > 1 && temporary.is_some();
            let prepare = move || {
                prepare_folder(&path, &folder, inside)?;
                if again {
                    remove_leftovers(&path, attempt);
                }
                Ok::<(), String>(())
            };
            let prepared = tokio::task::spawn_blocking(prepare).await;
            if let Ok(Err(message)) = prepared {
                return fatal(ErrorCode::Validation, format!("Chunk {} failed: outputFile {message}", chunk.id));
            }
        }
        if self.manager.durable.is_some() && (self.manager.cell_committed(&self.entry.cell).await.is_err() || self.entry.cell.lock().is_gone()) {
            // A process that nobody would know of is not started: its attempt has to be counted, whatever it does to us.
            return Outcome::Stopped;
        }
        if self.driver.tell_chunks {
            self.manager.notices.push(Notice::Begun { ticket });
        }
        let until = self.options.timeouts.chunk_ms.map(|limit| tokio::time::Instant::now() + duration(limit));
        let outcome = self.watched(ticket, index, attempt, chunk, spec).await;
        let files = file.as_deref().zip(final_file.as_deref());
        let outcome = match outcome {
            Outcome::Completed(finished) => match self.keep(ticket, index, attempt, chunk, temporary.is_some(), files, until).await {
                Ok(()) => Outcome::Completed(finished),
                Err(error) => Outcome::Failed { error, fatal: false },
            },
            other => other,
        };
        if let (Some(_), Some((file, output)), false) = (&temporary, files, matches!(outcome, Outcome::Completed(_))) {
            let (file, output) = (file.to_owned(), output.to_owned());
            let _ = tokio::task::spawn_blocking(move || remove_made_from(&file, &output)).await;
        }
        outcome
    }

    /// Runs the process under its time limits.
    async fn watched(&self, ticket: u32, index: u32, attempt: u32, chunk: &Chunk, spec: ProcessSpec) -> Outcome {
        let limits = self.options.timeouts;
        let token = self.token.child_token();
        let begun = Instant::now();
        // Milliseconds after `begun` of the latest sign of life, plus one; 0: none yet.
        let sign = AtomicU64::new(0);
        let mut reader = ProgressReader::new(self.options.progress_pattern.as_deref()).ok().map(|reader| reader.with_frame_step(chunk.frame_step.unwrap_or(1)));
        let mut told: Option<Instant> = None;
        let expired: Mutex<Option<ErrorInfo>> = Mutex::new(None);
        // What is over now, or else milliseconds until something can be.
        let limit = |heard: u64| {
            let now = begun.elapsed().as_secs_f64() * 1000.0;
            let mut next = f64::INFINITY;
            let mut check = |limit: Option<f64>, since: f64, code: ErrorCode, what: &str| {
                let limit = limit?;
                if now - since >= limit {
                    return Some(ErrorInfo::new(code, format!("Chunk {} failed: {what} {limit} ms", chunk.id)));
                }
                next = next.min(since + limit - now);
                None
            };
            let over = check(limits.chunk_ms, 0.0, ErrorCode::Timeout, "it took longer than")
                .or_else(|| check(limits.start_ms.filter(|_| heard == 0), 0.0, ErrorCode::Timeout, "no sign of life within"))
                .or_else(|| check(limits.no_progress_ms, heard.saturating_sub(1) as f64, ErrorCode::NoProgress, "no output or progress for"));
            over.map_or(Ok(next), Err)
        };
        let heard_now = || begun.elapsed().as_millis() as u64 + 1;
        let log = self.manager.live_logs.begin(ticket, index, attempt);
        let mut on_output = |stream: Stream, text: &str| {
            log.push(if stream == Stream::Stderr { LogStream::Stderr } else { LogStream::Stdout }, text);
            sign.store(heard_now(), Ordering::Relaxed);
            if let Some(fraction) = reader.as_mut().and_then(|reader| reader.feed(text, chunk.start_frame, chunk.frame_count)) {
                self.manager.chunk_progress(ticket, index, fraction);
            } else if told.is_none_or(|told| told.elapsed() >= Duration::from_millis(250)) {
                told = Some(Instant::now());
                self.manager.alive(ticket);
            }
            if self.driver.tell_output {
                // It is held up by us and not silent, but its time goes on.
                while !self.manager.notices.has_room() {
                    if token.is_cancelled() {
                        // What a stopped program still writes has nowhere to go.
                        return;
                    }
                    tokio::task::block_in_place(|| self.manager.notices.wait_for_room(Duration::from_millis(50)));
                    sign.store(heard_now(), Ordering::Relaxed);
                    if let Err(error) = limit(heard_now()) {
                        expired.lock().get_or_insert(error);
                        token.cancel();
                    }
                }
                self.manager.notices.push(Notice::Output { ticket, chunk_id: chunk.id, stderr: stream == Stream::Stderr, text: text.to_owned() });
            }
        };
        let finished = {
            let watchdog = async {
                loop {
                    match limit(sign.load(Ordering::Relaxed)) {
                        Err(error) => return error,
                        Ok(next) if next.is_finite() => tokio::time::sleep(duration(next.max(1.0))).await,
                        Ok(_) => std::future::pending::<()>().await,
                    }
                }
            };
            let process = process::run(spec, &self.driver.process, &self.manager.groups, &token, &mut on_output);
            tokio::pin!(process);
            tokio::select! {
                finished = &mut process => finished,
                error = watchdog => {
                    expired.lock().get_or_insert(error);
                    token.cancel();
                    process.await
                }
            }
        };
        log.hand_on(|texts| self.manager.keep_texts(ticket, index, attempt, texts));
        match (finished, expired.into_inner()) {
            (Ok(finished), Some(mut error)) => {
                error.stderr_tail = Some(crate::job::error::tail(&finished.stderr, 4096).to_owned()).filter(|tail| !tail.is_empty());
                Outcome::Failed { error, fatal: false }
            }
            (Ok(finished), None) if finished.stopped => Outcome::Stopped,
            (Ok(finished), None) if finished.exit_code == 0 => Outcome::Completed(finished),
            (Ok(finished), None) => {
                let error = ErrorInfo::of_exit(
                    ErrorCode::ChunkFailed,
                    &format!("Chunk {}", chunk.id),
                    finished.exit_code,
                    finished.signal.as_deref(),
                    &finished.stderr,
                );
                Outcome::Failed { error, fatal: false }
            }
            (Err(error), _) => {
                let fatal = matches!(
                    error,
                    ProcessError::NotFound { .. }
                        | ProcessError::PermissionDenied { .. }
                        | ProcessError::WorkingDirectory { .. }
                        | ProcessError::InvalidArgument { .. }
                );
                Outcome::Failed { error: ErrorInfo::new(ErrorCode::SpawnFailed, format!("Chunk {} failed: {error}", chunk.id)), fatal }
            }
        }
    }

    /// Checks the output of a program that ended well and gives it its name.
    #[allow(clippy::too_many_arguments, reason = "one call, all of it the attempt's")]
    async fn keep(
        &self,
        ticket: u32,
        index: u32,
        attempt: u32,
        chunk: &Chunk,
        renamed: bool,
        files: Option<(&Path, &Path)>,
        until: Option<tokio::time::Instant>,
    ) -> Result<(), ErrorInfo> {
        let Some((file, final_file)) = files else { return Ok(()) };
        let missing = |message: String| ErrorInfo::new(ErrorCode::OutputMissing, format!("Chunk {} failed: {message}", chunk.id));
        let verification = self.options.verification();
        let hash = self.options.hash_outputs;
        let (from, to) = (file.to_owned(), final_file.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            let found = std::fs::metadata(&from);
            match (&found, verification) {
                (Err(error), VerifyOutput::Exists | VerifyOutput::Nonempty) => return Err(format!("its output {} is not there ({error})", to.display())),
                (Ok(meta), VerifyOutput::Nonempty) if meta.is_file() && meta.len() == 0 => return Err(format!("its output {} is empty", to.display())),
                _ => {}
            }
            match found {
                Ok(meta) if renamed && meta.is_file() => publish(&from, &to).map(|_| ()),
                Ok(_) if renamed => put_folder(&from, &to),
                // A tool may have taken the name for the beginning of those of its files.
                Err(_) if renamed => publish_made_from(&from, &to).map(|_| ()),
                _ => Ok(()),
            }
            .map_err(|error| format!("its output {} can't be put in place: {error}", to.display()))?;
            Ok(OutputFile { path: to, hash }.stamp())
        })
        .await;
        match kept {
            Ok(result) => {
                if let (Some(stamp), Ok(job)) = (result.map_err(missing)?, self.entry.cell.lock().job()) {
                    job.rows.set_stamp(index, stamp);
                }
            }
            Err(error) => return Err(ErrorInfo::new(ErrorCode::Internal, error.to_string())),
        }
        if verification == VerifyOutput::Function {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            // Whoever cancels does not wait for an answer that may never come, nor does the limit of the chunk's time.
            let verdict = tokio::select! {
                verdict = self.manager.ask(ticket, index, attempt, final_file) => verdict,
                () = self.token.cancelled() => Err("the chunk was stopped".into()),
                () = over => {
                    remove(final_file.to_owned()).await;
                    let limit = self.options.timeouts.chunk_ms.unwrap_or_default();
                    return Err(ErrorInfo::new(ErrorCode::Timeout, format!("Chunk {} failed: it took longer than {limit} ms", chunk.id)));
                }
            };
            if !matches!(verdict, Ok(true)) {
                let path = final_file.to_owned();
                remove(path).await;
                return Err(missing(match verdict {
                    Err(error) => format!("verifyOutput threw: {error}"),
                    _ => format!("verifyOutput refused {}", final_file.display()),
                }));
            }
        }
        Ok(())
    }
}

impl Manager {
    /// Has the user's function look at a file.
    async fn ask(&self, ticket: u32, index: u32, attempt: u32, file: &Path) -> Result<bool, String> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let question = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.questions.lock().insert(question, sender);
        self.notices.push(Notice::Verify { ticket, question, index, attempt, file: file.to_string_lossy().into_owned() });
        receiver.await.unwrap_or_else(|_| Err("nobody answered".into()))
    }

    /// Answers a [`Notice::Verify`].
    pub fn answer(&self, question: u32, verdict: Result<bool, String>) {
        if let Some(sender) = self.questions.lock().remove(&question) {
            let _ = sender.send(verdict);
        }
    }
}

fn duration(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX / 4)
}

async fn remove(path: PathBuf) {
    let _ = tokio::task::spawn_blocking(move || remove_blocking(&path)).await;
}
