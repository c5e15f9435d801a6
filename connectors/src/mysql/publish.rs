//! From staging to a target that stands, by INSERT, UPDATE and DELETE in the one transaction that also leaves the
//! transfer's id. Sets do not overlap: a row is changed where its key is there with other contents, added where its key
//! is not there, and left alone otherwise, so that what each statement did is what it is counted as. Where another table
//! takes the target's place is elsewhere, see [`super::swap`].

use super::catalog::Relation;
use super::client::Client;
use super::control;
use super::ddl::NUMBER_COLUMN;
use super::fail::Fail;
use super::place::{Place, TableName, literal, quote, quoted};
use super::sieve::Sieve;
use super::staging::Staging;
use crate::publishing::{BAD_ROWS_MAX, Counts, check_mirror};
use crate::{Published, Publishing};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{ContractType, Item};

/// Within the caller's transaction.
pub(super) fn merge(
    client: &mut Client,
    place: &Place,
    target: &Relation,
    staging: Staging,
    how: &Publishing,
) -> Result<Published, Fail> {
    staging.check_count(client, place, true)?;
    let staged = control::staged(client, place)?;
    let mut run = Run { place, target, sieve: Sieve::new(place, staging, how.refused_max) };
    if !run.key().is_empty() && !run.sieve.staging.is_keyed {
        run.take_duplicates(client)?;
    }
    // Of two rows with one key the first counts here too, whatever they do.
    let gone = run.take_deletes(client)?;
    let mut kept = 0;
    let (counts, deleted) = match place.landing.write {
        Write::Append => (run.append(client)?, 0),
        Write::Upsert => (run.upsert(client)?, gone),
        Write::Replace => run.replace(client)?,
        Write::Mirror => {
            let knows_all = run.sieve.staging.knows_refused() || control::refused_before(client, place)? == 0;
            let deleted = match how.held_back == 0 && knows_all {
                true => run.delete_absent(client, true)?,
                false => {
                    kept = run.count_absent(client)?;
                    0
                }
            };
            (run.upsert(client)?, deleted)
        }
    };
    let quarantined = run.sieve.refused.len() as u64;
    let rows = staged.saturating_sub(quarantined);
    let Counts { inserted, updated } = counts;
    let result = Published { rows, inserted, updated, deleted, quarantined, kept };
    control::leave(client, place, &result, &run.sieve.refused)?;
    if run.sieve.staging.premade {
        run.sieve.staging.drop(client)?;
    }
    Ok(result)
}

struct Run<'a> {
    place: &'a Place,
    target: &'a Relation,
    sieve: Sieve<'a>,
}

