//! What belongs to a table alone, as statements that give it to another table: constraints, indexes, options,
//! comments, rights and owner. Columns with their defaults come by `CREATE TABLE … (LIKE …)`, and what is not
//! listed here keeps a table from giving way to another one, see [`super::replace`].

use super::catalog::{Relation, TableName, literal, quote};
use super::wire::{Client, WireError};

/// What a table has beside its columns' types, as statements to be finished with a name.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Constraints with an index of their own, and indexes: the beginning and the end of a statement around the
    /// table's name, and the name that it is to have.
    indexes: Vec<Index>,
    /// Other constraints: name and definition.
    constraints: Vec<(String, String)>,
    /// Comments of the table and of its other constraints: what they are on, and what they say.
    comments: Vec<(String, String)>,
    options: Vec<(String, String)>,
    owner: String,
    rights: Vec<Right>,
    /// Who has rights on a new table by default.
    by_default: Vec<String>,
}

/// A right on the table.
#[derive(Debug)]
struct Right {
    right: String,
    /// In parentheses, where it is on one column only.
    columns: String,
    to: String,
    /// Whether it may be passed on.
    option: String,
}

#[derive(Debug)]
struct Index {
    name: String,
    is_constraint: bool,
    is_unique: bool,
    definition: String,
    comment: Option<String>,
    constraint_comment: Option<String>,
}

