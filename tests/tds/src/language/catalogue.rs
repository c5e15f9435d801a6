//! The catalogue as tables: `sys.*` and INFORMATION_SCHEMA, as far as anyone here asks for it.

use super::bind::Binder;
use super::tree::Name;
use crate::store::catalog::{Body, Object};
use crate::store::database::Database;
use crate::store::error::Step;
use crate::store::table::{Column, Table, Transaction, same_name};
use crate::store::{Collation, Kind, Row, SqlError, Type, Value};

type Columns = Vec<(String, Type)>;
type Made = (Columns, Vec<Row>);

pub fn object_type(object: &Object) -> &'static str {
    match object.body {
        Body::Table(_) => "U ",
        Body::View(_) => "V ",
        Body::Trigger { .. } => "TR",
    }
}

pub fn schema_id(database: &Database, name: &str) -> Option<i64> {
    database.schemas.iter().position(|schema| same_name(schema, name)).map(|at| at as i64 + 1)
}

/// `[dbo].[a.b]`, as OBJECT_ID and sp_rename take it.
pub fn split_name(text: &str) -> Name {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' if !quoted => quoted = true,
            ']' if quoted && chars.peek() == Some(&']') => {
                chars.next();
                push(&mut parts, ']');
            }
            ']' if quoted => quoted = false,
            '.' if !quoted => parts.push(String::new()),
            c => push(&mut parts, c),
        }
    }
    parts
}

fn push(parts: &mut [String], c: char) {
    if let Some(last) = parts.last_mut() {
        last.push(c);
    }
}

const NAME: Kind = Kind::NVarChar(Some(128));

