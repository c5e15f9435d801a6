//! What a database says of its tables: columns with their types down to the base, keys, comments, size.
//! Types are told in the grammar of [`NativeType`]; one that has no place in it is named, and refused by
//! whoever wants to move its column.

use super::ddl;
use super::wire::{Client, WireError, json_text};
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::pgcopy::native::Plain;
use std::collections::BTreeMap;
use std::fmt;

/// A table's name in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// `table`, `schema.table`, each part bare or in double quotes. Bare parts are taken as they are written:
    /// a name in a configuration is the name in the catalogue. None for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, rest) = part(text)?;
        let (schema, table) = match rest {
            "" => (DEFAULT_SCHEMA.to_owned(), first),
            rest => {
                let (second, rest) = part(rest.strip_prefix('.')?)?;
                if !rest.is_empty() {
                    return None;
                }
                (first, second)
            }
        };
        let fits = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
        (fits(&schema) && fits(&table)).then_some(Self { schema, table })
    }
}

impl fmt::Display for TableName {
    /// As SQL names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// The part up to the first dot outside of quotes, and what follows it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.contains('"')).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

/// An identifier as SQL has it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Identifiers as SQL has them, separated by commas.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A text as SQL has it, under `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table, or what reads like one.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) name: TableName,
    pub(super) kind: Kind,
    pub(super) columns: Vec<Column>,
    pub(super) comment: Option<String>,
    /// Columns of the primary key, in its order; empty where there is none.
    pub(super) primary: Vec<String>,
    /// Columns of unique indexes that hold for all rows, the primary key's among them.
    pub(super) unique: Vec<Vec<String>>,
    /// The planner's estimate; none before the first analysis.
    pub(super) rows: Option<u64>,
    /// Blocks of the largest heap below it (of itself, of its partitions, of what inherits from it); none where rows
    /// come from elsewhere too.
    pub(super) blocks: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Partitioned,
    View,
    Materialised,
    Foreign,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// As the engine writes it, `timestamp(3) without time zone`.
    pub(super) declared: String,
    /// The type alone, without what bounds its values.
    pub(super) plain: String,
    pub(super) is_domain: bool,
    /// What its values are cast to, where their binary form would name a type that only this database has: an array
    /// of a domain says of its elements that they are one.
    pub(super) read_as: Option<String>,
    /// Domains as what they are made of; none for a type that has no place in the grammar.
    pub(super) native: Option<NativeType>,
    pub(super) not_null: bool,
    /// Computed from others, or from a sequence that takes no other value.
    pub(super) generated: bool,
    pub(super) identity: bool,
    pub(super) identity_always: bool,
    pub(super) has_default: bool,
    pub(super) comment: Option<String>,
}

impl Relation {
    /// None where there is no such table, or the account may not know of it.
    pub(super) fn find(client: &mut Client, name: &TableName) -> Result<Option<Self>, WireError> {
        let found = client.query(RELATION, &[Some(&name.schema), Some(&name.table)])?;
        let Some(row) = found.first() else { return Ok(None) };
        let oid = row.number(0)?;
        let kind = match row.text(1)? {
            "p" => Kind::Partitioned,
            "v" => Kind::View,
            "m" => Kind::Materialised,
            "f" => Kind::Foreign,
            _ => Kind::Table,
        };
        let rows = row.optional(2).and_then(|rows| rows.parse::<f64>().ok()).filter(|rows| *rows >= 0.0);
        let blocks = row.optional(3).map(|_| row.number(3)).transpose()?;
        let comment = row.optional(4).map(str::to_owned);
        let (primary, unique) = keys(client, oid)?;
        let columns = columns(client, oid)?;
        let rows = rows.map(|rows| rows as u64);
        Ok(Some(Self { oid, name: name.clone(), kind, columns, comment, primary, unique, rows, blocks }))
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the engine keeps at most one row for each value of these columns, NULL being none.
    pub(super) fn keeps_unique(&self, key: &[String]) -> bool {
        let covers = |index: &Vec<String>| index.iter().all(|name| key.contains(name));
        let no_nulls = key.iter().all(|name| self.column(name).is_some_and(|column| column.not_null));
        no_nulls && self.unique.iter().any(covers)
    }
}

impl Column {
    /// Whether values are rounded or cut when they come in, without a word.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.element(), Some(NativeType::Timed(..))) || self.has_fields()
    }
    /// Whether it is an interval of some fields only, `interval day to hour`, of which the grammar knows the digits at
    /// most. A domain does not show which it has.
    pub(super) fn has_fields(&self) -> bool {
        let is_interval = self.element().and_then(NativeType::plain) == Some(Plain::Interval);
        is_interval && (self.is_domain || self.declared.contains(' '))
    }
    /// Its type, or that of an array's elements.
    fn element(&self) -> Option<&NativeType> {
        match self.native.as_ref()? {
            NativeType::Array(element) => Some(element),
            native => Some(native),
        }
    }
}

