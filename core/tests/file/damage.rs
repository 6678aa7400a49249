//! Cuts and flipped bytes, at every position.

use std::fs;
use std::path::Path;

use framewright_core::job::ErrorCode;
use framewright_core::repository::durable::{DurableRepository, LogStream, Outcome, Put, Stored, Write};

use super::fixture::{Contents, Open, change, complete, copy, create, delete, directory, files, put, segment};

fn groups() -> Vec<Vec<Write>> {
    vec![
        vec![create("A")],
        vec![create("b"), create("a")],
        vec![complete("A", 1, 0, "one\0"), complete("A", 2, 1, "two")],
        vec![complete("a", 1, 2, "three")],
        vec![delete("b", 1)],
        vec![create("b"), complete("A", 3, 0, "four")],
        vec![change("a", 2, put(3))],
    ]
}

/// A store with a history, and what it held after each commit, with the length of its log then.
fn history(root: &Path) -> Vec<(u64, Contents)> {
    let open = Open::new(root).expect("open");
    let length = || fs::metadata(segment(root)).expect("the log").len();
    let mut history = vec![(length(), open.contents())];
    for group in groups() {
        open.accept(&group);
        history.push((length(), open.contents()));
    }
    history
}

/// Every state that a job was ever in.
fn states() -> Vec<Stored> {
    let home = directory();
    let open = Open::new(home.path()).expect("open");
    let mut states = Vec::new();
    for write in groups().concat() {
        open.accept(&[write]);
        states.extend(open.contents().jobs.into_values());
    }
    states
}

/// A copy that was not closed: what `kill -9` leaves, with all in the log.
fn crashed() -> (tempfile::TempDir, Vec<(u64, Contents)>) {
    let (home, image) = (directory(), directory());
    let open = Open::new(home.path()).expect("open");
    let history = history(home.path());
    copy(home.path(), image.path());
    drop(open);
    (image, history)
}

/// The store goes on: the next event has the next number, and is there after the next start too.
fn goes_on(open: Open, path: &Path) {
    let before = open.contents();
    open.accept(&[create("new")]);
    let after = open.contents();
    assert_eq!(after.sequence, before.sequence + 1);
    assert_eq!(after.events.last().map(|event| event.sequence), Some(after.sequence));
    open.close();
    drop(open);
    let again = Open::new(path).expect("open again");
    assert_eq!(again.contents(), after);
}

