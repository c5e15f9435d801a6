//! What a server knows of a table, a view or a query: its columns with their types, its keys, its comments. The type that
//! a column has in a contract is decided here and nowhere else.

use super::client::{Client, number, optional, text};
use super::fail::Fail;
use super::place::TableName;
use mysql_async::consts::{ColumnFlags, ColumnType};
use posthouse_protocol::batch::DECIMAL_DIGITS_MAX;
use posthouse_protocol::schema::ContractType;

#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) name: TableName,
    pub(super) kind: Kind,
    /// As in `ENGINE = InnoDB`; empty for a view.
    pub(super) engine: String,
    pub(super) columns: Vec<Column>,
    pub(super) primary: Vec<String>,
    /// The columns of each unique index that covers them whole, the primary key among them.
    pub(super) unique: Vec<Vec<String>>,
    /// About how many rows there are, as the server has it in mind.
    pub(super) rows: Option<u64>,
    pub(super) bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    /// It keeps what its rows were before.
    Versioned,
    View,
    Query,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    pub(super) name: String,
    /// The type's name alone, in small letters.
    pub(super) r#type: String,
    /// As the server writes it, `enum('a','b')`, `bigint(20) unsigned`.
    pub(super) declared: String,
    pub(super) not_null: bool,
    pub(super) charset: Option<String>,
    pub(super) collation: Option<String>,
    pub(super) precision: u64,
    pub(super) scale: u64,
    /// Digits of a second's fraction.
    pub(super) fraction: u32,
    /// Characters of a text, bytes of a binary.
    pub(super) length: u64,
    pub(super) generated: bool,
    pub(super) auto_increment: bool,
    pub(super) has_default: bool,
    pub(super) comment: Option<String>,
    pub(super) check: Option<Check>,
}

/// What a CHECK says that a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Json,
    Number,
}

