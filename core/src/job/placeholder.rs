//! Placeholders in command lines and file names, such as `{chunkId}` or `{startFrame:04}`.
//!
//! | name | value |
//! |---|---|
//! | `{chunkId}` | number of the chunk in its job |
//! | `{startFrame}` `{endFrame}` | first and last frame of the chunk, both inclusive |
//! | `{frameCount}` | frames that are rendered |
//! | `{frameStep}` | distance between rendered frames |
//! | `{outputFile}` | where the chunk (or the merge) goes |
//! | `{jobId}` | id of the job's record |
//! | `{attempt}` | number of the attempt |
//!
//! A number may be padded with zeros: `{chunkId:04}` and `{chunkId:4}` give `0007`; widths are 1 to 32. Whatever is
//! not exactly one of these, an unknown name, another width, a padded text, stays as it is, and so does a
//! placeholder whose value is not known. There is no escape. A value that was put in is never looked at again, so a
//! job id such as `{attempt}` is only text.

use std::borrow::Cow;
use std::fmt::Write;

const MAX_WIDTH: usize = 32;

/// What is put in. A value of `None` is not known: its placeholder stays, its environment variable is not set.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Number of the chunk in its job.
    pub chunk_id: u64,
    /// First frame, inclusive.
    pub start_frame: Option<u64>,
    /// Last frame, inclusive.
    pub end_frame: Option<u64>,
    /// How many frames are rendered.
    pub frame_count: Option<u64>,
    /// Distance between rendered frames.
    pub frame_step: u64,
    /// Where the output goes.
    pub output_file: Option<&'a str>,
    /// Id of the job's record.
    pub job_id: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
}

/// Puts the known values into `template`. Borrowed when there was nothing to put in.
///
/// ```
/// use framewright_core::job::placeholder::{Values, render};
/// let values = Values {
///     chunk_id: 7, start_frame: Some(70), end_frame: Some(79), frame_count: Some(10), frame_step: 1,
///     output_file: None, job_id: "job-1", attempt: 2,
/// };
/// assert_eq!(render("{jobId}/{chunkId:04}_{startFrame}.exr", &values), "job-1/0007_70.exr");
/// assert_eq!(render("{outputFile} {nothing}", &values), "{outputFile} {nothing}");
/// ```
pub fn render<'t>(template: &'t str, values: &Values<'_>) -> Cow<'t, str> {
    put_in(template, |name| match name {
        Name::ChunkId => Some(Value::Number(values.chunk_id)),
        Name::StartFrame => values.start_frame.map(Value::Number),
        Name::EndFrame => values.end_frame.map(Value::Number),
        Name::FrameCount => values.frame_count.map(Value::Number),
        Name::FrameStep => Some(Value::Number(values.frame_step)),
        Name::OutputFile => values.output_file.map(Value::Text),
        Name::JobId => Some(Value::Text(values.job_id)),
        Name::Attempt => Some(Value::Number(values.attempt.into())),
    })
}

/// Puts in only what is known when a job is planned: `{chunkId}`, `{startFrame}` and `{endFrame}`.
pub fn render_planned(template: &str, chunk_id: u64, start_frame: u64, end_frame: u64) -> Cow<'_, str> {
    put_in(template, |name| match name {
        Name::ChunkId => Some(Value::Number(chunk_id)),
        Name::StartFrame => Some(Value::Number(start_frame)),
        Name::EndFrame => Some(Value::Number(end_frame)),
        _ => None,
    })
}

/// Whether `template` has the placeholder `name` (written without braces), padded or not.
pub fn mentions(template: &str, name: &str) -> bool {
    Name::parse(name).is_some_and(|name| found(template).any(|found| found.name == name))
}

