//! One open store, shared by all who opened its directory in this process: its state, and the thread that writes groups.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use super::checkpoint;
use super::event_files::EventFile;
use super::folder::{Folder, failed};
use super::group_log::{Draft, EventsAt, Segment, path};
use super::index::{Counters, Entry, Index, Ref};
use super::recent::Recent;
use super::record::Columns;
use crate::job::{Error, ErrorCode};

/// Segments that may wait to be carried over before writers wait too.
const WAITING: usize = 4;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What changes together.
pub struct State {
    /// The jobs.
    pub index: Index,
    /// The segments that are not carried over; the last one is written to.
    pub segments: BTreeMap<u64, Segment>,
    /// The last segment can't be relied on beyond its length: it is left, and a new one begun.
    pub suspect: bool,
    /// Files of events, in order.
    pub events: Vec<EventFile>,
    /// No event below this number counts.
    pub oldest: u64,
    /// Why the last checkpoint failed.
    pub fault: Option<Error>,
    /// Everybody closed it.
    pub closed: bool,
    /// Handles that are open.
    pub handles: usize,
    /// The lock of the directory.
    pub lock: Option<File>,
}

impl State {
    /// The segment that is written to.
    pub fn active(&self) -> Option<&Segment> {
        self.segments.values().next_back()
    }

    /// The segment that is to be carried over next.
    pub fn sealed(&self) -> Option<&Segment> {
        if self.segments.len() > 1 { self.segments.values().next() } else { None }
    }
}

/// What a write does to the index, once it is on the disk.
enum Effect {
    Put { created: bool, id: Arc<str>, columns: Columns<Arc<str>>, clear_requests: bool, request: Option<(u64, Box<str>)>, frames: Vec<Ref> },
    Delete { id: Arc<str>, place: u64 },
}

/// A job as a group sees it in mid-way.
#[derive(Clone)]
pub struct Seen {
    /// Its columns.
    pub columns: Columns<Arc<str>>,
    /// It can't be read.
    pub damaged: bool,
}

/// A group that is being put together.
pub struct Batch<'a> {
    state: &'a State,
    /// The frames.
    pub draft: Draft,
    /// The numbers after it.
    pub counters: Counters,
    seen: HashMap<Arc<str>, Option<Seen>>,
    effects: Vec<Effect>,
    events: Vec<EventsAt>,
    segment: u64,
}

/// The changes of one job in a batch.
pub struct Noted {
    /// It is new.
    pub created: bool,
    /// Whose.
    pub id: Arc<str>,
    /// How it stands now.
    pub columns: Columns<Arc<str>>,
    /// Its requests are answered.
    pub clear_requests: bool,
    /// A request came.
    pub request: Option<(u64, Box<str>)>,
    /// Its frames in the draft: offset, length, whether it is an output.
    pub frames: Vec<(u64, u32, bool)>,
}

impl<'a> Batch<'a> {
    /// The store before the group.
    pub fn index(&self) -> &'a Index {
        &self.state.index
    }

    /// The job as the writes so far left it.
    pub fn see(&self, id: &str) -> Option<Seen> {
        match self.seen.get(id) {
            Some(seen) => seen.clone(),
            None => self.state.index.get(id).map(|entry| Seen { columns: entry.columns.clone(), damaged: entry.damaged.is_some() }),
        }
    }

    /// Notes a change whose frames are in the draft.
    pub fn put(&mut self, noted: Noted) {
        let Noted { created, id, columns, clear_requests, request, frames } = noted;
        self.seen.insert(id.clone(), Some(Seen { columns: columns.clone(), damaged: false }));
        let segment = self.segment;
        let frames = frames.into_iter().map(|(offset, len, log)| Ref { segment, offset, len, log }).collect();
        self.effects.push(Effect::Put { created, id, columns, clear_requests, request, frames });
    }

    /// Notes that a job goes.
    pub fn delete(&mut self, id: Arc<str>, place: u64) {
        self.seen.insert(id.clone(), None);
        self.effects.push(Effect::Delete { id, place });
    }

    /// Notes events that are in the draft.
    pub fn tell(&mut self, first: u64, count: u32, (offset, len): (u64, u32)) {
        self.events.push(EventsAt { first, count, offset, len });
    }
}

/// A group, ready to be written.
struct Group {
    bytes: Vec<u8>,
    body: u64,
    effects: Vec<Effect>,
    events: Vec<EventsAt>,
    counters: Counters,
}

enum Task {
    Write(Group, Done),
    /// Begin a new segment.
    Turn(Done),
}

/// Who waits for a task, and the turn that ends with it, even when nobody waits any more.
struct Done {
    reply: oneshot::Sender<Result<(), Error>>,
    _turn: OwnedMutexGuard<()>,
}

