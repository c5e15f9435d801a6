//! CREATE, ALTER and DROP.

use super::super::tree::{ColumnDefinition, Constraint, Name, Statement};
use super::Parser;
use crate::store::SqlError;

type Parsed = Result<Statement, SqlError>;

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Parsed {
        if self.word("TABLE") {
            let name = self.name()?;
            self.need_sign("(")?;
            let (columns, constraints) = self.table_parts()?;
            self.need_sign(")")?;
            return Ok(Statement::CreateTable { name, columns, constraints });
        }
        if self.word("SCHEMA") {
            return Ok(Statement::CreateSchema(self.identifier()?));
        }
        if self.word("VIEW") {
            let name = self.name()?;
            self.need("AS")?;
            let from = self.place();
            self.query()?;
            return Ok(Statement::CreateView { name, text: self.text_since(from) });
        }
        if self.word("TRIGGER") {
            return self.create_trigger();
        }
        let unique = self.word("UNIQUE");
        let clustered = self.word("CLUSTERED");
        if !clustered {
            self.word("NONCLUSTERED");
        }
        self.need("INDEX")?;
        let name = self.identifier()?;
        self.need("ON")?;
        let table = self.name()?;
        let columns = self.key_columns()?;
        let included = if self.word("INCLUDE") { self.names_in_brackets()? } else { Vec::new() };
        Ok(Statement::CreateIndex { name, table, columns, included, unique, clustered })
    }

    fn create_trigger(&mut self) -> Parsed {
        let name = self.name()?;
        self.need("ON")?;
        let table = self.name()?;
        if !self.word("AFTER") {
            self.need("FOR")?;
        }
        let (mut insert, mut update, mut delete) = (false, false, false);
        loop {
            insert |= self.word("INSERT");
            update |= self.word("UPDATE");
            delete |= self.word("DELETE");
            if !self.sign(",") {
                break;
            }
        }
        if !(insert || update || delete) {
            return Err(self.wrong());
        }
        self.need("AS")?;
        // The body is the rest of the batch.
        let from = self.place();
        while !self.at_end() {
            while self.sign(";") {}
            if self.at_end() {
                break;
            }
            self.statement()?;
        }
        Ok(Statement::CreateTrigger { name, table, insert, update, delete, text: self.text_since(from) })
    }

    fn table_parts(&mut self) -> Result<(Vec<ColumnDefinition>, Vec<Constraint>), SqlError> {
        let (mut columns, mut constraints) = (Vec::new(), Vec::new());
        loop {
            let named = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| self.is_word(word));
            if named {
                let name = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
                constraints.push(self.constraint(name, None)?);
            } else {
                columns.push(self.column(&mut constraints)?);
            }
            if !self.sign(",") {
                return Ok((columns, constraints));
            }
        }
    }

    fn column(&mut self, constraints: &mut Vec<Constraint>) -> Result<ColumnDefinition, SqlError> {
        let name = self.identifier()?;
        let mut column =
            ColumnDefinition { name, ty: None, nullable: None, identity: None, default: None, computed: None };
        if self.word("AS") {
            let from = self.place();
            self.condition()?;
            let text = self.text_since(from);
            let stored = self.word("PERSISTED");
            column.computed = Some((text, stored));
        } else {
            column.ty = Some(self.declared()?);
        }
        loop {
            let given = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
            if self.words(&["NOT", "NULL"]) {
                column.nullable = Some(false);
            } else if self.word("NULL") {
                column.nullable = Some(true);
            } else if self.word("IDENTITY") {
                let mut identity = (1, 1);
                if self.sign("(") {
                    identity.0 = self.integer()?;
                    self.need_sign(",")?;
                    identity.1 = self.integer()?;
                    self.need_sign(")")?;
                }
                column.identity = Some(identity);
            } else if self.word("DEFAULT") {
                let from = self.place();
                self.value()?;
                column.default = Some((given, self.text_since(from)));
            } else if self.word("COLLATE") {
                let collation = self.collation()?;
                if let Some(declared) = &mut column.ty {
                    declared.ty.collation = collation;
                    declared.collated = true;
                }
            } else if ["PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "FOREIGN"].iter().any(|word| self.is_word(word)) {
                let of = column.name.clone();
                constraints.push(self.constraint(given, Some(of))?);
            } else {
                return Ok(column);
            }
        }
    }

    /// A constraint of a table, or of one column.
    fn constraint(&mut self, name: Option<String>, of: Option<String>) -> Result<Constraint, SqlError> {
        let primary = self.words(&["PRIMARY", "KEY"]);
        if primary || self.word("UNIQUE") {
            let clustered = if self.word("CLUSTERED") {
                Some(true)
            } else if self.word("NONCLUSTERED") {
                Some(false)
            } else {
                None
            };
            let columns = match of {
                Some(column) if !self.is_sign("(") => vec![(column, false)],
                _ => self.key_columns()?,
            };
            return Ok(Constraint::Key { name, columns, primary, clustered });
        }
        if self.word("CHECK") {
            self.need_sign("(")?;
            let from = self.place();
            self.condition()?;
            let text = self.text_since(from);
            self.need_sign(")")?;
            return Ok(Constraint::Check { name, text });
        }
        let columns = if self.words(&["FOREIGN", "KEY"]) {
            if self.is_sign("(") { self.names_in_brackets()? } else { of.into_iter().collect() }
        } else {
            of.into_iter().collect()
        };
        self.need("REFERENCES")?;
        let parent = self.name()?;
        let parent_columns = if self.is_sign("(") { self.names_in_brackets()? } else { Vec::new() };
        let mut cascade = false;
        while self.word("ON") {
            let delete = self.word("DELETE");
            if !delete {
                self.need("UPDATE")?;
            }
            if self.word("CASCADE") {
                if !delete {
                    return Err(SqlError::unknown("ON UPDATE CASCADE"));
                }
                cascade = true;
            } else if !self.words(&["NO", "ACTION"]) {
                return Err(self.wrong());
            }
        }
        Ok(Constraint::Foreign { name, columns, parent, parent_columns, cascade })
    }

    fn key_columns(&mut self) -> Result<Vec<(String, bool)>, SqlError> {
        self.need_sign("(")?;
        let mut columns = Vec::new();
        loop {
            let name = self.identifier()?;
            let falls = self.word("DESC");
            if !falls {
                self.word("ASC");
            }
            columns.push((name, falls));
            if !self.sign(",") {
                break;
            }
        }
        self.need_sign(")")?;
        Ok(columns)
    }

    pub(super) fn alter(&mut self) -> Parsed {
        if self.word("DATABASE") {
            let database = if self.word("CURRENT") { String::new() } else { self.identifier()? };
            self.need("SET")?;
            self.need("ALLOW_SNAPSHOT_ISOLATION")?;
            let on = self.on_or_off()?;
            return Ok(Statement::AllowSnapshot { database, on });
        }
        self.need("TABLE")?;
        let table = self.name()?;
        if self.word("ADD") {
            let (columns, constraints) = self.table_parts()?;
            return Ok(Statement::AlterAdd { table, columns, constraints });
        }
        self.need("DROP")?;
        let (mut columns, mut constraints) = (Vec::new(), Vec::new());
        if self.word("COLUMN") {
            columns.push(self.identifier()?);
        } else {
            self.word("CONSTRAINT");
            constraints.push(self.identifier()?);
        }
        Ok(Statement::AlterDrop { table, columns, constraints })
    }

    pub(super) fn drop(&mut self) -> Parsed {
        if self.word("TABLE") {
            let if_exists = self.words(&["IF", "EXISTS"]);
            let mut names: Vec<Name> = vec![self.name()?];
            while self.sign(",") {
                names.push(self.name()?);
            }
            return Ok(Statement::DropTable { names, if_exists });
        }
        if self.word("INDEX") {
            let name = self.identifier()?;
            self.need("ON")?;
            return Ok(Statement::DropIndex { name, table: self.name()? });
        }
        let view = self.word("VIEW");
        if !view {
            self.need("TRIGGER")?;
        }
        Ok(Statement::DropObject { name: self.name()?, view })
    }

    pub(super) fn on_or_off(&mut self) -> Result<bool, SqlError> {
        if self.word("ON") {
            return Ok(true);
        }
        self.need("OFF")?;
        Ok(false)
    }
}
