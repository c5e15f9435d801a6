//! Statements that change the session or its transaction, and no table.

use super::engine::{Event, Flow, Gone, Session, Sink};
use super::tree::Statement;
use crate::store::convert::{Mode, convert};
use crate::store::database::Isolation;
use crate::store::table::same_name;
use crate::store::{Collation, SqlError, Value};

impl Session {
    /// Carries out a statement of control; none when it is another.
    pub(super) fn control(&mut self, statement: &Statement, sink: &mut dyn Sink) -> Result<Option<Flow>, Gone> {
        let failed = match statement {
            Statement::Begin(_) => self.begin(self.isolation, sink)?,
            Statement::Commit => self.commit(sink)?,
            Statement::RollBack(name) => self.roll_back(name.as_deref(), sink)?,
            Statement::Save(name) => self.save(name),
            Statement::SetOption { name, value } => self.set_option(name, value),
            Statement::SetIsolation(isolation) => self.set_isolation(*isolation),
            Statement::SetIdentityInsert { table, on } => self.set_identity_insert(table, *on),
            Statement::Use(name) => {
                if same_name(name, &self.database_name) {
                    let name = self.database_name.clone();
                    sink.put(Event::Database { new: name.clone(), old: name })?;
                    None
                } else {
                    Some(SqlError::new(
                        911,
                        format!("Database '{name}' does not exist. Make sure that the name is entered correctly."),
                    ))
                }
            }
            Statement::Print(expression) => {
                let Some((value, ty)) = self.attempt(sink, |work| work.binder().value(expression))? else {
                    return Ok(Some(Flow::End));
                };
                let mut info = SqlError::new(0, crate::store::convert::show(&value, ty, None));
                info.class = 0;
                sink.put(Event::Info(info))?;
                None
            }
            Statement::RaiseError { number, text } => {
                let made = self.attempt(sink, |work| Ok((work.binder().value(number)?, work.binder().value(text)?)))?;
                let Some(((number, _), (text, ty))) = made else { return Ok(Some(Flow::End)) };
                let number = match number {
                    Value::Int(number) => u32::try_from(number).unwrap_or(50_000),
                    _ => 50_000,
                };
                let error = SqlError::new(number, crate::store::convert::show(&text, ty, None));
                self.refuse(error, sink)?;
                return Ok(Some(Flow::End));
            }
            Statement::SetVariable(name, expression) => {
                let made = self.attempt(sink, |work| {
                    let (value, ty) = work.binder().value(expression)?;
                    work.assign(name, &value, ty)
                })?;
                if made.is_none() {
                    return Ok(Some(Flow::End));
                }
                None
            }
            Statement::Declare(variables) => {
                for (name, declared, value) in variables {
                    let to = declared.ty;
                    let made = match value {
                        None => Value::Null,
                        Some(expression) => {
                            let made = self.attempt(sink, |work| {
                                let (value, from) = work.binder().value(expression)?;
                                Ok(convert(&value, from, to, Mode::Cast, None)?)
                            })?;
                            match made {
                                Some(value) => value,
                                None => return Ok(Some(Flow::End)),
                            }
                        }
                    };
                    self.variables.insert(name.to_lowercase(), (to, made));
                }
                None
            }
            _ => return Ok(None),
        };
        match failed {
            None => {
                let silent = matches!(statement, Statement::Declare(_) | Statement::SetVariable(..));
                if !silent {
                    sink.put(Event::Done { count: None, failed: false })?;
                }
                Ok(Some(Flow::On))
            }
            Some(error) => {
                self.refuse(error, sink)?;
                Ok(Some(Flow::End))
            }
        }
    }

    fn refuse(&mut self, error: SqlError, sink: &mut dyn Sink) -> Result<(), Gone> {
        self.engine.note(&error, "a statement of control");
        self.error = i64::from(error.number);
        let ends = self.xact_abort && !error.unknown;
        if let Some(open) = self.open.filter(|_| ends) {
            self.engine.database().roll_back(open);
            self.engine.free();
            self.open = None;
            self.depth = 0;
            sink.put(Event::RolledBack(open))?;
        }
        sink.put(Event::Error(error))?;
        sink.put(Event::Done { count: None, failed: true })
    }

    /// Begins a transaction, or goes one deeper into the one that is open.
    pub fn begin(&mut self, isolation: Isolation, sink: &mut dyn Sink) -> Result<Option<SqlError>, Gone> {
        if self.open.is_some() {
            self.depth += 1;
            return Ok(None);
        }
        let begun = self.engine.database().begin(isolation);
        match begun {
            Ok(own) => {
                self.open = Some(own);
                self.depth = 1;
                self.isolation = isolation;
                sink.put(Event::Begun(own))?;
                Ok(None)
            }
            Err(error) => Ok(Some(error)),
        }
    }

