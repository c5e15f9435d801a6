//! 数据治理: what a row goes through between its source and its seal: columns are chosen, values of other habits become
//! what they mean ([`dialect`]), rows are checked, values are masked, columns are renamed, in this order. The provider
//! does it, so that nobody else ever has what is hidden; what was done is named in the offer and in the statement. A
//! [`Governing`] is what a resource says; [`Steps`] are made of it, of the columns that a source has, and of the masks
//! that a grant prescribes.
//!
//! The resource's own rules use its source's names of columns. Grants, and everything that is handed over, use the
//! names under which columns are offered.
//! Row filters ask for the original values, at the source (see [`crate::filter`]). Deliberately absent: reading files
//! and keys (the node's), and every way back from a masked value.

pub mod check;
pub mod dialect;
pub mod identity;
pub mod keyed;
pub mod mask;
pub mod quality;

pub use check::{Check, Checker, Passed, Pattern, RefusedRow, Rule, Severity};
pub use dialect::Dialect;
pub use keyed::{Algorithm, MaskKey};
pub use mask::{ColumnMask, Mask};
pub use quality::{FailedRule, Quality};

use crate::batch::{Batch, BatchError, Column, arrow_schema};
use crate::filter::Filter;
use crate::limits;
use crate::schema::{Contract, ContractType};
use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use mask::Masker;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// What a resource says of its rows, by its source's names of columns.
#[derive(Debug, Clone, Default)]
pub struct Governing {
    /// The columns that are offered; None = all. Named wherever a column is masked, checked or renamed, so that a
    /// column that the source has one day is not handed over as it is.
    pub columns: Option<Vec<String>>,
    /// Under which name a column is offered, where that is another.
    pub rename: BTreeMap<String, String>,
    pub masks: BTreeMap<String, Mask>,
    pub checks: Vec<Check>,
    /// What values of its source mean; before anything else is done to them.
    pub dialect: Dialect,
}

/// What was done to the values of a column, in the words of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(map)]
pub struct Governed {
    /// As it is handed over; None = all columns.
    #[n(0)]
    pub column: Option<String>,
    /// `keep 3+4`, `hmac-sm3 key 5f2a…`, `check id_card (quarantine)`.
    #[n(1)]
    pub what: String,
}

impl Governed {
    /// Whether it says what values become, and not only which rows stay behind.
    pub fn changes_values(&self) -> bool {
        !self.what.starts_with(check::SAID)
    }
    /// Whether it says what is handed over in place of a value.
    pub fn is_mask(&self) -> bool {
        self.changes_values() && self.column.is_some() && !dialect::says(&self.what)
    }
}

/// What is said of rows that came at one time and not of those at another, as far as `counts`: in words, both ways. None:
/// the same is said of both, in whatever order.
pub fn said_otherwise(before: &[Governed], now: &[Governed], counts: &dyn Fn(&Governed) -> bool) -> Option<String> {
    let only = |one: &[Governed], other: &[Governed]| -> Vec<String> {
        let missing = one.iter().filter(|said| counts(said) && !other.contains(said));
        missing.map(|said| format!("{} {}", said.column.as_deref().unwrap_or("*"), said.what)).collect()
    };
    let (before, now) = (only(before, now), only(now, before));
    let words = |said: Vec<String>| if said.is_empty() { "nothing".to_owned() } else { said.join("; ") };
    (!before.is_empty() || !now.is_empty()).then(|| format!("before: {}; now: {}", words(before), words(now)))
}

/// Why rows cannot be governed as it is said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GovernError {
    #[error("the column `{column}` is not offered")]
    NotOffered { column: String },
    #[error("there is no column `{column}`")]
    NoColumn { column: String },
    #[error("the column `{column}` is {is:?}, which `{mask}` cannot mask: it works on text")]
    MaskType { column: String, mask: String, is: ContractType },
    #[error("the column `{column}` is {is:?}, for which `{rule}` is no rule, or its bounds are none")]
    RuleType { column: String, rule: &'static str, is: ContractType },
    #[error("`{column}` belongs to the key, which `{mask}` does not keep apart: only a hash does")]
    Key { column: String, mask: String },
    #[error("`{column}` is the watermark, which cannot be masked: the consumer tells by it which rows it has")]
    Watermark { column: String },
    #[error("`{column}` is masked under a key, and `mask_key_file` names none")]
    NoKey { column: String },
    #[error(
        "what is done to its columns takes {bytes} bytes to say, a statement has room for {}",
        limits::GOVERNED_BYTES_MAX
    )]
    TooMuch { bytes: usize },
    #[error("two of its columns are offered as `{column}`")]
    Twice { column: String },
}

