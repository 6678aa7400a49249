//! Many rows by few statements: inserts of several rows, in sizes that are powers of two, so that the server has them
//! prepared, and below `max_allowed_packet`, whatever that is; longer texts are split into parts.

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySql, MySqlArguments, MySqlConnection};
use sqlx::query::Query;

use crate::repository::sql::connections::Failed;

/// Rows in one statement.
const ROWS: usize = 1024;

/// A statement whose arguments are being bound.
pub type Bound = Query<'static, MySql, MySqlArguments>;

/// How much goes into what.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of a text in one row.
    part: usize,
    /// Bytes of texts in one statement.
    statement: usize,
}

impl Sizes {
    /// What is surely below a packet.
    pub fn below(packet: usize) -> Self {
        Self { part: (packet / 8).clamp(64, 1_000_000), statement: (packet / 4).clamp(64, 4_000_000) }
    }

    /// Splits a text between characters; an empty one is one part.
    pub fn parts(self, text: &str) -> Vec<&str> {
        let mut parts = Vec::with_capacity(text.len() / self.part + 1);
        let mut rest = text;
        while rest.len() > self.part {
            let mut at = self.part;
            while !rest.is_char_boundary(at) {
                at -= 1;
            }
            let (part, after) = rest.split_at(at);
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(rest);
        }
        parts
    }

    /// Writes rows: `insert` up to VALUES, so many `columns`, and what follows. `bytes` tells how large a row's texts are.
    pub async fn write<R>(
        self,
        connection: &mut MySqlConnection,
        (insert, columns, then): (&'static str, usize, &'static str),
        rows: &[R],
        bytes: impl Fn(&R) -> usize,
        bind: impl Fn(Bound, &R) -> Bound,
    ) -> Result<(), Failed> {
        let mut rest = rows;
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |row: &&R| {
                size += bytes(row);
                size <= self.statement
            };
            let fitting = rest.iter().take(ROWS).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(floor_power_of_two(fitting));
            let mut query = sqlx::query(AssertSqlSafe(statement(insert, columns, now.len(), then)));
            for row in now {
                query = bind(query, row);
            }
            query.execute(&mut *connection).await?;
            rest = later;
        }
        Ok(())
    }
}

fn statement(insert: &str, columns: usize, rows: usize, then: &str) -> String {
    let mut sql = String::with_capacity(insert.len() + rows * (columns * 2 + 2) + then.len() + 8);
    sql.push_str(insert);
    sql.push_str(" VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(?" } else { ",(?" });
        for _ in 1..columns {
            sql.push_str(",?");
        }
        sql.push(')');
    }
    sql.push(' ');
    sql.push_str(then);
    sql
}

const fn floor_power_of_two(number: usize) -> usize {
    1 << number.ilog2()
}

/// `?` for each value of a list, whose last one is repeated up to a power of two.
pub fn list<T>(values: &[T]) -> (String, impl Iterator<Item = &T>) {
    let size = values.len().next_power_of_two();
    let marks = vec!["?"; size].join(",");
    (marks, values.iter().chain(std::iter::repeat_n(values.last(), size - values.len()).flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_between_characters() {
        let sizes = Sizes { part: 5, statement: 10 };
        assert_eq!(sizes.parts("ééé"), ["éé", "é"]);
        assert_eq!(sizes.parts("12345"), ["12345"]);
        assert_eq!(sizes.parts("123456"), ["12345", "6"]);
        assert_eq!(sizes.parts(""), [""]);
    }

    #[test]
    fn a_list_is_filled_up_with_its_last_value() {
        let (marks, values) = list(&[1, 2, 3]);
        assert_eq!((&*marks, values.copied().collect::<Vec<_>>()), ("?,?,?,?", vec![1, 2, 3, 3]));
    }

    #[test]
    fn parts_and_statements_stay_below_the_packet() {
        for packet in [1024, 1 << 20, 4 << 20, 16 << 20, 1 << 30] {
            let sizes = Sizes::below(packet);
            assert!(sizes.part <= 1 << 20 && sizes.statement + 2 * sizes.part <= packet, "{sizes:?}");
        }
    }

    #[test]
    fn a_statement_has_its_rows() {
        assert_eq!(statement("INSERT INTO t (a, b)", 2, 2, "ON x"), "INSERT INTO t (a, b) VALUES (?,?),(?,?) ON x");
    }
}
