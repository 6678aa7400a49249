//! Many rows as two parameters of one statement: numbers as JSON for `json_each`, and all texts in one blob that the numbers
//! point into. A statement for each row costs fifteen times as much, and texts in the JSON would be escaped, parsed and
//! copied again.

use std::fmt::Write;

use sqlx::SqliteConnection;

/// Rows are handed over when they have so many bytes.
const BYTES: usize = 8 * 1024 * 1024;

/// Rows on their way into one statement. In it, `?1` is an array of arrays: the numbers of a row, and for each of its texts
/// where it begins in the blob `?2` and how many bytes it has (`substr(?2, value ->> 1, value ->> 2)`).
pub struct Rows {
    statement: &'static str,
    numbers: String,
    blob: Vec<u8>,
}

impl Rows {
    /// No rows of a statement yet.
    pub fn of(statement: &'static str) -> Rows {
        Rows { statement, numbers: String::new(), blob: Vec::new() }
    }

    /// Adds a row, and writes those before it when they are many.
    pub async fn push(&mut self, connection: &mut SqliteConnection, numbers: &[i64], texts: &[&[u8]]) -> Result<(), sqlx::Error> {
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if self.blob.len() + bytes > BYTES {
            self.finish(connection).await?;
        }
        if self.blob.is_empty() {
            // An empty blob would be NULL to `substr`.
            self.blob.push(0);
        }
        self.numbers.push(if self.numbers.is_empty() { '[' } else { ',' });
        let mut comma = '[';
        let mut number = |number: i64| {
            let _ = write!(self.numbers, "{comma}{number}");
            comma = ',';
        };
        for &value in numbers {
            number(value);
        }
        for text in texts {
            number(self.blob.len() as i64 + 1);
            number(text.len() as i64);
            self.blob.extend_from_slice(text);
        }
        self.numbers.push(']');
        Ok(())
    }

    /// Writes what is left.
    pub async fn finish(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        self.numbers.push(']');
        let (numbers, blob) = (std::mem::take(&mut self.numbers), std::mem::take(&mut self.blob));
        sqlx::query(self.statement).bind(numbers).bind(blob).execute(connection).await?;
        Ok(())
    }
}