impl Parts {
    pub(super) fn of(client: &mut Client, target: &Relation, new: &TableName) -> Result<Self, WireError> {
        let oid = target.oid.to_string();
        let mut parts = Self::default();
        for row in client.query(INDEXES, &[Some(&oid)])? {
            let (prefix, definition) = (row.text(4)?, row.text(1)?);
            let is_constraint = row.flag(2)?;
            let definition = if is_constraint {
                definition
            } else {
                definition
                    .strip_prefix(prefix)
                    .ok_or_else(|| WireError::Protocol(format!("an index is written `{definition}`")))?
            };
            parts.indexes.push(Index {
                name: row.text(0)?.to_owned(),
                is_constraint,
                is_unique: row.flag(3)?,
                definition: definition.to_owned(),
                comment: row.optional(5).map(str::to_owned),
                constraint_comment: row.optional(6).map(str::to_owned),
            });
        }
        for row in client.query(CONSTRAINTS, &[Some(&oid)])? {
            let name = row.text(0)?.to_owned();
            if let Some(comment) = row.optional(2) {
                parts.comments.push((format!("CONSTRAINT {} ON", quote(&name)), comment.to_owned()));
            }
            parts.constraints.push((name, row.text(1)?.to_owned()));
        }
        parts.comments.extend(target.comment.iter().map(|comment| ("TABLE".to_owned(), comment.clone())));
        for row in client.query(OPTIONS, &[Some(&oid)])? {
            parts.options.push((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
        }
        parts.rights = rights(client, &oid)?;
        let new = Relation::find(client, new)?.map(|new| new.oid.to_string());
        parts.by_default = rights(client, new.as_deref().unwrap_or("0"))?.into_iter().map(|right| right.to).collect();
        parts.by_default.dedup();
        let owner = client.query(OWNER, &[Some(&oid)])?;
        parts.owner = owner.first().map_or(Ok(""), |row| row.text(0))?.to_owned();
        Ok(parts)
    }

    /// Gives the new table all of it, indexes under names for the time being: the heap is full by now.
    pub(super) fn dress(&self, new: &TableName, target: &Relation) -> String {
        let mut statements = Vec::new();
        for column in &target.columns {
            let verb = if column.not_null { "SET" } else { "DROP" };
            statements.push(format!("ALTER TABLE {new} ALTER COLUMN {} {verb} NOT NULL", quote(&column.name)));
        }
        for (place, index) in self.indexes.iter().enumerate() {
            let name = quote(&passing(new, place));
            statements.push(match (index.is_constraint, index.is_unique) {
                (true, _) => format!("ALTER TABLE {new} ADD CONSTRAINT {name} {}", index.definition),
                (false, true) => format!("CREATE UNIQUE INDEX {name} ON {new} {}", index.definition),
                (false, false) => format!("CREATE INDEX {name} ON {new} {}", index.definition),
            });
        }
        for (name, definition) in &self.constraints {
            statements.push(format!("ALTER TABLE {new} ADD CONSTRAINT {} {definition}", quote(name)));
        }
        for (option, value) in &self.options {
            statements.push(format!("ALTER TABLE {new} SET ({option} = {})", literal(value)));
        }
        statements.join("; ")
    }

    /// Gives the new table the old one's names, comments, rights and owner.
    pub(super) fn take_over(&self, new: &TableName, target: &TableName) -> String {
        let mut statements = Vec::new();
        if new.schema != target.schema {
            statements.push(format!("ALTER TABLE {new} SET SCHEMA {}", quote(&target.schema)));
        }
        let moved = TableName { schema: target.schema.clone(), table: new.table.clone() };
        statements.push(format!("ALTER TABLE {moved} RENAME TO {}", quote(&target.table)));
        for (place, index) in self.indexes.iter().enumerate() {
            let name = TableName { schema: target.schema.clone(), table: passing(new, place) };
            let named = TableName { schema: target.schema.clone(), table: index.name.clone() };
            statements.push(format!("ALTER INDEX {name} RENAME TO {}", quote(&index.name)));
            if let Some(comment) = &index.comment {
                statements.push(format!("COMMENT ON INDEX {named} IS {}", literal(comment)));
            }
            if let Some(comment) = &index.constraint_comment {
                let name = quote(&index.name);
                statements.push(format!("COMMENT ON CONSTRAINT {name} ON {target} IS {}", literal(comment)));
            }
        }
        for (on, comment) in &self.comments {
            statements.push(format!("COMMENT ON {on} {target} IS {}", literal(comment)));
        }
        for to in &self.by_default {
            statements.push(format!("REVOKE ALL ON {target} FROM {to}"));
        }
        // Where nobody gave or took any, the owner has all rights.
        statements.push(match self.rights.is_empty() {
            true => format!("GRANT ALL ON {target} TO CURRENT_USER"),
            false => format!("REVOKE ALL ON {target} FROM CURRENT_USER"),
        });
        for Right { right, columns, to, option } in &self.rights {
            statements.push(format!("GRANT {right}{columns} ON {target} TO {to}{option}"));
        }
        statements.push(format!("ALTER TABLE {target} OWNER TO {}", quote(&self.owner)));
        statements.join("; ")
    }
}

/// The name of an index until its own is free.
fn passing(new: &TableName, place: usize) -> String {
    format!("{}_{place}", new.table)
}

/// Rights that were given; the owner's own, where nobody touched them, are none.
fn rights(client: &mut Client, oid: &str) -> Result<Vec<Right>, WireError> {
    let right = |row: &super::wire::Row| {
        let text = |column| row.text(column).map(str::to_owned);
        Ok(Right { right: text(0)?, columns: text(1)?, to: text(2)?, option: text(3)? })
    };
    client.query(RIGHTS, &[Some(oid)])?.iter().map(right).collect()
}

const INDEXES: &str = "
SELECT x.relname,
  CASE WHEN k.oid IS NULL THEN pg_catalog.pg_get_indexdef(i.indexrelid) ELSE pg_catalog.pg_get_constraintdef(k.oid) END,
  k.oid IS NOT NULL, i.indisunique,
  pg_catalog.format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, x.relname, n.nspname,
    t.relname),
  pg_catalog.obj_description(i.indexrelid, 'pg_class'), pg_catalog.obj_description(k.oid, 'pg_constraint')
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
  AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = $1::pg_catalog.oid ORDER BY i.indisprimary DESC, i.indexrelid";

const CONSTRAINTS: &str = "
SELECT k.conname, pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid, 'pg_constraint')
FROM pg_catalog.pg_constraint k
WHERE k.conrelid = $1::pg_catalog.oid AND k.contype IN ('c', 'f') ORDER BY k.oid";

const OPTIONS: &str = "
SELECT pg_catalog.split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)
FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.unnest(c.reloptions) o WHERE c.oid = $1::pg_catalog.oid";

const RIGHTS: &str = "
SELECT x.privilege_type, x.columns,
  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END,
  CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM (
  SELECT a.privilege_type, '' AS columns, a.grantee, a.is_grantable
  FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE c.oid = $1::pg_catalog.oid
  UNION ALL
  SELECT a.privilege_type, ' (' || pg_catalog.quote_ident(l.attname) || ')', a.grantee, a.is_grantable
  FROM pg_catalog.pg_attribute l CROSS JOIN LATERAL pg_catalog.aclexplode(l.attacl) a
  WHERE l.attrelid = $1::pg_catalog.oid AND NOT l.attisdropped) x
ORDER BY x.grantee, x.columns, x.privilege_type";

const OWNER: &str = "SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c
WHERE c.oid = $1::pg_catalog.oid";
