//! Plans the splits of a read. A split of a table is a range of its blocks: the same range of the same rows gives the
//! same bytes, whoever asks again. Servers that cannot find a range of blocks are asked for ranges of the key.

use super::catalog::{Kind, Relation, TableName, literal, quote};
use super::source::mark_type;
use super::wire::{Client, WireError};
use posthouse_protocol::schema::{Contract, Item};

/// The rows that are read.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) condition: Option<String>,
    /// What the marks alone say of them.
    pub(super) by_mark: Option<String>,
    /// For the splits' names: the same rows give the same text.
    pub(super) suffix: String,
}

/// The splits of a plan, in its order.
pub(super) struct Splits {
    select: String,
    /// The name of each, and what is added to the statement for it.
    ranges: Vec<(String, String)>,
}

impl Splits {
    /// Splits that have every row of `rows` once, with the columns of `wide`: ranges, or everything at once where there
    /// are none, or few rows. Beside them about how many rows that is.
    pub(super) fn plan(
        client: &mut Client,
        relation: &Relation,
        wide: &Contract,
        rows: &Rows,
    ) -> Result<(Self, Option<u64>), WireError> {
        let column = |item: &Item| {
            let cast = relation.column(&item.name).and_then(|column| column.read_as.as_ref());
            cast.map_or_else(|| quote(&item.name), |cast| format!("{}::{cast}", quote(&item.name)))
        };
        let columns = wide.items.iter().map(column).collect::<Vec<_>>().join(", ");
        let select = |condition: &Option<String>| {
            let condition = condition.as_deref().unwrap_or("true");
            format!("SELECT {columns} FROM {} WHERE {condition}", relation.name)
        };
        // A row filter makes no fewer splits of a table: what it leaves is as wide as the table.
        let rows_estimate = match rows.by_mark {
            None if relation.rows.is_some() && relation.kind == Kind::Table => relation.rows,
            // The planner has no figures of transactions; rows that committed late are few beside the new ones.
            _ => estimate(client, &select(&rows.by_mark))?,
        };
        let few = rows.by_mark.is_some() && rows_estimate.is_some_and(|rows| rows <= ROWS_AT_ONCE);
        // Before 14 each range of blocks would be found by reading the whole table.
        let by_blocks = !few && client.version() >= 140_000 && may_see_places(client, relation)?;
        let ranges = match relation.blocks {
            Some(0) => return Ok((Self { select: select(&rows.condition), ranges: Vec::new() }, Some(0))),
            Some(blocks) if by_blocks && blocks > SPLIT_BLOCKS => block_ranges(blocks),
            _ => {
                let many = rows_estimate.filter(|rows| !by_blocks && !few && *rows > ROWS_AT_ONCE);
                let bounds = many.map(|rows| bounds(client, relation, rows)).transpose()?.flatten();
                bounds
                    .map_or_else(|| vec![("all".to_owned(), String::new())], |(key, bounds)| key_ranges(&key, &bounds))
            }
        };
        let named = |(name, range): (String, String)| match rows.suffix.is_empty() {
            true => (name, range),
            false => (format!("{name} {}", rows.suffix), range),
        };
        Ok((Self { select: select(&rows.condition), ranges: ranges.into_iter().map(named).collect() }, rows_estimate))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.ranges.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The statement of the split at a place of the plan.
    pub(super) fn copy(&self, at: usize) -> Option<String> {
        let (_, range) = self.ranges.get(at)?;
        Some(format!("COPY ({}{range}) TO STDOUT (FORMAT binary)", self.select))
    }

    /// Where a split is; it is looked for from `from` on first.
    pub(super) fn find(&self, name: &str, from: usize) -> Option<usize> {
        let is_it = |at: &usize| self.ranges.get(*at).is_some_and(|(found, _)| found == name);
        (from..self.ranges.len()).chain(0..from).find(is_it)
    }
}

fn block_ranges(blocks: u64) -> Vec<(String, String)> {
    let mut ranges = Vec::new();
    let mut first = 0;
    while first < blocks {
        let next = first + SPLIT_BLOCKS;
        // The last has no end: every row lies in one of them, whatever the size was when it was asked.
        let (name, end) = match next < blocks {
            true => (format!("blocks {first}-{}", next - 1), format!(" AND ctid < '({next},0)'")),
            false => (format!("blocks {first}-"), String::new()),
        };
        ranges.push((name, format!(" AND ctid >= '({first},0)'{end}")));
        first = next;
    }
    ranges
}

/// Splits between some values of a key: every row lies in one of them. A bound is somebody's number or name, which a
/// split's name does not tell.
fn key_ranges(column: &str, bounds: &[String]) -> Vec<(String, String)> {
    let column = quote(column);
    let lower = std::iter::once(None).chain(bounds.iter().map(Some));
    let upper = bounds.iter().map(Some).chain([None]);
    let condition = |(lower, upper): (Option<&String>, Option<&String>)| match (lower, upper) {
        (Some(lower), Some(upper)) => format!(" AND {column} >= {lower} AND {column} < {upper}"),
        (Some(lower), None) => format!(" AND {column} >= {lower}"),
        // What inherits from a table need not have its key.
        (None, Some(upper)) => format!(" AND ({column} < {upper} OR {column} IS NULL)"),
        (None, None) => String::new(),
    };
    let count = bounds.len() + 1;
    let named = |(at, condition)| (format!("keys {} of {count}", at + 1), condition);
    lower.zip(upper).map(condition).enumerate().map(named).collect()
}

/// Values of a table's key between which about as many rows lie, as its last analysis has found them, and the key's
/// column. None where there is no such key, or where its order is not that of the rows: each range would then be looked
/// for all over the table. Texts are left out: a server before 12 orders what it has found by a collation of its own, and
/// ranges between them would overlap.
fn bounds(client: &mut Client, relation: &Relation, rows: u64) -> Result<Option<(String, Vec<String>)>, WireError> {
    let keys = std::iter::once(&relation.primary).chain(&relation.unique);
    let mut columns = keys.filter_map(|key| if let [name] = key.as_slice() { relation.column(name) } else { None });
    let ordered = columns.find_map(|column| {
        let cast = mark_type(column.native.as_ref()?)?;
        (column.not_null && cast != "text").then_some((column, cast))
    });
    let Some((column, cast)) = ordered else { return Ok(None) };
    let sql = format!(
        "SELECT pg_catalog.unnest(histogram_bounds::text::{cast}[])::text FROM pg_catalog.pg_stats
         WHERE schemaname = $1 AND tablename = $2 AND attname = $3 AND inherited = $4::boolean
           AND pg_catalog.abs(correlation) > 0.9"
    );
    let inherited = if relation.kind == Kind::Partitioned { "true" } else { "false" };
    let TableName { schema, table } = &relation.name;
    let named = [Some(schema.as_str()), Some(table.as_str()), Some(column.name.as_str()), Some(inherited)];
    let found = client.query(&sql, &named)?;
    // The first and the last are the smallest and the largest value.
    let step = (found.len() as u64 * ROWS_A_RANGE).div_ceil(rows.max(1)).max(1);
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let inner = found.iter().take(found.len().saturating_sub(1)).step_by(step).skip(1);
    let bounds: Vec<String> =
        inner.filter_map(|row| row.optional(0)).map(|bound| format!("{}::{cast}", literal(bound))).collect();
    Ok((!bounds.is_empty()).then(|| (column.name.clone(), bounds)))
}

/// Whether rows may be asked for by where they lie, if the table is long enough for that: an account that may read single
/// columns has no right to that one.
fn may_see_places(client: &mut Client, relation: &Relation) -> Result<bool, WireError> {
    if relation.blocks.is_none_or(|blocks| blocks <= SPLIT_BLOCKS) {
        return Ok(true);
    }
    let sql = "SELECT pg_catalog.has_column_privilege($1::pg_catalog.oid, 'ctid', 'SELECT')";
    let found = client.query(sql, &[Some(&relation.oid.to_string())])?;
    found.first().map_or(Ok(false), |row| row.flag(0))
}

/// The planner's estimate of what a statement gives.
fn estimate(client: &mut Client, select: &str) -> Result<Option<u64>, WireError> {
    let rows = client.query(&format!("EXPLAIN (FORMAT JSON) {select}"), &[])?;
    let text = rows.iter().filter_map(|row| row.optional(0)).collect::<String>();
    let plan: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let rows = plan.as_ref().and_then(|plan| plan.pointer("/0/Plan/Plan Rows"));
    Ok(rows.and_then(serde_json::Value::as_f64).map(|rows| rows as u64))
}

/// Whether a statement may stand with its rows for any time: where it may not, none is asked for before it is read.
pub(super) fn may_wait(client: &mut Client) -> Result<bool, WireError> {
    let sql = "SELECT count(*) = 0 FROM pg_catalog.pg_settings
               WHERE name IN ('statement_timeout', 'tcp_user_timeout') AND setting <> '0'";
    let rows = client.query(sql, &[])?;
    rows.first().map_or(Ok(false), |row| row.flag(0))
}

/// 8 MiB of a table: small enough that several are held in memory on their way, large enough that a statement's cost
/// does not show.
const SPLIT_BLOCKS: u64 = 1024;
/// Fewer rows are not read by ranges of a key, and an incremental run of fewer in one statement, by an index if there is
/// one.
const ROWS_AT_ONCE: u64 = 250_000;
/// About what a range of a key has; of a register 16 MiB.
const ROWS_A_RANGE: u64 = 50_000;
