//! 方言规则: what a value of another system's habits means: an empty text that says that there is none, blanks that fill
//! a column up, a date of zeros, a date written as text. The provider applies them between its source and the seal, so
//! that digests, counts and statements of both parties speak of the same rows, and a deep reconciliation too.
//! What a rule changes is counted; a value that a rule cannot read makes a bad row. A key keeps its values but for dates
//! that are written as text, for two keys must not become one; a watermark keeps them too.
//! The forms of dates are in [`dates`], the types of a catalogue's items in [`items`]. Deliberately absent: rules on
//! names, which are the taker's own.

pub mod dates;
pub mod items;

use super::Governed;
use crate::batch::{Batch, BatchBuilder, Value};
use crate::operation;
use crate::problem::{Code, Problem};
use crate::schema::{Contract, ContractType, Item};
use arrow::record_batch::RecordBatch;
use dates::{Dated, Form, Unread};
use items::{Cast, ItemType};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The rules of one resource. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    /// An empty text is NULL.
    pub empty_null: bool,
    /// Blanks (U+0020) at the end of a text are not part of it.
    pub trim: bool,
    /// A date of zeros is NULL: in columns of dates, by the connector, and in texts that `dates` names.
    pub zero_dates_null: bool,
    /// Columns of texts or whole numbers that hold dates, by their names at the source.
    pub dates: BTreeMap<String, Form>,
    /// What the catalogue declares columns as, by their names at the source; after the other rules.
    pub items: BTreeMap<String, ItemType>,
}

/// What became of one batch.
#[derive(Debug)]
pub struct Ruled {
    /// Of the contract as it is by the rules, without the rows in `bad`.
    pub record: RecordBatch,
    /// Rows that a rule could not read, by their numbers in the batch, ascending, with the reason.
    pub bad: Vec<(usize, String)>,
    /// Of each row of `record`, how many of its values are not what they were.
    pub changes: Vec<u64>,
}

impl Ruled {
    /// Values of all its rows that are not what they were.
    pub fn changed(&self) -> u64 {
        self.changes.iter().sum()
    }
}

/// Applies the rules to batches of one contract.
pub struct Ruler {
    columns: Vec<Column>,
    builder: BatchBuilder,
    scratch: String,
    /// Of each column, what is made of its value.
    texts: Vec<String>,
}

/// What is done to one column's values.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    trim: bool,
    empty_null: bool,
    dates: Option<Form>,
    zero_null: bool,
    /// Blanks at the end do not count.
    is_char: bool,
    /// Where its item is declared.
    cast: Option<Cast>,
}

impl Dialect {
    pub fn changes_values(&self) -> bool {
        *self != Self::default()
    }

    /// The contract of the rows by these rules, and what makes them so. `whole`: the contract has all columns of its
    /// source. The watermark is a column of the source.
    pub fn plan(
        &self,
        contract: &Contract,
        watermark: Option<&str>,
        whole: bool,
    ) -> Result<(Contract, Ruler), Problem> {
        let named = self.dates.keys().map(|name| (name, "rules.dates"));
        let mut named = named.chain(self.items.keys().map(|name| (name, "items")));
        if let Some((name, by)) = named.find(|(name, _)| whole && contract.position(name).is_none()) {
            let problem = Problem::new(Code::TypeUnsupported).with("column", name).with("type", "none");
            return Err(problem.cause(format!("`{by}` names it, and there is no such column")));
        }
        let mut ruled = contract.clone();
        let mut columns = Vec::with_capacity(contract.items.len());
        for item in &mut ruled.items {
            let is_key = contract.key.contains(&item.name);
            let is_mark = watermark == Some(item.name.as_str());
            columns.push(self.column(item, is_key, is_mark)?);
        }
        let builder = BatchBuilder::new(&ruled);
        let texts = vec![String::new(); columns.len()];
        Ok((ruled, Ruler { columns, builder, scratch: String::new(), texts }))
    }

