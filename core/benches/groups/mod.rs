//! What the benchmarks of stores write.

use framewright_core::job::JobState;
use framewright_core::repository::durable::{Action, ChunkWrite, EventWrite, Expect, Holder, Ownership, Put, Write};

/// Chunks, or jobs, of one group.
pub const GROUP: u32 = 1024;

/// A change of a running job that writes its head only.
pub fn put(version: u64) -> Put {
    Put {
        version,
        state: JobState::Running,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head: format!(r#"{{"version":{version},"completed":{version},"total":100000,"startedAt":1763780000000,"updatedAt":1763780000000,"progress":12.345}}"#),
        spec: None,
        options: None,
        extras: None,
        reset_chunks: false,
        chunks: vec![],
        logs: vec![],
        events: vec![],
        clear_requests: false,
    }
}

/// A new job of one event.
pub fn create(id: &str) -> Write {
    let put = Put {
        spec: Some(r#"{"chunks":[{"id":0,"command":"render --scene shot.blend --frames 1-10","frames":[1,10]}],"outputFile":"out.mp4"}"#.into()),
        options: Some("{}".into()),
        extras: Some("{}".into()),
        ownership: Ownership::Take("bench".into()),
        events: events(1),
        ..put(1)
    };
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(put.into()) }
}

/// Events as a running job tells them.
pub fn events(count: u32) -> Vec<EventWrite> {
    let event = |n: u32| {
        let kind = if n.is_multiple_of(2) { "chunk.started" } else { "chunk.completed" };
        EventWrite { body: format!(r#""type":"{kind}","at":1763780000000,"chunkId":{n},"attempt":1,"durationMs":1234"#).into() }
    };
    (0..count).map(event).collect()
}

/// The row of a completed chunk.
pub fn chunk(index: u32) -> ChunkWrite {
    ChunkWrite { index, body: format!(r#"{{"state":"completed","attempt":1,"exitCode":0,"startedAt":1763780000000,"durationMs":{index},"size":123456}}"#) }
}

/// A write of the job's owner.
pub fn change(id: &str, version: u64, put: Put) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder: Holder::Is("bench".into()) }, action: Action::Put(put.into()) }
}
