//! `[resource.rename]`, `[resource.mask]`, `[resource.check]` and `[job.check]`: what is done to rows on their way.
//! Of a resource columns are named as its source has them; of a job as they come. What a rule means is in
//! `protocol::govern`.

use super::read::{Place, bad_name};
use crate::govern::{KeyFile, read_codes};
use posthouse_connectors::TableSpec;
use posthouse_platform::settings::{FromValue, Say, Table, nearest, say, wrong_type};
use posthouse_protocol::govern::{Algorithm, Check, Governing, Mask, Pattern, Rule, Severity};
use posthouse_protocol::limits;
use posthouse_protocol::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeValue;

/// What a resource says of its rows.
#[derive(Debug, Clone, Default)]
pub struct Govern {
    /// Without its rules, which are in `checks`.
    pub governing: Governing,
    pub checks: Checks,
    /// The key of its hashes.
    pub key: Option<KeyFile>,
}

/// Rules, with the files that some of them refer to.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    checks: Vec<(Check, Option<PathBuf>)>,
}

impl Checks {
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// With the lists of codes as they are now. Blocks.
    pub fn load(&self) -> Result<Vec<Check>, Problem> {
        let load = |(check, file): &(Check, Option<PathBuf>)| -> Result<Check, Problem> {
            let mut check = check.clone();
            if let Some(path) = file {
                check.rules.push(Rule::Codes(Arc::new(read_codes(path)?)));
            }
            Ok(check)
        };
        self.checks.iter().map(load).collect()
    }
}

/// The keys that belong to tables only.
pub(super) const KEYS: [&str; 7] = ["columns", "rename", "mask", "mask_key_file", "check", "rules", "items"];

pub(super) fn read(table: &Table<'_>, place: &Place<'_>, spec: &TableSpec) -> Govern {
    let columns = columns(table);
    let key = mask_key(table, place.base);
    let named = Named { table, columns: columns.as_deref() };
    let rename = rename(&named);
    let masks = masks(&named, spec);
    let checks = checks(table, place.base, &|section, column| named.check(section, column));
    if key.is_none() && !table.has("mask_key_file") && masks.values().any(Mask::needs_key) {
        table.mistake(
            "mask",
            say(
                "a hash under a key needs `mask_key_file`; `openssl rand -hex 32` makes a key",
                "带密钥的摘要须设置 `mask_key_file`；可用 `openssl rand -hex 32` 生成密钥",
            ),
            None,
        );
    }
    let mut dialect = super::dialect::read(table, columns.as_deref());
    dialect.items = super::dialect::items(table, columns.as_deref());
    Govern { governing: Governing { columns, rename, masks, checks: Vec::new(), dialect }, checks, key }
}

fn columns(table: &Table<'_>) -> Option<Vec<String>> {
    let columns: Vec<String> = table.get("columns")?;
    let mut seen = BTreeSet::new();
    if columns.is_empty() || columns.len() > limits::COLUMNS_MAX {
        let en = format!("it names 1 to {} columns", limits::COLUMNS_MAX);
        table.mistake("columns", say(en, format!("应写明 1 至 {} 列", limits::COLUMNS_MAX)), None);
    }
    for column in &columns {
        if bad_name(column) || !seen.insert(column) {
            table.mistake(
                "columns",
                say(
                    format!("`{column}` is no name of a column, or stands there twice"),
                    format!("`{column}` 不是列名，或重复出现"),
                ),
                None,
            );
        }
    }
    Some(columns)
}

fn mask_key(table: &Table<'_>, base: &Path) -> Option<KeyFile> {
    let text: String = table.get("mask_key_file")?;
    match KeyFile::parse(&text, base) {
        Ok(key) => Some(key),
        Err(what) => {
            table.mistake("mask_key_file", say(what, "应为文件路径、`credential:名称` 或 `env:变量名`"), None);
            None
        }
    }
}

/// A resource whose columns are governed by name.
struct Named<'a, 'b> {
    table: &'a Table<'b>,
    columns: Option<&'a [String]>,
}

