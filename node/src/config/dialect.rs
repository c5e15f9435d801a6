//! `[resource.rules]` and `[job.rules]`: what values of the source mean. What the rules do is in `protocol::govern::dialect`.

use super::read::bad_name;
use posthouse_platform::settings::{Table, say};
use posthouse_protocol::govern::Dialect;
use posthouse_protocol::govern::dialect::dates::Form;
use std::collections::BTreeMap;

pub(super) fn read(table: &Table<'_>) -> Dialect {
    let Some(rules) = table.table("rules") else { return Dialect::default() };
    let is = |key: &str, kept: &str, ruled: &str| rules.choice(key, &[(kept, false), (ruled, true)]).unwrap_or(false);
    Dialect {
        empty_null: is("empty", "keep", "null"),
        trim: is("blanks", "keep", "trim"),
        zero_dates_null: is("zero_dates", "refuse", "null"),
        dates: dates(&rules),
    }
}

fn dates(rules: &Table<'_>) -> BTreeMap<String, Form> {
    let mut dates = BTreeMap::new();
    let Some(section) = rules.table("dates") else { return dates };
    for column in section.keys() {
        let form = section.parse::<Form>(&column, "日期格式（如 yyyyMMdd）");
        if bad_name(&column) {
            let what = say("a column's name is neither empty nor too long", "列名不能为空或过长");
            section.mistake_at_key(&column, what, None);
        }
        dates.extend(form.map(|form| (column, form)));
    }
    dates
}
