//! 校验: what a row must be to count as qualified. A rule is about one column; NULL passes every rule but `required`.
//! Rules look at values as they are before any mask. What is done with a row that fails is said with the rules:
//! it is quarantined, or it passes and counts as not qualified.
//! Patterns match in a time that grows with the text alone, and in bounded memory, whatever they are.

pub mod kept;

use super::GovernError;
use super::identity::{credit_code, id_card};
use super::quality::{FailedRule, Quality};
use crate::batch::{Batch, BatchError, Value};
use crate::filter::{Filter, Literal, Value as Compared};
use crate::limits;
use crate::number;
use crate::schema::{Contract, ContractType, Item};
use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The rules for one column.
#[derive(Debug, Clone)]
pub struct Check {
    pub column: String,
    pub rules: Vec<Rule>,
    pub severity: Severity,
}

/// What is done with a row that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// It does not move: it is kept with its reason and its original values.
    #[default]
    Quarantine,
    /// It moves, and counts as not qualified.
    Count,
}

#[derive(Debug, Clone)]
pub enum Rule {
    /// Not NULL, and not blank.
    Required,
    /// Characters of a text, bytes of a value of bytes: at least and at most.
    Length(u64, u64),
    /// At least and at most, either may be open. Numbers, dates (`2026-11-28`) and times (`2026-11-28T05:00:00Z`).
    Range(Option<String>, Option<String>),
    /// The whole value.
    Pattern(Pattern),
    /// One of these.
    Codes(Arc<BTreeSet<String>>),
    /// 身份证号码: see [`id_card`].
    IdCard,
    /// 统一社会信用代码: see [`credit_code`].
    CreditCode,
}

impl Rule {
    /// A range with these bounds; why they are none. Whether the column's type is theirs is known only with its contract.
    pub fn range(min: Option<String>, max: Option<String>) -> Result<Self, &'static str> {
        let kinds = [ContractType::Number, ContractType::Date, ContractType::Timestamp];
        let kind = kinds.into_iter().find(|kind| within(min.as_deref(), max.as_deref(), *kind).is_some());
        let kind =
            kind.ok_or("bounds are numbers such as -12.5, dates, or times with their zone, and both of one kind")?;
        let upper = max.as_deref().and_then(|max| within(None, Some(max), kind));
        let Some(Filter::Compare(_, _, lowest)) = min.as_deref().and_then(|min| within(Some(min), None, kind)) else {
            return Ok(Self::Range(min, max));
        };
        let number = match &lowest {
            Literal::Integer(number) => number.to_string(),
            Literal::Decimal(text) => number::canonical(text).unwrap_or_default().into_owned(),
            _ => String::new(),
        };
        let value = match &lowest {
            Literal::Date(days) => Compared::Date(*days),
            Literal::Timestamp(us) => Compared::Timestamp(*us),
            _ => Compared::Number(&number),
        };
        let holds = upper.is_none_or(|upper| upper.evaluate(&|_| Some(value)) == Ok(Some(true)));
        if holds { Ok(Self::Range(min, max)) } else { Err("`min` is above `max`: no value would pass") }
    }

    /// As it is written in a configuration and in a statement.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Length(..) => "length",
            Self::Range(..) => "range",
            Self::Pattern(_) => "pattern",
            Self::Codes(_) => "codes",
            Self::IdCard => "id_card",
            Self::CreditCode => "credit_code",
        }
    }
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Count => "count",
        }
    }
}

/// A regular expression that the whole value has to match.
#[derive(Debug, Clone)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// The error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > limits::PATTERN_BYTES_MAX {
            return Err(format!("it has {} bytes, at most {} are read", text.len(), limits::PATTERN_BYTES_MAX));
        }
        let build = |text: &str| {
            let mut builder = regex::RegexBuilder::new(text);
            builder.size_limit(PATTERN_MEMORY_MAX).dfa_size_limit(PATTERN_MEMORY_MAX);
            builder.build().map_err(|e| e.to_string())
        };
        // By itself first, so that no parenthesis of it closes the one around it.
        build(text)?;
        build(&format!("^(?:{text})$")).map(Self)
    }
    /// As it was given.
    fn text(&self) -> &str {
        let whole = self.0.as_str();
        whole.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(whole)
    }
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Display for Check {
    /// `check required, id_card (quarantine)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SAID)?;
        for (at, rule) in self.rules.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, rule.name())?;
        }
        write!(f, " ({})", self.severity.name())
    }
}

/// The rules that apply to rows of one contract, and how many rows they have found.
#[derive(Debug, Clone)]
pub struct Checker {
    columns: Vec<Checked>,
    rows: u64,
    unqualified: u64,
}

