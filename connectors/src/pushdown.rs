//! 条件下推: what of a row filter a database can be asked for by itself, so that rows that are surely none of the grant's
//! do not come at all. What is asked for is never narrower than the filter: an engine says of each comparison whether its
//! own is sure to hold wherever the filter's does ([`Part`]); what it is not sure of counts as true. Every row that comes
//! is looked at by the filter itself, so a collation that takes two texts for one hands over no row too many.
//!
//! A row that the database leaves out is not read: it stands in no count, neither as read nor as filtered. Values are
//! bound as parameters by each engine. Deliberately absent: floats and decimals, order and inequality of texts, whose rules
//! differ from engine to engine.

use posthouse_protocol::filter::{Comparison, Filter, Literal};

/// A condition on one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part<'f> {
    Compare(&'f str, Comparison, &'f Literal),
    /// Whether the value is NULL, or is not.
    Null(&'f str, bool),
}

/// A condition that holds for every row for which a filter does, and maybe for others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wider<'f> {
    Part(Part<'f>),
    All(Vec<Wider<'f>>),
    Any(Vec<Wider<'f>>),
}

impl<'f> Wider<'f> {
    /// None where nothing of the filter can be asked for. `is_sure`: wherever the part is true of a row's values as they
    /// are read here, the engine finds it true too.
    pub(crate) fn of(filter: &'f Filter, is_sure: &dyn Fn(&Part<'f>) -> bool) -> Option<Self> {
        let wider = widened(filter, false, is_sure)?;
        // A statement of very many parts is slower than looking at the rows here, and servers bound them.
        (wider.parts() <= PARTS_MAX).then_some(wider)
    }

    /// As SQL in parentheses; `write` is asked for each part in the order in which they stand there.
    pub(crate) fn sql(&self, write: &mut dyn FnMut(&Part<'f>) -> String) -> String {
        match self {
            Self::Part(part) => format!("({})", write(part)),
            Self::All(all) => joined(all, " AND ", write),
            Self::Any(all) => joined(all, " OR ", write),
        }
    }

    fn parts(&self) -> usize {
        match self {
            Self::Part(_) => 1,
            Self::All(all) | Self::Any(all) => all.iter().map(Self::parts).sum(),
        }
    }
}

fn joined<'f>(all: &[Wider<'f>], joint: &str, write: &mut dyn FnMut(&Part<'f>) -> String) -> String {
    let mut sql = String::from("(");
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            sql.push_str(joint);
        }
        sql.push_str(&one.sql(write));
    }
    sql.push(')');
    sql
}

/// The filter, or what it says no to. NOT goes down to the comparisons; unknown stays unknown on that way, and no row
/// passes for it. So what is taken for true instead of a comparison can only let more rows through.
fn widened<'f>(filter: &'f Filter, is_not: bool, is_sure: &dyn Fn(&Part<'f>) -> bool) -> Option<Wider<'f>> {
    let part = |part: Part<'f>| is_sure(&part).then_some(Wider::Part(part));
    let compare = |column: &'f str, comparison: Comparison, literal: &'f Literal| {
        part(Part::Compare(column, if is_not { opposite(comparison) } else { comparison }, literal))
    };
    match filter {
        Filter::Compare(column, comparison, literal) => compare(column, *comparison, literal),
        Filter::In(column, literals) => {
            let parts = literals.iter().map(|literal| compare(column, Comparison::Equal, literal));
            if is_not { all(parts) } else { any(parts) }
        }
        Filter::Between(column, low, high) => {
            let bounds = [(Comparison::GreaterOrEqual, low), (Comparison::LessOrEqual, high)];
            let parts = bounds.into_iter().map(|(comparison, literal)| compare(column, comparison, literal));
            if is_not { any(parts) } else { all(parts) }
        }
        Filter::IsNull(column) => part(Part::Null(column, !is_not)),
        Filter::And(each) | Filter::Or(each) => {
            let is_and = matches!(filter, Filter::And(_)) != is_not;
            let parts = each.iter().map(|filter| widened(filter, is_not, is_sure));
            if is_and { all(parts) } else { any(parts) }
        }
        Filter::Not(inner) => widened(inner, !is_not, is_sure),
    }
}

/// What is left of them: whatever is not sure is left out.
fn all<'f>(parts: impl Iterator<Item = Option<Wider<'f>>>) -> Option<Wider<'f>> {
    let parts: Vec<_> = parts.flatten().collect();
    (!parts.is_empty()).then_some(Wider::All(parts))
}

/// One that is not sure may be true of any row.
fn any<'f>(parts: impl Iterator<Item = Option<Wider<'f>>>) -> Option<Wider<'f>> {
    parts.collect::<Option<Vec<_>>>().map(Wider::Any)
}

fn opposite(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Equal => Comparison::NotEqual,
        Comparison::NotEqual => Comparison::Equal,
        Comparison::Less => Comparison::GreaterOrEqual,
        Comparison::LessOrEqual => Comparison::Greater,
        Comparison::Greater => Comparison::LessOrEqual,
        Comparison::GreaterOrEqual => Comparison::Less,
    }
}

