//! The contract's columns as they are staged and as the target has them: whether the target's keep every value,
//! and the expressions that bring a staged value there, compare it with what stands there, and tell a value that
//! the database would shorten or round without a word.

use super::catalog::{Column, Relation, quote};
use crate::types;
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::{Contract, ContractType};

/// One column that is written; `s` is a staged row, `t` one of the target.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Quoted.
    pub(super) name: String,
    pub(super) is_key: bool,
    /// Whether it can be given to a new row only: an identity that the table always makes.
    is_fixed: bool,
    /// The staged value, as the target takes it.
    pub(super) value: String,
    /// Both sides for a comparison that tells any two values apart.
    here: String,
    there: String,
    /// What is true of a staged value that would be changed on its way.
    loss: Option<String>,
    /// As the target declares it.
    declared: String,
}

#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) all: Vec<Field>,
    pub(super) overriding: &'static str,
}

impl Fields {
    /// Columns that the database computes by itself are left to it.
    pub(super) fn of(contract: &Contract, staged: &[Column], target: &Relation) -> Self {
        let pair = |(item, staged): (&posthouse_protocol::schema::Item, &Column)| {
            let column = target.column(&item.name).filter(|column| !column.generated)?;
            Some(Field::of(contract.key.contains(&item.name), staged, column))
        };
        let all: Vec<Field> = contract.items.iter().zip(staged).filter_map(pair).collect();
        let is_identity = |item: &posthouse_protocol::schema::Item| {
            target.column(&item.name).is_some_and(|column| column.identity_always)
        };
        let overriding = if contract.items.iter().any(is_identity) { "OVERRIDING SYSTEM VALUE " } else { "" };
        Self { all, overriding }
    }

    pub(super) fn names(&self) -> String {
        join(self.all.iter().map(|field| field.name.clone()))
    }
    pub(super) fn values(&self) -> String {
        join(self.all.iter().map(|field| field.value.clone()))
    }
    pub(super) fn key(&self) -> String {
        join(self.all.iter().filter(|field| field.is_key).map(|field| field.name.clone()))
    }
    pub(super) fn beside_key(&self) -> impl Iterator<Item = &Field> {
        self.all.iter().filter(|field| !field.is_key)
    }
    /// What may be set in a row that is there.
    pub(super) fn changeable(&self) -> impl Iterator<Item = &Field> {
        self.beside_key().filter(|field| !field.is_fixed)
    }
    /// Columns that may not, with what holds for `s` and `t` that differ in them.
    pub(super) fn fixed(&self) -> impl Iterator<Item = (&str, String)> {
        let fixed = self.beside_key().filter(|field| field.is_fixed);
        fixed.map(|field| (field.name.as_str(), format!("{} IS DISTINCT FROM {}", field.here, field.there)))
    }
    /// Staged values of the key that are made values of another type: some of them may be none.
    pub(super) fn converted_key(&self) -> Vec<&str> {
        let key = self.all.iter().filter(|field| field.is_key);
        key.filter(|field| field.value != format!("s.{}", field.name)).map(|field| field.value.as_str()).collect()
    }
    /// Rows of `s` and `t` with the same key.
    pub(super) fn same_key(&self) -> String {
        let same = |field: &Field| format!("t.{} = {}", field.name, field.value);
        let parts: Vec<String> = self.all.iter().filter(|field| field.is_key).map(same).collect();
        parts.join(" AND ")
    }
    /// Rows of `s` and `t` that differ beside the key; none where there is nothing beside it.
    pub(super) fn differ(&self) -> Option<String> {
        let here = join(self.beside_key().map(|field| field.here.clone()));
        let there = join(self.beside_key().map(|field| field.there.clone()));
        (!here.is_empty()).then(|| format!("ROW({here}) IS DISTINCT FROM ROW({there})"))
    }
    /// A whole row as text, of `t` and of `s`: equal rows, and no others, have equal texts.
    pub(super) fn row_texts(&self) -> [String; 2] {
        let here = join(self.all.iter().map(|field| field.here.clone()));
        let there = join(self.all.iter().map(|field| field.there.clone()));
        [here, there].map(|row| format!("(ROW({row})::pg_catalog.text COLLATE \"C\")"))
    }
    /// What holds for staged rows that the target would change without a word, with the reason.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&str, String)> {
        self.all.iter().filter_map(|field| {
            let reason = || format!("{} is {} in the table, which would change its value", field.name, field.declared);
            field.loss.as_deref().map(|loss| (loss, reason()))
        })
    }
}