/// The known values as environment variables, `FRAMEWRIGHT_CHUNK_ID` and so on; what is not known is left out.
pub fn env(values: &Values<'_>) -> Vec<(&'static str, String)> {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    [
        ("FRAMEWRIGHT_CHUNK_ID", number(Some(values.chunk_id))),
        ("FRAMEWRIGHT_START_FRAME", number(values.start_frame)),
        ("FRAMEWRIGHT_END_FRAME", number(values.end_frame)),
        ("FRAMEWRIGHT_FRAME_COUNT", number(values.frame_count)),
        ("FRAMEWRIGHT_FRAME_STEP", number(Some(values.frame_step))),
        ("FRAMEWRIGHT_OUTPUT_FILE", values.output_file.map(str::to_owned)),
        ("FRAMEWRIGHT_JOB_ID", Some(values.job_id.to_owned())),
        ("FRAMEWRIGHT_ATTEMPT", number(Some(values.attempt.into()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    ChunkId,
    StartFrame,
    EndFrame,
    FrameCount,
    FrameStep,
    OutputFile,
    JobId,
    Attempt,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "chunkId" => Self::ChunkId,
            "startFrame" => Self::StartFrame,
            "endFrame" => Self::EndFrame,
            "frameCount" => Self::FrameCount,
            "frameStep" => Self::FrameStep,
            "outputFile" => Self::OutputFile,
            "jobId" => Self::JobId,
            "attempt" => Self::Attempt,
            _ => return None,
        })
    }

    fn is_text(self) -> bool {
        matches!(self, Self::OutputFile | Self::JobId)
    }
}

enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

/// A placeholder in a template: bytes `start..end`, braces included.
struct Found {
    start: usize,
    end: usize,
    name: Name,
    width: usize,
}

/// The placeholders of a template from left to right; unknown names are passed over.
fn found(template: &str) -> impl Iterator<Item = Found> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + template[from..].find('{')?;
            let inside = start + 1;
            if let Some((length, name, width)) = placeholder_at(&template[inside..]) {
                let end = inside + length;
                from = end;
                return Some(Found { start, end, name, width });
            }
            from = inside;
        }
    })
}

/// Reads `name}` or `name:width}` from the beginning of `rest`; gives the bytes that it took.
fn placeholder_at(rest: &str) -> Option<(usize, Name, usize)> {
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let name = Name::parse(&rest[..letters])?;
    let after = &rest[letters..];
    if after.starts_with('}') {
        return Some((letters + 1, name, 0));
    }
    let after = after.strip_prefix(':')?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let width: usize = after[..digits].parse().ok()?;
    let fits = (1..=MAX_WIDTH).contains(&width) && !name.is_text();
    (fits && after[digits..].starts_with('}')).then_some((letters + 1 + digits + 1, name, width))
}

fn put_in<'t, 'v>(template: &'t str, value: impl Fn(Name) -> Option<Value<'v>>) -> Cow<'t, str> {
    let mut rendered = String::new();
    let mut copied = 0;
    for Found { start, end, name, width } in found(template) {
        let Some(value) = value(name) else { continue };
        rendered.push_str(&template[copied..start]);
        match value {
            Value::Number(number) => {
                write!(rendered, "{number:0width$}").expect("a String takes everything");
            }
            Value::Text(text) => rendered.push_str(text),
        }
        copied = end;
    }
    if copied == 0 {
        return Cow::Borrowed(template);
    }
    rendered.push_str(&template[copied..]);
    Cow::Owned(rendered)
}

