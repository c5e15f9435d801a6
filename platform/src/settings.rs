//! Reads a TOML configuration into typed values, and reports every mistake at once with file, line,
//! column, a caret and the nearest known key. Unknown keys are mistakes at every depth: a [`Table`]
//! notes which keys were asked for and reports the others when it is dropped.
//! What the keys mean is elsewhere (the node's and the coordinator's `config`).

use posthouse_protocol::problem::{Code, Lang, Problem};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod units;

pub use units::{Interval, Size};

/// Reads a file: see [`read`]. A file that cannot be read is PH1002, one with mistakes PH1001.
pub fn read_file<T>(file: &Path, work: impl FnOnce(&Table<'_>) -> Option<T>) -> Result<T, Problem> {
    let text = load(file)?;
    read(file, &text, work).map_err(|mistakes| mistakes.problem(Lang::En))
}

/// The text of a configuration file, or PH1002.
pub fn load(file: &Path) -> Result<String, Problem> {
    let missing = |cause: String| Problem::new(Code::ConfigMissing).with("file", file.display()).cause(cause);
    let size = std::fs::metadata(file).map_err(|e| missing(e.to_string()))?.len();
    if size > CONFIG_BYTES_MAX {
        return Err(missing(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(file).map_err(|e| missing(e.to_string()))
}

/// Parses `text` and hands its root table to `work`. Gives the value only where neither the parser, nor
/// `work`, nor the search for unknown keys found a mistake.
pub fn read<T>(file: &Path, text: &str, work: impl FnOnce(&Table<'_>) -> Option<T>) -> Result<T, Mistakes> {
    let found = RefCell::new(Vec::new());
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let en = error.message().trim().to_owned();
        found.borrow_mut().push(Found {
            span,
            say: say(format!("not TOML: {en}"), format!("不是有效的 TOML：{en}")),
            nearest: None,
        });
    }
    let value = if errors.is_empty() {
        let root = Table::new(&found, String::new(), document.span(), document.get_ref());
        work(&root)
    } else {
        None
    };
    let mut found = found.into_inner();
    found.sort_by_key(|f| f.span.start);
    match value {
        Some(value) if found.is_empty() => Ok(value),
        _ => Err(Mistakes { file: file.to_owned(), list: found.into_iter().map(|f| f.place(text)).collect() }),
    }
}

/// One sentence in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Say {
    pub en: String,
    pub zh: String,
}

pub fn say(en: impl Into<String>, zh: impl Into<String>) -> Say {
    Say { en: en.into(), zh: zh.into() }
}

impl Say {
    pub fn text(&self, lang: Lang) -> &str {
        match lang {
            Lang::En => &self.en,
            Lang::Zh => &self.zh,
        }
    }
}

/// All that is wrong with one file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    pub file: PathBuf,
    pub list: Vec<Mistake>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What the caret underlines, in characters; at least 1.
    pub length: usize,
    /// The whole line of the file.
    pub source: String,
    pub say: Say,
    /// The known key or value that was probably meant.
    pub nearest: Option<String>,
}

impl Mistakes {
    /// Each as `file:line:column: what`, the line, a caret, and the nearest key.
    pub fn render(&self, lang: Lang) -> String {
        self.list.iter().map(|mistake| mistake.render(&self.file, lang)).collect::<Vec<_>>().join("\n")
    }
    pub fn problem(&self, lang: Lang) -> Problem {
        Problem::new(Code::ConfigInvalid).with("file", self.file.display()).cause(format!("\n{}", self.render(lang)))
    }
}

impl Mistake {
    pub fn render(&self, file: &Path, lang: Lang) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let before: usize = self.source.chars().take(self.column - 1).map(width).sum();
        let under: usize = self.source.chars().skip(self.column - 1).take(self.length).map(width).sum();
        let shown: String = self.source.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        let nearest = match (&self.nearest, lang) {
            (Some(nearest), Lang::En) => format!(" did you mean `{nearest}`?"),
            (Some(nearest), Lang::Zh) => format!(" 是否应为 `{nearest}`？"),
            (None, _) => String::new(),
        };
        format!(
            "{}:{}:{}: {}\n {number} | {shown}\n {margin} | {}{}{nearest}",
            file.display(),
            self.line,
            self.column,
            self.say.text(lang),
            " ".repeat(before),
            "^".repeat(under.max(1)),
        )
    }
}

/// One table of the file. Reading is by key; whatever was not asked for is reported as unknown.
pub struct Table<'a> {
    found: &'a RefCell<Vec<Found>>,
    /// Dotted path, for texts; empty at the root.
    path: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Table<'a> {
    fn new(found: &'a RefCell<Vec<Found>>, path: String, span: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Self { found, path, span, entries, known: RefCell::default() }
    }

    /// A value that may be absent; a wrong one is reported and reads as absent.
    pub fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        let value = self.entry(key)?;
        match T::from_value(value.get_ref()) {
            Ok(read) => Some(read),
            Err(say) => self.report(value.span(), say, None),
        }
    }

    /// A value that must be there.
    pub fn require<T: FromValue>(&self, key: &str) -> Option<T> {
        self.must(key)?;
        self.get(key)
    }

    /// A value with its default.
    pub fn or<T: FromValue>(&self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// A string parsed by its type; `zh` is the Chinese noun of what it should be.
    pub fn parse<T>(&self, key: &str, zh: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let value = self.entry(key)?;
        let parsed = String::from_value(value.get_ref())
            .and_then(|text| text.parse().map_err(|e: T::Err| say(e.to_string(), format!("`{text}` 不是有效的{zh}"))));
        match parsed {
            Ok(parsed) => Some(parsed),
            Err(say) => self.report(value.span(), say, None),
        }
    }

    pub fn require_parse<T>(&self, key: &str, zh: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.must(key)?;
        self.parse(key, zh)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.entry(key)?;
        let text = match String::from_value(value.get_ref()) {
            Ok(text) => text,
            Err(say) => return self.report(value.span(), say, None),
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let nearest = nearest(&text, words.iter().copied());
        let what =
            say(format!("`{key}` is one of {}", words.join(", ")), format!("`{key}` 只能是 {} 之一", words.join("、")));
        self.report(value.span(), what, nearest)
    }

    /// A table below this one: `[node]` or `into = { … }`.
    pub fn table(&self, key: &str) -> Option<Table<'a>> {
        let value = self.entry(key)?;
        match value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.found, self.below(key), value.span(), entries)),
            other => self.report(value.span(), wrong_type("a table", "表", other), None),
        }
    }

    pub fn require_table(&self, key: &str) -> Option<Table<'a>> {
        self.must(key)?;
        self.table(key)
    }

    /// `[[resource]]`: none where the key is absent.
    pub fn tables(&self, key: &str) -> Vec<Table<'a>> {
        let Some(value) = self.entry(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.report::<()>(value.span(), wrong_type("a list of tables", "表的列表", value.get_ref()), None);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::new(self.found, self.below(key), item.span(), entries));
                }
                other => {
                    self.report::<()>(item.span(), wrong_type("a table", "表", other), None);
                }
            }
        }
        tables
    }

    /// The tables of `[connection.X]`, by name in order of their names.
    pub fn named_tables(&self, key: &str) -> Vec<(String, Table<'a>)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        table.keys().into_iter().filter_map(|name| table.table(&name).map(|below| (name, below))).collect()
    }

    /// All keys that stand in this table.
    pub fn keys(&self) -> Vec<String> {
        self.entries.keys().map(|key| key.get_ref().to_string()).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _)| k.get_ref() == key)
    }

    /// Whether the value under this key is a table (where a string would do as well).
    pub fn is_table(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, v)| k.get_ref() == key && v.get_ref().is_table())
    }

    /// Whether the value under this key is a list.
    pub fn is_list(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, v)| k.get_ref() == key && v.get_ref().is_array())
    }

    /// The keys not asked for so far, as JSON values; they count as known from now on. For tables whose
    /// keys belong to somebody else, who answers with mistakes by key (see [`Table::mistake`]).
    pub fn rest(&self) -> std::collections::BTreeMap<String, serde_json::Value> {
        let open: Vec<String> = self.keys().into_iter().filter(|key| !self.known.borrow().contains(key)).collect();
        let mut rest = std::collections::BTreeMap::new();
        for key in open {
            if let Some(value) = self.entry(&key) {
                rest.insert(key, json(value.get_ref()));
            }
        }
        rest
    }

    /// Counts a key as known without reading it (what is wrong with it was reported elsewhere).
    pub fn known(&self, key: &str) {
        self.known.borrow_mut().insert(key.to_owned());
    }

    /// A string parsed by its type where that works; reports nothing.
    pub fn quiet_parse<T: FromStr>(&self, key: &str) -> Option<T> {
        self.entry(key)?.get_ref().as_str()?.parse().ok()
    }

    /// Reports something about the value of `key`, or about this table where the key is absent.
    pub fn mistake(&self, key: &str, say: Say, nearest: Option<String>) {
        let span = self.entry(key).map_or_else(|| self.head(), Spanned::span);
        self.report::<()>(span, say, nearest);
    }

    /// Reports the key itself (not its value), e.g. one that is unknown to its owner.
    pub fn mistake_at_key(&self, key: &str, say: Say, nearest: Option<String>) {
        let at = self.entries.iter().find(|(k, _)| k.get_ref() == key).map(|(k, _)| k.span());
        self.known.borrow_mut().insert(key.to_owned());
        self.report::<()>(at.unwrap_or_else(|| self.head()), say, nearest);
    }

    /// Reports something about this table as a whole.
    pub fn mistake_here(&self, say: Say) {
        self.report::<()>(self.head(), say, None);
    }

    /// A key that is known but whose feature this version does not have: refused rather than ignored.
    pub fn not_yet(&self, key: &str) {
        if self.has(key) {
            let path = self.below(key);
            self.mistake_at_key(
                key,
                say(
                    format!("`{path}` is not available in this version; remove it, it would have no effect"),
                    format!("本版本尚不支持 `{path}`；请删除，否则不会起作用"),
                ),
                None,
            );
        }
        self.known.borrow_mut().insert(key.to_owned());
    }

    fn entry(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key.to_owned());
        self.entries.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value)
    }

    fn must(&self, key: &str) -> Option<()> {
        if self.has(key) {
            return Some(());
        }
        self.known.borrow_mut().insert(key.to_owned());
        let path = self.below(key);
        self.report(self.head(), say(format!("`{path}` is missing"), format!("缺少 `{path}`")), None)
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where a mistake about the table as a whole is shown.
    fn head(&self) -> Range<usize> {
        if self.path.is_empty() { 0..0 } else { self.span.clone() }
    }

    fn report<T>(&self, span: Range<usize>, say: Say, nearest: Option<String>) -> Option<T> {
        self.found.borrow_mut().push(Found { span, say, nearest });
        None
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let known = self.known.borrow();
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref();
            if known.contains(name) {
                continue;
            }
            let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let place_zh = if self.path.is_empty() { String::new() } else { format!("（位于 `{}`）", self.path) };
            self.found.borrow_mut().push(Found {
                span: key.span(),
                say: say(format!("unknown key `{name}`{place}"), format!("未知的键 `{name}`{place_zh}")),
                nearest: nearest(name, known.iter().map(String::as_str)),
            });
        }
    }
}