impl Run<'_> {
    fn items(&self) -> &[Item] {
        &self.place.landing.contract.items
    }
    fn key(&self) -> &[String] {
        &self.place.landing.contract.key
    }
    fn staging(&self) -> String {
        self.sieve.staging.name.to_string()
    }
    fn names(&self) -> String {
        quoted(self.items().iter().map(|item| item.name.as_str()))
    }
    /// The staged values, in the order of [`Run::names`].
    fn values(&self) -> String {
        self.items().iter().map(|item| format!("s.{}", quote(&item.name))).collect::<Vec<_>>().join(", ")
    }
    fn beside_key(&self) -> Vec<&Item> {
        self.items().iter().filter(|item| !self.key().contains(&item.name)).collect()
    }
    /// Rows of `s` and `t` with the same key, as the target's own index has it.
    fn same_key(&self) -> String {
        let same = |name: &String| format!("s.{0} = t.{0}", quote(name));
        self.key().iter().map(same).collect::<Vec<_>>().join(" AND ")
    }
    /// What holds for rows `s` and `t` of which a value beside the key differs; none where there is no such column.
    fn differs(&self) -> Option<String> {
        let same = |item: &&Item| format!("{} <=> {}", self.exact(item, "s"), self.exact(item, "t"));
        let same = self.beside_key().iter().map(same).collect::<Vec<_>>();
        (!same.is_empty()).then(|| format!("NOT ({})", same.join(" AND ")))
    }
    /// A value so that it equals another one only where the contract says so: a collation takes more texts for equal.
    fn exact(&self, item: &Item, of: &str) -> String {
        let name = format!("{of}.{}", quote(&item.name));
        match item.r#type {
            ContractType::Char => format!("CAST(TRIM(TRAILING ' ' FROM {name}) AS BINARY)"),
            ContractType::Text | ContractType::Json | ContractType::Number | ContractType::Bytes => {
                format!("CAST({name} AS BINARY)")
            }
            _ => name,
        }
    }
    fn refuse(&self, cause: &str) -> Problem {
        Problem::new(Code::DestinationFailed).with("target", &self.place.landing.table).cause(cause)
    }

    /// Deletes what staged rows say is gone, and takes them out of the staging table: what is left there is upserted. How
    /// many rows of the target went; a key that was not there is none.
    fn take_deletes(&self, client: &mut Client) -> Result<u64, Fail> {
        let Some(operation) = &self.place.landing.operation else { return Ok(0) };
        let (target, staging, own) = (&self.target.name, self.staging(), &self.sieve.staging.own);
        let doomed = format!("{own} AND s.{} = {}", quote(operation), literal(Operation::Delete.letter()));
        let same = self.same_key();
        let deleted = client.run(&format!("DELETE t FROM {target} t JOIN {staging} s ON {same} WHERE {doomed}"))?;
        client.run(&format!("DELETE s FROM {staging} s WHERE {doomed}"))?;
        Ok(deleted)
    }

    /// What rows of one content have in common and others have not, whatever a collation takes for equal.
    fn hash<'i>(&self, items: impl Iterator<Item = &'i Item>, of: &str) -> String {
        let one = |item: &'i Item| {
            let value = match item.r#type {
                ContractType::Boolean | ContractType::Integer => format!("{of}.{} + 0", quote(&item.name)),
                _ => self.exact(item, of),
            };
            format!("COALESCE(SHA2({value}, 256), '-')")
        };
        let all = items.map(one).collect::<Vec<_>>().join(", ");
        format!("SHA2(CONCAT({all}), 256)")
    }

    /// Takes out staged rows whose key came before them in this transfer, where no index keeps them apart.
    fn take_duplicates(&mut self, client: &mut Client) -> Result<(), Fail> {
        let hash = self.hash(self.items().iter().filter(|item| self.key().contains(&item.name)), "s");
        let (staging, own) = (self.staging(), &self.sieve.staging.own);
        let sql = format!(
            "SELECT s.{NUMBER_COLUMN} FROM {staging} s
             JOIN (SELECT h.hash, MIN(h.{NUMBER_COLUMN}) AS first
                   FROM (SELECT s.{NUMBER_COLUMN}, {hash} AS hash FROM {staging} s WHERE {own}) h
                   GROUP BY h.hash HAVING COUNT(*) > 1) d
               ON d.hash = {hash} AND s.{NUMBER_COLUMN} > d.first
             WHERE {own} ORDER BY 1 LIMIT {}",
            BAD_ROWS_MAX + 1
        );
        let numbers = self.sieve.numbers(client, &sql)?;
        self.sieve.take(client, &numbers, "its key came in this transfer already")
    }

    fn append(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        if !self.key().is_empty() {
            self.take_contradictions(client)?;
            return self.add(client);
        }
        if self.place.landing.watermark_column.is_some() {
            self.drop_overlap(client)?;
        }
        self.insert_all(client)
    }

    /// Appending never changes a row: where the key is there with other contents, the staged row is refused.
    fn take_contradictions(&mut self, client: &mut Client) -> Result<(), Fail> {
        let Some(differs) = self.differs() else { return Ok(()) };
        let sql = format!(
            "SELECT s.{NUMBER_COLUMN} FROM {} s JOIN {} t ON {} WHERE {} AND {differs} ORDER BY 1 LIMIT {} LOCK IN SHARE MODE",
            self.staging(),
            self.target.name,
            self.same_key(),
            self.sieve.staging.own,
            BAD_ROWS_MAX + 1
        );
        let numbers = self.sieve.numbers(client, &sql)?;
        self.sieve.take(client, &numbers, "its key is there with other contents, and append changes nothing")
    }

    fn upsert(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        let updated = match self.differs() {
            None => Counts::default(),
            Some(differs) => {
                let set = |item: &&Item| format!("t.{0} = s.{0}", quote(&item.name));
                let set = self.beside_key().iter().map(set).collect::<Vec<_>>().join(", ");
                let (target, staging, same) = (&self.target.name, self.staging(), self.same_key());
                self.sieve.pass(client, &mut |client, condition| {
                    let sql = format!(
                        "UPDATE {target} t JOIN {staging} s ON {same} SET {set} WHERE {condition} AND {differs}"
                    );
                    Ok(Counts { inserted: 0, updated: client.run(&sql)? })
                })?
            }
        };
        let mut counts = self.add(client)?;
        counts += updated;
        Ok(counts)
    }

    /// Inserts staged rows whose key is not there.
    fn add(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        let (target, staging, same) = (&self.target.name, self.staging(), self.same_key());
        let (names, values) = (self.names(), self.values());
        let first = self.key().first().map(|name| format!("t.{}", quote(name))).unwrap_or_default();
        self.sieve.pass(client, &mut |client, condition| {
            let sql = format!(
                "INSERT INTO {target} ({names}) SELECT {values} FROM {staging} s LEFT JOIN {target} t ON {same} \
                 WHERE {first} IS NULL AND {condition} ORDER BY s.{NUMBER_COLUMN}"
            );
            Ok(Counts { inserted: client.run(&sql)?, updated: 0 })
        })
    }

    fn insert_all(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        let (target, staging) = (&self.target.name, self.staging());
        let (names, values) = (self.names(), self.values());
        self.sieve.pass(client, &mut |client, condition| {
            let sql = format!(
                "INSERT INTO {target} ({names}) SELECT {values} FROM {staging} s WHERE {condition} \
                 ORDER BY s.{NUMBER_COLUMN}"
            );
            Ok(Counts { inserted: client.run(&sql)?, updated: 0 })
        })
    }

    /// Rows without a key that were landed before and are read again: as many as stand there, equal in all columns, are
    /// not added. Only rows within the staged marks can be among them. Rows are compared by a hash of theirs: a sort
    /// looks at the beginning of a long text only.
    fn drop_overlap(&mut self, client: &mut Client) -> Result<(), Fail> {
        if !client.server.has_windows() {
            return Err(self
                .refuse("without a key, rows that come again are told by functions that this server lacks")
                .into());
        }
        let mark = quote(self.place.landing.watermark_column.as_deref().unwrap_or_default());
        let hash = |of: &str| self.hash(self.items().iter(), of);
        let (staging, target, own) = (self.staging(), &self.target.name, &self.sieve.staging.own);
        let bounds = format!("SELECT MIN(s.{mark}) AS first, MAX(s.{mark}) AS last FROM {staging} s WHERE {own}");
        let sql = format!(
            "DELETE p FROM {staging} p JOIN (SELECT x.{NUMBER_COLUMN} FROM (
               SELECT s.{NUMBER_COLUMN}, h.hash, ROW_NUMBER() OVER (PARTITION BY h.hash ORDER BY s.{NUMBER_COLUMN}) AS copy
               FROM {staging} s JOIN (SELECT s.{NUMBER_COLUMN}, {} AS hash FROM {staging} s WHERE {own}) h
                 ON h.{NUMBER_COLUMN} = s.{NUMBER_COLUMN}) x
             JOIN (SELECT {} AS hash, COUNT(*) AS copies FROM {target} t JOIN ({bounds}) b
                   WHERE t.{mark} IS NULL OR (t.{mark} >= b.first AND t.{mark} <= b.last) GROUP BY 1) y
               ON y.hash = x.hash AND x.copy <= y.copies) o ON o.{NUMBER_COLUMN} = p.{NUMBER_COLUMN}",
            hash("s"),
            hash("t"),
        );
        client.run(&sql).map(|_| ())
    }

    /// All rows give way to the new ones; how many there were.
    fn replace(&mut self, client: &mut Client) -> Result<(Counts, u64), Fail> {
        let referrers = referrers(client, &self.target.name)?;
        // Rows that stay are left alone where somebody may refer to them out of sight: their own go along with them.
        let is_keyed = self.target.is_unique(self.key()) && self.target.unique.len() == 1;
        let is_referred = self.sieve.staging.is_referred;
        let is_alone = referrers.is_empty() && !is_referred && (!is_keyed || sees_all(client)?);
        if is_alone {
            let deleted = client.run(&format!("DELETE FROM {}", self.target.name))?;
            return Ok((self.insert_all(client)?, deleted));
        }
        if !self.target.is_unique(self.key()) {
            let cause =
                "other tables refer to its rows, which are not known by a key: name the key that is unique there";
            return Err(self.refuse(cause).into());
        }
        if is_referred {
            let gone = self.count_absent(client)?;
            if gone > 0 {
                let cause = format!(
                    "{gone} of its rows would be gone, and a table that this account may not see refers to it: give the \
                     account the right to see that table (REFERENCES), or use upsert"
                );
                return Err(self.refuse(&cause).into());
            }
        }
        let deleted = self.delete_unreferred(client, &referrers)?;
        Ok((self.upsert(client)?, deleted))
    }

    /// Deletes what was not handed over, unless other tables refer to it: their rows would go along, or change.
    fn delete_unreferred(&self, client: &mut Client, referrers: &[Referrer]) -> Result<u64, Fail> {
        let gone = self.gone();
        for Referrer { table, columns } in referrers {
            let join = columns.iter().map(|(there, here)| format!("r.{} = t.{}", quote(there), quote(here)));
            let join = join.collect::<Vec<_>>().join(" AND ");
            let sql = format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM {table} r JOIN {} t ON {join} WHERE {gone} LIMIT 1) x",
                self.target.name
            );
            if client.count(&sql, vec![])? > 0 {
                let cause = format!(
                    "rows that {table} refers to would be gone; use upsert or mirror, or land what refers to them too"
                );
                return Err(self.refuse(&cause).into());
            }
        }
        self.delete_absent(client, false)
    }

    /// Deletes rows whose key was not handed over, unless a mirror would delete too many of them.
    fn delete_absent(&self, client: &mut Client, is_mirror: bool) -> Result<u64, Fail> {
        let (target, gone) = (&self.target.name, self.gone());
        if is_mirror {
            let total = client.count(&format!("SELECT COUNT(*) FROM {target} LOCK IN SHARE MODE"), vec![])?;
            let count = self.count_absent(client)?;
            check_mirror(count, total)?;
        }
        client.run(&format!("DELETE t FROM {target} t WHERE {gone}"))
    }

    fn count_absent(&self, client: &mut Client) -> Result<u64, Fail> {
        let (target, gone) = (&self.target.name, self.gone());
        client.count(&format!("SELECT COUNT(*) FROM {target} t WHERE {gone} LOCK IN SHARE MODE"), vec![])
    }

    /// What holds for rows `t` whose key was not handed over.
    fn gone(&self) -> String {
        let (staging, all) = (self.staging(), &self.sieve.staging.all);
        format!("NOT EXISTS (SELECT 1 FROM {staging} s WHERE {all} AND {})", self.same_key())
    }
}

