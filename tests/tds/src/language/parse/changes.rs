//! INSERT, UPDATE, DELETE and INSERT BULK.

use super::super::lex::Token;
use super::super::tree::{Expression, InsertSource, Statement};
use super::Parser;
use crate::store::SqlError;

impl Parser<'_> {
    pub(super) fn insert(&mut self) -> Result<Statement, SqlError> {
        if self.word("BULK") {
            return self.insert_bulk();
        }
        self.word("INTO");
        let (target, hints) = self.target()?;
        let columns = if self.is_sign("(") && !self.opens_query() { self.names_in_brackets()? } else { Vec::new() };
        self.no_output()?;
        let source = if self.words(&["DEFAULT", "VALUES"]) {
            InsertSource::Defaults
        } else if self.word("VALUES") {
            InsertSource::Values(self.insert_rows()?)
        } else if self.is_word("SELECT") || self.is_sign("(") {
            InsertSource::Query(Box::new(self.query()?))
        } else {
            return Err(self.wrong());
        };
        Ok(Statement::Insert { target, hints, columns, source })
    }

    fn opens_query(&self) -> bool {
        self.is_word_at(1, "SELECT")
    }

    fn no_output(&self) -> Result<(), SqlError> {
        if self.is_word("OUTPUT") { Err(SqlError::unknown("OUTPUT of a change")) } else { Ok(()) }
    }

    fn insert_rows(&mut self) -> Result<Vec<Vec<Option<Expression>>>, SqlError> {
        let mut rows = Vec::new();
        loop {
            self.need_sign("(")?;
            let mut row = Vec::new();
            loop {
                row.push(if self.word("DEFAULT") { None } else { Some(self.condition()?) });
                if !self.sign(",") {
                    break;
                }
            }
            self.need_sign(")")?;
            rows.push(row);
            if rows.len() > 1000 {
                return Err(SqlError::new(
                    10738,
                    "The number of row value expressions in the INSERT statement exceeds the maximum allowed number of 1000 row values.",
                ));
            }
            if !self.sign(",") {
                return Ok(rows);
            }
        }
    }

    fn insert_bulk(&mut self) -> Result<Statement, SqlError> {
        let table = self.name()?;
        self.need_sign("(")?;
        let mut columns = Vec::new();
        loop {
            let name = self.identifier()?;
            let ty = self.declared()?;
            if !self.words(&["NOT", "NULL"]) {
                self.word("NULL");
            }
            columns.push((name, ty));
            if !self.sign(",") {
                break;
            }
        }
        self.need_sign(")")?;
        let mut options = Vec::new();
        if self.word("WITH") {
            self.need_sign("(")?;
            loop {
                let Token::Word(option) = self.next() else { return Err(self.wrong()) };
                let option = option.to_ascii_uppercase();
                match option.as_str() {
                    "CHECK_CONSTRAINTS" | "FIRE_TRIGGERS" | "KEEP_NULLS" | "TABLOCK" => {}
                    "KILOBYTES_PER_BATCH" | "ROWS_PER_BATCH" => {
                        self.need_sign("=")?;
                        self.integer()?;
                    }
                    "ORDER" => {
                        self.need_sign("(")?;
                        self.ordering()?;
                        self.need_sign(")")?;
                    }
                    other => return Err(SqlError::unknown(format!("INSERT BULK option {other}"))),
                }
                options.push(option);
                if !self.sign(",") {
                    break;
                }
            }
            self.need_sign(")")?;
        }
        Ok(Statement::BulkInsert { table, columns, options })
    }

    pub(super) fn update(&mut self) -> Result<Statement, SqlError> {
        let top = self.top()?;
        let (target, _) = self.target()?;
        self.need("SET")?;
        let mut set = Vec::new();
        loop {
            let mut name = self.name()?;
            let column = name.pop().ok_or_else(|| self.wrong())?;
            self.need_sign("=")?;
            set.push((column, self.condition()?));
            if !self.sign(",") {
                break;
            }
        }
        self.no_output()?;
        let from = if self.word("FROM") { Some(self.sources()?) } else { None };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        Ok(Statement::Update { target, top, set, from, filter })
    }

    pub(super) fn delete(&mut self) -> Result<Statement, SqlError> {
        let top = self.top()?;
        self.word("FROM");
        let (target, _) = self.target()?;
        self.no_output()?;
        let from = if self.word("FROM") { Some(self.sources()?) } else { None };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        Ok(Statement::Delete { target, top, from, filter })
    }
}