impl Field {
    fn of(is_key: bool, staged: &Column, target: &Column) -> Self {
        let name = quote(&target.name);
        let is_text = |column: &Column| family(column) == Family::Text;
        let source = format!("s.{name}");
        let same = staged.plain == target.plain || family(staged) == family(target) && family(staged) != Family::Other;
        let value = if same || is_text(target) {
            // On assignment the database refuses what does not fit; a cast in so many words would cut it off.
            source.clone()
        } else if is_text(staged) {
            format!("{source}::{}", target.plain)
        } else {
            format!("{source}::pg_catalog.text::{}", target.plain)
        };
        let (here, there) = compared(&name, &value, staged, target);
        let loss = if staged.declared == target.declared { None } else { loss(&source, staged, target) };
        let is_fixed = target.identity_always;
        Self { name, is_key, is_fixed, value, here, there, loss, declared: target.declared.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Text,
    Number,
    Time,
    Json,
    /// Casts within it are the type's own business.
    Other,
}

fn family(column: &Column) -> Family {
    match &column.native {
        Some(NativeType::Varchar(_) | NativeType::Bpchar(_)) => Family::Text,
        Some(NativeType::Numeric(_)) => Family::Number,
        Some(NativeType::Plain(plain) | NativeType::Timed(plain, _)) => match plain {
            Plain::Text | Plain::Name | Plain::Char => Family::Text,
            Plain::Int2 | Plain::Int4 | Plain::Int8 | Plain::Float4 | Plain::Float8 | Plain::Oid => Family::Number,
            Plain::Timestamp | Plain::Timestamptz => Family::Time,
            Plain::Json | Plain::Jsonb => Family::Json,
            _ => Family::Other,
        },
        _ => Family::Other,
    }
}

/// Both sides in a form in which `=` means the same value: some types have none, and some have one that takes a
/// month for thirty days, or boxes of one size for one box.
fn compared(name: &str, value: &str, staged: &Column, target: &Column) -> (String, String) {
    let here = format!("t.{name}");
    match &target.native {
        Some(NativeType::Bpchar(_)) => {
            let trimmed = |text: &str| format!("pg_catalog.rtrim({text}::pg_catalog.text, ' ') COLLATE \"C\"");
            (trimmed(&here), trimmed(value))
        }
        Some(NativeType::Numeric(_) | NativeType::Bit(_) | NativeType::Varbit(_)) => (here, value.to_owned()),
        Some(NativeType::Timed(Plain::Time | Plain::Timestamp | Plain::Timestamptz, _))
        | Some(NativeType::Plain(
            Plain::Bool
            | Plain::Int2
            | Plain::Int4
            | Plain::Int8
            | Plain::Float4
            | Plain::Float8
            | Plain::Oid
            | Plain::Money
            | Plain::Bytea
            | Plain::Date
            | Plain::Time
            | Plain::Timestamp
            | Plain::Timestamptz
            | Plain::Uuid
            | Plain::Jsonb,
        )) => match family(staged) == family(target) && staged.plain != target.plain {
            true => (here, format!("{value}::{}", target.plain)),
            false => (here, value.to_owned()),
        },
        _ => as_texts(&here, value),
    }
}

/// Also for texts themselves: a collation may hold two texts to be one.
fn as_texts(here: &str, value: &str) -> (String, String) {
    let text = |text: &str| format!("({text})::pg_catalog.text COLLATE \"C\"");
    (text(here), text(value))
}

/// Assignments that the database makes without a word, and that leave another value.
fn loss(source: &str, staged: &Column, target: &Column) -> Option<String> {
    let read = if family(staged) == Family::Text { misread(source, target) } else { None };
    let cut = match &target.native {
        // Blanks beyond the length are cut off.
        Some(NativeType::Varchar(Some(size))) => Some(format!(
            "(pg_catalog.length({source}::pg_catalog.text) > {size}
              AND pg_catalog.length(pg_catalog.rtrim({source}::pg_catalog.text, ' ')) <= {size})"
        )),
        // Blanks at the end are taken for padding.
        Some(NativeType::Bpchar(_)) if !matches!(staged.native, Some(NativeType::Bpchar(_))) => {
            Some(format!("{source}::pg_catalog.text LIKE '% '"))
        }
        Some(NativeType::Plain(Plain::Name)) => {
            Some(format!("pg_catalog.octet_length({source}::pg_catalog.text) > 63"))
        }
        Some(NativeType::Plain(Plain::Char)) => Some(format!("pg_catalog.octet_length({source}::pg_catalog.text) > 1")),
        // What is out of reach is refused by the database itself.
        Some(NativeType::Plain(Plain::Float4)) => Some(format!(
            "CASE WHEN pg_catalog.abs({source}) BETWEEN 1.4012984643248171e-45 AND 3.4028234663852886e38
             THEN {source}::pg_catalog.float4::pg_catalog.float8 <> {source} ELSE false END"
        )),
        // A precision of the parts of a second, or the fields that an interval has.
        Some(NativeType::Plain(base) | NativeType::Timed(base, _)) if target.is_cut() => Some(format!(
            "({source}::pg_catalog.{0}::{1})::pg_catalog.text <> ({source}::pg_catalog.{0})::pg_catalog.text",
            base.as_str(),
            target.declared
        )),
        Some(NativeType::Array(_)) if target.is_cut() => Some(format!(
            "({source}::{0}::{1})::pg_catalog.text <> ({source}::{0})::pg_catalog.text",
            target.plain, target.declared
        )),
        Some(NativeType::Array(element)) if matches!(**element, NativeType::Numeric(Some(_))) => {
            Some(format!("{source}::{0}::{1} <> {source}::{0}", target.plain, target.declared))
        }
        _ => None,
    }
    .filter(|_| staged.native != target.native || target.is_cut());
    match (read, cut) {
        (Some(read), Some(cut)) if target.has_fields() => Some(format!("({read} OR {cut})")),
        (Some(read), _) => Some(read),
        (None, cut) => cut,
    }
}

/// What is true of a text that a column of times or of money would read as another value: by its digits alone, for a
/// text that is none at all is refused by the database itself, and alone.
fn misread(source: &str, target: &Column) -> Option<String> {
    let (plain, digits) = match target.native.as_ref()? {
        NativeType::Plain(plain) => (*plain, SECOND_DIGITS),
        NativeType::Timed(plain, digits) => (*plain, *digits),
        _ => return None,
    };
    let text = format!("{source}::pg_catalog.text");
    match plain {
        Plain::Time | Plain::Timetz | Plain::Interval => Some(format!("{text} ~ '[.][0-9]{{{digits}}}[0-9]*[1-9]'")),
        // What it shows otherwise it takes for something else: in another place's money, or with more digits.
        Plain::Money => Some(format!(
            "CASE WHEN {text} ~ '^-?[$][0-9]{{1,3}}(,[0-9]{{3}})*[.][0-9]{{2}}$'
             THEN ({text}::pg_catalog.money)::pg_catalog.text <> {text} ELSE true END"
        )),
        _ => None,
    }
}

/// Refuses a target whose columns are not the contract's. Columns of its own that take NULL or have a default
/// are left to that.
pub(super) fn check_drift(
    contract: &Contract,
    natives: Option<&[NativeType]>,
    target: &Relation,
) -> Result<(), Problem> {
    let mut why = Vec::new();
    for (index, item) in contract.items.iter().enumerate() {
        match target.column(&item.name) {
            None => why.push(format!("`{}` is missing in the table", item.name)),
            Some(column) if !carries(item.r#type, natives.and_then(|natives| natives.get(index)), column) => {
                let wanted = types::type_name(item.r#type);
                why.push(format!("`{}` is {wanted} in the resource and {} in the table", item.name, column.declared));
            }
            Some(_) => {}
        }
    }
    for column in target.columns.iter().filter(|column| contract.position(&column.name).is_none()) {
        if column.not_null && !column.has_default && !column.generated && !column.identity {
            why.push(format!("`{}` is in the table only, and takes no NULL", column.name));
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let found = text(&target.columns);
    Err(types::drift(&target.name.to_string(), &types::schema_text(contract), &found, &why.join("; ")))
}

/// Columns on one line, as the table declares them.
fn text(columns: &[Column]) -> String {
    let column = |column: &Column| {
        let null = if column.not_null { " not null" } else { "" };
        format!("{} {}{null}", column.name, column.declared)
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Whether a column keeps every value of `wanted`, or refuses it by itself.
fn carries(wanted: ContractType, native: Option<&NativeType>, column: &Column) -> bool {
    let Some(found) = &column.native else { return wanted == ContractType::Text };
    if Some(found) == native {
        return true;
    }
    // Digits before and behind the point that a numeric holds, where it says.
    let digits = |native: &NativeType| match native {
        NativeType::Numeric(Some((precision, scale))) => {
            Some((i32::from(*precision) - i32::from(*scale), i32::from(*scale)))
        }
        _ => None,
    };
    match wanted {
        ContractType::Integer | ContractType::Decimal { .. } | ContractType::Number => {
            let (whole, scale) = match wanted {
                ContractType::Decimal { precision, scale } => {
                    (i32::from(precision) - i32::from(scale), i32::from(scale))
                }
                ContractType::Integer => (19, 0),
                _ => (i32::MAX, i32::MAX),
            };
            match found {
                NativeType::Numeric(None) => true,
                NativeType::Numeric(Some(_)) => digits(found).is_some_and(|(w, s)| w >= whole && s >= scale),
                found => found.contract_type() == wanted,
            }
        }
        ContractType::Text | ContractType::Char => {
            matches!(found.contract_type(), ContractType::Text | ContractType::Char)
        }
        wanted => found.contract_type() == wanted,
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Of a second, that a time keeps.
const SECOND_DIGITS: u8 = 6;