impl Named<'_, '_> {
    /// Only columns that are listed can be governed: a slip in a name would hand over what was to be hidden.
    fn check(&self, section: &Table<'_>, column: &str) {
        match self.columns {
            Some(columns) if columns.iter().any(|known| known == column) => {}
            Some(columns) => section.mistake_at_key(
                column,
                say(
                    format!("`{column}` is not among the `columns` of the resource"),
                    format!("`{column}` 不在资源的 `columns` 之中"),
                ),
                nearest(column, columns.iter().map(String::as_str)),
            ),
            // A mistake in the list itself is told already.
            None if self.table.has("columns") => {}
            None => section.mistake_at_key(
                column,
                say(
                    "a resource whose columns are renamed, masked or checked lists those it offers in `columns`",
                    "对列改名、脱敏或校验的资源须在 `columns` 中列明所提供的列",
                ),
                None,
            ),
        }
    }
}

fn rename(named: &Named<'_, '_>) -> BTreeMap<String, String> {
    let mut rename = BTreeMap::new();
    let Some(section) = named.table.table("rename") else { return rename };
    for column in section.keys() {
        named.check(&section, &column);
        let Some(name) = section.get::<String>(&column) else { continue };
        if bad_name(&name) {
            section.mistake(&column, say("a column's name is neither empty nor too long", "列名不能为空或过长"), None);
            continue;
        }
        rename.insert(column, name);
    }
    let mut seen = BTreeSet::new();
    for column in named.columns.unwrap_or_default() {
        let outward = rename.get(column).unwrap_or(column);
        if !seen.insert(outward.clone()) {
            named.table.mistake(
                "rename",
                say(format!("two columns are offered as `{outward}`"), format!("有两列以 `{outward}` 为名提供")),
                None,
            );
        }
    }
    rename
}

fn masks(named: &Named<'_, '_>, spec: &TableSpec) -> BTreeMap<String, Mask> {
    let mut masks = BTreeMap::new();
    let Some(section) = named.table.table("mask") else { return masks };
    for column in section.keys() {
        named.check(&section, &column);
        let Some(mask) = section.table(&column).and_then(|table| mask(&table)) else { continue };
        if spec.watermark.as_deref() == Some(column.as_str()) {
            section.mistake_at_key(
                &column,
                say(
                    "the watermark cannot be masked: the consumer tells by it which rows it has",
                    "增量水位列不能脱敏：使用方据此判断已有哪些行",
                ),
                None,
            );
        }
        if spec.key.contains(&column) && !mask.keeps_apart() {
            section.mistake_at_key(
                &column,
                say(
                    format!("`{column}` belongs to the key, which only a hash keeps apart: {{ hash = \"hmac-sm3\" }}"),
                    format!("`{column}` 属于主键，只能用摘要脱敏以保持唯一：{{ hash = \"hmac-sm3\" }}"),
                ),
                None,
            );
        }
        masks.insert(column, mask);
    }
    masks
}

/// `{ keep_first = 3, keep_last = 4 }`, `{ null = true }`, `{ constant = "…" }` or `{ hash = "hmac-sm3" }`.
fn mask(table: &Table<'_>) -> Option<Mask> {
    let keeps = table.has("keep_first") || table.has("keep_last");
    let kinds = [keeps, table.has("null"), table.has("constant"), table.has("hash")];
    let (first, last) = (table.or("keep_first", 0u8), table.or("keep_last", 0u8));
    let null: Option<bool> = table.get("null");
    let constant: Option<String> = table.get("constant");
    let hash = table.choice("hash", &Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm)));
    if kinds.iter().filter(|given| **given).count() != 1 {
        table.mistake_here(say(
            "a mask is one of keep_first with keep_last, null, constant, hash",
            "脱敏方式须为 keep_first/keep_last、null、constant、hash 之一",
        ));
        return None;
    }
    if null == Some(false) {
        table.mistake("null", say("`null` is true or absent", "`null` 只能为 true"), None);
        return None;
    }
    let mask = match (keeps, null, constant, hash) {
        (true, ..) => Mask::Keep(first, last),
        (_, Some(_), ..) => Mask::Null,
        (_, _, Some(text), _) => Mask::Constant(text),
        (.., Some(algorithm)) => Mask::Hash(algorithm),
        // What was given could not be read, which is told already.
        _ => return None,
    };
    if !mask.is_valid() {
        let most = limits::MASK_CONSTANT_BYTES_MAX;
        table.mistake("constant", say(format!("at most {most} bytes"), format!("最多 {most} 字节")), None);
    }
    Some(mask)
}

