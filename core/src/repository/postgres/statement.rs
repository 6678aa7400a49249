//! One statement of several parts: a round trip for all that a group writes.

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::Names;
use crate::repository::sql::connections::Failed;

/// A statement that is being put together: parts, each with a name, and what is asked for in the end.
pub struct Statement<'n> {
    names: &'n Names,
    text: String,
    arguments: PgArguments,
    /// Parts so far.
    parts: Vec<&'static str>,
}

/// The parameters of a part, in the order of the question marks in its text.
pub struct Values<'s>(&'s mut PgArguments);

impl Values<'_> {
    /// The next one.
    pub fn add<'t, T: Encode<'t, Postgres> + Type<Postgres>>(&mut self, value: T) -> Result<(), Failed> {
        self.0.add(value).map_err(|error| Failed::Sql(sqlx::Error::Encode(error)))
    }
}

impl<'n> Statement<'n> {
    /// One without parts.
    pub fn new(names: &'n Names) -> Self {
        Self { names, text: String::new(), arguments: PgArguments::default(), parts: Vec::new() }
    }

    /// Adds a part. It sees the tables as they were before the statement, and what earlier parts return under their names.
    pub fn part(&mut self, name: &'static str, text: &str, values: impl FnOnce(&mut Values) -> Result<(), Failed>) -> Result<(), Failed> {
        self.text.push_str(if self.parts.is_empty() { "WITH " } else { ", " });
        self.text.push_str(name);
        self.text.push_str(" AS (");
        self.put(text, values)?;
        self.text.push(')');
        self.parts.push(name);
        Ok(())
    }

    /// A condition that always holds, and is known once all parts so far are done.
    pub fn done(&self) -> String {
        let counts: String = self.parts.iter().map(|name| format!("(SELECT count(*) FROM {name}) + ")).collect();
        format!("{counts}0 >= 0")
    }

    /// Runs it; gives the row that `text` asks for.
    pub async fn run(mut self, connection: &mut PgConnection, text: &str, values: impl FnOnce(&mut Values) -> Result<(), Failed>) -> Result<PgRow, Failed> {
        self.text.push(' ');
        self.put(text, values)?;
        let sql = self.names.sql(&self.text);
        Ok(sqlx::query_with(sql, self.arguments).fetch_one(connection).await?)
    }

    fn put(&mut self, text: &str, values: impl FnOnce(&mut Values) -> Result<(), Failed>) -> Result<(), Failed> {
        let mut number = self.arguments.len();
        values(&mut Values(&mut self.arguments))?;
        for (n, piece) in text.split('?').enumerate() {
            if n > 0 {
                number += 1;
                self.text.push_str(&format!("${number}"));
            }
            self.text.push_str(piece);
        }
        debug_assert_eq!(number, self.arguments.len(), "a value for each question mark of: {text}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_over_all_parts() {
        let names = Names::new("s");
        let mut statement = Statement::new(&names);
        assert_eq!(statement.done(), "0 >= 0");
        for name in ["a", "b"] {
            statement
                .part(name, "INSERT INTO @t VALUES (?, ?) RETURNING 1", |values| {
                    values.add(1i64)?;
                    values.add("x")
                })
                .expect("a part");
        }
        assert_eq!(statement.text, "WITH a AS (INSERT INTO @t VALUES ($1, $2) RETURNING 1), b AS (INSERT INTO @t VALUES ($3, $4) RETURNING 1)");
        assert_eq!(statement.done(), "(SELECT count(*) FROM a) + (SELECT count(*) FROM b) + 0 >= 0");
        assert_eq!(statement.arguments.len(), 4);
    }
}
