//! What an examination of a connection finds: rights, settings, charsets and the clock, each told in both languages and
//! with what mends it. Engines ask in their own words; what all of them say alike stands here. Nothing is changed by an
//! examination: it reads catalogues and a few values.
//! Deliberately absent: how fast anything is, which is the node's `doctor`, and secrets of any kind.

mod found;

pub(crate) use found::{Asked, Found, named};

use crate::TableSpec;
use crate::charset::{Charset, Edition};
use serde::Serialize;

/// What is read of a place.
#[derive(Debug, Clone)]
pub struct Reading {
    pub spec: TableSpec,
    pub columns: Columns,
}

/// Which columns of a table are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// Whatever is there.
    All,
    /// Those that a grant covers, which is not known here.
    Granted,
    /// These at most, by the table's own names.
    Listed(Vec<String>),
}

impl From<TableSpec> for Reading {
    fn from(spec: TableSpec) -> Self {
        Self { spec, columns: Columns::Granted }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    Rights,
    Settings,
    Charset,
    Clock,
    /// What is free on a disk.
    Room,
    /// What is carried by a ferry.
    Parts,
}

impl Topic {
    /// In English and in Chinese.
    pub fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Rights => ("rights", "权限"),
            Self::Settings => ("settings", "设置"),
            Self::Charset => ("charset", "字符编码"),
            Self::Clock => ("clock", "时钟"),
            Self::Room => ("room", "空间"),
            Self::Parts => ("parts", "分件"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Well,
    /// It works; somebody should know.
    Note,
    /// Something that is configured does not work like this.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub topic: Topic,
    pub grade: Grade,
    /// What was looked at, as its engine names it: a table, a column, a setting.
    pub object: String,
    pub en: String,
    pub zh: String,
    /// The statement, or the line of the configuration, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub fn new(
        topic: Topic,
        grade: Grade,
        object: impl std::fmt::Display,
        en: impl Into<String>,
        zh: impl Into<String>,
    ) -> Self {
        Self { topic, grade, object: object.to_string(), en: en.into(), zh: zh.into(), fix: None }
    }
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// A right that is there, or is not and is given by this statement.
    pub(crate) fn right(object: impl std::fmt::Display, right: &str, is_there: bool, grant: String) -> Self {
        match is_there {
            true => Self::new(Topic::Rights, Grade::Well, object, right, right),
            false => {
                let (en, zh) = (format!("the account lacks {right}"), format!("账号缺少 {right} 权限"));
                Self::new(Topic::Rights, Grade::Wrong, object, en, zh).fix(grant)
            }
        }
    }

    /// A table that is not there, or of which the account may not know.
    pub(crate) fn absent(object: impl std::fmt::Display) -> Self {
        let en = "it is not there, or the account may not see it";
        Self::new(Topic::Rights, Grade::Wrong, object, en, "不存在，或账号无权看到")
    }

    /// What is not there and is made when it is needed.
    pub(crate) fn to_be_made(object: impl std::fmt::Display) -> Self {
        let en = "it is made with the first transfer";
        Self::new(Topic::Rights, Grade::Well, object, en, "首次交换时自动创建")
    }

    /// What the DBA's script makes and the account cannot make itself.
    pub(crate) fn not_made(object: impl std::fmt::Display, connection: &str) -> Self {
        let en = "it is not there, and the account may not make it: have the DBA run the script";
        let zh = "不存在，且账号无权创建：请数据库管理员执行脚本";
        let script = format!("posthouse doctor --config FILE --sql {connection}");
        Self::new(Topic::Rights, Grade::Wrong, object, en, zh).fix(script)
    }

    /// The server's version, and what is switched off for it.
    pub(crate) fn version(version: &str, lacks: &[(&str, &str)]) -> Self {
        let list = |pick: fn(&(&str, &str)) -> String| lacks.iter().map(pick).collect::<Vec<_>>();
        let (en, zh) = (list(|lack| lack.0.to_owned()).join("; "), list(|lack| lack.1.to_owned()).join("；"));
        if lacks.is_empty() {
            return Self::new(Topic::Settings, Grade::Well, "version", version, version);
        }
        let (en, zh) = (format!("{version}: {en}"), format!("{version}：{zh}"));
        Self::new(Topic::Settings, Grade::Note, "version", en, zh)
    }