    /// What is done to a column; its item becomes what it is afterwards.
    fn column(&self, item: &mut Item, is_key: bool, is_mark: bool) -> Result<Column, Problem> {
        let is_text = matches!(item.r#type, ContractType::Text | ContractType::Char);
        // What a row of a front-end table does is said by this node, and no text of another system.
        let is_free = !is_key && !is_mark && item.name != operation::COLUMN;
        let mut column = Column {
            name: item.name.clone(),
            trim: self.trim && is_text && is_free,
            empty_null: self.empty_null && is_text && is_free,
            dates: None,
            zero_null: self.zero_dates_null && is_free,
            is_char: item.r#type == ContractType::Char,
            cast: None,
        };
        if let Some(form) = self.dates.get(&item.name) {
            let refuse = |cause: &str, item: &Item| {
                let problem = Problem::new(Code::TypeUnsupported).with("column", &item.name);
                Err(problem.with("type", format!("{:?}", item.r#type)).cause(cause))
            };
            let is_number = matches!(item.r#type, ContractType::Integer | ContractType::Decimal { scale: 0, .. })
                && form.is_number();
            if !is_text && !is_number {
                return refuse("`rules.dates` reads dates of texts, and of whole numbers such as yyyyMMdd", item);
            }
            if is_mark {
                return refuse("it is the watermark: its values are compared at the source as they stand there", item);
            }
            item.r#type = form.contract_type();
            column.dates = Some(form.clone());
        }
        if let Some(declared) = self.items.get(&item.name) {
            let refuse = |cause: String| {
                let problem = Problem::new(Code::TypeUnsupported).with("column", &item.name);
                Err(problem.with("type", format!("{:?}", item.r#type)).cause(cause))
            };
            let Some(r#type) = declared.of(item.r#type) else {
                return refuse(format!("its item is declared as {declared}, which no such column fills exactly"));
            };
            if is_mark && r#type != item.r#type {
                let cause = "it is the watermark: its values are compared at the source as they stand there";
                return refuse(format!("its item is declared as {declared}; {cause}"));
            }
            item.r#type = r#type;
            column.cast = Some(Cast::new(*declared, r#type));
        }
        item.nullable |= column.empty_null || (column.dates.is_some() && column.zero_null);
        Ok(column)
    }

    /// What a request and a statement say of them.
    pub fn governed(&self) -> Vec<Governed> {
        let all = [(self.empty_null, EMPTY_NULL), (self.trim, TRIM), (self.zero_dates_null, ZERO_DATES_NULL)];
        let all = all.into_iter().filter(|(is_set, _)| *is_set);
        let all = all.map(|(_, what)| Governed { column: None, what: what.to_owned() });
        let dates = self.dates.iter();
        let dates = dates.map(|(name, form)| Governed { column: Some(name.clone()), what: format!("{DATES}{form}") });
        // A statement has no room for all of them; what they are stands in the contract, whose hash it carries.
        let count = self.items.len();
        let items = (count > 0).then(|| Governed { column: None, what: format!("{ITEMS}{count} declared") });
        all.chain(dates).chain(items).collect()
    }

    /// The rules that a request names; the first that is none of this version's.
    pub fn asked(rules: &[Governed]) -> Result<Self, Governed> {
        let mut dialect = Self::default();
        for rule in rules {
            let is_known = match (&rule.column, rule.what.as_str()) {
                (None, EMPTY_NULL) => std::mem::replace(&mut dialect.empty_null, true),
                (None, TRIM) => std::mem::replace(&mut dialect.trim, true),
                (None, ZERO_DATES_NULL) => std::mem::replace(&mut dialect.zero_dates_null, true),
                (Some(column), what) => match what.strip_prefix(DATES).and_then(|form| form.parse::<Form>().ok()) {
                    Some(form) => dialect.dates.insert(column.clone(), form).is_some(),
                    None => return Err(rule.clone()),
                },
                (None, _) => return Err(rule.clone()),
            };
            if is_known {
                return Err(rule.clone());
            }
        }
        Ok(dialect)
    }
}

/// Whether this is what a rule says of itself.
pub(super) fn says(what: &str) -> bool {
    [EMPTY_NULL, TRIM, ZERO_DATES_NULL].contains(&what) || what.starts_with(DATES) || what.starts_with(ITEMS)
}

impl Ruler {
    /// Takes a batch of the contract that was planned for.
    pub fn apply(&mut self, batch: &Batch) -> Result<Ruled, Problem> {
        let (mut bad, mut all) = (Vec::new(), Vec::with_capacity(batch.rows()));
        for row in 0..batch.rows() {
            let mut values = Vec::with_capacity(self.columns.len());
            let mut changes = 0;
            let mut unread = None;
            for (index, (column, text)) in self.columns.iter().zip(&mut self.texts).enumerate() {
                let before = batch.value(index, row);
                let after = match column.value(before, &mut self.scratch) {
                    Ok(after) => {
                        // No rule is about floats, and one of them differs from itself.
                        changes += u64::from(after != before && !matches!(before, Value::Float(_)));
                        // In another type it is the same value.
                        match &column.cast {
                            Some(cast) => cast.value(after, text).map_err(|misfit| misfit.to_string()),
                            None => Ok(after),
                        }
                    }
                    Err(fault) => Err(fault.to_string()),
                };
                match after {
                    Ok(after) => values.push(after),
                    Err(fault) => {
                        unread = Some(format!("`{}`: {fault}", column.name));
                        break;
                    }
                }
            }
            match unread {
                Some(why) => bad.push((row, why)),
                None => {
                    self.builder.push(&values)?;
                    all.push(changes);
                }
            }
        }
        Ok(Ruled { record: self.builder.finish()?, bad, changes: all })
    }
}

impl Column {
    fn value<'v>(&self, value: Value<'v>, scratch: &mut String) -> Result<Value<'v>, Unread> {
        match value {
            Value::Text(text) => {
                let text = if self.trim { text.trim_end_matches(' ') } else { text };
                let bare = if self.is_char { text.trim_end_matches(' ') } else { text };
                if self.empty_null && bare.is_empty() {
                    return Ok(Value::Null);
                }
                match &self.dates {
                    // Blanks that fill a column up are no part of a date.
                    Some(form) => self.dated(form.read(text.trim_end_matches(' '))?),
                    None => Ok(Value::Text(text)),
                }
            }
            Value::Integer(_) | Value::Decimal(_, 0) => match &self.dates {
                Some(form) => {
                    scratch.clear();
                    // Nothing is lost of a text.
                    let _ = write!(scratch, "{value}");
                    self.dated(form.read_number(scratch)?)
                }
                None => Ok(value),
            },
            value => Ok(value),
        }
    }

    fn dated(&self, dated: Dated) -> Result<Value<'static>, Unread> {
        match dated {
            Dated::Date(days) => Ok(Value::Date(days)),
            Dated::Time(us) => Ok(Value::Timestamp(us)),
            Dated::Zero if self.zero_null => Ok(Value::Null),
            Dated::Zero => Err(Unread::Zero),
        }
    }
}

const EMPTY_NULL: &str = "empty = null";
const TRIM: &str = "blanks = trim";
const ZERO_DATES_NULL: &str = "zero_dates = null";
const DATES: &str = "dates = ";
const ITEMS: &str = "items = ";

#[cfg(test)]
mod tests;