/// An open store.
pub struct Store {
    /// Where it is.
    pub folder: Folder,
    /// What it knows.
    pub state: Mutex<State>,
    /// Something is to be carried over, or the store is closed.
    pub wake: Condvar,
    /// Something was carried over, or could not be.
    pub drained: Condvar,
    /// Bytes after which a segment is carried over to the files of its jobs.
    segment_bytes: u64,
    /// There was no room: what is deleted is to be removed soon.
    pressed: AtomicBool,
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: Mutex<Option<mpsc::Sender<Task>>>,
    /// Each ends when its thread does.
    threads: Mutex<Vec<mpsc::Receiver<()>>>,
    /// Counts changes.
    pub changes: AtomicU64,
    /// Tells of them.
    pub news: Notify,
    /// Jobs that were read lately.
    pub recent: Recent,
}

/// The store is closed.
pub fn closed() -> Error {
    Error::new(ErrorCode::StoreUnavailable, "The file store is closed")
}

fn silent() -> Error {
    Error::new(ErrorCode::StoreUnavailable, format!("The disk has not answered for {} s: what was to be written may be written or not", PATIENCE.as_secs()))
}

impl Store {
    /// Starts the threads of a store.
    pub fn start(folder: Folder, state: State, segment_bytes: u64) -> io::Result<Arc<Store>> {
        let (tasks, queue) = mpsc::channel();
        let store = Arc::new(Store {
            folder,
            state: Mutex::new(state),
            wake: Condvar::new(),
            drained: Condvar::new(),
            segment_bytes,
            pressed: AtomicBool::new(false),
            turn: Arc::default(),
            tasks: Mutex::new(Some(tasks)),
            threads: Mutex::default(),
            changes: AtomicU64::new(0),
            news: Notify::new(),
            recent: Recent::default(),
        });
        let writer = store.clone();
        store.spawn("framewright-file", move || {
            for task in queue {
                writer.perform(task);
            }
        })?;
        let carrier = store.clone();
        store.spawn("framewright-keep", move || checkpoint::run(&carrier))?;
        Ok(store)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (alive, end) = mpsc::channel();
        self.threads.lock().push(end);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            work();
            drop(alive);
        })?;
        Ok(())
    }

    /// Ends the threads once they have done what they have begun; false: they hang.
    pub fn stop(&self) -> bool {
        self.tasks.lock().take();
        self.state.lock().closed = true;
        self.wake.notify_all();
        self.drained.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        let until = Instant::now() + PATIENCE;
        threads.into_iter().all(|end| {
            let left = until.saturating_duration_since(Instant::now());
            end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Disconnected)
        })
    }

    /// Tells everybody that something changed.
    pub fn tell(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.news.notify_waiters();
    }

    async fn hand_over(&self, task: impl FnOnce(Done) -> Task, turn: OwnedMutexGuard<()>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let task = task(Done { reply, _turn: turn });
        match &*self.tasks.lock() {
            Some(tasks) => tasks.send(task).map_err(|_| closed())?,
            None => return Err(closed()),
        }
        timeout(PATIENCE, answer).await.map_err(|_| silent())?.map_err(|_| closed())?
    }

    async fn take_turn(&self) -> Result<OwnedMutexGuard<()>, Error> {
        timeout(PATIENCE, self.turn.clone().lock_owned()).await.map_err(|_| silent())
    }

    /// Puts a group together and writes it; it is on the disk when this returns. Groups take turns.
    pub async fn write<T>(&self, compose: impl FnOnce(&mut Batch) -> Result<T, Error>) -> Result<T, Error> {
        let mut turn = self.take_turn().await?;
        if self.state.lock().suspect {
            self.hand_over(Task::Turn, turn).await?;
            turn = self.take_turn().await?;
        }
        let (answer, group) = self.compose(compose)?;
        if let Some(group) = group {
            self.hand_over(|done| Task::Write(group, done), turn).await?;
        }
        Ok(answer)
    }

    /// Writes a group on this thread; for when the store is not in use yet.
    pub fn write_now<T>(&self, compose: impl FnOnce(&mut Batch) -> Result<T, Error>) -> Result<T, Error> {
        let (answer, group) = self.compose(compose)?;
        group.map_or(Ok(()), |group| self.append(group))?;
        Ok(answer)
    }

    fn compose<T>(&self, compose: impl FnOnce(&mut Batch) -> Result<T, Error>) -> Result<(T, Option<Group>), Error> {
        let state = self.state.lock();
        let Some(active) = state.active().filter(|_| !state.closed) else { return Err(closed()) };
        let counters = state.index.counters;
        let draft = Draft::new(active.salt, counters.frame);
        let (effects, events) = (Vec::new(), Vec::new());
        let mut batch = Batch { state: &state, draft, counters, seen: HashMap::new(), effects, events, segment: active.number };
        let answer = compose(&mut batch)?;
        if batch.draft.is_empty() {
            return Ok((answer, None));
        }
        if batch.draft.len() as u64 >= u64::from(u32::MAX) {
            return Err(Error::new(ErrorCode::Validation, "A group of writes is larger than 4 GB"));
        }
        let Batch { draft, counters, effects, events, .. } = batch;
        let (bytes, body, counters) = draft.finish(counters);
        Ok((answer, Some(Group { bytes, body, effects, events, counters })))
    }

    fn perform(&self, task: Task) {
        match task {
            Task::Write(group, done) => {
                let result = self.append(group);
                let long = self.state.lock().active().is_some_and(|active| active.len >= self.segment_bytes);
                let full = match &result {
                    Ok(()) => self.pressed.swap(false, Ordering::AcqRel) || long,
                    Err(error) => {
                        self.pressed.fetch_or(error.code == ErrorCode::StoreFull, Ordering::AcqRel);
                        false
                    }
                };
                let _ = done.reply.send(result);
                if full {
                    // It can be tried again after the next group.
                    let _ = self.begin_segment();
                    self.wait_for_room();
                }
            }
            Task::Turn(done) => {
                let _ = done.reply.send(self.begin_segment());
            }
        }
    }

    fn append(&self, group: Group) -> Result<(), Error> {
        let Group { bytes, body, effects, events, counters } = group;
        let (file, number, start) = {
            let state = self.state.lock();
            let Some(active) = state.active() else { return Err(closed()) };
            (active.file.clone(), active.number, active.len)
        };
        let path = path(&self.folder.wal, number);
        if let Err(error) = file.write_all_at(&bytes, start) {
            // What came of it goes again, or the segment is left.
            if file.set_len(start).is_err() {
                self.state.lock().suspect = true;
            }
            return Err(failed("Writing", &path, &error));
        }
        // After an fsync that failed the pages may count as clean though they never got to the disk: a second one would
        // prove nothing. The next group goes to a new segment, which says how much of this one counts.
        if let Err(error) = file.sync_data() {
            self.state.lock().suspect = true;
            return Err(failed("Writing", &path, &error));
        }
        if file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
            self.state.lock().suspect = true;
            let message = format!("The directory of the file store was removed ({}): nothing can be kept any more", self.folder.root.display());
            return Err(Error::new(ErrorCode::StoreUnavailable, message));
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(segment) = state.segments.get_mut(&number) else { return Err(closed()) };
        let base = start + body;
        segment.len = start + bytes.len() as u64;
        segment.events.extend(events.into_iter().map(|at| EventsAt { offset: at.offset + base, ..at }));
        for effect in effects {
            apply(&mut state.index, segment, base, effect);
        }
        state.index.counters = counters;
        self.tell();
        Ok(())
    }

    /// Leaves the segment that is written to, and begins another.
    pub fn begin_segment(&self) -> Result<(), Error> {
        let (number, before, counters) = {
            let state = self.state.lock();
            let active = state.active();
            (active.map_or(0, |active| active.number) + 1, active.map_or(0, |active| active.len), state.index.counters)
        };
        let made = Segment::create(&self.folder.wal, number, before, counters);
        let segment = made.map_err(|error| failed("Writing", &path(&self.folder.wal, number), &error))?;
        let mut state = self.state.lock();
        state.segments.insert(number, segment);
        state.suspect = false;
        self.wake.notify_all();
        Ok(())
    }

    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while state.segments.len() > WAITING && state.fault.is_none() && !state.closed {
            self.drained.wait(&mut state);
        }
    }
}

fn apply(index: &mut Index, segment: &mut Segment, base: u64, effect: Effect) {
    match effect {
        Effect::Put { created, id, columns, clear_requests, request, frames } => {
            let place = columns.place;
            segment.touched.insert(place);
            let pending = frames.into_iter().map(|frame| Ref { offset: frame.offset + base, ..frame });
            if created {
                let requests = request.into_iter().collect();
                index.insert(Entry { id, columns, requests, journal: None, pending: pending.collect(), damaged: None });
                return;
            }
            index.change(place, |entry| {
                entry.columns = columns;
                if clear_requests {
                    entry.requests.clear();
                }
                entry.requests.extend(request);
                entry.pending.extend(pending);
            });
        }
        Effect::Delete { id, place } => {
            index.remove(place);
            segment.removed.push((id, place));
        }
    }
}