    /// How many more sessions the server takes.
    pub(crate) fn sessions(used: u64, most: u64) -> Self {
        let left = most.saturating_sub(used);
        let (en, zh) = (format!("{used} of {most} are in use"), format!("已用 {used}，上限 {most}"));
        let grade = if left < SESSIONS_LEFT_MIN { Grade::Note } else { Grade::Well };
        Self::new(Topic::Settings, grade, "max_connections", en, zh)
    }

    /// A server's clock against this machine's, which was read before and after it was asked. Milliseconds.
    pub(crate) fn clock(server: i64, before: i64, after: i64, precision: i64) -> Self {
        // Whatever the answer's way took is nobody's error.
        let ahead = match server {
            server if server > after => server - after,
            server if server.saturating_add(precision) < before => server.saturating_add(precision) - before,
            _ => 0,
        };
        let (grade, apart) = match ahead.unsigned_abs() {
            apart if apart >= CLOCK_WRONG_MS => (Grade::Wrong, apart),
            apart if apart >= CLOCK_NOTE_MS => (Grade::Note, apart),
            apart => (Grade::Well, apart),
        };
        let seconds = apart as f64 / 1000.0;
        let (en, zh) = match (grade, ahead > 0) {
            (Grade::Well, _) => ("it agrees with this machine's".to_owned(), "与本机一致".to_owned()),
            (_, true) => (
                format!("it is {seconds:.1} s ahead of this machine's: set both by the same time source"),
                format!("比本机快 {seconds:.1} 秒：请使用同一时间源校时"),
            ),
            (_, false) => (
                format!("it is {seconds:.1} s behind this machine's: set both by the same time source"),
                format!("比本机慢 {seconds:.1} 秒：请使用同一时间源校时"),
            ),
        };
        Self::new(Topic::Clock, grade, "clock", en, zh)
    }

    /// Values of a column whose bytes the database does not explain, against the charset that is configured. None: they
    /// are all ASCII, which is the same in every charset.
    pub(crate) fn texts(column: &str, values: &[Vec<u8>], configured: Charset) -> Option<Self> {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).filter(|value| !value.is_ascii()).collect();
        if values.is_empty() {
            return None;
        }
        let fits = |charset: Charset| values.iter().filter(|value| charset.decode(value).is_ok()).count();
        let (all, good) = (values.len(), fits(configured));
        if good == all {
            let (en, zh) = (
                format!("{all} values beyond ASCII were looked at, all are {}", configured.name()),
                format!("检查了 {all} 个非 ASCII 值，均为 {}", configured.name()),
            );
            return Some(Self::new(Topic::Charset, Grade::Well, column, en, zh));
        }
        let (en, zh) = (
            format!(
                "{} of {all} values beyond ASCII are no {}: their rows are quarantined",
                all - good,
                configured.name()
            ),
            format!("{all} 个非 ASCII 值中有 {} 个不是 {}：这些行将进入问题数据", all - good, configured.name()),
        );
        let finding = Self::new(Topic::Charset, Grade::Wrong, column, en, zh);
        let candidates = [Charset::Utf8, Charset::Gbk, Charset::Gb18030(Edition::Of2022)];
        let better = candidates.into_iter().find(|charset| *charset != configured && fits(*charset) == all);
        Some(match better {
            Some(charset) => finding.fix(format!("charset = \"{}\"", charset.name())),
            None => finding,
        })
    }