#[test]
fn the_log_may_be_cut_at_every_byte() {
    let (image, history) = crashed();
    let bytes = fs::read(segment(image.path())).expect("the log");
    assert_eq!(bytes.len() as u64, history.last().expect("a last").0);
    for cut in 0..=bytes.len() {
        fs::write(segment(image.path()), &bytes[..cut]).expect("cut");
        let scratch = directory();
        copy(image.path(), scratch.path());
        let open = Open::new(scratch.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let expected = history.iter().rev().find(|(length, _)| *length <= cut as u64).map_or_else(Contents::default, |(_, contents)| contents.clone());
        assert_eq!(open.contents(), expected, "cut at {cut}");
        if cut % 7 == 0 {
            goes_on(open, scratch.path());
        }
    }
}

#[test]
fn every_byte_of_the_log_may_be_flipped() {
    let (image, history) = crashed();
    let path = segment(image.path());
    let bytes = fs::read(&path).expect("the log");
    let (_, last) = history.last().expect("a last");
    let (synced, before) = &history[history.len() - 2];
    for place in 0..bytes.len() {
        {
            let mut flipped = bytes.clone();
            flipped[place] ^= if place % 2 == 0 { 0x01 } else { 0xff };
            fs::write(&path, &flipped).expect("flip");
            let scratch = directory();
            copy(image.path(), scratch.path());
            let open = Open::new(scratch.path()).unwrap_or_else(|error| panic!("flip at {place}: {error}"));
            let found = open.contents();
            if place as u64 >= *synced {
                // The end of the log: it can't be told from a write that a crash cut off.
                assert!(found == *last || found == *before, "flip at {place}: {found:#?}");
                continue;
            }
            assert_eq!(found.sequence, last.sequence, "flip at {place}");
            for id in last.jobs.keys() {
                assert!(found.jobs.contains_key(id) != found.damaged.contains_key(id), "flip at {place}: {id} is there, or damaged");
            }
            for (id, job) in &found.jobs {
                assert_eq!(last.jobs.get(id), Some(job), "flip at {place}: {id}");
            }
            for event in &found.events {
                assert!(last.events.contains(event), "flip at {place}: {event:?}");
            }
            for (key, log) in &found.logs {
                assert_eq!(last.logs.get(key), Some(log), "flip at {place}");
            }
            for id in found.damaged.keys() {
                assert_eq!(open.load(id).expect_err("damaged").code, ErrorCode::StoreCorrupt);
            }
            if place % 31 == 0 {
                goes_on(open, scratch.path());
            }
        }
    }
}

/// A store that was closed: all in journals, outputs and events.
fn tidy() -> (tempfile::TempDir, Vec<(u64, Contents)>) {
    let home = directory();
    let open = Open::new(home.path()).expect("open");
    let history = history(home.path());
    open.close();
    (home, history)
}

#[test]
fn files_of_jobs_and_events_may_be_cut_at_every_byte() {
    let (image, history) = tidy();
    let (_, last) = history.last().expect("a last");
    let states = states();
    let parts: Vec<_> =
        files(image.path()).into_iter().filter(|path| path.starts_with(image.path().join("jobs")) || path.starts_with(image.path().join("events"))).collect();
    assert!(parts.iter().any(|path| path.ends_with("a~1.journal")), "{parts:?}");
    for path in parts {
        let bytes = fs::read(&path).expect("read");
        for cut in 0..bytes.len() {
            let scratch = directory();
            copy(image.path(), scratch.path());
            fs::write(scratch.path().join(path.strip_prefix(image.path()).expect("below")), &bytes[..cut]).expect("cut");
            let open = Open::new(scratch.path()).unwrap_or_else(|error| panic!("{} cut at {cut}: {error}", path.display()));
            let found = open.contents();
            for (id, expected) in &last.jobs {
                let Some(job) = found.jobs.get(id) else {
                    assert!(found.damaged.contains_key(id), "{} cut at {cut}: {id} is gone", path.display());
                    continue;
                };
                let whole = job == expected;
                let earlier = states.contains(job);
                let its_own = path.file_stem().is_some_and(|stem| stem == framewright_name(id).as_str());
                assert!(whole || (earlier && its_own), "{} cut at {cut}: {job:#?}", path.display());
            }
            assert!(found.events.iter().all(|event| last.events.contains(event)), "{} cut at {cut}", path.display());
            assert_eq!(found.sequence, last.sequence, "{} cut at {cut}", path.display());
            if cut % 13 == 0 {
                goes_on(open, scratch.path());
            }
        }
    }
}

/// File names of the ids used here.
fn framewright_name(id: &str) -> String {
    if id == "A" { "a~1".into() } else { id.into() }
}

#[test]
fn every_byte_of_the_files_of_jobs_and_events_may_be_flipped() {
    let (image, history) = tidy();
    let (_, last) = history.last().expect("a last");
    for path in files(image.path()) {
        let bytes = fs::read(&path).expect("read");
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x40;
            let scratch = directory();
            copy(image.path(), scratch.path());
            fs::write(scratch.path().join(path.strip_prefix(image.path()).expect("below")), &flipped).expect("flip");
            let open = match Open::new(scratch.path()) {
                Ok(open) => open,
                Err(error) => {
                    assert!(path.ends_with("FORMAT"), "{} flip at {place}: {error}", path.display());
                    assert!(matches!(error.code, ErrorCode::StoreCorrupt | ErrorCode::StoreUnavailable), "{error}");
                    continue;
                }
            };
            let listing = open.wait(open.repository.list(&[], 0, 100)).expect("list");
            for (id, expected) in &last.jobs {
                match open.load(id) {
                    Ok(Some(job)) => assert_eq!(&job, expected, "{} flip at {place}", path.display()),
                    Ok(None) => panic!("{} flip at {place}: {id} is gone", path.display()),
                    Err(error) => {
                        assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
                        assert!(listing.damaged.iter().any(|(damaged, _)| **damaged == **id));
                        let kept = files(&scratch.path().join("quarantine"));
                        assert!(kept.iter().any(|path| fs::read(path).is_ok_and(|bytes| bytes == flipped)), "the journal of {id} is kept as it was");
                    }
                }
                for index in 0..3 {
                    let read = open.wait(open.repository.read_log(id, index, 1, LogStream::Stdout));
                    if let Ok(Some(log)) = read {
                        assert_eq!(last.logs.get(&(id.clone(), index)), Some(&log), "{} flip at {place}", path.display());
                    }
                }
            }
            assert!(open.events().iter().all(|event| last.events.contains(event)), "{} flip at {place}", path.display());
        }
    }
}