/// A type that stands in a configuration as one value.
pub trait FromValue: Sized {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say>;
}

impl FromValue for String {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong_type("a string", "字符串", value))
    }
}
impl FromValue for PathBuf {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let text = String::from_value(value)?;
        if text.is_empty() || text.contains('\0') {
            return Err(say("a path is not empty and has no NUL", "路径不能为空，也不能含有 NUL"));
        }
        Ok(text.into())
    }
}
impl FromValue for bool {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        value.as_bool().ok_or_else(|| wrong_type("true or false", "true 或 false", value))
    }
}
macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
                let integer = value.as_integer().ok_or_else(|| wrong_type("a whole number", "整数", value))?;
                <$type>::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| say(
                    format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX),
                    format!("应为 {} 到 {} 之间的整数", <$type>::MIN, <$type>::MAX),
                ))
            }
        }
    )*};
}
whole_numbers!(u8, u16, u32, u64, i64);
impl FromValue for Size {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let text = value.as_str().ok_or_else(|| wrong_type("a size such as \"4 MiB\"", "大小，如 \"4 MiB\"", value))?;
        text.parse().map_err(|_| {
            say(format!("`{text}` is not a size such as \"4 MiB\""), format!("`{text}` 不是大小；写法如 \"4 MiB\""))
        })
    }
}
impl FromValue for Interval {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let text = value.as_str().ok_or_else(|| wrong_type("a duration such as \"10s\"", "时长，如 \"10s\"", value))?;
        text.parse().map_err(|_| {
            say(
                format!("`{text}` is not a duration such as \"10s\" or \"7d\""),
                format!("`{text}` 不是时长；写法如 \"10s\"、\"7d\""),
            )
        })
    }
}
impl FromValue for Duration {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        Interval::from_value(value).map(Interval::duration)
    }
}
impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let items = value.as_array().ok_or_else(|| wrong_type("a list", "列表", value))?;
        items.iter().map(|item| T::from_value(item.get_ref())).collect()
    }
}

