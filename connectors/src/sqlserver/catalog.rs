//! What stands in the database: tables and views with their columns, keys and what refers to them, as the system's
//! own views tell it to this account.

use super::client::{Client, SqlError, number, param, text};
use super::codepage::Page;
use super::kind::{Described, Kind, Mark};
use super::name::TableName;
use tiberius::{ColumnData, Row};

#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) name: TableName,
    pub(super) id: i32,
    pub(super) is_table: bool,
    pub(super) columns: Vec<Column>,
    /// Columns of each index that keeps them unique over all rows, the primary key's first.
    pub(super) unique: Vec<Vec<String>>,
    pub(super) has_primary: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// None of a type that does not move.
    pub(super) kind: Option<Kind>,
    /// As people know the type.
    pub(super) declared: String,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    pub(super) identity: bool,
    pub(super) computed: bool,
    pub(super) has_default: bool,
    pub(super) mark: Option<Mark>,
    pub(super) comment: Option<String>,
}

impl Column {
    /// Whether the table itself says what stands there.
    pub(super) fn is_its_own(&self) -> bool {
        self.computed || self.kind == Some(Kind::RowVersion)
    }
}

impl Relation {
    /// None where there is no such table or view, or the account may not see it.
    pub(super) fn find(client: &mut Client, name: &TableName) -> Result<Option<Self>, SqlError> {
        let rows = client.query(OBJECT, &[param(&name.schema), param(&name.table)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id =
            number(row, 0).and_then(|id| i32::try_from(id).ok()).ok_or_else(|| odd("an object without a number"))?;
        let is_table = match text(row, 1).unwrap_or_default().trim_end() {
            "U" => true,
            "V" => false,
            _ => return Ok(None),
        };
        let columns = client.query(COLUMNS, &[object(id)])?.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let mut relation = Self { name: name.clone(), id, is_table, columns, unique: Vec::new(), has_primary: false };
        relation.read_keys(client)?;
        Ok(Some(relation))
    }

    fn read_keys(&mut self, client: &mut Client) -> Result<(), SqlError> {
        let mut before = None;
        for row in client.query(KEYS, &[object(self.id)])? {
            let index = number(&row, 0);
            self.has_primary |= number(&row, 1) == Some(1);
            if before != Some(index) {
                self.unique.push(Vec::new());
            }
            before = Some(index);
            let name = text(&row, 2).unwrap_or_default().to_owned();
            if let Some(columns) = self.unique.last_mut() {
                columns.push(name);
            }
        }
        Ok(())
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
    pub(super) fn primary(&self) -> &[String] {
        self.unique.first().filter(|_| self.has_primary).map_or(&[], Vec::as_slice)
    }
    /// Whether the engine keeps exactly this key unique, without NULL in it.
    pub(super) fn keeps_unique(&self, key: &[String]) -> bool {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let is_whole = key.iter().all(|name| self.column(name).is_some_and(|column| column.not_null));
        is_whole && self.unique.iter().any(|columns| sorted(columns) == sorted(key))
    }

    /// Columns on one line, as the table declares them.
    pub(super) fn text(&self) -> String {
        let column = |column: &Column| {
            let null = if column.not_null { " not null" } else { "" };
            let own = if column.is_its_own() { " (the table's own)" } else { "" };
            format!("{} {}{null}{own}", column.name, column.declared)
        };
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }
}

/// Whether there is something of this name.
pub(super) fn is_there(client: &mut Client, name: &TableName) -> Result<bool, SqlError> {
    Ok(!client.query(OBJECT, &[param(&name.schema), param(&name.table)])?.is_empty())
}

/// The columns of a query.
pub(super) fn of_query(client: &mut Client, query: &str) -> Result<Vec<Column>, SqlError> {
    let rows = client.query(QUERY, &[param(query)])?;
    let column = |row: &Row| {
        let kind = kind(row)?;
        let name = text(row, 0).unwrap_or_default().to_owned();
        let declared = text(row, 8).map(str::to_owned).unwrap_or_default();
        Ok(Column {
            name,
            kind,
            declared,
            collation: text(row, 5).map(str::to_owned),
            not_null: number(row, 7) == Some(0),
            identity: false,
            computed: false,
            has_default: false,
            mark: None,
            comment: None,
        })
    };
    rows.iter().map(column).collect()
}

fn column(row: &Row) -> Result<Column, SqlError> {
    let kind = kind(row)?;
    let declared = match kind {
        Some(kind) => kind.declare(),
        None => {
            let of_collation = text(row, 5).map(|collation| format!(" in {collation}")).unwrap_or_default();
            format!("{}{of_collation}", text(row, 11).unwrap_or("a type of its own"))
        }
    };
    Ok(Column {
        name: text(row, 0).ok_or_else(|| odd("a column without a name"))?.to_owned(),
        kind,
        declared,
        collation: text(row, 5).map(str::to_owned),
        not_null: number(row, 7) == Some(0),
        identity: number(row, 8) == Some(1),
        computed: number(row, 9) == Some(1),
        has_default: number(row, 10).unwrap_or_default() != 0,
        mark: text(row, 12).and_then(Mark::parse),
        comment: text(row, 13).filter(|comment| !comment.is_empty()).map(str::to_owned),
    })
}

/// The first seven values of both catalogues describe a type.
fn kind(row: &Row) -> Result<Option<Kind>, SqlError> {
    let at = |index: usize| number(row, index).ok_or_else(|| odd("a type without its numbers"));
    let page = number(row, 6).and_then(Page::of);
    let described = Described { id: at(1)?, length: at(2)?, precision: at(3)?, scale: at(4)?, page };
    Ok(Kind::of(described))
}

/// Foreign keys of other tables that refer to one; of each whether its rows would go, or change, with those here.
pub(super) fn referrers(client: &mut Client, id: i32) -> Result<Vec<(String, bool)>, SqlError> {
    let rows = client.query(REFERRERS, &[object(id)])?;
    Ok(rows.iter().map(|row| (text(row, 0).unwrap_or_default().to_owned(), number(row, 1) != Some(0))).collect())
}

/// Whether a reader can have a snapshot of the whole database.
pub(super) fn has_snapshots(client: &mut Client) -> Result<bool, SqlError> {
    Ok(client.number(SNAPSHOTS, &[])? == Some(1))
}

pub(super) fn has_schema(client: &mut Client, schema: &str) -> Result<bool, SqlError> {
    let sql = "SELECT COUNT_BIG(*) FROM sys.schemas AS s WHERE s.name = @P1";
    Ok(client.count(sql, &[param(schema)])? > 0)
}

fn object(id: i32) -> ColumnData<'static> {
    ColumnData::I32(Some(id))
}

fn odd(what: &str) -> SqlError {
    SqlError::Odd(format!("the catalogue lists {what}"))
}

const OBJECT: &str = "SELECT o.object_id, o.type FROM sys.objects AS o \
     INNER JOIN sys.schemas AS s ON s.schema_id = o.schema_id WHERE s.name = @P1 AND o.name = @P2";

const COLUMNS: &str = "SELECT c.name, c.system_type_id, c.max_length, c.precision, c.scale, c.collation_name, \
     CAST(COLLATIONPROPERTY(c.collation_name, N'CodePage') AS int), c.is_nullable, c.is_identity, c.is_computed, \
     c.default_object_id, TYPE_NAME(c.user_type_id), CAST(p.value AS nvarchar(4000)), CAST(d.value AS nvarchar(4000)) \
     FROM sys.columns AS c \
     LEFT JOIN sys.extended_properties AS p ON p.class = 1 AND p.major_id = c.object_id AND p.minor_id = c.column_id \
     AND p.name = N'posthouse_type' \
     LEFT JOIN sys.extended_properties AS d ON d.class = 1 AND d.major_id = c.object_id AND d.minor_id = c.column_id \
     AND d.name = N'MS_Description' \
     WHERE c.object_id = @P1 ORDER BY c.column_id";

const KEYS: &str = "SELECT i.index_id, i.is_primary_key, c.name FROM sys.indexes AS i \
     INNER JOIN sys.index_columns AS k ON k.object_id = i.object_id AND k.index_id = i.index_id \
     INNER JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id \
     WHERE i.object_id = @P1 AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0 AND k.is_included_column = 0 \
     ORDER BY i.is_primary_key DESC, i.index_id, k.key_ordinal";

const REFERRERS: &str = "SELECT f.name, f.delete_referential_action FROM sys.foreign_keys AS f \
     WHERE f.referenced_object_id = @P1 AND f.parent_object_id <> @P1";

const SNAPSHOTS: &str = "SELECT d.snapshot_isolation_state FROM sys.databases AS d WHERE d.name = DB_NAME()";

const QUERY: &str = "SELECT r.name, r.system_type_id, r.max_length, r.precision, r.scale, r.collation_name, \
     CAST(COLLATIONPROPERTY(r.collation_name, N'CodePage') AS int), r.is_nullable, r.system_type_name \
     FROM sys.dm_exec_describe_first_result_set(@P1, NULL, 0) AS r WHERE r.is_hidden = 0 ORDER BY r.column_ordinal";