/// A bound of a range: a number, a date, or either as text.
struct Bound(String);

impl FromValue for Bound {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        match value {
            DeValue::String(text) => Ok(Self(text.to_string())),
            DeValue::Integer(_) => i64::from_value(value).map(|number| Self(number.to_string())),
            DeValue::Float(number) => Ok(Self(number.as_str().to_owned())),
            DeValue::Datetime(time) => Ok(Self(time.to_string())),
            other => Err(wrong_type("a number or a date", "数字或日期", other)),
        }
    }
}

/// The rules of `check`; `known` tells a mistake about a column that is none.
pub(super) fn checks(table: &Table<'_>, base: &Path, known: &dyn Fn(&Table<'_>, &str)) -> Checks {
    let mut checks = Vec::new();
    let Some(section) = table.table("check") else { return Checks::default() };
    for column in section.keys() {
        known(&section, &column);
        if let Some(found) = section.table(&column).and_then(|table| check(&table, column.clone(), base)) {
            checks.push(found);
        }
    }
    Checks { checks }
}

fn check(table: &Table<'_>, column: String, base: &Path) -> Option<(Check, Option<PathBuf>)> {
    let mut rules = Vec::new();
    let flag = |key: &str, rule: Rule| table.or(key, false).then_some(rule);
    rules.extend(flag("required", Rule::Required));
    if let Some(length) = table.get::<Vec<u64>>("length") {
        match length.as_slice() {
            [min, max] if min <= max => rules.push(Rule::Length(*min, *max)),
            _ => table.mistake(
                "length",
                say("it is the least and the most, such as [2, 18]", "应为最小和最大长度，如 [2, 18]"),
                None,
            ),
        }
    }
    let (min, max): (Option<Bound>, Option<Bound>) = (table.get("min"), table.get("max"));
    if min.is_some() || max.is_some() {
        let at = if min.is_some() { "min" } else { "max" };
        match Rule::range(min.map(|bound| bound.0), max.map(|bound| bound.0)) {
            Ok(rule) => rules.push(rule),
            Err(what) => {
                table.mistake(
                    at,
                    say(what, "上下限应同为数字（如 -12.5）、日期或带时区的时间，且下限不高于上限"),
                    None,
                );
            }
        }
    }
    if let Some(text) = table.get::<String>("pattern") {
        match Pattern::new(&text) {
            Ok(pattern) => rules.push(Rule::Pattern(pattern)),
            Err(what) => {
                let zh = format!("不是可用的正则表达式：{what}");
                table.mistake("pattern", say(format!("it is no pattern: {what}"), zh), None);
            }
        }
    }
    if let Some(codes) = table.get::<Vec<String>>("codes") {
        if codes.is_empty() || codes.len() > limits::CODES_MAX {
            let most = limits::CODES_MAX;
            table.mistake(
                "codes",
                say(format!("it lists 1 to {most} codes"), format!("应列出 1 至 {most} 个代码")),
                None,
            );
        }
        rules.push(Rule::Codes(Arc::new(codes.into_iter().collect())));
    }
    let file: Option<PathBuf> = table.get("codes_file");
    if file.is_some() && table.has("codes") {
        table.mistake(
            "codes_file",
            say("codes stand either here or in a file", "代码表只能写在此处或文件中，二者取一"),
            None,
        );
    }
    rules.extend(flag("id_card", Rule::IdCard));
    rules.extend(flag("credit_code", Rule::CreditCode));
    let severities = [Severity::Quarantine, Severity::Count].map(|severity| (severity.name(), severity));
    let severity = table.choice("severity", &severities).unwrap_or_default();
    // A bound that is none is told already.
    let is_bounded = table.has("min") || table.has("max");
    if rules.is_empty() && file.is_none() && !is_bounded {
        table.mistake_here(say(
            "it has no rule: required, length, min, max, pattern, codes, codes_file, id_card or credit_code",
            "缺少规则：required、length、min、max、pattern、codes、codes_file、id_card、credit_code",
        ));
        return None;
    }
    Some((Check { column, rules, severity }, file.map(|file| base.join(file))))
}
