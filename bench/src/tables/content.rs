//! What two copies of a table in two engines are compared by: SQL of either engine that renders each row as one text,
//! the same in both, and gives the number of rows and the sums of both halves of the texts' MD5, whatever their order.
//! A value is first brought to its column's type, since some subjects land it as another one; never to a shorter one.
//! JSON is compared member by member: engines keep the order and the blanks of it or do not.

use super::register;
use super::table::Table;

/// For PostgreSQL, whose sessions are in UTC.
pub fn of_postgres(table: &Table, schema: &str) -> String {
    let value = |(name, kind): &(&str, &str)| {
        let value = match base(kind) {
            "bigint" | "smallint" => format!("{name}::bigint::text"),
            // A number in some of the subjects' tables.
            "boolean" => format!("{name}::integer::text"),
            "date" => format!("to_char({name}::date, 'YYYY-MM-DD')"),
            "timestamp" => format!("to_char({name}::timestamp, '{TIME_OF_POSTGRES}')"),
            "timestamptz" => format!("to_char({name}::timestamptz AT TIME ZONE 'UTC', '{TIME_OF_POSTGRES}')"),
            "numeric" => format!("trim_scale({name}::numeric)::text"),
            "bytea" => format!("encode({name}::bytea, 'hex')"),
            "jsonb" => {
                let member = |member: &&str| format!("{name}::jsonb->'{member}'");
                let members: Vec<String> = register::MEMBERS.iter().map(member).collect();
                format!(
                    "CASE WHEN {name} IS NOT NULL THEN concat((SELECT count(*) FROM jsonb_object_keys({name}::jsonb)), ' ', jsonb_build_array({})::text) END",
                    members.join(", ")
                )
            }
            _ => format!("{name}::text"),
        };
        format!("coalesce({value}, chr({NULL}))")
    };
    let values: Vec<String> = table.columns.iter().map(value).collect();
    let half = |from: u8| format!("sum(('x' || substr(digest, {from}, 16))::bit(64)::bigint)");
    format!(
        "SELECT concat_ws('|', count(*), {}, {}) FROM (SELECT md5(concat_ws(chr({BETWEEN}), {})) AS digest FROM {schema}.{}) AS digests",
        half(1),
        half(17),
        values.join(", "),
        table.name
    )
}

/// For MariaDB.
pub fn of_mariadb(table: &Table) -> String {
    let value = |(name, kind): &(&str, &str)| {
        let value = match base(kind) {
            "bigint" | "smallint" => format!("CAST({name} AS CHAR)"),
            // A word in some of the subjects' tables.
            "boolean" => format!(
                "CASE CAST({name} AS CHAR) WHEN 'true' THEN '1' WHEN 'false' THEN '0' ELSE CAST({name} AS CHAR) END"
            ),
            "date" => format!("DATE_FORMAT({name}, '%Y-%m-%d')"),
            "timestamp" | "timestamptz" => format!("DATE_FORMAT({name}, '%Y-%m-%d %H:%i:%s.%f')"),
            "numeric" => {
                format!("TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM CAST(CAST({name} AS DECIMAL(38,10)) AS CHAR)))")
            }
            // Of 32 bytes; or the digits of them as text, after `\x`.
            "bytea" => format!(
                "IF(LENGTH({name}) = 66 AND LEFT({name}, 2) = X'5C78', LOWER(SUBSTR({name}, 3)), LOWER(HEX({name})))"
            ),
            "jsonb" => {
                let members: Vec<String> = register::MEMBERS.iter().map(|member| format!("'$.{member}'")).collect();
                format!("CONCAT(JSON_LENGTH({name}), ' ', JSON_EXTRACT({name}, {}))", members.join(", "))
            }
            _ => (*name).to_owned(),
        };
        format!("COALESCE({value}, CHAR({NULL} USING utf8mb4))")
    };
    let values: Vec<String> = table.columns.iter().map(value).collect();
    let half = |side: &str| format!("SUM(CAST(CONV({side}(digest, 16), 16, -10) AS SIGNED))");
    format!(
        "SELECT CONCAT_WS('|', COUNT(*), {}, {}) FROM (SELECT MD5(CONCAT_WS(CHAR({BETWEEN} USING utf8mb4), {})) AS digest FROM {}) AS digests",
        half("LEFT"),
        half("RIGHT"),
        values.join(", "),
        table.name
    )
}

/// A column's type without its length and without whether it takes nulls.
pub fn base(kind: &str) -> &str {
    kind.split([' ', '(']).next().unwrap_or(kind)
}

const TIME_OF_POSTGRES: &str = "YYYY-MM-DD HH24:MI:SS.US";
/// Control characters, which no value has: what stands between two values, and for null.
const BETWEEN: u8 = 31;
const NULL: u8 = 30;
