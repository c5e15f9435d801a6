//! docs/TYPES.md and its Chinese twin, written from the mappings.

use super::{Becomes, Edge, Mapping, Native, Verdict, engines, verdict};
use crate::types::type_name;
use posthouse_protocol::govern::dialect::items::ItemType;
use posthouse_protocol::schema::ContractType;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    En,
    Zh,
}

impl Lang {
    fn say(self, [en, zh]: [&'static str; 2]) -> &'static str {
        match self {
            Self::En => en,
            Self::Zh => zh,
        }
    }
}

/// The whole document.
pub(super) fn render(lang: Lang) -> String {
    let engines = engines();
    let mut out = String::new();
    paragraph(&mut out, lang, HEAD);
    paragraph(&mut out, lang, MADE);
    made(&mut out, lang, &engines);
    paragraph(&mut out, lang, ITEMS);
    items(&mut out, lang, &engines);
    for (engine, mapping) in engines.iter().filter(|(_, mapping)| !mapping.native.is_empty()) {
        let _ = writeln!(out, "\n## {} `{engine}`\n", lang.say(["From", "来自"]));
        natives(&mut out, lang, mapping, &engines);
    }
    paragraph(&mut out, lang, LETTERS);
    for (becomes, title) in BECOMES {
        let _ = writeln!(out, "\n### {}\n", lang.say(*title));
        header(&mut out, &[lang.say(["letter", "字母"]), lang.say(["what", "含义"])]);
        for edge in Edge::ALL.into_iter().filter(|edge| edge.becomes() == *becomes) {
            row(&mut out, &[edge.letter().to_string(), lang.say(edge.say()).to_owned()]);
        }
    }
    paragraph(&mut out, lang, FOOT);
    out
}

/// Contract types, and the columns of tables that are made.
fn made(out: &mut String, lang: Lang, engines: &[(&str, Mapping)]) {
    let mut heads = vec![lang.say(["in the contract", "契约类型"])];
    heads.extend(engines.iter().map(|(engine, _)| *engine));
    header(out, &heads);
    for r#type in SAMPLES {
        let mut cells = vec![contract(lang, *r#type)];
        cells.extend(engines.iter().map(|(_, mapping)| {
            let made = (mapping.made)(*r#type);
            made.declared.map_or_else(|| refused(lang), |declared| cell(&declared, made.lacks))
        }));
        row(out, &cells);
    }
}

/// The eleven types of a catalogue.
fn items(out: &mut String, lang: Lang, engines: &[(&str, Mapping)]) {
    let mut heads = vec![
        lang.say(["declared", "声明"]),
        lang.say(["called", "名称"]),
        lang.say(["filled by columns that are", "可由这些类型的列填充"]),
        lang.say(["in the contract", "契约类型"]),
    ];
    heads.extend(engines.iter().map(|(engine, _)| *engine));
    header(out, &heads);
    for item in ItemType::ALL {
        let fills: Vec<(ContractType, ContractType)> =
            SAMPLES.iter().filter_map(|found| Some((*found, item.of(*found)?))).collect();
        let from: Vec<String> =
            fills.iter().filter(|(found, _)| is_first(*found)).map(|(found, _)| word(lang, *found)).collect();
        // A char stays one; of it the table above tells.
        let Some((_, r#type)) = fills.iter().find(|(_, r#type)| *r#type != ContractType::Char) else { continue };
        let mut cells =
            vec![format!("`{item}`"), item.zh().to_owned(), from.join(lang.say([", ", "、"])), contract(lang, *r#type)];
        cells.extend(engines.iter().map(|(_, mapping)| {
            let declared = (mapping.made)(*r#type).declared;
            declared.map_or_else(|| refused(lang), |declared| cell(&declared, &[]))
        }));
        row(out, &cells);
    }
}

/// What an engine's own types become.
fn natives(out: &mut String, lang: Lang, mapping: &Mapping, engines: &[(&str, Mapping)]) {
    let mut heads = vec![lang.say(["at the source", "来源类型"]), lang.say(["in the contract", "契约类型"])];
    heads.extend(engines.iter().map(|(engine, _)| *engine));
    header(out, &heads);
    let same = |a: &Native, b: &Native| (a.r#type, a.holds) == (b.r#type, b.holds);
    for group in mapping.native.chunk_by(same) {
        let Some(first) = group.first() else { continue };
        let names: Vec<String> = group.iter().map(|native| format!("`{}`", native.declared)).collect();
        let mut cells = vec![names.join(lang.say([", ", "、"]))];
        match first.r#type {
            None => {
                cells.push(refused(lang));
                cells.extend(engines.iter().map(|_| "–".to_owned()));
            }
            Some(r#type) => {
                cells.push(contract(lang, r#type));
                cells.extend(engines.iter().map(|(_, to)| match verdict(first, to) {
                    Verdict::Refused => refused(lang),
                    Verdict::Moves { declared, but } => cell(&declared, &but),
                }));
            }
        }
        row(out, &cells);
    }
}

/// A column with the letters of what is to be known of it.
fn cell(declared: &str, edges: &[Edge]) -> String {
    let mut edges = edges.to_vec();
    edges.sort_unstable();
    let letters: Vec<String> = edges.iter().map(|edge| edge.letter().to_string()).collect();
    if letters.is_empty() { format!("`{declared}`") } else { format!("`{declared}` ({})", letters.join(", ")) }
}

fn refused(lang: Lang) -> String {
    lang.say(["refused", "拒绝"]).to_owned()
}

fn contract(lang: Lang, r#type: ContractType) -> String {
    match lang {
        Lang::En => type_name(r#type),
        Lang::Zh => format!("{} {}", word(lang, r#type), type_name(r#type)),
    }
}

/// A contract type without its digits.
fn word(lang: Lang, r#type: ContractType) -> String {
    let say = match r#type {
        ContractType::Boolean => ["boolean", "逻辑"],
        ContractType::Integer => ["integer", "整数"],
        ContractType::Decimal { .. } => ["decimal", "小数"],
        ContractType::Float => ["float", "浮点数"],
        ContractType::Text => ["text", "文本"],
        ContractType::Char => ["char", "定长文本"],
        ContractType::Bytes => ["bytes", "字节"],
        ContractType::Date => ["date", "日期"],
        ContractType::Timestamp => ["timestamp", "时间"],
        ContractType::Json => ["json", "JSON 文本"],
        ContractType::Number => ["number", "任意长度的数"],
    };
    lang.say(say).to_owned()
}

/// Whether this is the first of the samples of its kind.
fn is_first(r#type: ContractType) -> bool {
    let alike = |a: &ContractType| std::mem::discriminant(a) == std::mem::discriminant(&r#type);
    SAMPLES.iter().find(|sample| alike(sample)) == Some(&r#type)
}

fn header(out: &mut String, heads: &[&str]) {
    let _ = writeln!(out, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
}

fn row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn paragraph(out: &mut String, lang: Lang, say: [&'static str; 2]) {
    out.push_str(lang.say(say));
}

/// One of each, with decimals at their bounds.
const SAMPLES: &[ContractType] = &[
    ContractType::Boolean,
    ContractType::Integer,
    ContractType::Decimal { precision: 18, scale: 2 },
    ContractType::Decimal { precision: 38, scale: 38 },
    ContractType::Decimal { precision: 5, scale: -3 },
    ContractType::Number,
    ContractType::Float,
    ContractType::Text,
    ContractType::Char,
    ContractType::Bytes,
    ContractType::Date,
    ContractType::Timestamp,
    ContractType::Json,
];

const BECOMES: &[(Becomes, [&str; 2])] = &[
    (Becomes::ByDestination, ["Values that the destination has no place for", "目标处没有位置的值"]),
    (Becomes::BadAtSource, ["Values that no contract has", "契约中没有的值"]),
    (Becomes::Said, ["What is true of all values", "对全部取值成立的说明"]),
];

const HEAD: [&str; 2] = [
    "# Types from engine to engine

What a column of one engine becomes in another. This page is written by a test from the code that reads and makes tables; do not edit it. `POSTHOUSE_WRITE_DOCS=1 cargo test -p posthouse-connectors the_documents_are_what_the_code_says` writes it again.

The types of a contract stand in the middle: a source reads its columns as these, digests and receipts are over them, and a destination makes or checks its columns by them ([decision 0027](decisions/0027-types-meet-in-the-contract.md)). A column either moves or is refused by name (PH4006) before anything moves. Where a cell has letters, these are values that make their row a quarantined one, with its original, or something to be known of all values: [below](#letters). Where it has none, every value moves as it is.

Two PostgreSQL databases have a shorter way: rows pass in the server's own form and tables are made with the source's types ([PostgreSQL](POSTGRESQL.md)). A table that stands at the destination keeps its own columns: one that cannot hold the contract's values is refused (PH4005), and a value that it would round, pad, cut or take for another makes a quarantined row; see the pages of [PostgreSQL](POSTGRESQL.md), [MySQL and MariaDB](MYSQL.md) and [SQL Server](SQLSERVER.md). What other values mean than they say (dates as text, zeros for no date) is said by [rules](ENCODINGS.md).
",
    "# 各数据库之间的类型

一种数据库的列在另一种数据库中成为什么。本页由测试根据读表和建表的代码写出，请勿手工修改；`POSTHOUSE_WRITE_DOCS=1 cargo test -p posthouse-connectors the_documents_are_what_the_code_says` 重新写出。

契约类型居中：来源把列读作契约类型，摘要与回执以其为准，目标按其建列或核对列（[决策 0027](decisions/0027-types-meet-in-the-contract.md)）。一列要么可以交换，要么在移动任何数据之前点名拒绝（PH4006）。单元格中的字母表示：哪些取值会使所在行进入问题数据（连同原值），或对全部取值须知的事项，见[下文](#字母)。没有字母的，全部取值原样交换。

两个 PostgreSQL 数据库之间有更短的路：行以服务器自身的形式通过，按来源的类型建表（[PostgreSQL](POSTGRESQL.zh-CN.md)）。目标处已有的表保留其自己的列：容纳不了契约取值的列会被拒绝（PH4005）；会被舍入、填充、截断或改作他意的值使所在行进入问题数据，见 [PostgreSQL](POSTGRESQL.zh-CN.md)、[MySQL 与 MariaDB](MYSQL.zh-CN.md)、[SQL Server](SQLSERVER.zh-CN.md) 各页。取值另有含义的（文本日期、以零表示没有日期），用[规则](ENCODINGS.zh-CN.md)说明。
",
];

const MADE: [&str; 2] = [
    "
## Tables that are made

The letters are values of the contract type that such a column has no place for. Texts and bytes of a key are as long as the engine's index lets them be, as the pages of the engines say; a longer one is a quarantined row. `mysql` is shown as MariaDB 10.11.

",
    "
## 新建的表

字母表示该契约类型中这样的列没有位置的值。主键中的文本和字节以数据库索引所允许的长度为限，见各数据库的页面；更长的值使所在行进入问题数据。`mysql` 以 MariaDB 10.11 为例。

",
];

const ITEMS: [&str; 2] = [
    "
## Items as a catalogue declares them

`[resource.items]` says as what the catalogue declares a column's item: `xm = \"C(50)\"`, `je = \"N(18,2)\"`, `csrq = \"D\"`. The provider holds every value to it, after its [rules](ENCODINGS.md) and before its checks, masks and names ([GOVERNING](GOVERNING.md)), and hands the column over as the contract type that follows. A column of a kind that cannot fill the item exactly is refused by name before anything moves. A value that has no place in it makes a quarantined row: a text of more characters, a number with more digits, a time within a day that is declared D, an L that is neither 0 nor 1, a whole number above 2^53 for a B or an F. Nothing is rounded and nothing is cut. `C` and `N` without a length take any; `N(10)` has no digits behind the point. A text that holds dates becomes a D or a T by `rules.dates`; a double is no N, and a text no number: convert it in a view or `query`.

Rows of such a resource are taken apart one by one, also between two PostgreSQL databases. The watermark keeps its type.

",
    "
## 数据目录中的信息项

`[resource.items]` 写明数据目录中信息项的数据类型：`xm = \"C(50)\"`、`je = \"N(18,2)\"`、`csrq = \"D\"`。提供方在[规则](ENCODINGS.zh-CN.md)之后、校验、脱敏和改名（[数据治理](GOVERNING.zh-CN.md)）之前，对每个值按此核对，并以相应的契约类型交出该列。不能精确填充该信息项的列，在移动任何数据之前点名拒绝。放不进的值使所在行进入问题数据：字符数超出的文本、位数超出的数、声明为 D 而带有时刻的时间、既非 0 也非 1 的 L、B 或 F 中超过 2^53 的整数。从不舍入，也从不截断。不写长度的 `C` 和 `N` 不限长度；`N(10)` 没有小数位。以文本书写的日期由 `rules.dates` 成为 D 或 T；双精度数不能作 N，文本不能作数：请用视图或 `query` 转换。

这样的资源逐行拆开处理，两个 PostgreSQL 数据库之间也是如此。增量水位列的类型不变。

",
];

const LETTERS: [&str; 2] = ["\n## Letters\n", "\n## 字母\n"];

const FOOT: [&str; 2] = [
    "
## Where more is to be known

- Of PostgreSQL an array, a range, a composite or a domain over any of these types moves too: the first three as text, a domain as its base type.
- In `mysql` and `sqlserver` a `query` gives columns without what a CHECK or an extended property says of them.
- Of a SQLite column without a declared type the values are looked at.
- Files of Parquet are landed in and not read as a source. They have no word for `infinity` and `-infinity`: these are the greatest and the least number of days or of microseconds there, which other programs show as days far away.
",
    "
## 另须知道

- PostgreSQL 中由上述类型构成的数组、范围、复合类型和域也可交换：前三者以文本形式，域按其基础类型。
- `mysql` 与 `sqlserver` 的 `query` 给出的列，不带 CHECK 或扩展属性所说明的含义。
- SQLite 中未声明类型的列，按其取值判断。
- Parquet 文件只作为目标，不作为来源。其中没有 `infinity` 与 `-infinity` 的写法：它们存为天数或微秒数的最大值与最小值，其他程序会显示为极远的日期。
",
];