/// Whether two of the planning placeholders stand in `template` with nothing but digits between them, so that their
/// values run into one number: `{chunkId}{startFrame}`.
pub(crate) fn planned_run_together(template: &str) -> bool {
    let mut last_end = None;
    for Found { start, end, name, .. } in found(template) {
        if !matches!(name, Name::ChunkId | Name::StartFrame | Name::EndFrame) {
            continue;
        }
        if let Some(last_end) = last_end
            && template[last_end..start].bytes().all(|b: u8| b.is_ascii_digit())
        {
            return true;
        }
        last_end = Some(end);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values<'a>() -> Values<'a> {
        Values {
            chunk_id: 7,
            start_frame: Some(150),
            end_frame: Some(200),
            frame_count: Some(26),
            frame_step: 2,
            output_file: Some("out/{attempt}.mp4"),
            job_id: "{chunkId}",
            attempt: 3,
        }
    }

    /// [F58] Every value can be put into an argument.
    #[test]
    fn every_placeholder_is_put_in() {
        let template = "{chunkId} {startFrame} {endFrame} {frameCount} {frameStep} {outputFile} {jobId} {attempt}";
        assert_eq!(render(template, &values()), "7 150 200 26 2 out/{attempt}.mp4 {chunkId} 3");
    }

    #[test]
    fn a_number_is_padded_to_its_width() {
        let table = [
            ("{chunkId:04}", "0007"),
            ("{chunkId:4}", "0007"),
            ("{chunkId:1}", "7"),
            ("{startFrame:2}", "150"),
            ("{attempt:02}{frameStep:03}{frameCount:3}{endFrame:5}", "0300202600200"),
            ("{chunkId:32}", "00000000000000000000000000000007"),
        ];
        for (template, text) in table {
            assert_eq!(render(template, &values()), text);
        }
    }

    #[test]
    fn what_is_not_exactly_a_placeholder_stays() {
        for template in [
            "",
            "{",
            "}",
            "{}",
            "{foo}",
            "{chunkid}",
            "{ chunkId}",
            "{chunkId",
            "{chunkId:}",
            "{chunkId:0}",
            "{chunkId:33}",
            "{chunkId:-4}",
            "{chunkId:4x}",
            "{chunkId:99999999999999999999999}",
            "{jobId:04}",
            "{outputFile:4}",
            "${HOME}",
            "é{é}",
        ] {
            assert!(matches!(render(template, &values()), Cow::Borrowed(same) if same == template), "{template}");
        }
        assert_eq!(render("{{chunkId}}", &values()), "{7}");
        assert_eq!(render("{foo{chunkId}}é", &values()), "{foo7}é");
    }

    #[test]
    fn a_value_that_is_not_known_stays() {
        let values = Values { start_frame: None, end_frame: None, frame_count: None, output_file: None, ..values() };
        let template = "{startFrame}{endFrame:04}{frameCount}{outputFile}";
        assert_eq!(render(template, &values), template);
        assert_eq!(render("{startFrame}{attempt}", &values), "{startFrame}3");
    }

    #[test]
    fn planning_puts_in_only_what_it_knows() {
        let template = "{chunkId:03}-{startFrame}-{endFrame}-{frameCount}-{jobId}";
        assert_eq!(render_planned(template, 1, 2, 3), "001-2-3-{frameCount}-{jobId}");
    }

    #[test]
    fn a_mention_may_be_padded() {
        assert!(mentions("a{chunkId}", "chunkId"));
        assert!(mentions("{foo}{chunkId:04}", "chunkId"));
        for template in ["chunkId", "{chunkId:99}", "{startFrame}", ""] {
            assert!(!mentions(template, "chunkId"));
        }
        assert!(!mentions("{foo}", "foo"));
    }

    #[test]
    fn numbers_that_run_together_are_seen() {
        assert!(planned_run_together("{chunkId}{startFrame}"));
        assert!(planned_run_together("a{endFrame:3}00{chunkId}"));
        for template in ["{chunkId}_{startFrame}", "{chunkId}{frameCount}{startFrame}", "{chunkId}", ""] {
            assert!(!planned_run_together(template));
        }
    }

    /// [F58] The same values are given as environment variables; what is not known is left out.
    #[test]
    fn the_environment_has_every_known_value() {
        let all: Vec<_> = env(&values());
        let expected = [
            ("FRAMEWRIGHT_CHUNK_ID", "7"),
            ("FRAMEWRIGHT_START_FRAME", "150"),
            ("FRAMEWRIGHT_END_FRAME", "200"),
            ("FRAMEWRIGHT_FRAME_COUNT", "26"),
            ("FRAMEWRIGHT_FRAME_STEP", "2"),
            ("FRAMEWRIGHT_OUTPUT_FILE", "out/{attempt}.mp4"),
            ("FRAMEWRIGHT_JOB_ID", "{chunkId}"),
            ("FRAMEWRIGHT_ATTEMPT", "3"),
        ];
        assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
        let few = Values { start_frame: None, end_frame: None, frame_count: None, output_file: None, ..values() };
        let names: Vec<_> = env(&few).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["FRAMEWRIGHT_CHUNK_ID", "FRAMEWRIGHT_FRAME_STEP", "FRAMEWRIGHT_JOB_ID", "FRAMEWRIGHT_ATTEMPT"]);
    }

    proptest! {
        #[test]
        fn any_template_is_rendered(pieces in prop::collection::vec(prop_oneof![
            any::<String>(), Just("{".to_owned()), Just("{chunkId".to_owned()), Just(":04".to_owned()), Just("}".to_owned()),
        ], 0..8)) {
            let template = pieces.concat();
            let text = render(&template, &values());
            prop_assert_eq!(mentions(&template, "chunkId"), render_planned(&template, 7, 0, 0) != render_planned(&template, 8, 0, 0));
            if !template.contains('{') {
                prop_assert_eq!(&*text, &*template);
            }
        }
    }
}
