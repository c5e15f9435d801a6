//! Names as T-SQL has them: in brackets, with a `]` doubled, so that no name is ever more than a name.

use std::fmt;

/// A table by its schema and name, as the catalogue has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// `table`, `schema.table` or either part in brackets, as in `[my.schema].[the table]`. What stands outside of
    /// brackets is a name as it is, in any script.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, rest) = part(text)?;
        let (schema, table) = match rest.strip_prefix('.') {
            None if rest.is_empty() => (SCHEMA.to_owned(), first),
            None => return None,
            Some(rest) => {
                let (second, rest) = part(rest)?;
                if !rest.is_empty() {
                    return None;
                }
                (first, second)
            }
        };
        (is_name(&schema) && is_name(&table)).then_some(Self { schema, table })
    }
}

/// One part of a name, and what follows it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('[') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.contains(['[', ']'])).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            ']' if chars.next_if(|(_, next)| *next == ']').is_some() => name.push(']'),
            ']' => return Some((name, quoted.get(at + 1..)?)),
            c => name.push(c),
        }
    }
    None
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// Whether the engine and the driver both take it as a name.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.encode_utf16().count() <= NAME_UNITS_MAX && !text.chars().any(char::is_control)
}

/// A name as SQL text.
pub(super) fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// Names as a list of SQL, each behind an alias and a point where one is given.
pub(super) fn quoted<'a>(alias: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let name = |name: &str| if alias.is_empty() { quote(name) } else { format!("{alias}.{}", quote(name)) };
    names.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A text as a constant of SQL, for scripts that people run.
pub(super) fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// Where a table lies that is named without one.
const SCHEMA: &str = "dbo";
/// `sysname`
const NAME_UNITS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_as_the_catalogue_has_it() {
        let name = |text: &str| TableName::parse(text).map(|name| name.to_string());
        assert_eq!(name("permits").as_deref(), Some("[dbo].[permits]"));
        assert_eq!(name("审批.许可 证").as_deref(), Some("[审批].[许可 证]"));
        assert_eq!(name("[a.b].[c]]d]").as_deref(), Some("[a.b].[c]]d]"));
        assert_eq!(name("t'; DROP TABLE x --").as_deref(), Some("[dbo].[t'; DROP TABLE x --]"));
        let long = "长".repeat(129);
        for wrong in ["", ".", "a.", ".b", "a.b.c", "[a", "a]b", "[a]b", "[]", "a\nb", long.as_str()] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bracket_in_a_name_ends_nothing() {
        assert_eq!(quote("a]; DROP TABLE t --"), "[a]]; DROP TABLE t --]");
        assert_eq!(quoted("t", ["a", "名]称"]), "t.[a], t.[名]]称]");
        assert_eq!(literal("it's"), "N'it''s'");
    }
}