impl Governing {
    pub fn is_empty(&self) -> bool {
        self.columns.is_none() && self.rename.is_empty() && !self.looks_at_rows()
    }

    /// Whether rows are looked at one by one, so that they cannot pass as their engine wrote them.
    pub fn looks_at_rows(&self) -> bool {
        !self.masks.is_empty() || !self.checks.is_empty() || self.dialect.changes_values()
    }

    pub fn needs_key(&self) -> bool {
        self.masks.values().any(Mask::needs_key)
    }

    /// The name under which a column of the source is offered.
    pub fn outward<'a>(&'a self, source: &'a str) -> &'a str {
        self.rename.get(source).map_or(source, String::as_str)
    }

    /// The source's name of a column that is offered. One that no column is offered as stays as it is.
    pub fn source_name<'a>(&'a self, outward: &'a str) -> &'a str {
        self.rename.iter().find(|(_, name)| *name == outward).map_or(outward, |(source, _)| source.as_str())
    }

    /// The columns to read, where a grant names those that it covers. Fails for one that is not offered.
    pub fn source_columns(&self, granted: Option<&[String]>) -> Result<Option<Vec<String>>, GovernError> {
        let Some(granted) = granted else { return Ok(self.columns.clone()) };
        let source = |name: &String| {
            let source = self.source_name(name);
            let is_offered = self.columns.as_ref().is_none_or(|columns| columns.iter().any(|known| known == source));
            if is_offered && self.outward(source) == name {
                Ok(source.to_owned())
            } else {
                Err(GovernError::NotOffered { column: name.clone() })
            }
        };
        granted.iter().map(source).collect::<Result<_, _>>().map(Some)
    }

    /// A grant's filter over the source's own columns. It may name one that is not offered: a filter only ever
    /// narrows, and the consumer sees nothing of it.
    pub fn source_filter(&self, filter: &Filter) -> Filter {
        filter.renamed(&|name| self.source_name(name).to_owned())
    }

