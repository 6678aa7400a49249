//! One job of many chunks by an adapter in Rust that does nothing: what the manager itself costs.
//! `native_adapter [CHUNKS]` prints one line of JSON: medians of several jobs after a warm-up.

#![allow(missing_docs, reason = "a benchmark")]

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use framewright_core::executor::process::ProcessGroups;
use framewright_core::job::options::Options;
use framewright_core::job::placeholder::{self, Values};
use framewright_core::job::spec::{Rules, Spec};
use framewright_core::job::{JobState, command};
use framewright_core::manager::{Advance, LEAVE, Manager, Notices};
use framewright_core::repository::memory::MemoryRepository;

const SLOTS: usize = 10;
const RUNS: usize = 7;
const SHIFT: f64 = 4_294_967_296.0;

fn text(chunks: u32) -> String {
    let mut text = String::from(r#"{"id":"render","metadata":{"totalFrames":600,"fps":60,"width":1920,"height":1080,"duration":10},"chunks":["#);
    for i in 0..chunks {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            text,
            r#"{comma}{{"id":{i},"startFrame":{start},"frameCount":60,"outputFile":"renders/0/chunk_{i}.mp4","command":"render scenes/0.blend --layer layer-{i} --start {{startFrame}} --end {{endFrame}} --out {{outputFile}}"}}"#,
            start = i * 60
        );
    }
    text.push_str("]}");
    text
}

fn parse(text: &str, options: &Options) -> Spec {
    Spec::parse(text, Rules { needs_command: true }, options).expect("a good spec")
}

/// Words and environment of a chunk, as the driver of processes makes them.
fn build(spec: &Spec, index: u32, attempt: u32) {
    let chunk = spec.chunk(index);
    let words = command::split(chunk.command.as_deref().unwrap_or_default()).expect("a good command");
    let values = Values {
        chunk_id: chunk.id,
        start_frame: chunk.start_frame,
        end_frame: chunk.end_frame(),
        frame_count: chunk.frame_count,
        frame_step: chunk.frame_step.unwrap_or(1),
        output_file: chunk.output_file.as_deref(),
        job_id: "job",
        attempt,
    };
    let words: Vec<String> = words.iter().map(|word| placeholder::render(word, &values).into_owned()).collect();
    black_box((words, placeholder::env(&values)));
}

/// From submit to completed.
fn run(spec: Spec, beside: Option<&Spec>) -> Duration {
    let manager = Manager::new(MemoryRepository::new(false), Notices::new(|| {}), ProcessGroups::default(), u32::MAX, true, Vec::new());
    let options = Options::parse(&format!(r#"{{"concurrency":{SLOTS}}}"#)).expect("good options");
    let chunks = spec.len();
    let begun = Instant::now();
    manager.submit("job", spec, options, None, false).expect("taken");
    let ready = manager.ready(1, false).pop().expect("ready");
    let ticket = ready.ticket;
    let mut slots: Vec<f64> = (0..SLOTS).map(|_| manager.next(ticket)).collect();
    let mut done = 0;
    while done < SLOTS {
        done = 0;
        for slot in &mut slots {
            if *slot < 0.0 {
                assert_eq!(*slot, LEAVE);
                done += 1;
                continue;
            }
            let (index, attempt) = ((*slot % SHIFT) as u32, (*slot / SHIFT) as u32);
            if let Some(spec) = beside {
                build(spec, index, attempt);
            }
            *slot = manager.complete(ticket, index, attempt, 1.0, None);
        }
    }
    assert_eq!(manager.advance(ticket, ready.run, false), Advance::Ended(Some(framewright_core::job::JobState::Completed)));
    let took = begun.elapsed();
    let cell = manager.repository.cell("job").expect("kept");
    let mut slot = cell.lock();
    let job = slot.job().expect("readable");
    assert_eq!((job.state, job.completed_chunks()), (JobState::Completed, chunks));
    took
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    let chunks: u32 = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10_000);
    let text = text(chunks);
    let options = Options::default();
    let beside = parse(&text, &options);
    run(parse(&text, &options), None);
    let (mut plain, mut built, mut parsed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let spec = parse(&text, &options);
        parsed.push(begun.elapsed());
        plain.push(run(spec, None));
        built.push(run(parse(&text, &options), Some(&beside)));
    }
    let chunks = f64::from(chunks);
    println!(r#"{{"perSecond":{:.0},"builtPerSecond":{:.0},"parseNs":{:.1}}}"#, chunks / median(plain), chunks / median(built), median(parsed) / chunks * 1e9);
}
