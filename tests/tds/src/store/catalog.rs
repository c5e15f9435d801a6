//! Objects by name: tables, views, triggers. A name begins and ends with a transaction, as a row does.

use super::table::{Stamp, same_name};

/// Where a temporary table's name lives: its session is part of it.
pub const TEMPORARY: &str = "#";

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The place of the table's rows.
    Table(usize),
    /// The text of its query.
    View(String),
    /// The object it stands on, what it fires for, and the text of its body.
    Trigger { on: i64, insert: bool, update: bool, delete: bool, text: String },
}

#[derive(Clone, Debug)]
pub struct Object {
    pub id: i64,
    pub schema: String,
    pub name: String,
    pub body: Body,
    pub begin: Stamp,
    pub end: Stamp,
}

impl Object {
    pub fn is(&self, schema: &str, name: &str) -> bool {
        same_name(&self.schema, schema) && same_name(&self.name, name)
    }

    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A comment on an object or a column, or another property of either.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub object: i64,
    /// Number of the column, from one; zero for the object itself.
    pub column: i64,
    pub name: String,
    pub value: String,
}