#[derive(Debug, Clone)]
struct Checked {
    position: usize,
    name: String,
    r#type: ContractType,
    severity: Severity,
    rules: Vec<Ready>,
}

/// A rule that is made for the type of its column.
#[derive(Debug, Clone)]
struct Ready {
    rule: Rule,
    /// Of a range.
    within: Option<Filter>,
    failed: u64,
}

/// A row that fails a rule for which it is quarantined.
struct Refused {
    row: usize,
    reason: String,
}

/// Rows as they leave, and those that do not.
pub struct Passed {
    /// None where no row is left.
    pub rows: Option<RecordBatch>,
    pub refused: Vec<RefusedRow>,
}

/// A row that does not move, as it came.
pub struct RefusedRow {
    /// From 0, among the rows that came together.
    pub row: usize,
    /// Its key as text; empty where the rows have none.
    pub key: String,
    pub reason: String,
    /// The original values as JSON.
    pub original: String,
}

impl Checker {
    /// The rules among these whose column is in the contract; `strict`: all of them must be.
    pub fn new(checks: &[Check], contract: &Contract, strict: bool) -> Result<Self, GovernError> {
        let mut columns = Vec::new();
        for check in checks {
            let found = contract.position(&check.column).and_then(|at| contract.items.get(at).map(|item| (at, item)));
            match found {
                Some((position, item)) => columns.push(Checked::new(check, position, item)?),
                None if strict => return Err(GovernError::NoColumn { column: check.column.clone() }),
                None => {}
            }
        }
        Ok(Self { columns, rows: 0, unqualified: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Looks at every row once, and parts those that do not move from the others.
    pub fn hold_back(&mut self, batch: &Batch) -> Result<Passed, BatchError> {
        let found = self.look(batch);
        if found.is_empty() {
            let rows = (batch.rows() > 0).then(|| batch.record().clone());
            return Ok(Passed { rows, refused: Vec::new() });
        }
        let mut stays = vec![true; batch.rows()];
        let mut refused = Vec::with_capacity(found.len());
        for Refused { row, reason } in found {
            if let Some(stays) = stays.get_mut(row) {
                *stays = false;
            }
            refused.push(RefusedRow { row, key: batch.key_text(row), reason, original: batch.json(row) });
        }
        let rows = match stays.contains(&true) {
            true => Some(filter_record_batch(batch.record(), &BooleanArray::from(stays))?),
            false => None,
        };
        Ok(Passed { rows, refused })
    }

    /// The rows that do not move, in their order.
    fn look(&mut self, batch: &Batch) -> Vec<Refused> {
        let mut refused = Vec::new();
        for row in 0..batch.rows() {
            let mut qualified = true;
            let mut reasons = Vec::new();
            for checked in &mut self.columns {
                let value = batch.value(checked.position, row);
                for ready in &mut checked.rules {
                    let Some(why) = ready.fails(value, checked.r#type) else { continue };
                    ready.failed += 1;
                    qualified = false;
                    if checked.severity == Severity::Quarantine {
                        reasons.push(format!("`{}`: {why} ({})", checked.name, ready.rule.name()));
                    }
                }
            }
            self.unqualified += u64::from(!qualified);
            if !reasons.is_empty() {
                refused.push(Refused { row, reason: reasons.join("; ") });
            }
        }
        self.rows += batch.rows() as u64;
        refused
    }

    /// What was found since this was asked last, under the names that `outward` gives the columns.
    pub fn take(&mut self, outward: &dyn Fn(&str) -> String) -> Quality {
        let mut failed = Vec::new();
        for checked in &mut self.columns {
            for ready in checked.rules.iter_mut().filter(|ready| ready.failed > 0) {
                failed.push(FailedRule {
                    column: outward(&checked.name),
                    rule: ready.rule.name().to_owned(),
                    rows: std::mem::take(&mut ready.failed),
                });
            }
        }
        let (rows, unqualified) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.unqualified));
        Quality { rows, qualified: rows.saturating_sub(unqualified), failed }
    }
}

impl Checked {
    fn new(check: &Check, position: usize, item: &Item) -> Result<Self, GovernError> {
        let rules = check.rules.iter().map(|rule| Ready::new(rule, item)).collect::<Result<_, _>>()?;
        let (name, severity) = (check.column.clone(), check.severity);
        Ok(Self { position, name, r#type: item.r#type, severity, rules })
    }
}

impl Ready {
    fn new(rule: &Rule, item: &Item) -> Result<Self, GovernError> {
        let unfit = || GovernError::RuleType { column: item.name.clone(), rule: rule.name(), is: item.r#type };
        let is_text = matches!(item.r#type, ContractType::Text | ContractType::Char | ContractType::Json);
        let within = match rule {
            Rule::Length(..) if !is_text && item.r#type != ContractType::Bytes => return Err(unfit()),
            Rule::Pattern(_) | Rule::Codes(_) | Rule::IdCard | Rule::CreditCode
                if item.r#type == ContractType::Bytes =>
            {
                return Err(unfit());
            }
            Rule::Range(min, max) => Some(within(min.as_deref(), max.as_deref(), item.r#type).ok_or_else(unfit)?),
            _ => None,
        };
        Ok(Self { rule: rule.clone(), within, failed: 0 })
    }

    /// Why the value is not what the rule says.
    fn fails(&self, value: Value<'_>, r#type: ContractType) -> Option<&'static str> {
        if value.is_null() {
            return matches!(self.rule, Rule::Required).then_some("it is NULL");
        }
        let holds = |holds: bool, why: &'static str| (!holds).then_some(why);
        match &self.rule {
            Rule::Required => match value {
                Value::Text(text) => holds(!text.trim().is_empty(), "it is blank"),
                _ => None,
            },
            Rule::Length(min, max) => {
                let length = match value {
                    Value::Bytes(bytes) => bytes.len(),
                    value => text_of(&value, r#type).chars().count(),
                };
                holds((*min..=*max).contains(&(length as u64)), "it has another length")
            }
            Rule::Range(..) => {
                let result = self.within.as_ref().map(|within| within.evaluate(&|_| Some(compared(value))));
                holds(matches!(result, Some(Ok(Some(true)))), "it is out of range")
            }
            Rule::Pattern(pattern) => holds(pattern.matches(&text_of(&value, r#type)), "it does not match the pattern"),
            Rule::Codes(codes) => holds(codes.contains(&*text_of(&value, r#type)), "it is not in the list of codes"),
            Rule::IdCard => id_card(&text_of(&value, r#type)).err(),
            Rule::CreditCode => credit_code(&text_of(&value, r#type)).err(),
        }
    }
}

/// The value as rules see it: text without the blanks that only fill a column, anything else as it is written.
fn text_of<'a>(value: &Value<'a>, r#type: ContractType) -> Cow<'a, str> {
    match *value {
        Value::Text(text) if r#type == ContractType::Char => Cow::Borrowed(text.trim_end_matches(' ')),
        Value::Text(text) | Value::Number(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.normal().to_string()),
    }
}

/// A range as a filter over one value. None where the bounds are not of the column's type.
fn within(min: Option<&str>, max: Option<&str>, r#type: ContractType) -> Option<Filter> {
    let literal = |text: &str| match r#type {
        ContractType::Date => Some(format!("DATE '{}'", text.replace('\'', "''"))),
        ContractType::Timestamp => Some(format!("TIMESTAMP '{}'", text.replace('\'', "''"))),
        ContractType::Integer | ContractType::Decimal { .. } | ContractType::Number | ContractType::Float => {
            let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
            text.chars().all(plain).then(|| text.to_owned())
        }
        _ => None,
    };
    let bound = |operator: &str, text: Option<&str>| -> Option<Option<String>> {
        let Some(text) = text else { return Some(None) };
        Some(Some(format!("{VALUE} {operator} {}", literal(text)?)))
    };
    let parts: Vec<String> = [bound(">=", min)?, bound("<=", max)?].into_iter().flatten().collect();
    let filter = Filter::parse(&parts.join(" AND ")).ok()?;
    let item = Item { name: VALUE.to_owned(), r#type, nullable: true, comment: None };
    filter.check(&Contract { items: vec![item], key: Vec::new() }).ok()?;
    Some(filter)
}

fn compared(value: Value<'_>) -> Compared<'_> {
    match value {
        Value::Null => Compared::Null,
        Value::Boolean(value) => Compared::Boolean(value),
        Value::Integer(value) => Compared::Integer(value),
        Value::Decimal(unscaled, scale) => Compared::Decimal(unscaled, scale),
        Value::Float(value) => Compared::Float(value),
        Value::Text(value) => Compared::Text(value),
        Value::Bytes(_) => Compared::Opaque,
        Value::Date(value) => Compared::Date(value),
        Value::Timestamp(value) => Compared::Timestamp(value),
        Value::Number(value) => Compared::Number(value),
    }
}

/// How what is said of rules begins.
pub(super) const SAID: &str = "check ";
/// The name of the one value in a range's filter.
const VALUE: &str = "value";
/// What a pattern takes once it is made, and while it matches.
const PATTERN_MEMORY_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
