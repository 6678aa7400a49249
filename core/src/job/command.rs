//! Command lines: a string in POSIX shell quoting becomes the words of a program call, without any shell.
//!
//! Only quoting is understood. Nothing is expanded and nothing is an operator: `$`, `#`, `;`, `|`, `*`, `~`, `{`
//! are ordinary characters. Placeholders are put into the words later (see [`crate::job::placeholder`]), so that a
//! value with a space or a quote in it can never change how the line was split.

use std::fmt;

/// Why a command line could not be split, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct SplitError {
    /// In characters (not bytes), counted from 0: the opening quote, or the trailing backslash. 0 for an empty line.
    pub position: usize,
    /// What is wrong there.
    pub reason: SplitReason,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitReason {
    /// A `'` that is never closed.
    UnterminatedSingleQuote,
    /// A `"` that is never closed.
    UnterminatedDoubleQuote,
    /// A `\` outside of quotes with nothing after it.
    TrailingBackslash,
    /// No word at all: empty, or only whitespace.
    Empty,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            SplitReason::UnterminatedSingleQuote => "unterminated single quote",
            SplitReason::UnterminatedDoubleQuote => "unterminated double quote",
            SplitReason::TrailingBackslash => "trailing backslash",
            SplitReason::Empty => return f.write_str("the command is empty"),
        };
        write!(f, "{what} at position {}", self.position)
    }
}