#[test]
fn a_damaged_job_stays_damaged_until_it_is_deleted() {
    let (image, history) = tidy();
    let (_, last) = history.last().expect("a last");
    let path = image.path().join("jobs/a~1.journal");
    let mut bytes = fs::read(&path).expect("read");
    bytes[40] ^= 1;
    fs::write(&path, &bytes).expect("flip");
    for _ in 0..2 {
        let open = Open::new(image.path()).expect("open");
        let found = open.contents();
        assert_eq!(found.damaged.keys().collect::<Vec<_>>(), ["A"]);
        assert_eq!(found.jobs.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(open.load("A").expect_err("damaged").code, ErrorCode::StoreCorrupt);
        let refused = open.commit(&[create("A"), change("A", 4, put(5))]).expect("commit");
        assert!(refused.iter().all(|outcome| !matches!(outcome, Outcome::Accepted { .. })), "{refused:?}");
        open.close();
    }
    let open = Open::new(image.path()).expect("open");
    open.accept(&[delete("A", 4)]);
    assert_eq!(open.load("A"), Ok(None));
    open.accept(&[create("A")]);
    let after = open.contents();
    assert!(after.damaged.is_empty());
    assert_eq!(after.sequence, last.sequence + 2);
    open.close();
    assert_eq!(Open::new(image.path()).expect("open").contents(), after);
    let kept = files(&image.path().join("quarantine"));
    assert!(kept.iter().any(|path| fs::read(path).is_ok_and(|kept| kept == bytes)), "{kept:?}");
}

/// Each file as it was before its segment was carried over, or as it is after: whatever got to the disk, the log makes it
/// whole.
#[test]
fn a_checkpoint_may_be_cut_off_at_any_file() {
    let (home, before, after) = (directory(), directory(), directory());
    let _ = history(home.path());
    // The first history is in journals; what follows is in the log.
    Open::new(home.path()).expect("open").close();
    let open = Open::new(home.path()).expect("open");
    for version in 4..40 {
        open.accept(&[complete("A", version, version as u32 % 3, &"said ".repeat(100))]);
    }
    for version in 3..500 {
        let spec = Some("long ".repeat(40));
        open.accept(&[change("a", version, Put { spec, ..put(version + 1) })]);
    }
    open.accept(&[delete("b", 1), create("c")]);
    let expected = open.contents();
    copy(home.path(), before.path());
    open.close();
    drop(open);
    copy(home.path(), after.path());
    let journal = |root: &Path| fs::read(root.join("jobs/a.journal")).expect("a journal");
    assert!(!journal(after.path()).starts_with(&journal(before.path())), "the journal was written anew");
    let relative = |root: &Path| -> Vec<_> {
        let parts = files(root).into_iter().map(|path| path.strip_prefix(root).expect("below").to_owned());
        parts.filter(|path| path.starts_with("jobs") || path.starts_with("events")).collect()
    };
    let mut parts = relative(before.path());
    parts.extend(relative(after.path()));
    parts.sort();
    parts.dedup();
    assert!(parts.len() < 12, "{parts:?}");
    for mask in 0..1u32 << parts.len() {
        let scratch = directory();
        copy(before.path(), scratch.path());
        for (n, part) in parts.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1) {
            let to = scratch.path().join(part);
            match fs::read(after.path().join(part)) {
                // Half of the files were being written.
                Ok(bytes) if n % 2 == 0 && !bytes.is_empty() && to.exists() && bytes.starts_with(&fs::read(&to).expect("read")) => {
                    let old = fs::metadata(&to).expect("metadata").len() as usize;
                    fs::write(&to, &bytes[..old + (bytes.len() - old) / 2]).expect("write");
                }
                Ok(bytes) => fs::write(&to, bytes).expect("write"),
                Err(_) => _ = fs::remove_file(&to),
            }
        }
        fs::write(scratch.path().join("jobs/a.journal.tmp"), b"half a journal").expect("write");
        fs::write(scratch.path().join("events/new.tmp"), b"half a file").expect("write");
        let open = Open::new(scratch.path()).expect("open");
        assert_eq!(open.contents(), expected, "{mask:b} of {parts:?}");
        open.close();
        drop(open);
        assert_eq!(Open::new(scratch.path()).expect("open").contents(), expected, "{mask:b} of {parts:?}, closed");
        let strays: Vec<_> = files(scratch.path()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect();
        assert!(strays.is_empty(), "{strays:?}");
    }
}

#[test]
fn an_older_segment_that_is_back_changes_nothing() {
    let (image, history) = crashed();
    let (_, last) = history.last().expect("a last");
    let old = fs::read(segment(image.path())).expect("the log");
    let name = segment(image.path());
    Open::new(image.path()).expect("open").close();
    assert!(!name.exists(), "it was carried over");
    fs::write(&name, &old).expect("back");
    let open = Open::new(image.path()).expect("open");
    assert_eq!(open.contents(), *last);
}