/// More are not asked for.
const PARTS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::filter::Value;

    /// Columns of whole numbers are sure, `t` only where it is equal, `x` never.
    fn is_sure(part: &Part<'_>) -> bool {
        match part {
            Part::Compare(column, comparison, _) => match *column {
                "t" => *comparison == Comparison::Equal,
                column => column != "x",
            },
            Part::Null(column, _) => *column != "x",
        }
    }

    fn sql(text: &str) -> Option<String> {
        let filter = Filter::parse(text).unwrap();
        let wider = Wider::of(&filter, &is_sure)?;
        Some(wider.sql(&mut |part| match part {
            Part::Compare(column, comparison, literal) => format!("{column} {} {literal}", comparison.as_str()),
            Part::Null(column, is_null) => format!("{column} IS {}NULL", if *is_null { "" } else { "NOT " }),
        }))
    }

    #[test]
    fn what_is_not_sure_is_left_out_and_an_or_with_it_as_a_whole() {
        let of = |text: &str| sql(text).unwrap_or_default();
        assert_eq!(of("a = 1"), "(a = 1)");
        assert_eq!(of("a = 1 AND x = 2"), "((a = 1))");
        assert_eq!(sql("a = 1 OR x = 2"), None);
        assert_eq!(of("(a = 1 OR b = 2) AND (a > 0 OR x = 2)"), "(((a = 1) OR (b = 2)))");
        assert_eq!(of("t IN ('u', 'v')"), "((t = 'u') OR (t = 'v'))");
        assert_eq!(sql("t <> 'u'"), None);
        assert_eq!(sql("NOT t IN ('u', 'v')"), None);
        assert_eq!(of("NOT t <> 'u'"), "(t = 'u')");
        assert_eq!(of("NOT a BETWEEN 1 AND 3"), "((a < 1) OR (a > 3))");
        assert_eq!(of("NOT (a IS NULL OR b <= 2)"), "((a IS NOT NULL) AND (b > 2))");
        assert_eq!(of("NOT (x = 1 AND a = 2)"), "");
    }

    #[test]
    fn more_parts_than_are_worth_it_are_not_asked_for() {
        let list = |parts: usize| (0..parts).map(|part| part.to_string()).collect::<Vec<_>>().join(", ");
        assert!(sql(&format!("a IN ({})", list(PARTS_MAX))).is_some());
        assert!(sql(&format!("a IN ({})", list(PARTS_MAX + 1))).is_none());
    }

    /// What a row makes of it, as an engine would; unknown is none.
    fn holds(wider: &Wider<'_>, values: &dyn Fn(&str) -> Option<i64>) -> Option<bool> {
        let fold = |all: &[Wider<'_>], last: bool| {
            let each: Vec<Option<bool>> = all.iter().map(|one| holds(one, values)).collect();
            match (each.contains(&Some(last)), each.contains(&None)) {
                (true, _) => Some(last),
                (false, true) => None,
                (false, false) => Some(!last),
            }
        };
        match wider {
            Wider::All(all) => fold(all, false),
            Wider::Any(all) => fold(all, true),
            Wider::Part(Part::Null(column, is_null)) => Some(values(column).is_none() == *is_null),
            Wider::Part(Part::Compare(column, comparison, literal)) => {
                let (value, Literal::Integer(literal)) = (values(column)?, literal) else { return None };
                Some(match comparison {
                    Comparison::Equal => value == *literal,
                    Comparison::NotEqual => value != *literal,
                    Comparison::Less => value < *literal,
                    Comparison::LessOrEqual => value <= *literal,
                    Comparison::Greater => value > *literal,
                    Comparison::GreaterOrEqual => value >= *literal,
                })
            }
        }
    }

    #[test]
    fn every_row_that_the_filter_lets_through_is_asked_for() {
        let filters = [
            "a = 1",
            "a <> 1 AND x = 1",
            "NOT (a = 1 AND x = 1)",
            "NOT (a = 1 OR x = 1)",
            "a BETWEEN 1 AND 2 OR b IS NULL",
            "NOT a BETWEEN 1 AND 2 AND NOT b IN (0, 1)",
            "NOT (NOT (a < 1 OR b >= 2) OR x IS NULL)",
            "(a IS NULL OR a > 1) AND NOT b IS NULL",
        ];
        let all = [None, Some(0), Some(1), Some(2), Some(3)];
        let mut passed = 0;
        for filter in filters.map(|text| Filter::parse(text).unwrap()) {
            let wider = Wider::of(&filter, &is_sure);
            for (a, b, x) in all.iter().flat_map(|a| all.iter().flat_map(move |b| all.map(|x| (*a, *b, x)))) {
                let value = |column: &str| match column {
                    "a" => a,
                    "b" => b,
                    _ => x,
                };
                let read = |column: &str| Some(value(column).map_or(Value::Null, Value::Integer));
                if filter.evaluate(&read) == Ok(Some(true)) {
                    passed += 1;
                    let asked = wider.as_ref().is_none_or(|wider| holds(wider, &value) == Some(true));
                    assert!(asked, "{filter}: {a:?} {b:?} {x:?} would not come");
                }
            }
        }
        assert!(passed > 100, "{passed}");
    }
}
