//! Directories of `<id>.json` status files, and directories that are something else.

use std::fs;

use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::Put;
use serde_json::Value;

use super::fixture::{Open, change, directory, no_import, put};

/// Keeps the text as it is, to see that nothing of it is lost.
fn import(text: &str) -> Result<Put, Error> {
    let status: Value = serde_json::from_str(text).map_err(|error| Error::new(ErrorCode::StoreCorrupt, error.to_string()))?;
    let state = status["state"].as_str().and_then(JobState::parse).ok_or_else(|| Error::new(ErrorCode::StoreCorrupt, "it has no state"))?;
    Ok(Put { state, extras: Some(text.to_owned()), spec: Some(status["spec"].to_string()), ..put(1) })
}

fn status(id: &str, state: &str, created: u64) -> String {
    format!(
        "{{\n  \"id\": \"{id}\",\n  \"spec\": {{ \"metadata\": {{}}, \"chunks\": [], \"own\": [1, 2] }},\n  \"state\": \"{state}\",\n  \"createdAt\": {created},\n  \"unknown\": {{ \"field\": \"\\u0000ü\" }}\n}}"
    )
}

#[test]
fn status_files_become_jobs() {
    let directory = directory();
    let write = |id: &str, text: &str| fs::write(directory.path().join(format!("{id}.json")), text).expect("write");
    for (n, state) in ["completed", "running", "pending", "failed", "cancelled", "paused"].into_iter().enumerate() {
        write(&format!("Job-{n}"), &status(&format!("Job-{n}"), state, 100 - n as u64));
    }
    write("torn", &status("torn", "running", 5)[..60]);
    write("empty", "");
    for _ in 0..2 {
        let open = Open::with(directory.path(), import, 32 << 20).expect("open");
        let found = open.contents();
        assert_eq!(found.jobs.len(), 6);
        assert_eq!(found.damaged.keys().collect::<Vec<_>>(), ["empty", "torn"]);
        let mut by_place: Vec<_> = found.jobs.values().collect();
        by_place.sort_by_key(|job| job.place);
        let ids: Vec<&str> = by_place.iter().map(|job| &*job.id).collect();
        assert_eq!(ids, ["Job-5", "Job-4", "Job-3", "Job-2", "Job-1", "Job-0"], "in the order of their creation");
        assert_eq!(found.jobs["Job-1"].extras, status("Job-1", "running", 99));
        assert_eq!(found.jobs["Job-1"].state, JobState::Running);
        open.close();
    }
    assert_eq!(fs::read_to_string(directory.path().join("imported/Job-1.json")).expect("kept"), status("Job-1", "running", 99));
    assert_eq!(fs::read_to_string(directory.path().join("quarantine/torn.json")).expect("kept").len(), 60);
    // One that comes later is taken over too; one that is there already is not taken for new.
    let open = Open::with(directory.path(), import, 32 << 20).expect("open");
    open.accept(&[change("Job-0", 1, put(2))]);
    open.close();
    drop(open);
    write("later", &status("later", "pending", 1));
    write("Job-0", &status("Job-0", "running", 1));
    let open = Open::with(directory.path(), import, 32 << 20).expect("open");
    let found = open.contents();
    assert_eq!(found.jobs["later"].place, 9);
    assert_eq!(found.jobs["Job-0"].version, 2);
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let directory = directory();
    fs::write(directory.path().join("holiday.jpg"), b"...").expect("write");
    let error = Open::new(directory.path()).err().expect("refused");
    assert_eq!(error.code, ErrorCode::StoreCorrupt);
    assert!(error.message.contains("holiday.jpg"), "{error}");
    fs::remove_file(directory.path().join("holiday.jpg")).expect("remove");
    assert!(Open::new(directory.path()).is_ok(), "nothing of ours hinders the next one");
}

#[test]
fn a_newer_format_is_refused() {
    let directory = directory();
    Open::new(directory.path()).expect("open").close();
    fs::write(directory.path().join("FORMAT"), "2\n").expect("write");
    let error = Open::new(directory.path()).err().expect("refused");
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert!(error.message.contains("format 2"), "{error}");
    fs::write(directory.path().join("FORMAT"), "what?").expect("write");
    assert_eq!(Open::with(directory.path(), no_import, 1 << 20).err().expect("refused").code, ErrorCode::StoreCorrupt);
}
