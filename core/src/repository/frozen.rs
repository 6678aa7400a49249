//! A job at rest, compressed: its whole record as one small block of bytes.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::job::record::{read_status, write_record};
use crate::job::status::{LONG, Live};
use crate::job::{Error, ErrorCode, Job};

/// What records have in common, so that small ones compress, too. Changing it makes frozen jobs of this process
/// unreadable, which live no longer than the process.
const COMMON: &[u8] = br#"{"id":"00000000-0000-4000-8000-000000000000","spec":{"id":"job-","assetsUrl":"s3://","metadata":{"totalFrames":600,"fps":60,"width":1920,"height":1080,"duration":10},"mergeCommand":"ffmpeg -f concat -safe 0 -i list.txt -c copy output.mp4","chunks":[{"id":0,"startFrame":0,"frameCount":60,"outputFile":"chunk_0.mp4","command":"npx render composition.html --start-frame 0 --frame-count 60 -o /tmp/render/output/chunk_0.mp4"},{"id":1,"startFrame":60,"frameCount":60,"outputFile":"chunk_1.mp4","command":"render --start 60 --end 119"},{"id":2,"startFrame":120,"frameCount":60,"outputFile":"frames/chunk_2.mp4","command":"blender -b scene.blend -s 120 -e 179 -a"},{"id":3,"startFrame":180,"frameCount":60,"outputFile":"/output/chunk-3.mov","command":"echo chunk 3"}]},"state":"completed","progress":100,"totalChunks":10,"completedChunks":10,"createdAt":1700000000000,"updatedAt":1700000000000,"result":{"path":"","bytes":},"metrics":{"totalDurationMs":10,"queuedMs":0,"wallMs":1,"attempts":10,"retries":0},"meta":{"jobDefUrl":""},"logs":[{"chunkId":0,"durationMs":1,"stdout":"","stderr":""},{"chunkId":1,"durationMs":1,"stdout":"","stderr":""},{"chunkId":2,"durationMs":1,"stdout":"","stderr":""}],"version":22,"chunksByState":{"pending":0,"running":0,"completed":10,"failed":0},"attempt":1,"startedAt":1700000000000,"finishedAt":1700000000000,"priority":"medium","tags":[],"dependencies":[],"record":{"format":1,"options":{"concurrency":10,"jobDir":"/tmp/render"},"chunks":[[0,2,1,0,1.0,null],[1,2,1,0,1.0,null],[2,2,1,0,1.0,null],[3,2,1,0,1.0,null],[4,2,1,0,1.0,null],[5,2,1,0,1.0,null]],"order":[0,1,2,3,4,5,6,7,8,9],"reported":0,"peak":99.99,"totalDurationMs":10.0,"attempts":10,"retries":0,"runStartedAt":1700000000000.0}}"#;

/// Fast enough for a thread that follows 100,000 jobs a second; the dictionary does most of the work.
const LEVEL: i32 = 1;

/// A compressed record.
pub(super) struct Frozen {
    bytes: Box<[u8]>,
    length: u32,
    /// Where the public status ends in the text; 0: it has to be written anew (long lists are handed over apart).
    status: u32,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Internal, format!("A job at rest can't be read: {error}"))
}

impl Frozen {
    /// Compresses a job; `None` when that fails, and the job simply stays as it is.
    pub(super) fn freeze(job: &Job) -> Option<Frozen> {
        let mut text = String::with_capacity(job.spec.text_len() + 1024);
        write_record(job, Live::default(), &mut text);
        let long = job.spec.is_planned() || job.spec.len() as usize > LONG || job.rows.order().len() > LONG;
        let status = if long { 0 } else { text.rfind(",\"record\":{\"format\":")? };
        let bytes = COMPRESSOR.with_borrow_mut(|compressor| {
            if compressor.is_none() {
                *compressor = Compressor::with_dictionary(LEVEL, COMMON).ok();
            }
            compressor.as_mut()?.compress(text.as_bytes()).ok()
        })?;
        Some(Frozen { bytes: bytes.into(), length: u32::try_from(text.len()).ok()?, status: u32::try_from(status).ok()? })
    }

    fn text(&self) -> Result<String, Error> {
        let bytes = DECOMPRESSOR
            .with_borrow_mut(|decompressor| {
                if decompressor.is_none() {
                    *decompressor = Some(Decompressor::with_dictionary(COMMON)?);
                }
                match decompressor {
                    Some(decompressor) => decompressor.decompress(&self.bytes, self.length as usize),
                    None => Err(std::io::Error::other("no decompressor")),
                }
            })
            .map_err(broken)?;
        String::from_utf8(bytes).map_err(broken)
    }

    /// The job as it was.
    pub(super) fn thaw(&self) -> Result<Job, Error> {
        Ok(read_status(&self.text()?, 0.0, false)?.job)
    }

    /// The public status, without thawing the job; `None` where it has long lists.
    pub(super) fn status(&self) -> Option<String> {
        if self.status == 0 {
            return None;
        }
        let mut text = self.text().ok()?;
        text.truncate(self.status as usize);
        text.push('}');
        Some(text)
    }
}