/// A view of the catalogue by its name; none where the name is not the catalogue's.
pub fn view(database: &Database, own: Transaction, name: &Name) -> Step<Option<Made>> {
    let [.., schema, last] = name.as_slice() else { return Ok(None) };
    let (schema, last) = (schema.to_lowercase(), last.to_lowercase());
    let mut reader = Reader { database, own };
    let made = match (schema.as_str(), last.as_str()) {
        ("sys", "databases") => reader.databases(),
        ("sys", "schemas") => reader.schemas(),
        ("sys", "types") => reader.types(),
        ("sys", "objects" | "all_objects") => reader.objects(|_| true),
        ("sys", "tables") => reader.objects(|object| matches!(object.body, Body::Table(_))),
        ("sys", "views") => reader.objects(|object| matches!(object.body, Body::View(_))),
        ("sys", "triggers") => reader.triggers(),
        ("sys", "columns" | "all_columns") => reader.columns(),
        ("sys", "indexes") => reader.indexes(),
        ("sys", "index_columns") => reader.index_columns(),
        ("sys", "foreign_keys") => reader.foreign_keys(),
        ("sys", "extended_properties") => reader.properties(),
        ("information_schema", "tables") => reader.information_tables(),
        ("information_schema", "columns") => reader.information_columns(),
        ("sys" | "information_schema", other) => {
            return Err(SqlError::unknown(format!("catalogue view {schema}.{other}")).into());
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

/// A function that has rows.
pub fn function(binder: &mut Binder, name: &Name, arguments: &[Value]) -> Step<Made> {
    let full = name.join(".").to_lowercase();
    if full != "sys.dm_exec_describe_first_result_set" {
        return Err(SqlError::unknown(format!("function {full}")).into());
    }
    let Some(Value::Text(text)) = arguments.first() else {
        return Err(SqlError::unknown("dm_exec_describe_first_result_set of no text").into());
    };
    let query = super::parse::query(text)?;
    let plan = binder.query(&query, None)?;
    let columns = named(&[
        ("is_hidden", Kind::Bit),
        ("column_ordinal", Kind::Int),
        ("name", NAME),
        ("is_nullable", Kind::Bit),
        ("system_type_id", Kind::Int),
        ("system_type_name", NAME),
        ("max_length", Kind::SmallInt),
        ("precision", Kind::TinyInt),
        ("scale", Kind::TinyInt),
        ("collation_name", NAME),
        ("is_identity_column", Kind::Bit),
        ("is_computed_column", Kind::Bit),
        ("error_number", Kind::Int),
        ("error_message", Kind::NVarChar(Some(4000))),
    ]);
    let rows = plan.columns.iter().enumerate().map(|(at, column)| {
        let kind = column.ty.kind;
        let origin = column.origin.unwrap_or_default();
        row([
            no(),
            int(at as i64 + 1),
            if column.name.is_empty() { Value::Null } else { Value::text(&column.name) },
            Value::Bit(column.nullable),
            int(kind.system_id()),
            Value::text(column.ty.declared()),
            int(kind.max_length()),
            int(i64::from(kind.precision())),
            int(i64::from(kind.scale())),
            collation(column.ty),
            Value::Bit(origin.identity),
            Value::Bit(origin.computed),
            Value::Null,
            Value::Null,
        ])
    });
    Ok((columns, rows.collect()))
}

struct Reader<'a> {
    database: &'a Database,
    own: Transaction,
}

impl<'a> Reader<'a> {
    fn seen(&self) -> Vec<&'a Object> {
        let view = self.database.names(self.own);
        self.database.seen_objects(view).collect()
    }

    fn tables(&self) -> Vec<(&'a Object, &'a Table)> {
        self.seen()
            .into_iter()
            .filter_map(|object| match object.body {
                Body::Table(at) => Some((object, self.database.table(at).ok()?)),
                _ => None,
            })
            .collect()
    }

    fn schema(&self, object: &Object) -> Value {
        schema_id(self.database, &object.schema).map_or(Value::Null, Value::Int)
    }

    fn databases(&mut self) -> Made {
        let columns = named(&[
            ("name", NAME),
            ("database_id", Kind::Int),
            ("snapshot_isolation_state", Kind::TinyInt),
            ("snapshot_isolation_state_desc", Kind::NVarChar(Some(60))),
            ("is_read_committed_snapshot_on", Kind::Bit),
            ("collation_name", NAME),
            ("compatibility_level", Kind::TinyInt),
        ]);
        let on = self.database.allow_snapshot;
        let rows = vec![row([
            Value::text(&self.database.name),
            int(5),
            int(i64::from(on)),
            Value::text(if on { "ON" } else { "OFF" }),
            no(),
            Value::text(Collation::usual().name),
            int(110),
        ])];
        (columns, rows)
    }

    fn schemas(&mut self) -> Made {
        let rows = self.database.schemas.iter().enumerate();
        let rows = rows.map(|(at, name)| row([Value::text(name), int(at as i64 + 1), int(1)])).collect();
        (named(&[("name", NAME), ("schema_id", Kind::Int), ("principal_id", Kind::Int)]), rows)
    }

    fn types(&mut self) -> Made {
        let columns = named(&[
            ("name", NAME),
            ("system_type_id", Kind::TinyInt),
            ("user_type_id", Kind::Int),
            ("max_length", Kind::SmallInt),
            ("is_user_defined", Kind::Bit),
        ]);
        let rows = Kind::all().into_iter().map(|kind| {
            row([Value::text(kind.name()), int(kind.system_id()), int(kind.user_id()), int(kind.max_length()), no()])
        });
        (columns, rows.collect())
    }

    fn objects(&mut self, wanted: fn(&Object) -> bool) -> Made {
        let columns = named(&[
            ("name", NAME),
            ("object_id", Kind::Int),
            ("schema_id", Kind::Int),
            ("parent_object_id", Kind::Int),
            ("type", Kind::Char(2)),
            ("type_desc", Kind::NVarChar(Some(60))),
            ("is_ms_shipped", Kind::Bit),
        ]);
        let mut rows = Vec::new();
        for object in self.seen().into_iter().filter(|object| wanted(object)) {
            let (parent, words) = match &object.body {
                Body::Table(_) => (0, "USER_TABLE"),
                Body::View(_) => (0, "VIEW"),
                Body::Trigger { on, .. } => (*on, "SQL_TRIGGER"),
            };
            rows.push(row([
                Value::text(&object.name),
                int(object.id),
                self.schema(object),
                int(parent),
                Value::text(object_type(object)),
                Value::text(words),
                no(),
            ]));
        }
        (columns, rows)
    }

    fn triggers(&mut self) -> Made {
        let columns = named(&[
            ("name", NAME),
            ("object_id", Kind::Int),
            ("parent_id", Kind::Int),
            ("is_disabled", Kind::Bit),
            ("is_instead_of_trigger", Kind::Bit),
        ]);
        let rows = self.seen().into_iter().filter_map(|object| match &object.body {
            Body::Trigger { on, .. } => Some(row([Value::text(&object.name), int(object.id), int(*on), no(), no()])),
            _ => None,
        });
        (columns, rows.collect())
    }

    fn columns(&mut self) -> Made {
        let columns = named(&[
            ("object_id", Kind::Int),
            ("name", NAME),
            ("column_id", Kind::Int),
            ("system_type_id", Kind::TinyInt),
            ("user_type_id", Kind::Int),
            ("max_length", Kind::SmallInt),
            ("precision", Kind::TinyInt),
            ("scale", Kind::TinyInt),
            ("collation_name", NAME),
            ("is_nullable", Kind::Bit),
            ("is_identity", Kind::Bit),
            ("is_computed", Kind::Bit),
            ("default_object_id", Kind::Int),
        ]);
        let mut rows = Vec::new();
        for (object, table) in self.tables() {
            for (at, column) in table.columns.iter().enumerate() {
                let kind = column.ty.kind;
                let default = if column.default.is_some() { object.id + at as i64 + 1 } else { 0 };
                rows.push(row([
                    int(object.id),
                    Value::text(&column.name),
                    int(at as i64 + 1),
                    int(kind.system_id()),
                    int(kind.user_id()),
                    int(kind.max_length()),
                    int(i64::from(kind.precision())),
                    int(i64::from(kind.scale())),
                    collation(column.ty),
                    Value::Bit(column.nullable),
                    Value::Bit(column.identity.is_some()),
                    Value::Bit(column.computed.is_some()),
                    int(default),
                ]));
            }
        }
        (columns, rows)
    }

    fn indexes(&mut self) -> Made {
        let columns = named(&[
            ("object_id", Kind::Int),
            ("name", NAME),
            ("index_id", Kind::Int),
            ("type", Kind::TinyInt),
            ("is_unique", Kind::Bit),
            ("is_primary_key", Kind::Bit),
            ("is_unique_constraint", Kind::Bit),
            ("is_disabled", Kind::Bit),
            ("has_filter", Kind::Bit),
        ]);
        let mut rows = Vec::new();
        for (object, table) in self.tables() {
            for (at, index) in table.indexes.iter().enumerate() {
                rows.push(row([
                    int(object.id),
                    Value::text(&index.name),
                    int(at as i64 + 1),
                    int(if index.clustered { 1 } else { 2 }),
                    Value::Bit(index.unique),
                    Value::Bit(index.primary),
                    Value::Bit(index.constraint && !index.primary),
                    no(),
                    no(),
                ]));
            }
        }
        (columns, rows)
    }

    fn index_columns(&mut self) -> Made {
        let columns = named(&[
            ("object_id", Kind::Int),
            ("index_id", Kind::Int),
            ("index_column_id", Kind::Int),
            ("column_id", Kind::Int),
            ("key_ordinal", Kind::TinyInt),
            ("is_descending_key", Kind::Bit),
            ("is_included_column", Kind::Bit),
        ]);
        let mut rows = Vec::new();
        for (object, table) in self.tables() {
            for (number, index) in table.indexes.iter().enumerate() {
                let keys = index.columns.len();
                for (at, column) in index.columns.iter().chain(&index.included).enumerate() {
                    let included = at >= keys;
                    rows.push(row([
                        int(object.id),
                        int(number as i64 + 1),
                        int(at as i64 + 1),
                        int(*column as i64 + 1),
                        int(if included { 0 } else { at as i64 + 1 }),
                        Value::Bit(index.descending.get(at).copied().unwrap_or(false)),
                        Value::Bit(included),
                    ]));
                }
            }
        }
        (columns, rows)
    }

    fn foreign_keys(&mut self) -> Made {
        let columns = named(&[
            ("name", NAME),
            ("parent_object_id", Kind::Int),
            ("referenced_object_id", Kind::Int),
            ("delete_referential_action", Kind::TinyInt),
            ("is_disabled", Kind::Bit),
        ]);
        let mut rows = Vec::new();
        for (object, table) in self.tables() {
            for key in &table.foreign {
                let cascade = int(i64::from(key.cascade));
                rows.push(row([Value::text(&key.name), int(object.id), int(key.parent), cascade, no()]));
            }
        }
        (columns, rows)
    }

    fn properties(&mut self) -> Made {
        let columns = named(&[
            ("class", Kind::TinyInt),
            ("major_id", Kind::Int),
            ("minor_id", Kind::Int),
            ("name", NAME),
            ("value", Kind::NVarChar(Some(4000))),
        ]);
        let rows = self.database.properties.iter().map(|property| {
            row([
                int(1),
                int(property.object),
                int(property.column),
                Value::text(&property.name),
                Value::text(&property.value),
            ])
        });
        (columns, rows.collect())
    }

    fn information_tables(&mut self) -> Made {
        let columns = named(&[
            ("TABLE_CATALOG", NAME),
            ("TABLE_SCHEMA", NAME),
            ("TABLE_NAME", NAME),
            ("TABLE_TYPE", Kind::VarChar(Some(10))),
        ]);
        let rows = self.tables().into_iter().map(|(object, _)| {
            row([
                Value::text(&self.database.name),
                Value::text(&object.schema),
                Value::text(&object.name),
                Value::text("BASE TABLE"),
            ])
        });
        (columns, rows.collect())
    }

    fn information_columns(&mut self) -> Made {
        let columns = named(&[
            ("TABLE_SCHEMA", NAME),
            ("TABLE_NAME", NAME),
            ("COLUMN_NAME", NAME),
            ("ORDINAL_POSITION", Kind::Int),
            ("IS_NULLABLE", Kind::VarChar(Some(3))),
            ("DATA_TYPE", NAME),
            ("COLLATION_NAME", NAME),
        ]);
        let mut rows = Vec::new();
        for (object, table) in self.tables() {
            for (at, column) in table.columns.iter().enumerate() {
                rows.push(information(object, at, column));
            }
        }
        (columns, rows)
    }
}

fn information(object: &Object, at: usize, column: &Column) -> Row {
    row([
        Value::text(&object.schema),
        Value::text(&object.name),
        Value::text(&column.name),
        int(at as i64 + 1),
        Value::text(if column.nullable { "YES" } else { "NO" }),
        Value::text(column.ty.kind.name()),
        collation(column.ty),
    ])
}

fn named(columns: &[(&str, Kind)]) -> Columns {
    columns.iter().map(|(name, kind)| ((*name).to_owned(), Type::of(*kind))).collect()
}

fn row<const N: usize>(values: [Value; N]) -> Row {
    Row::from(values.to_vec())
}

fn int(value: i64) -> Value {
    Value::Int(value)
}

fn no() -> Value {
    Value::Bit(false)
}

fn collation(ty: Type) -> Value {
    if ty.kind.is_text() && ty.kind != Kind::Xml { Value::text(ty.collation.name) } else { Value::Null }
}