/// The primary key, and all unique indexes without a condition, by their columns.
fn keys(client: &mut Client, oid: u32) -> Result<(Vec<String>, Vec<Vec<String>>), WireError> {
    let (mut primary, mut unique) = (Vec::new(), Vec::new());
    for row in
        client.query(&KEYS.replace("{columns}", ddl::key_columns(client.version())), &[Some(&oid.to_string())])?
    {
        let names: Vec<String> = serde_json::from_str(&json_text(client.charset(), row.text(1)?))
            .map_err(|_| WireError::Protocol("the catalogue lists an index in no known form".to_owned()))?;
        if row.flag(0)? {
            primary.clone_from(&names);
        }
        unique.push(names);
    }
    Ok((primary, unique))
}

fn columns(client: &mut Client, oid: u32) -> Result<Vec<Column>, WireError> {
    // Before 10 and 12 there were no such columns.
    let identity = if client.version() >= 100_000 { "a.attidentity" } else { "''" };
    let generated = if client.version() >= 120_000 { "a.attgenerated" } else { "''" };
    let sql = format!(
        "SELECT a.attname, a.atttypid, a.atttypmod, a.attnotnull, {generated}, {identity}, a.atthasdef,
                pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.col_description(a.attrelid, a.attnum),
                pg_catalog.format_type(a.atttypid, -1), y.typtype = 'd'
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
         WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let rows = client.query(&sql, &[Some(&oid.to_string())])?;
    let mut types = Types::default();
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let (r#type, modifier) = (row.number(1)?, row.number(2)?);
        let native = types.native(client, r#type, modifier, 0)?.and_then(|native| native.parse::<NativeType>().ok());
        let read_as = match types.is_array_of_domain(client, r#type)? {
            true => native.as_ref().and_then(|native| ddl::sql_type(native, client.version())),
            false => None,
        };
        columns.push(Column {
            name: row.text(0)?.to_owned(),
            declared: row.text(7)?.to_owned(),
            native,
            read_as,
            not_null: row.flag(3)?,
            generated: !row.text(4)?.is_empty(),
            plain: row.text(9)?.to_owned(),
            is_domain: row.flag(10)?,
            identity: !row.text(5)?.is_empty(),
            identity_always: row.text(5)? == "a",
            has_default: row.flag(6)?,
            comment: row.optional(8).map(str::to_owned),
        });
    }
    Ok(columns)
}

/// Types as the catalogue has them, each asked for once.
#[derive(Default)]
struct Types {
    known: BTreeMap<u64, Described>,
}

#[derive(Debug, Clone)]
struct Described {
    schema: String,
    name: String,
    /// As in `pg_type.typtype`.
    kind: String,
    element: u64,
    base: u64,
    base_modifier: i32,
    relation: u64,
    /// Of a range or a multirange.
    subtype: u64,
}

impl Described {
    fn is_array(&self) -> bool {
        self.element != 0 && self.name.starts_with('_')
    }
}

impl Types {
    /// The text of a type in the grammar; none for one that has no place in it.
    fn native(
        &mut self,
        client: &mut Client,
        oid: u64,
        modifier: i32,
        depth: usize,
    ) -> Result<Option<String>, WireError> {
        if depth > DEPTH_MAX {
            return Ok(None);
        }
        let Some(found) = self.describe(client, oid)? else { return Ok(None) };
        let system = found.schema == "pg_catalog";
        let inner = |text: Option<String>, around: &str| text.map(|text| around.replace('T', &text));
        Ok(match found.kind.as_str() {
            "d" => self.native(client, found.base, found.base_modifier, depth + 1)?,
            "e" => Some("enum".to_owned()),
            "r" | "m" => {
                let around = if found.kind == "r" { "range<T>" } else { "multirange<T>" };
                // The engine's own ranges of whole numbers and days have one form for equal ranges; others have not.
                let bound = self.native(client, found.subtype, -1, depth + 1)?;
                inner(bound.filter(|bound| system || !DISCRETE.contains(&bound.as_str())), around)
            }
            "c" => self.composite(client, found.relation, depth)?,
            "b" if found.is_array() => inner(self.native(client, found.element, modifier, depth + 1)?, "T[]"),
            "b" if system => Some(scalar(&found.name, modifier)),
            _ => None,
        })
    }

    /// Whether it is one, below any domains of its own.
    fn is_array_of_domain(&mut self, client: &mut Client, oid: u64) -> Result<bool, WireError> {
        let (mut oid, mut within_array) = (oid, false);
        while let Some(found) = self.describe(client, oid)? {
            match found.kind.as_str() {
                "d" if within_array => return Ok(true),
                "d" => oid = found.base,
                "b" if !within_array && found.is_array() => (oid, within_array) = (found.element, true),
                _ => break,
            }
        }
        Ok(false)
    }

    fn composite(&mut self, client: &mut Client, relation: u64, depth: usize) -> Result<Option<String>, WireError> {
        let fields = client.query(FIELDS, &[Some(&relation.to_string())])?;
        let mut texts = Vec::with_capacity(fields.len());
        for row in &fields {
            match self.native(client, row.number(0)?, row.number(1)?, depth + 1)? {
                Some(text) => texts.push(text),
                None => return Ok(None),
            }
        }
        Ok(Some(format!("composite<{}>", texts.join(","))))
    }

    fn describe(&mut self, client: &mut Client, oid: u64) -> Result<Option<Described>, WireError> {
        if let Some(known) = self.known.get(&oid) {
            return Ok(Some(known.clone()));
        }
        let subtype = match client.version() {
            140_000.. => {
                "coalesce((SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)), 0)"
            }
            _ => "coalesce((SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid = r.rngtypid), 0)",
        };
        let sql = format!(
            "SELECT n.nspname, t.typname, t.typtype, t.typelem, t.typbasetype, t.typtypmod, t.typrelid, {subtype}
             FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = $1::oid"
        );
        let rows = client.query(&sql, &[Some(&oid.to_string())])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let found = Described {
            schema: row.text(0)?.to_owned(),
            name: row.text(1)?.to_owned(),
            kind: row.text(2)?.to_owned(),
            element: row.number(3)?,
            base: row.number(4)?,
            base_modifier: row.number(5)?,
            relation: row.number(6)?,
            subtype: row.number(7)?,
        };
        self.known.insert(oid, found.clone());
        Ok(Some(found))
    }
}

/// A built-in type with what its modifier says, where that bears on its values.
fn scalar(name: &str, modifier: i32) -> String {
    let length = modifier.saturating_sub(4);
    match name {
        "numeric" if length >= 0 => {
            // The scale has 11 bits and, from 15 on, a sign.
            let scale = ((length & 0x7ff) ^ 1024) - 1024;
            format!("numeric({},{scale})", (length >> 16) & 0xffff)
        }
        "varchar" | "bpchar" if length > 0 => format!("{name}({length})"),
        "time" | "timetz" | "timestamp" | "timestamptz" if modifier >= 0 => format!("{name}({modifier})"),
        // Its fields stand above the digits; all bits of these say that none are declared.
        "interval" if modifier >= 0 && modifier & 0xffff != 0xffff => format!("{name}({})", modifier & 0xffff),
        "bit" | "varbit" if modifier > 0 => format!("{name}({modifier})"),
        "char" => "\"char\"".to_owned(),
        _ => name.to_owned(),
    }
}

const DEFAULT_SCHEMA: &str = "public";
/// `NAMEDATALEN` of a server as it is built by everyone, less its end mark.
const NAME_BYTES_MAX: usize = 63;
/// Domains over arrays of composites…: the grammar itself ends earlier.
const DEPTH_MAX: usize = 16;

const RELATION: &str = "SELECT c.oid, c.relkind, c.reltuples,
       (SELECT CASE WHEN pg_catalog.bool_and(h.kind IN ('r', 'p', 'm')) THEN coalesce(max(h.size), 0) END
        FROM (WITH RECURSIVE below(oid) AS (
                SELECT c.oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid)
              SELECT k.relkind AS kind, CASE WHEN k.relkind IN ('r', 'm')
                THEN pg_catalog.pg_relation_size(k.oid) / pg_catalog.current_setting('block_size')::bigint END AS size
              FROM below b JOIN pg_catalog.pg_class k ON k.oid = b.oid) h),
       pg_catalog.obj_description(c.oid, 'pg_class')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

const KEYS: &str = "SELECT i.indisprimary, pg_catalog.json_agg(a.attname ORDER BY k.place)
  FROM pg_catalog.pg_index i
  CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(number, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
  WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    AND k.place <= {columns}
  GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid";

/// Types with a next value, over which a range can be written in several ways.
const DISCRETE: [&str; 3] = ["int4", "int8", "date"];

const FIELDS: &str = "SELECT a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_as_the_catalogue_has_it() {
        let name = |text: &str| TableName::parse(text).map(|name| name.to_string());
        assert_eq!(name("permits").as_deref(), Some(r#""public"."permits""#));
        assert_eq!(name("审批.许可 证").as_deref(), Some(r#""审批"."许可 证""#));
        assert_eq!(name(r#""a.b"."c""d""#).as_deref(), Some(r#""a.b"."c""d""#));
        for wrong in ["", ".", "a.", ".b", "a.b.c", r#""a"#, r#"a"b"#, r#""a"b"#] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn modifiers_that_bear_on_values_are_part_of_the_type() {
        assert_eq!(scalar("numeric", ((18 << 16) | 2) + 4), "numeric(18,2)");
        assert_eq!(scalar("numeric", ((5 << 16) | (0x7ff & -3)) + 4), "numeric(5,-3)");
        assert_eq!(scalar("numeric", -1), "numeric");
        assert_eq!(scalar("varchar", 24), "varchar(20)");
        assert_eq!(scalar("bit", 8), "bit(8)");
        assert_eq!(scalar("timestamptz", 3), "timestamptz(3)");
        assert_eq!(scalar("timestamp", -1), "timestamp");
        assert_eq!(scalar("interval", (0x7fff << 16) | 3), "interval(3)");
        assert_eq!(scalar("interval", (6 << 16) | 0xffff), "interval");
    }
}