    /// What rows of `source` go through, with the masks that a grant prescribes after the resource's own. They come as
    /// the resource's [`Dialect`] makes them.
    /// `watermark` is the source's name of its watermark column.
    pub fn steps(
        &self,
        source: &Contract,
        granted: &[ColumnMask],
        watermark: Option<&str>,
        key: Option<&MaskKey>,
    ) -> Result<Steps, GovernError> {
        let mut outward = source.clone();
        for item in &mut outward.items {
            item.name = self.outward(&item.name).to_owned();
        }
        outward.key = source.key.iter().map(|name| self.outward(name).to_owned()).collect();
        for (at, item) in outward.items.iter().enumerate() {
            if outward.items.iter().take(at).any(|before| before.name == item.name) {
                return Err(GovernError::Twice { column: item.name.clone() });
            }
        }
        let unknown = granted.iter().find(|mask| outward.position(&mask.column).is_none());
        if let Some(ColumnMask { column, .. }) = unknown {
            return Err(GovernError::NotOffered { column: column.clone() });
        }
        let mut governed = self.dialect_governed(source);
        let mut masked = Vec::new();
        for (position, (item, outer)) in source.items.iter().zip(&mut outward.items).enumerate() {
            let prescribed = granted.iter().filter(|mask| mask.column == outer.name).map(|mask| &mask.mask);
            let masks: Vec<&Mask> = self.masks.get(&item.name).into_iter().chain(prescribed).collect();
            let mut column = MaskedColumn { position, maskers: Vec::new() };
            for mask in masks {
                if watermark == Some(item.name.as_str()) {
                    return Err(GovernError::Watermark { column: outer.name.clone() });
                }
                if source.key.contains(&item.name) && !mask.keeps_apart() {
                    return Err(GovernError::Key { column: outer.name.clone(), mask: mask.to_string() });
                }
                let masker = Masker::new(mask, outer, key)?;
                *outer = mask.item(outer)?;
                column.maskers.push((masker, outer.r#type));
                let tag = key.filter(|_| mask.needs_key()).map(|key| format!(" key {}", key.tag()));
                let what = format!("{mask}{}", tag.unwrap_or_default());
                governed.push(Governed { column: Some(outer.name.clone()), what });
            }
            if !column.maskers.is_empty() {
                masked.push(column);
            }
        }
        // A grant may cover some of the columns only: what is not handed over is not checked.
        let checker = Checker::new(&self.checks, source, false)?;
        for check in self.checks.iter().filter(|check| source.position(&check.column).is_some()) {
            let column = Some(self.outward(&check.column).to_owned());
            governed.push(Governed { column, what: check.to_string() });
        }
        let bytes = crate::codec::encode(&governed).len();
        if bytes > limits::GOVERNED_BYTES_MAX {
            return Err(GovernError::TooMuch { bytes });
        }
        Ok(Steps { source: source.clone(), outward, masked, checker, rename: self.rename.clone(), governed })
    }

    /// Its rules, as far as they are about columns that are handed over.
    fn dialect_governed(&self, source: &Contract) -> Vec<Governed> {
        let offered = |rule: Governed| match rule.column {
            None => Some(rule),
            Some(column) => {
                source.position(&column)?;
                Some(Governed { column: Some(self.outward(&column).to_owned()), what: rule.what })
            }
        };
        self.dialect.governed().into_iter().filter_map(offered).collect()
    }
}

/// What each row goes through, made for the columns of one source.
pub struct Steps {
    source: Contract,
    outward: Contract,
    masked: Vec<MaskedColumn>,
    checker: Checker,
    rename: BTreeMap<String, String>,
    governed: Vec<Governed>,
}

struct MaskedColumn {
    position: usize,
    /// One after the other, each with the type that the column has after it.
    maskers: Vec<(Masker, ContractType)>,
}

impl Steps {
    /// The columns as they are handed over.
    pub fn contract(&self) -> &Contract {
        &self.outward
    }
    /// What is done, to be said in the offer and in the statement.
    pub fn governed(&self) -> &[Governed] {
        &self.governed
    }
    /// Whether rows are looked at one by one.
    pub fn look_at_rows(&self) -> bool {
        !self.masked.is_empty() || !self.checker.is_empty()
    }
    /// What the rules have found since this was asked last; None where there are none.
    pub fn take_quality(&mut self) -> Option<Quality> {
        let rename = &self.rename;
        let outward = |name: &str| rename.get(name).map_or_else(|| name.to_owned(), String::clone);
        (!self.checker.is_empty()).then(|| self.checker.take(&outward))
    }

    /// Takes rows as the source gave them, and gives them as they are handed over.
    pub fn pass(&mut self, rows: RecordBatch) -> Result<Passed, BatchError> {
        if !self.look_at_rows() {
            let rows = if self.outward == self.source { rows } else { self.named(rows.columns().to_vec())? };
            return Ok(Passed { rows: Some(rows), refused: Vec::new() });
        }
        let mut batch = Batch::new(&self.source, rows)?;
        let mut refused = Vec::new();
        if !self.checker.is_empty() {
            let passed = self.checker.hold_back(&batch)?;
            refused = passed.refused;
            let Some(left) = passed.rows else { return Ok(Passed { rows: None, refused }) };
            if !refused.is_empty() {
                batch = Batch::new(&self.source, left)?;
            }
        }
        let mut columns = batch.record().columns().to_vec();
        for MaskedColumn { position, maskers } in &self.masked {
            let (Some(place), Some(column)) = (columns.get_mut(*position), batch.columns().get(*position)) else {
                return Err(BatchError::Contract("a column that is to be masked is not there".to_owned()));
            };
            *place = masked(column, maskers, batch.rows())?;
        }
        Ok(Passed { rows: Some(self.named(columns)?), refused })
    }

    /// The columns under the names and types that they are handed over with.
    fn named(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch, BatchError> {
        Ok(RecordBatch::try_new(arrow_schema(&self.outward), columns)?)
    }
}

/// A column after all of its masks.
fn masked(column: &Column, maskers: &[(Masker, ContractType)], rows: usize) -> Result<ArrayRef, BatchError> {
    let mut before = column.clone();
    let mut last = None;
    for (masker, after) in maskers {
        let array = masker.put_on(&before, rows);
        before = Column::new(*after, &array).ok_or_else(|| {
            BatchError::Contract(format!("a mask gave {} where {after:?} was to be", array.data_type()))
        })?;
        last = Some(array);
    }
    last.ok_or_else(|| BatchError::Contract("a column without a mask was to be masked".to_owned()))
}

#[cfg(test)]
mod tests;
