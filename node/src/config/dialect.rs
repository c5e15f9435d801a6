//! `[resource.rules]` and `[job.rules]`: what values of the source mean; `[resource.items]`: as what a catalogue declares
//! them. What the rules do is in `protocol::govern::dialect`.

use super::read::bad_name;
use posthouse_platform::settings::{Table, nearest, say};
use posthouse_protocol::govern::Dialect;
use posthouse_protocol::govern::dialect::dates::Form;
use posthouse_protocol::govern::dialect::items::ItemType;
use std::collections::BTreeMap;

/// `columns` are those that the resource offers, where it lists them.
pub(super) fn read(table: &Table<'_>, columns: Option<&[String]>) -> Dialect {
    let Some(rules) = table.table("rules") else { return Dialect::default() };
    let is = |key: &str, kept: &str, ruled: &str| rules.choice(key, &[(kept, false), (ruled, true)]).unwrap_or(false);
    Dialect {
        empty_null: is("empty", "keep", "null"),
        trim: is("blanks", "keep", "trim"),
        zero_dates_null: is("zero_dates", "refuse", "null"),
        dates: dates(&rules, columns),
        // A resource's own, and none of its rules.
        items: BTreeMap::new(),
    }
}

/// `[resource.items]`: what the catalogue declares columns as. `columns` are those that are offered, where they are listed.
pub(super) fn items(table: &Table<'_>, columns: Option<&[String]>) -> BTreeMap<String, ItemType> {
    let mut items = BTreeMap::new();
    let Some(section) = table.table("items") else { return items };
    for column in section.keys() {
        let item = section.parse::<ItemType>(&column, "数据类型（如 C(50)、N(18,2)、D）");
        if columns.is_some_and(|columns| !columns.contains(&column)) || bad_name(&column) {
            let what = say(
                format!("`{column}` is none of the columns that the resource offers"),
                format!("`{column}` 不在资源所提供的列之中"),
            );
            let near = nearest(&column, columns.unwrap_or_default().iter().map(String::as_str));
            section.mistake_at_key(&column, what, near);
        }
        items.extend(item.map(|item| (column, item)));
    }
    items
}

fn dates(rules: &Table<'_>, columns: Option<&[String]>) -> BTreeMap<String, Form> {
    let mut dates = BTreeMap::new();
    let Some(section) = rules.table("dates") else { return dates };
    for column in section.keys() {
        let form = section.parse::<Form>(&column, "日期格式（如 yyyyMMdd）");
        if bad_name(&column) {
            let what = say("a column's name is neither empty nor too long", "列名不能为空或过长");
            section.mistake_at_key(&column, what, None);
        } else if let Some(columns) = columns.filter(|columns| !columns.contains(&column)) {
            // A slip in a name would leave the texts of the column meant as they are.
            let what = say(
                format!("`{column}` is not among the `columns` of the resource"),
                format!("`{column}` 不在资源的 `columns` 之中"),
            );
            section.mistake_at_key(&column, what, nearest(&column, columns.iter().map(String::as_str)));
        }
        dates.extend(form.map(|form| (column, form)));
    }
    dates
}