    /// Values of a column that says `latin1`: whether they are Chinese, as programs put it there. Without a charset
    /// configured they are read as what the column says.
    pub(crate) fn disguised(column: &str, values: &[Vec<u8>]) -> Option<Self> {
        let beyond: Vec<&Vec<u8>> = values.iter().filter(|value| !value.is_ascii()).collect();
        let chinese = beyond.iter().filter(|value| is_like_gb2312(value)).count();
        // A few accents may stand in pairs; a column of them does not.
        if beyond.is_empty() || chinese * 10 < beyond.len() * 9 {
            return None;
        }
        let all = beyond.len();
        let en = format!("it is declared latin1, and {chinese} of {all} values beyond ASCII look like Chinese in GBK");
        let zh = format!("该列声明为 latin1，但 {all} 个非 ASCII 值中有 {chinese} 个像是 GBK 中文");
        Some(Self::new(Topic::Charset, Grade::Wrong, column, en, zh).fix("charset = \"gbk\""))
    }
}

/// Whether all bytes beyond ASCII stand in pairs that are characters of GB 2312.
fn is_like_gb2312(value: &[u8]) -> bool {
    let mut rest = value;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (first, after) if first.is_ascii() => after,
            (0xa1..=0xf7, [0xa1..=0xfe, after @ ..]) => after,
            _ => return false,
        };
    }
    true
}

/// What the destination's account needs on each table there.
pub(crate) const ROW_RIGHTS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Values of a column that are looked at, of so many rows at most.
pub(crate) const VALUES_MAX: u32 = 200;
pub(crate) const ROWS_LOOKED_AT: u32 = 20_000;
const SESSIONS_LEFT_MIN: u64 = 10;
const CLOCK_NOTE_MS: u64 = 2_000;
/// Watermarks of rows that are dated by such a clock lie beside those of others.
const CLOCK_WRONG_MS: u64 = 300_000;

/// As [`Reading`] of what a grant covers.
#[cfg(test)]
pub(crate) fn granted(specs: &[TableSpec]) -> Vec<Reading> {
    specs.iter().cloned().map(Reading::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_the_answer_cannot_explain() {
        let grade = |server, precision| Finding::clock(server, 1_000_000, 1_003_000, precision).grade;
        assert_eq!(grade(1_001_000, 0), Grade::Well);
        assert_eq!(grade(1_004_000, 0), Grade::Well, "a second off is nothing");
        assert_eq!(grade(1_006_000, 0), Grade::Note);
        assert_eq!(grade(997_500, 1_000), Grade::Well, "it tells whole seconds");
        assert_eq!(grade(600_000, 1_000), Grade::Wrong);
        assert!(Finding::clock(0, 400_000, 400_000, 0).en.contains("400.0 s behind"));
        assert!(Finding::clock(9_000, 5_000, 5_000, 0).zh.contains("快 4.0 秒"));
    }

    #[test]
    fn texts_of_another_charset_are_told_with_the_charset_that_they_are() {
        let gbk = |text: &str| Charset::Gbk.encode(text).unwrap().into_owned();
        let values = [gbk("王小明"), gbk("plain"), gbk("张伟")];
        let found = Finding::texts("t.name", &values, Charset::Utf8).unwrap();
        assert_eq!((found.grade, found.fix.as_deref()), (Grade::Wrong, Some("charset = \"gbk\"")));
        assert!(found.en.starts_with("2 of 2"), "{found:?}");
        assert_eq!(Finding::texts("t.name", &values, Charset::Gbk).unwrap().grade, Grade::Well);
        assert_eq!(Finding::texts("t.name", &[gbk("plain")], Charset::Utf8), None);
        let neither = Finding::texts("t.name", &[vec![0xff, 0xff]], Charset::Gbk).unwrap();
        assert_eq!((neither.grade, neither.fix), (Grade::Wrong, None));
    }

    #[test]
    fn chinese_in_a_latin1_column_is_told_from_accents() {
        let gbk = Charset::Gbk.encode("西安市 610100").unwrap().into_owned();
        assert!(Finding::disguised("t.c", &[gbk, b"plain".to_vec()]).is_some());
        // Café, Müller.
        assert_eq!(Finding::disguised("t.c", &[b"Caf\xe9".to_vec(), b"M\xfcller".to_vec()]), None);
        assert_eq!(Finding::disguised("t.c", &[b"plain".to_vec()]), None);
    }
}