/// Whether no table is hidden from the account. A right that is given by a role is not seen here.
fn sees_all(client: &mut Client) -> Result<bool, Fail> {
    client.count(SEES_ALL, vec![]).map(|found| found > 0)
}

/// A foreign key of another table that refers to rows of one.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) table: TableName,
    /// Pairs of columns: there and here.
    pub(super) columns: Vec<(String, String)>,
}

pub(super) fn referrers(client: &mut Client, target: &TableName) -> Result<Vec<Referrer>, Fail> {
    let by_name = vec![target.schema.as_str().into(), target.table.as_str().into()];
    let mut found: Vec<(String, Referrer)> = Vec::new();
    for row in client.rows(REFERRERS, by_name)? {
        let texts: Vec<String> = row.iter().map(super::client::text).collect();
        let [constraint, schema, table, there, here] = texts.as_slice() else { continue };
        let table = TableName { schema: schema.clone(), table: table.clone() };
        let pair = (there.clone(), here.clone());
        match found.last_mut().filter(|(name, last)| name == constraint && last.table == table) {
            Some((_, last)) => last.columns.push(pair),
            None => found.push((constraint.clone(), Referrer { table, columns: vec![pair] })),
        }
    }
    Ok(found.into_iter().map(|(_, referrer)| referrer).filter(|referrer| referrer.table != *target).collect())
}

const REFERRERS: &str = "SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
  FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA = ? AND REFERENCED_TABLE_NAME = ?
  ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION";
const SEES_ALL: &str = "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SELECT'
  AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