/// The word of `known` that `given` probably stands for.
pub fn nearest<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let limit = (given.chars().count() / 3).clamp(1, 4);
    known
        .map(|word| (distance(given, word), word))
        .filter(|(distance, word)| *distance <= limit && *distance < word.chars().count())
        .min()
        .map(|(_, word)| word.to_owned())
}

struct Found {
    span: Range<usize>,
    say: Say,
    nearest: Option<String>,
}

impl Found {
    fn place(self, text: &str) -> Mistake {
        let start = floor(text, self.span.start);
        let end = floor(text, self.span.end.max(start));
        let begins = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let ends = text[begins..].find('\n').map_or(text.len(), |at| begins + at);
        Mistake {
            line: text[..begins].matches('\n').count() + 1,
            column: text[begins..start].chars().count() + 1,
            length: text[start..end.min(ends).max(start)].chars().count().max(1),
            source: text[begins..ends].trim_end_matches('\r').to_owned(),
            say: self.say,
            nearest: self.nearest,
        }
    }
}

fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

pub fn wrong_type(wanted: &str, wanted_zh: &str, value: &DeValue<'_>) -> Say {
    let (is, is_zh) = match value {
        DeValue::String(_) => ("a string", "字符串"),
        DeValue::Integer(_) => ("a whole number", "整数"),
        DeValue::Float(_) => ("a number", "小数"),
        DeValue::Boolean(_) => ("true or false", "布尔值"),
        DeValue::Datetime(_) => ("a date", "日期"),
        DeValue::Array(_) => ("a list", "列表"),
        DeValue::Table(_) => ("a table", "表"),
    };
    say(format!("{wanted} belongs here, this is {is}"), format!("此处应为{wanted_zh}，而不是{is_zh}"))
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(n) => {
            i64::from_str_radix(n.as_str(), n.radix()).map_or_else(|_| n.as_str().into(), Into::into)
        }
        DeValue::Float(n) => n.as_str().parse::<f64>().map_or_else(|_| n.as_str().into(), Into::into),
        DeValue::Boolean(b) => (*b).into(),
        DeValue::Datetime(d) => d.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(entries) => serde_json::Value::Object(
            entries.iter().map(|(k, v)| (k.get_ref().to_string(), json(v.get_ref()))).collect(),
        ),
    }
}

/// Columns a character takes on a terminal: two for Chinese.
fn width(c: char) -> usize {
    match u32::from(c) {
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Edits between two words: insert, delete, change, or swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![Vec::from_iter(0..=b.len()); a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// A configuration file larger than this is no configuration.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests;
