//! All rows of a table give way to new ones, in one of two ways. Where nothing depends on the table but what
//! belongs to it alone, a new one is built beside it, with the same columns, constraints, indexes, rights and
//! comments, and takes its name; readers wait for that moment only. Everything else, and whatever is unusual,
//! keeps the table: its rows are deleted and the new ones inserted, and readers see the old ones until the commit.
//! Never TRUNCATE: a reader with an older snapshot would find the table empty.

use super::catalog::{Relation, TableName, quote};
use super::control;
use super::fields::Fields;
use super::parts::Parts;
use super::place::Fail;
use super::place::Place;
use super::sieve::attempt;
use super::staging::Staging;
use super::wire::{Client, WireError, json_text};

/// Why a table cannot give way to a new one of its name; empty where it can.
pub(super) fn obstacles(client: &mut Client, target: &Relation) -> Result<Vec<String>, WireError> {
    if client.version() < 100_000 {
        return Ok(vec!["the server is older than version 10".to_owned()]);
    }
    let compression = if client.version() >= 140_000 { "a.attcompression <> ''" } else { "false" };
    let sql = OBSTACLES.replace("{compression}", compression);
    let rows = client.query(&sql, &[Some(&target.oid.to_string())])?;
    rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
}

/// Makes a table with the columns of another and nothing else of it.
pub(super) fn create_like(name: &TableName, target: &Relation, version: u32) -> String {
    let generated = if version >= 120_000 { " INCLUDING GENERATED" } else { "" };
    format!(
        "CREATE TABLE {name} (LIKE {} INCLUDING DEFAULTS{generated} INCLUDING STORAGE INCLUDING COMMENTS)",
        target.name
    )
}

/// What a swap did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swapped {
    pub(super) inserted: u64,
    /// Rows of the old table.
    pub(super) deleted: u64,
    /// Whether the staging table is the new table now.
    pub(super) took_staging: bool,
}

/// The new table takes the place of the old one; where the database refuses any of it, all of it is taken back and
/// the reason told.
pub(super) fn swap(
    client: &mut Client,
    place: &Place,
    target: &Relation,
    staging: &Staging,
    fields: &Fields,
    staged: u64,
) -> Result<Result<Swapped, WireError>, Fail> {
    let gives_up = |error: &WireError| error.is_refusal() || OTHER_WAY.contains(&error.sqlstate().unwrap_or_default());
    attempt(client, gives_up, |client| {
        let took_staging = !staging.premade && is_alike(client, &staging.name, &target.name)?;
        let new = if took_staging { staging.name.clone() } else { place.beside("new", place.transfer()) };
        let mut inserted = staged;
        if !took_staging {
            client.batch(&create_like(&new, target, client.version()))?;
            let (names, values) = (fields.names(), fields.values());
            let from = format!("SELECT {values} FROM {} s WHERE {}", staging.name, staging.own);
            inserted = client.execute(&format!("INSERT INTO {new} ({names}) {from}"), &[])?;
        }
        let deleted = control::count(client, &format!("SELECT count(*) FROM {}", target.name), &[])?;
        let parts = Parts::of(client, target, &new)?;
        client.batch(&parts.dress(&new, target))?;
        // Who reads the table now holds this up, and this holds up everyone behind it: not for long.
        client.batch(&format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'"))?;
        client.batch(&format!("DROP TABLE {}; {}", target.name, parts.take_over(&new, &target.name)))?;
        client.batch("SET LOCAL lock_timeout TO DEFAULT")?;
        Ok(Swapped { inserted, deleted, took_staging })
    })
}

/// Whether two tables have the same columns, so that one can stand for the other.
fn is_alike(client: &mut Client, one: &TableName, other: &TableName) -> Result<bool, WireError> {
    let generated = if client.version() >= 120_000 { "a.attgenerated" } else { "''::\"char\"" };
    let sql = format!(
        "WITH columns(place, described) AS (
           SELECT k.place, pg_catalog.array_agg(ROW(a.attname, a.atttypid, a.atttypmod, a.attcollation, {generated},
                    a.attstorage, pg_catalog.pg_get_expr(d.adbin, d.adrelid))::pg_catalog.text ORDER BY a.attnum)
           FROM (VALUES (1, $1::pg_catalog.text, $2::pg_catalog.text), (2, $3, $4)) k(place, schema, name)
           JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name AND c.relkind = 'r'
           JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           GROUP BY k.place)
         SELECT count(*) FROM columns a JOIN columns b ON a.place = 1 AND b.place = 2 AND a.described = b.described"
    );
    let params = [&one.schema, &one.table, &other.schema, &other.table].map(|name| Some(name.as_str()));
    control::count(client, &sql, &params).map(|found| found > 0)
}

/// Foreign keys of other tables that refer to rows of one.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) table: TableName,
    /// Pairs of columns, quoted: there and here.
    pub(super) columns: Vec<(String, String)>,
}

