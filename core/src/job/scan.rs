//! The quick way through chunks as `JSON.stringify` writes them: no white space, no escapes, integers and plain strings.
//! Whatever is not exactly so is left to the general parser; nothing is decided here.

/// One chunk, read in place.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plain<'a> {
    pub id: u64,
    pub start_frame: Option<u64>,
    pub frame_count: Option<u64>,
    pub frame_step: Option<u64>,
    pub output_file: Option<&'a str>,
    pub command: Option<&'a str>,
    /// Where its text begins and how long it is.
    pub offset: usize,
    pub length: usize,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// How many bytes there are before the first that ends a plain string or is none: a quote, a backslash, a control character.
fn plain_length(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The highest bit of a byte that is less than `least`; exact up to the first one found, which is the one that counts.
        let below = |word: u64, least: u8| word.wrapping_sub(eight(least)) & !word & eight(0x80);
        let found = below(word ^ eight(b'"'), 1) | below(word ^ eight(b'\\'), 1) | below(word, 0x20);
        if found != 0 {
            return Some(n * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < 0x20)?;
    Some(words.len() * 8 + at)
}

/// Whether a text has a byte of a kind. Without a way out in the middle many bytes are looked at in one step.
pub(super) fn has(text: &str, kind: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |found, byte| found | kind(byte))
}

impl<'a> Scanner<'a> {
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.text.as_bytes().get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let length = plain_length(&self.text.as_bytes()[start..])?;
        self.at += length;
        self.take(b'"')?;
        Some(&self.text[start..start + length])
    }

    fn integer(&mut self) -> Option<u64> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.text.as_bytes().get(self.at).filter(|byte| byte.is_ascii_digit()) {
            value = value * 10 + u64::from(digit - b'0');
            self.at += 1;
            // Fifteen digits are exact in a double and fit; more are for the general parser.
            if self.at - start > 15 {
                return None;
            }
        }
        let leading_zero = self.at - start > 1 && self.text.as_bytes()[start] == b'0';
        (self.at > start && !leading_zero).then_some(value)
    }

    fn chunk(&mut self) -> Option<Plain<'a>> {
        let mut chunk = Plain { offset: self.at, ..Plain::default() };
        let mut has_id = false;
        self.take(b'{')?;
        loop {
            let key = self.string()?;
            self.take(b':')?;
            match key {
                "id" => {
                    chunk.id = self.integer()?;
                    has_id = true;
                }
                "startFrame" => chunk.start_frame = Some(self.integer()?),
                "frameCount" => chunk.frame_count = Some(self.integer()?),
                "frameStep" => chunk.frame_step = Some(self.integer()?),
                "outputFile" => chunk.output_file = Some(self.string()?),
                "command" => chunk.command = Some(self.string()?),
                "argv" => return None,
                _ if self.text.as_bytes().get(self.at) == Some(&b'"') => {
                    self.string()?;
                }
                _ => {
                    self.integer()?;
                }
            }
            if self.take(b',').is_none() {
                self.take(b'}')?;
                break;
            }
        }
        chunk.length = self.at - chunk.offset;
        has_id.then_some(chunk)
    }
}

/// The chunks of a JSON array, or `None` when one of them is not plain.
pub(super) fn scan(array: &str) -> Option<Vec<Plain<'_>>> {
    let mut scanner = Scanner { text: array, at: 0 };
    let mut chunks = Vec::with_capacity(array.len() / 96);
    scanner.take(b'[')?;
    if scanner.take(b']').is_some() {
        return (scanner.at == array.len()).then_some(chunks);
    }
    loop {
        chunks.push(scanner.chunk()?);
        if scanner.take(b',').is_none() {
            scanner.take(b']')?;
            return (scanner.at == array.len()).then_some(chunks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::Chunk;
    use proptest::prelude::*;

    fn field() -> impl Strategy<Value = String> {
        let key =
            prop_oneof![Just("id"), Just("startFrame"), Just("frameCount"), Just("frameStep"), Just("outputFile"), Just("command"), Just("argv"), Just("own")];
        let value = prop_oneof![
            any::<u64>().prop_map(|n| n.to_string()),
            (0u64..1000).prop_map(|n| n.to_string()),
            "[a-zü {}\"\\\\]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just("null".to_owned()),
            Just("-1".to_owned()),
            Just("1.5".to_owned()),
            Just("01".to_owned()),
            Just("[\"a\"]".to_owned())
        ];
        (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"))
    }

    proptest! {
        // What the quick way reads, the general parser reads the same.
        #[test]
        fn agrees_with_the_general_parser(chunks in prop::collection::vec(prop::collection::vec(field(), 1..6), 0..4)) {
            let texts: Vec<String> = chunks.iter().map(|fields| format!("{{{}}}", fields.join(","))).collect();
            let array = format!("[{}]", texts.join(","));
            if let Some(found) = scan(&array) {
                prop_assert_eq!(found.len(), texts.len());
                for plain in found {
                    let text = &array[plain.offset..plain.offset + plain.length];
                    // A key that stands twice is refused by the general parser; it must not be read here as one of them.
                    let fields = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap();
                    if let Ok(chunk) = serde_json::from_str::<Chunk>(text) {
                        prop_assert_eq!(chunk.id, plain.id);
                        prop_assert_eq!(chunk.start_frame, plain.start_frame);
                        prop_assert_eq!(chunk.frame_count, plain.frame_count);
                        prop_assert_eq!(chunk.frame_step, plain.frame_step);
                        prop_assert_eq!(chunk.output_file.as_deref(), plain.output_file);
                        prop_assert_eq!(chunk.command.as_deref(), plain.command);
                    } else {
                        prop_assert!(fields.len() < text.matches("\":").count());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn eight_bytes_at_once_find_what_one_by_one_finds(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), 0x1eu8..0x24, 0x5bu8..0x5e], 0..40)) {
            prop_assert_eq!(plain_length(&bytes), bytes.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < 0x20));
        }
    }

    #[test]
    fn odd_ones_are_left_to_others() {
        for odd in [
            "[1]",
            "[{\"id\":1.0}]",
            "[{\"id\":-1}]",
            "[{\"id\": 1}]",
            "[{\"id\":1,\"command\":\"a\\n\"}]",
            "[{\"command\":\"a\"}]",
            "[{}]",
            "[{\"id\":1}",
            "[{\"id\":1}]x",
        ] {
            assert_eq!(scan(odd), None, "{odd}");
        }
        assert_eq!(scan("[]").map(|chunks| chunks.len()), Some(0));
    }
}