impl Relation {
    /// None where there is no such table, or the account may not know of it.
    pub(super) fn find(client: &mut Client, name: &TableName) -> Result<Option<Self>, Fail> {
        let by_name = || vec![name.schema.as_str().into(), name.table.as_str().into()];
        let found = client.rows(TABLE, by_name())?;
        let Some([r#type, engine, rows, bytes, ..]) = found.first().map(Vec::as_slice) else { return Ok(None) };
        let kind = match text(r#type).to_ascii_uppercase().as_str() {
            "VIEW" | "SYSTEM VIEW" => Kind::View,
            "SYSTEM VERSIONED" => Kind::Versioned,
            _ => Kind::Table,
        };
        let engine = text(engine);
        let of_table = |value| (kind == Kind::Table).then(|| optional(value).map(|_| number(value))).flatten();
        let (rows, bytes) = (of_table(rows), of_table(bytes));
        let mut columns: Vec<Column> = client.rows(COLUMNS, by_name())?.iter().map(|row| Column::of(row)).collect();
        if client.server.has_checks() && kind != Kind::View {
            let sql = if client.server.mariadb { CHECKS_OF_MARIADB } else { CHECKS_OF_MYSQL };
            for row in client.rows(sql, by_name())? {
                let clause = row.first().map(text).unwrap_or_default();
                for column in columns.iter_mut().filter(|column| column.check.is_none()) {
                    column.check = Check::found(&clause, &column.name);
                }
            }
        }
        let (mut primary, mut unique): (Vec<String>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
        let mut last = None;
        for row in client.rows(KEYS, by_name())? {
            let [index, column, part] = row.as_slice() else { continue };
            let (index, column) = (text(index), optional(column));
            if last.as_ref() != Some(&index) {
                unique.push(Vec::new());
            }
            // A part of a text, or an expression, is not the column.
            let whole = column.filter(|_| optional(part).is_none()).unwrap_or_default();
            if let Some(names) = unique.last_mut() {
                names.push(whole.clone());
            }
            if index == "PRIMARY" {
                primary.push(whole);
            }
            last = Some(index);
        }
        unique.retain(|names| names.iter().all(|name| !name.is_empty()));
        if primary.iter().any(String::is_empty) {
            primary.clear();
        }
        Ok(Some(Self { name: name.clone(), kind, engine, columns, primary, unique, rows, bytes }))
    }

    /// A query's columns are known by what the server says of its result.
    pub(super) fn of_query(client: &mut Client, name: TableName, sql: &str) -> Result<Self, Fail> {
        let columns = client.columns(sql)?.iter().map(Column::of_result).collect();
        let (primary, unique) = (Vec::new(), Vec::new());
        Ok(Self { name, kind: Kind::Query, engine: String::new(), columns, primary, unique, rows: None, bytes: None })
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the server keeps at most one row for each value of these columns, NULL being none.
    pub(super) fn keeps_unique(&self, key: &[String]) -> bool {
        let no_nulls = key.iter().all(|name| self.column(name).is_some_and(|column| column.not_null));
        no_nulls && self.unique.iter().any(|index| index.iter().all(|name| key.contains(name)))
    }

    /// Whether a unique index is over exactly these columns.
    pub(super) fn is_unique(&self, key: &[String]) -> bool {
        let same = |index: &&Vec<String>| index.len() == key.len() && index.iter().all(|name| key.contains(name));
        !key.is_empty() && self.unique.iter().any(|index| same(&index))
    }

    /// Whether a snapshot holds its rows still.
    pub(super) fn has_snapshots(&self) -> bool {
        SNAPSHOTS.contains(&self.engine.to_ascii_lowercase().as_str())
    }
}

impl Column {
    fn of(row: &[mysql_async::Value]) -> Self {
        let at = |index: usize| row.get(index).map(text).unwrap_or_default();
        let maybe = |index: usize| row.get(index).and_then(optional);
        let count = |index: usize| row.get(index).map_or(0, number);
        let extra = at(12).to_ascii_lowercase();
        Self {
            name: at(0),
            r#type: at(1).to_ascii_lowercase(),
            declared: at(2),
            not_null: at(3) == "NO",
            charset: maybe(4),
            collation: maybe(5),
            precision: count(6),
            scale: count(7),
            fraction: u32::try_from(count(8)).unwrap_or(0),
            length: count(9),
            comment: maybe(10).filter(|text| !text.is_empty()),
            // MariaDB writes an absent default of a column that takes NULL as that word.
            has_default: maybe(11).is_some(),
            generated: extra.contains("generated") && !extra.contains("default_generated")
                || extra.contains("virtual")
                || extra.contains("persistent"),
            auto_increment: extra.contains("auto_increment"),
            check: None,
        }
    }

    fn of_result(column: &mysql_async::Column) -> Self {
        let flags = column.flags();
        let unsigned = flags.contains(ColumnFlags::UNSIGNED_FLAG);
        let binary = column.character_set() == BINARY;
        let (length, decimals) = (u64::from(column.column_length()), u64::from(column.decimals()));
        use ColumnType::*;
        let r#type = match column.column_type() {
            MYSQL_TYPE_TINY => "tinyint",
            MYSQL_TYPE_SHORT => "smallint",
            MYSQL_TYPE_INT24 => "mediumint",
            MYSQL_TYPE_LONG => "int",
            MYSQL_TYPE_LONGLONG => "bigint",
            MYSQL_TYPE_YEAR => "year",
            MYSQL_TYPE_BIT => "bit",
            MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => "decimal",
            MYSQL_TYPE_FLOAT => "float",
            MYSQL_TYPE_DOUBLE => "double",
            MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => "date",
            MYSQL_TYPE_DATETIME | MYSQL_TYPE_TIMESTAMP => "datetime",
            MYSQL_TYPE_TIME => "time",
            MYSQL_TYPE_JSON => "json",
            MYSQL_TYPE_GEOMETRY => "geometry",
            MYSQL_TYPE_ENUM | MYSQL_TYPE_SET => "varchar",
            MYSQL_TYPE_STRING if binary => "binary",
            MYSQL_TYPE_STRING if flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) => "varchar",
            MYSQL_TYPE_STRING => "char",
            MYSQL_TYPE_VAR_STRING | MYSQL_TYPE_VARCHAR if binary => "varbinary",
            MYSQL_TYPE_VAR_STRING | MYSQL_TYPE_VARCHAR => "varchar",
            MYSQL_TYPE_BLOB | MYSQL_TYPE_TINY_BLOB | MYSQL_TYPE_MEDIUM_BLOB | MYSQL_TYPE_LONG_BLOB if binary => {
                "longblob"
            }
            MYSQL_TYPE_BLOB | MYSQL_TYPE_TINY_BLOB | MYSQL_TYPE_MEDIUM_BLOB | MYSQL_TYPE_LONG_BLOB => "longtext",
            _ => "unknown",
        };
        let (precision, scale) = match r#type {
            // The length counts the sign and the point too.
            "decimal" => {
                (length.saturating_sub(u64::from(!unsigned)).saturating_sub(u64::from(decimals > 0)), decimals)
            }
            _ => (length, 0),
        };
        let declared = format!("{}{}", r#type, if unsigned { " unsigned" } else { "" });
        let fraction = u32::from(column.decimals()).min(6);
        let not_null = flags.contains(ColumnFlags::NOT_NULL_FLAG);
        let (name, r#type) = (column.name_str().into_owned(), r#type.to_owned());
        Self { name, r#type, declared, not_null, precision, scale, fraction, length, ..Self::default() }
    }

    pub(super) fn is_unsigned(&self) -> bool {
        self.declared.to_ascii_lowercase().contains("unsigned")
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.r#type.as_str(), "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext")
    }

    /// The type of its values in a contract; none where they cannot move.
    pub(super) fn contract_type(&self) -> Option<ContractType> {
        Some(match self.r#type.as_str() {
            "bigint" if self.is_unsigned() => ContractType::Decimal { precision: 20, scale: 0 },
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "year" => ContractType::Integer,
            "bit" => match self.precision {
                0 | 1 => ContractType::Boolean,
                2..=63 => ContractType::Integer,
                _ => ContractType::Decimal { precision: 20, scale: 0 },
            },
            "decimal" | "numeric" => match (u8::try_from(self.precision), i8::try_from(self.scale)) {
                (Ok(precision), Ok(scale)) if (1..=DECIMAL_DIGITS_MAX).contains(&precision) => {
                    ContractType::Decimal { precision, scale }
                }
                _ => ContractType::Number,
            },
            "float" | "double" | "real" => ContractType::Float,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => match self.check {
                Some(Check::Json) => ContractType::Json,
                Some(Check::Number) => ContractType::Number,
                None if self.r#type == "char" => ContractType::Char,
                None => ContractType::Text,
            },
            "json" => ContractType::Json,
            "enum" | "set" | "time" | "uuid" | "inet4" | "inet6" => ContractType::Text,
            "date" => ContractType::Date,
            "datetime" | "timestamp" => ContractType::Timestamp,
            other if is_bytes(other) || is_spatial(other) => ContractType::Bytes,
            _ => return None,
        })
    }

    /// The labels of an enumeration or a set, in order.
    pub(super) fn labels(&self) -> Vec<String> {
        let list = self.declared.split_once('(').map_or("", |(_, list)| list.strip_suffix(')').unwrap_or(list));
        let (mut labels, mut left) = (Vec::new(), list.chars().peekable());
        while left.next() == Some('\'') {
            let mut label = String::new();
            loop {
                match left.next() {
                    Some('\'') if left.next_if_eq(&'\'').is_none() => break,
                    // What the server writes behind a backslash.
                    Some('\\') => match left.next() {
                        Some('n') => label.push('\n'),
                        Some('r') => label.push('\r'),
                        Some('0') => label.push('\0'),
                        Some(other) => label.push(other),
                        None => return labels,
                    },
                    Some(other) => label.push(other),
                    None => return labels,
                }
            }
            labels.push(label);
            if left.next() != Some(',') {
                break;
            }
        }
        labels
    }
}

impl Check {
    /// What a CHECK's text, as the server keeps it, says of a column.
    fn found(clause: &str, column: &str) -> Option<Self> {
        let name = super::place::quote(column);
        let clause = clause.replace("\\'", "'");
        if clause.trim_matches(['(', ')']) == format!("json_valid({name}").as_str() {
            return Some(Self::Json);
        }
        (clause.contains(&name) && clause.contains(NUMBER)).then_some(Self::Number)
    }
}

/// Columns of a table that give a row its number where it brings none.
pub(super) fn numbering(client: &mut Client, table: &TableName) -> Result<Vec<String>, Fail> {
    let rows = client.rows(NUMBERING, vec![table.schema.as_str().into(), table.table.as_str().into()])?;
    Ok(rows.iter().filter_map(|row| row.first().map(text)).collect())
}

pub(super) fn is_bytes(r#type: &str) -> bool {
    matches!(r#type, "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector")
}

pub(super) fn is_spatial(r#type: &str) -> bool {
    matches!(
        r#type,
        "geometry"
            | "point"
            | "linestring"
            | "polygon"
            | "multipoint"
            | "multilinestring"
            | "multipolygon"
            | "geometrycollection"
            | "geomcollection"
    )
}

/// What a text that holds a number of any length matches.
pub(super) const NUMBER: &str = "^(-?[0-9]+([.][0-9]+)?|NaN|-?Infinity)$";
const SNAPSHOTS: &[&str] = &["innodb", "rocksdb", "tokudb", "xengine", "oceanbase"];
/// Number of the character set of values that are bytes.
const BINARY: u16 = 63;

const TABLE: &str = "SELECT TABLE_TYPE, ENGINE, TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES
  WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";

const COLUMNS: &str = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME,
  NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_MAXIMUM_LENGTH, COLUMN_COMMENT, COLUMN_DEFAULT, EXTRA
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";

const NUMBERING: &str = "SELECT COLUMN_NAME FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND EXTRA LIKE '%auto_increment%'";

const KEYS: &str = "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS
  WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX";

const CHECKS_OF_MARIADB: &str = "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
  WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";

const CHECKS_OF_MYSQL: &str = "SELECT c.CHECK_CLAUSE FROM information_schema.TABLE_CONSTRAINTS t
  JOIN information_schema.CHECK_CONSTRAINTS c
    ON c.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA AND c.CONSTRAINT_NAME = t.CONSTRAINT_NAME
  WHERE t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ? AND t.CONSTRAINT_TYPE = 'CHECK'";

#[cfg(test)]
mod tests {
    use super::*;

    fn column(r#type: &str, declared: &str, precision: u64, scale: u64) -> Column {
        let (r#type, declared) = (r#type.to_owned(), declared.to_owned());
        Column { r#type, declared, precision, scale, ..Column::default() }
    }

    #[test]
    fn columns_are_what_people_mean_by_them() {
        use ContractType::*;
        let whole = Decimal { precision: 20, scale: 0 };
        for (r#type, declared, precision, scale, expected) in [
            ("tinyint", "tinyint(1)", 3, 0, Integer),
            ("bigint", "bigint(20)", 19, 0, Integer),
            ("bigint", "bigint(20) unsigned", 20, 0, whole),
            ("bit", "bit(1)", 1, 0, Boolean),
            ("bit", "bit(63)", 63, 0, Integer),
            ("bit", "bit(64)", 64, 0, whole),
            ("decimal", "decimal(38,10)", 38, 10, Decimal { precision: 38, scale: 10 }),
            ("decimal", "decimal(65,30)", 65, 30, Number),
            ("year", "year(4)", 0, 0, Integer),
            ("time", "time(3)", 0, 0, Text),
            ("set", "set('x')", 0, 0, Text),
            ("point", "point", 0, 0, Bytes),
            ("timestamp", "timestamp(6)", 0, 0, Timestamp),
        ] {
            assert_eq!(column(r#type, declared, precision, scale).contract_type(), Some(expected), "{declared}");
        }
        assert_eq!(column("sometype", "sometype", 0, 0).contract_type(), None);
    }

    #[test]
    fn a_check_tells_what_a_text_holds() {
        assert_eq!(Check::found("json_valid(`a`)", "a"), Some(Check::Json));
        assert_eq!(Check::found("(json_valid(`a`))", "a"), Some(Check::Json));
        assert_eq!(Check::found("json_valid(`ab`)", "a"), None);
        assert_eq!(Check::found("json_valid(`a`) or `a` = ''", "a"), None);
        assert_eq!(Check::found(&format!("`a` regexp '{NUMBER}'"), "a"), Some(Check::Number));
        assert_eq!(Check::found("`a` > 5", "a"), None);
    }

    #[test]
    fn labels_are_taken_out_of_their_quotes() {
        assert_eq!(column("enum", "enum('a','it''s','','b,c')", 0, 0).labels(), ["a", "it's", "", "b,c"]);
        assert_eq!(column("set", "set('x')", 0, 0).labels(), ["x"]);
        let escaped = column("enum", r"enum('a\\b','\n','\0''','c\\')", 0, 0).labels();
        assert_eq!(escaped, ["a\\b", "\n", "\0'", "c\\"]);
        assert_eq!(column("enum", "enum('open", 0, 0).labels(), Vec::<String>::new());
    }
}