/// Splits a command line into its words by the quoting rules of the POSIX shell.
///
/// - Space, tab and newline separate words.
/// - In `'...'` every character stands for itself.
/// - In `"..."` a backslash escapes `$`, `` ` ``, `"`, `\` and newline; before anything else it stays.
/// - Elsewhere a backslash escapes the next character.
/// - A backslash before a newline vanishes together with it (not in single quotes).
/// - `''` and `""` give an empty word.
///
/// The result has at least one word; that word may be empty when it was written as `''`.
///
/// # Errors
/// An unterminated quote, a trailing backslash, or a line without a word.
///
/// ```
/// use framewright_core::job::command::split;
/// let words = split(r#"blender -b 'my scene.blend' -o "out #{chunkId}" """#).unwrap();
/// assert_eq!(words, ["blender", "-b", "my scene.blend", "-o", "out #{chunkId}", ""]);
/// assert_eq!(split("echo \"hi").unwrap_err().to_string(), "unterminated double quote at position 5");
/// ```
pub fn split(command: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    // `Some` while inside a word, so that an empty quoted word is still a word.
    let mut word: Option<String> = None;
    let mut chars = command.chars().enumerate();
    while let Some((position, c)) = chars.next() {
        let fail = |reason| SplitError { position, reason };
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some((_, '\'')) => break,
                        Some((_, c)) => word.push(c),
                        None => return Err(fail(SplitReason::UnterminatedSingleQuote)),
                    }
                }
            }
            '"' => {
                let unterminated = || fail(SplitReason::UnterminatedDoubleQuote);
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(unterminated)?.1 {
                        '"' => break,
                        '\\' => match chars.next().ok_or_else(unterminated)?.1 {
                            '\n' => {}
                            c @ ('$' | '`' | '"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, c)) => word.get_or_insert_default().push(c),
                None => return Err(fail(SplitReason::TrailingBackslash)),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() {
        return Err(SplitError { position: 0, reason: SplitReason::Empty });
    }
    Ok(words)
}

/// Writes words as one command line that [`split`], and a POSIX shell, reads back as the same words.
///
/// A word of letters, digits and `_ - . / : = @ % + ,` stays bare; any other is put in single quotes.
#[cfg(test)]
fn quote<S: AsRef<str>>(words: &[S]) -> String {
    let mut line = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        let word = word.as_ref();
        let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
        if !word.is_empty() && word.chars().all(bare) {
            line.push_str(word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', r"'\''"));
            line.push('\'');
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// [F5] Quotes, escapes and empty arguments are split exactly as POSIX says.
    #[test]
    fn a_line_is_split_by_posix_quoting() {
        let table: &[(&str, &[&str])] = &[
            ("a b\tc\nd", &["a", "b", "c", "d"]),
            ("  a  ", &["a"]),
            (r"'a b' 'c\d' '$x`'", &["a b", r"c\d", "$x`"]),
            (r#""a b" "c\d" "\$\`\"\\" "'""#, &["a b", r"c\d", "$`\"\\", "'"]),
            (r"a\ b \'c \\ \d", &["a b", "'c", r"\", "d"]),
            ("''", &[""]),
            (r#"a '' "" b"#, &["a", "", "", "b"]),
            (r#"a''b"c d"'e f'\ g"#, &["abc de f g"]),
            ("a\\\nb \\\n c", &["ab", "c"]),
            ("\"a\\\nb\" 'a\\\nb'", &["ab", "a\\\nb"]),
            ("# $HOME; a|b {x} *.png ~ > &", &["#", "$HOME;", "a|b", "{x}", "*.png", "~", ">", "&"]),
            ("é 'ü ß'", &["é", "ü ß"]),
            ("a\u{a0}b\rc", &["a\u{a0}b\rc"]),
        ];
        for (line, words) in table {
            assert_eq!(split(line).unwrap(), *words, "{line:?}");
        }
    }

    /// [F5] An unbalanced quote is an error that says where it was opened, in characters.
    #[test]
    fn an_unbalanced_line_is_an_error_with_its_position() {
        let table = [
            ("echo 'a", "unterminated single quote at position 5"),
            ("éé \"a", "unterminated double quote at position 3"),
            ("a 'b' \"c\\\"", "unterminated double quote at position 6"),
            ("a \"\\", "unterminated double quote at position 2"),
            ("a 'b\\'c' d", "unterminated single quote at position 7"),
            ("é \\", "trailing backslash at position 2"),
            ("", "the command is empty"),
            (" \t\n\\\n", "the command is empty"),
        ];
        for (line, message) in table {
            assert_eq!(split(line).unwrap_err().to_string(), message, "{line:?}");
        }
    }

    /// The arguments that `/bin/sh` makes of the line; `None` when it refuses the line.
    fn by_shell(line: &str) -> Option<Vec<String>> {
        let script = format!("printf '%s\\0' {line}");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words = text.split_terminator('\0').map(str::to_owned).collect();
        output.status.success().then_some(words)
    }

    proptest! {
        #[test]
        fn quoted_words_are_read_back(words in prop::collection::vec(any::<String>(), 1..6)) {
            prop_assert_eq!(split(&quote(&words)).unwrap(), words);
        }

        #[test]
        fn hard_words_are_read_back(words in prop::collection::vec("[a '\"\\\\\n\t$`{}#é-]{0,8}", 1..6)) {
            prop_assert_eq!(split(&quote(&words)).unwrap(), words);
        }

        /// [F5] The same words, or the same refusal, as the system's shell.
        #[test]
        fn raw_quotes_and_backslashes_are_read_as_the_shell_reads_them(line in "[ab é\t'\"\\\\]{1,14}") {
            match split(&line) {
                Ok(words) => prop_assert_eq!(Some(words), by_shell(&line)),
                // A shell takes a trailing backslash as it is; for us it is a mistake.
                Err(SplitError { reason: SplitReason::TrailingBackslash | SplitReason::Empty, .. }) => {}
                Err(_) => prop_assert_eq!(by_shell(&line), None),
            }
        }

        /// [F5] Newlines, dollars and backquotes where quoting makes them safe to show to a shell.
        #[test]
        fn quoted_pieces_are_read_as_the_shell_reads_them(pieces in prop::collection::vec(prop_oneof![
            "[ab ]{1,3}", "'[a$`\"\\\\\n #;|]{0,5}'", "\"([a' \n#;|*]|\\\\[$`\"\\\\\na']){0,5}\"", "\\\\[$`\"'\\\\\na #;|*~]",
        ], 1..7)) {
            let line = pieces.concat();
            if let Ok(words) = split(&line) {
                prop_assert_eq!(Some(words), by_shell(&line));
            } else {
                prop_assert!(line.replace("\\\n", "").trim().is_empty(), "{:?}", line);
            }
        }

        #[test]
        fn any_text_is_split_or_refused(line in any::<String>()) {
            if let Err(error) = split(&line) {
                prop_assert!(error.position <= line.chars().count());
            }
        }
    }
}