pub(super) fn referrers(client: &mut Client, target: &Relation) -> Result<Vec<Referrer>, WireError> {
    let mut referrers = Vec::new();
    for row in client.query(REFERRERS, &[Some(&target.oid.to_string())])? {
        let names: Vec<(String, String)> = serde_json::from_str(&json_text(client.charset(), row.text(2)?))
            .map_err(|e| WireError::Protocol(format!("the catalogue lists a foreign key in no known form: {e}")))?;
        let columns = names.iter().map(|(there, here)| (quote(there), quote(here))).collect();
        let table = TableName { schema: row.text(0)?.to_owned(), table: row.text(1)?.to_owned() };
        referrers.push(Referrer { table, columns });
    }
    Ok(referrers)
}

/// Where a swap is refused for these, contents are replaced instead: a lock that does not come, something that
/// depends on the table since, a right that the account has not, what this server cannot do.
const OTHER_WAY: &[&str] = &["55P03", "2BP01", "42501", "0A000"];
const LOCK_WAIT: &str = "5s";

const OBSTACLES: &str = "
WITH t AS (SELECT c.* FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid)
SELECT 'it is no ordinary table' FROM t WHERE t.relkind <> 'r' OR t.relpersistence <> 'p' OR t.reloftype <> 0
UNION ALL SELECT 'it belongs to the account ' || pg_catalog.pg_get_userbyid(t.relowner) FROM t
  WHERE t.relowner <> (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
    AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
UNION ALL SELECT 'the account may not create tables in its schema' FROM t
  WHERE NOT pg_catalog.has_schema_privilege(t.relnamespace, 'CREATE')
UNION ALL SELECT 'it inherits from a table, or another one from it' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE t.oid IN (i.inhrelid, i.inhparent))
UNION ALL SELECT 'it lies in a tablespace of its own' FROM t WHERE t.reltablespace <> 0
UNION ALL SELECT 'it has an access method of its own' FROM t WHERE t.relam NOT IN (0, 2)
UNION ALL SELECT 'it has a replica identity of its own' FROM t WHERE t.relreplident <> 'd'
UNION ALL SELECT 'it has row security' FROM t WHERE t.relrowsecurity OR t.relforcerowsecurity
UNION ALL SELECT 'it has storage parameters for long values' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_class l WHERE l.oid = t.reltoastrelid AND l.reloptions IS NOT NULL)
UNION ALL SELECT 'somebody else gave rights on it' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.aclexplode(t.relacl) x WHERE x.grantor <> t.relowner)
UNION ALL SELECT 'its column ' || pg_catalog.quote_ident(a.attname) || ' has settings of its own'
  FROM t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE coalesce(a.attstattarget, -1) <> -1 OR a.attoptions IS NOT NULL OR a.attidentity <> '' OR {compression}
UNION ALL SELECT 'its index ' || pg_catalog.quote_ident(x.relname) || ' is set up in a way of its own'
  FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  WHERE NOT i.indisvalid OR i.indisclustered OR i.indisreplident OR x.reloptions IS NOT NULL OR x.reltablespace <> 0
UNION ALL SELECT 'it refers to itself' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k WHERE k.conrelid = t.oid AND k.confrelid = t.oid)
UNION ALL SELECT 'it has a security label' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_seclabel l WHERE l.objoid = t.oid)
UNION ALL SELECT 'it is published as part of ' || pg_catalog.quote_ident(p.pubname)
  FROM t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_publication_tables p ON p.schemaname = n.nspname AND p.tablename = t.relname
UNION ALL SELECT 'a subscription fills it' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = t.oid)
UNION ALL SELECT 'it belongs to an extension' FROM t
  WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL SELECT DISTINCT coalesce(
    (SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0)
     FROM pg_catalog.pg_rewrite r
     WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid AND r.rulename = '_RETURN'),
    pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)) || ' depends on it'
  FROM t JOIN pg_catalog.pg_depend d
    ON (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid)
    OR (d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = t.reltype AND t.reltype <> 0)
  WHERE NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND (d.objid IN (t.oid, t.reltoastrelid)
        OR EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = t.oid)))
    AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
        AND EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k
                    WHERE k.oid = d.objid AND k.conrelid = t.oid AND k.contype IN ('c', 'p', 'u', 'x', 'f', 'n')))
    AND NOT (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
        AND EXISTS (SELECT 1 FROM pg_catalog.pg_attrdef f WHERE f.oid = d.objid AND f.adrelid = t.oid))
    AND NOT (d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
        AND (d.objid = t.reltype OR EXISTS (SELECT 1 FROM pg_catalog.pg_type y
             WHERE y.oid = t.reltype AND y.typarray = d.objid)))
    AND NOT (d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
        AND EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g WHERE g.oid = d.objid AND g.tgisinternal))";

const REFERRERS: &str = "
SELECT n.nspname, c.relname, (
  SELECT pg_catalog.json_agg(pg_catalog.json_build_array(there.attname, here.attname))
  FROM pg_catalog.generate_subscripts(k.conkey, 1) i
  JOIN pg_catalog.pg_attribute there ON there.attrelid = k.conrelid AND there.attnum = k.conkey[i]
  JOIN pg_catalog.pg_attribute here ON here.attrelid = k.confrelid AND here.attnum = k.confkey[i])
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = $1::pg_catalog.oid AND k.conrelid <> k.confrelid ORDER BY k.oid";