    pub fn commit(&mut self, sink: &mut dyn Sink) -> Result<Option<SqlError>, Gone> {
        let Some(open) = self.open else {
            return Ok(Some(SqlError::new(
                3902,
                "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            )));
        };
        if self.depth > 1 {
            self.depth -= 1;
            return Ok(None);
        }
        if let Some(error) = self.engine.faults.error_at_commit() {
            self.engine.database().roll_back(open);
            self.engine.free();
            self.open = None;
            self.depth = 0;
            sink.put(Event::RolledBack(open))?;
            return Ok(Some(error));
        }
        self.engine.database().commit(open);
        self.engine.free();
        self.open = None;
        self.depth = 0;
        if self.engine.faults.cut_at_commit() {
            self.cut = true;
            return Err(Gone);
        }
        sink.put(Event::Committed(open))?;
        Ok(None)
    }

    pub fn roll_back(&mut self, to: Option<&str>, sink: &mut dyn Sink) -> Result<Option<SqlError>, Gone> {
        let Some(open) = self.open else {
            return Ok(Some(SqlError::new(
                3903,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            )));
        };
        if let Some(name) = to
            && self.engine.database().undo_to_saved(open, name)
        {
            return Ok(None);
        }
        self.engine.database().roll_back(open);
        self.engine.free();
        self.open = None;
        self.depth = 0;
        sink.put(Event::RolledBack(open))?;
        Ok(None)
    }

    pub fn save(&mut self, name: &str) -> Option<SqlError> {
        match self.open {
            Some(open) => {
                self.engine.database().save(open, name);
                None
            }
            None => Some(SqlError::new(628, "Cannot issue SAVE TRANSACTION when there is no active transaction.")),
        }
    }

    fn set_isolation(&mut self, isolation: Isolation) -> Option<SqlError> {
        if let Some(open) = self.open {
            if isolation == Isolation::Snapshot && self.isolation != Isolation::Snapshot {
                return Some(SqlError::new(
                    3951,
                    "Transaction failed in the database because the statement was run under snapshot isolation but the transaction did not start in snapshot isolation.",
                ));
            }
            self.engine.database().set_isolation(open, isolation);
        }
        self.isolation = isolation;
        None
    }

    fn set_identity_insert(&mut self, table: &[String], on: bool) -> Option<SqlError> {
        let name = match self.resolve(table) {
            Some((schema, name)) => vec![Collation::usual().fold(&schema), Collation::usual().fold(&name)],
            None => return Some(super::bind::no_object(table)),
        };
        if !on {
            if self.identity_insert.as_ref() == Some(&name) {
                self.identity_insert = None;
            }
            return None;
        }
        if let Some(other) = self.identity_insert.as_ref().filter(|other| **other != name) {
            return Some(SqlError::new(
                8107,
                format!(
                    "IDENTITY_INSERT is already ON for table '{}'. Cannot perform SET operation for table '{}'.",
                    other.join("."),
                    table.join(".")
                ),
            ));
        }
        let mut database = self.engine.database();
        let view = database.view(self.open.unwrap_or(0)).ok()?;
        let (schema, last) = self.resolve(table)?;
        let has_identity = match database.object(view, &schema, &last).map(|object| object.body.clone()) {
            Some(crate::store::catalog::Body::Table(at)) => {
                database.table(at).is_ok_and(|table| table.columns.iter().any(|column| column.identity.is_some()))
            }
            _ => {
                return Some(SqlError::new(
                    1088,
                    format!(
                        "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                        table.join(".")
                    ),
                ));
            }
        };
        drop(database);
        if !has_identity {
            return Some(SqlError::new(
                8106,
                format!(
                    "Table '{}' does not have the identity property. Cannot perform SET operation.",
                    table.join(".")
                ),
            ));
        }
        self.identity_insert = Some(name);
        None
    }

    fn set_option(&mut self, name: &str, value: &str) -> Option<SqlError> {
        let on = value == "ON";
        match (name, value) {
            ("XACT_ABORT", "ON" | "OFF") => self.xact_abort = on,
            ("NOCOUNT", "ON" | "OFF") => self.no_count = on,
            ("LOCK_TIMEOUT", number) => match number.parse() {
                Ok(number) => self.lock_timeout_ms = Some(number),
                Err(_) => return Some(SqlError::unknown(format!("SET LOCK_TIMEOUT {number}"))),
            },
            // What this server does anyway.
            (
                "ANSI_NULLS"
                | "ANSI_PADDING"
                | "ANSI_WARNINGS"
                | "ARITHABORT"
                | "CONCAT_NULL_YIELDS_NULL"
                | "QUOTED_IDENTIFIER"
                | "ANSI_NULL_DFLT_ON"
                | "ANSI_DEFAULTS"
                | "CURSOR_CLOSE_ON_COMMIT",
                "ON",
            )
            | (
                "NUMERIC_ROUNDABORT" | "IMPLICIT_TRANSACTIONS" | "CURSOR_CLOSE_ON_COMMIT" | "FMTONLY" | "NOEXEC",
                "OFF",
            )
            | ("ROWCOUNT", "0")
            | ("DATEFORMAT", "YMD" | "MDY")
            | ("LANGUAGE", _)
            | ("DATEFIRST", _) => {}
            ("TEXTSIZE", number) if number.parse::<i64>().is_ok_and(|size| size == -1 || size >= 64_512) => {}
            (name, value) => return Some(SqlError::unknown(format!("SET {name} {value}"))),
        }
        None
    }
}
