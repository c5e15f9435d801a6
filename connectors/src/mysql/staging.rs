//! The staging table of one transfer. A split's rows come into it by LOAD DATA from memory, or by INSERT where a server
//! takes no files from its clients. LOAD DATA LOCAL skips and bends what it does not like and says so by a warning only:
//! after one, its rows are taken back and inserted, and what INSERT refuses is halved until the refused rows stand
//! alone. A split's rows, its refused rows and its row in `posthouse_applied` are one transaction of the caller's.
//!
//! Where there is no target yet, and where another table may take its place, the staging table is made so that it can
//! become the target. Elsewhere its columns have the target's types, and a number by which its rows are told apart.

use super::alike;
use super::catalog::{self, Column, Relation};
use super::client::Client;
use super::control::{self, Refused};
use super::ddl::{self, NUMBER_COLUMN, REFUSED_COLUMN, TRANSFER_COLUMN};
use super::encode::{Encoder, Window};
use super::fail::{self, Fail};
use super::place::{Place, TableName, literal, quote, quoted};
use super::refusals::Refusals;
use super::swap;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::Batch;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct Staging {
    pub(super) name: TableName,
    /// What holds for this transfer's rows `s` in it that are to land.
    pub(super) own: String,
    /// What holds for all of its rows `s`: of those that were refused the key may be here too.
    pub(super) all: String,
    /// Made by the DBA for all transfers of the job; it stays when a transfer ends.
    pub(super) premade: bool,
    /// Whether it can become the target: its rows have no numbers.
    pub(super) whole: bool,
    /// Whether the server keeps two rows of one key apart here.
    pub(super) is_keyed: bool,
    /// Whether a table that this account may not see is known to refer to the target.
    pub(super) is_referred: bool,
    /// Whether there is a place for the keys of refused rows.
    marks: bool,
    /// One for each of the items that are staged.
    columns: Vec<Column>,
}

impl Staging {
    /// None where nothing is prepared, or all is published.
    pub(super) fn find(client: &mut Client, place: &Place) -> Result<Option<Self>, Fail> {
        if let Some(found) = Relation::find(client, &place.staging())? {
            return Self::of(place, &found, false).map(Some);
        }
        match Relation::find(client, &place.premade())? {
            Some(found) if found.column(TRANSFER_COLUMN).is_some() && found.column(NUMBER_COLUMN).is_some() => {
                Self::of(place, &found, true).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn of(place: &Place, found: &Relation, premade: bool) -> Result<Self, Fail> {
        let columns = place.staged.items.iter().map(|item| found.column(&item.name).cloned());
        let columns = columns.collect::<Option<Vec<_>>>().ok_or_else(|| {
            let cause = "the staging table has other columns; drop it, or make it anew by the script of `doctor --sql`";
            Problem::new(Code::DestinationFailed).with("target", found.name.to_string()).cause(cause)
        })?;
        let all = match premade {
            true => format!("s.{TRANSFER_COLUMN} = {}", literal(place.transfer())),
            false => "1 = 1".to_owned(),
        };
        let marks = found.column(REFUSED_COLUMN).is_some();
        let own = if marks { format!("{all} AND s.{REFUSED_COLUMN} = 0") } else { all.clone() };
        let key = &place.landing.contract.key;
        let is_keyed = found.is_unique(key) || (premade && found.is_unique(&alike::keyed(&place.landing.contract)));
        let number = found.column(NUMBER_COLUMN);
        let whole = number.is_none();
        let is_referred = number.is_some_and(|number| number.comment.as_deref() == Some(REFERRED));
        Ok(Self { name: found.name.clone(), own, all, premade, whole, is_keyed, is_referred, marks, columns })
    }

    /// Makes the table, unless an earlier run of the transfer did, or a DBA for an account that may not.
    pub(super) fn prepare(client: &mut Client, place: &Place, target: Option<&Relation>) -> Result<(), Fail> {
        let has_begun = control::has_begun(client, place)?;
        match Self::find(client, place)? {
            // A transfer goes on where it began.
            Some(found) if has_begun && found.premade => return found.check(client, place, target),
            Some(_) if has_begun => return Ok(()),
            // Rows come with what is noted of their split, or not at all: nothing in it counts, and the table may have
            // got another shape.
            Some(found) if !found.premade => found.drop(client)?,
            // What is noted as staged was in a table that is gone.
            None if has_begun => {
                client.run("START TRANSACTION READ WRITE")?;
                control::discard(client, place)?;
                client.run("COMMIT")?;
            }
            _ => {}
        }
        let (contract, server) = (&place.staged, client.server);
        let name = place.staging();
        let made = match target {
            None => client.run(&ddl::create_table(&name, contract, &server, &[])?),
            Some(target)
                if place.landing.write == Write::Replace
                    && swap::obstacles(client, target, &contract.key)?.is_empty() =>
            {
                Self::make_like(client, place, target)
            }
            Some(target) => Self::make_numbered(client, place, target),
        };
        match made {
            Ok(_) => Ok(()),
            Err(fail) if fail.code().is_some_and(|code| fail::NO_RIGHT.contains(&code)) => {
                match Self::find(client, place)? {
                    Some(found) if found.premade && target.is_some() => {
                        found.check(client, place, target)?;
                        found.drop(client)
                    }
                    _ => Err(no_right(place).into()),
                }
            }
            Err(fail) => Err(fail),
        }
    }

    /// A table that can take the target's place.
    fn make_like(client: &mut Client, place: &Place, target: &Relation) -> Result<u64, Fail> {
        let name = place.staging();
        let made = client.run(&format!("CREATE TABLE {name} LIKE {}", target.name))?;
        // Not all that a table is told is copied: where its files lie, say.
        if alike::differ(client, &name, &target.name)? {
            client.run(&format!("DROP TABLE {name}"))?;
            return Self::make_numbered(client, place, target);
        }
        Ok(made)
    }

    fn make_numbered(client: &mut Client, place: &Place, target: &Relation) -> Result<u64, Fail> {
        let (name, contract) = (place.staging(), &place.staged);
        let (is_unique, marks) = (!contract.key.is_empty(), place.landing.write == Write::Mirror);
        match client.run(&ddl::create_numbered(&name, contract, target, is_unique, marks)) {
            // The key is longer than an index takes, or is a text of any length.
            Err(fail) if fail.code().is_some_and(|code| NO_INDEX.contains(&code)) => {
                client.run(&ddl::create_numbered(&name, contract, target, false, marks))
            }
            made => made,
        }
    }

    /// Whether a table that was made beforehand is as it has to be.
    fn check(&self, client: &mut Client, place: &Place, target: Option<&Relation>) -> Result<(), Fail> {
        match target {
            Some(target) => alike::check(client, place, self, target),
            None => Err(no_right(place).into()),
        }
    }

    /// Refuses to publish other rows than those that are noted as staged: somebody may have dropped the table, or
    /// changed it. `lock`: within a transaction, no row comes or goes from now on.
    pub(super) fn check_count(&self, client: &mut Client, place: &Place, lock: bool) -> Result<(), Fail> {
        let staged = control::staged(client, place)?;
        let lock = if lock { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT COUNT(*) FROM {} s WHERE {}{lock}", self.name, self.own);
        let there = client.count(&sql, vec![])?;
        if there == staged {
            return Ok(());
        }
        let cause =
            format!("{staged} rows were staged there, and {} has {there}: it was restored or changed since", self.name);
        Err(Problem::new(Code::Mismatch).with("peer", "the destination").cause(cause).into())
    }

    /// Whether the keys of rows that were refused are here.
    pub(super) fn knows_refused(&self) -> bool {
        self.marks
    }

    pub(super) fn drop(&self, client: &mut Client) -> Result<(), Fail> {
        match self.premade {
            true => client.run(&format!("DELETE s FROM {} s WHERE {}", self.name, self.all)).map(|_| ()),
            false => client.run(&format!("DROP TABLE IF EXISTS {}", self.name)).map(|_| ()),
        }
    }

    /// Gives its rows numbers where they have none: what was to become the target is to be merged into one after all.
    /// Why that is so is kept where the next run finds it.
    pub(super) fn number(&mut self, client: &mut Client, is_referred: bool) -> Result<(), Fail> {
        if self.whole {
            // There is one count in a table: one like the target may have it in a column of its own.
            let columns = Relation::find(client, &self.name)?.map(|found| found.columns).unwrap_or_default();
            let counting = columns.iter().filter(|column| column.auto_increment);
            let stop: String = counting
                .map(|column| format!("MODIFY COLUMN {} {} NOT NULL, ", quote(&column.name), column.declared))
                .collect();
            let add = format!(
                "ALTER TABLE {} {stop}ADD COLUMN {NUMBER_COLUMN} bigint unsigned NOT NULL AUTO_INCREMENT COMMENT {}, \
                 ADD UNIQUE KEY ({NUMBER_COLUMN})",
                self.name,
                literal(if is_referred { REFERRED } else { "" })
            );
            match client.run(&add) {
                Err(Fail::Server(error)) => {
                    let cause = format!("its rows cannot be numbered: {}; run the job again", fail::text(&error));
                    return Err(Problem::new(Code::DestinationFailed)
                        .with("target", self.name.to_string())
                        .cause(cause)
                        .into());
                }
                added => added?,
            };
            self.whole = false;
            self.is_referred = is_referred;
        }
        Ok(())
    }

    /// Stages a split; gives how many rows of it, and what was refused. `takes_files` is turned off by a server that
    /// takes none.
    pub(super) fn take(
        &self,
        client: &mut Client,
        place: &Place,
        takes_files: &mut bool,
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<(u64, Vec<Refused>), Fail> {
        let contract = &place.staged;
        let mut columns = self.columns.clone();
        let numbering = catalog::numbering(client, &place.target)?;
        for column in columns.iter_mut().filter(|column| numbering.contains(&column.name)) {
            column.auto_increment = true;
        }
        let encoder = Arc::new(Encoder::new(contract, &columns, client.server.packet_max));
        let marks = self.marks && place.landing.write == Write::Mirror && !contract.key.is_empty();
        let refused = Refusals::new(place.target.to_string());
        let mut load = Load { client, staging: self, place, takes_files, marks, landed: 0, refused };
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for batch in batches {
            let batch = Batch::new(contract, batch?).map_err(Problem::from)?;
            bytes += batch.record().get_array_memory_size();
            waiting.push(batch);
            if bytes >= WINDOW_BYTES {
                load.window(&Window::new(encoder.clone(), std::mem::take(&mut waiting)))?;
                bytes = 0;
            }
        }
        load.window(&Window::new(encoder.clone(), waiting))?;
        load.mark(&encoder)?;
        Ok((load.landed, load.refused.into_rows()))
    }
}

/// One split on its way into the staging table.
struct Load<'a> {
    client: &'a mut Client,
    staging: &'a Staging,
    place: &'a Place,
    takes_files: &'a mut bool,
    /// Whether keys of refused rows are kept.
    marks: bool,
    landed: u64,
    refused: Refusals,
}

impl Load<'_> {
    fn window(&mut self, window: &Arc<Window>) -> Result<(), Fail> {
        if window.rows() == 0 {
            return Ok(());
        }
        if *self.takes_files && self.load(window)? {
            return Ok(());
        }
        for batch in &window.batches {
            self.insert(&window.encoder, batch)?;
        }
        Ok(())
    }

    /// Whether all rows came in as they are; if not, none did.
    fn load(&mut self, window: &Arc<Window>) -> Result<bool, Fail> {
        let own = self.staging.premade.then(|| format!("{TRANSFER_COLUMN} = {}", literal(self.place.transfer())));
        let sql = format!(
            "LOAD DATA LOCAL INFILE 'posthouse' INTO TABLE {} {}",
            self.staging.name,
            window.encoder.load_clause(own.as_deref())
        );
        self.client.run(SAVEPOINT)?;
        let outcome = self.client.load(&sql, window.lines());
        let refused = window.take_refused();
        match outcome {
            Ok((rows, 0)) if rows == (window.rows() - refused.len()) as u64 => {
                self.client.run(RELEASE)?;
                self.landed += rows;
                for (batch, row, why) in refused {
                    if let Some(batch) = window.batches.get(batch) {
                        self.refuse(&window.encoder, batch, row, why, None)?;
                    }
                }
                Ok(true)
            }
            Err(Fail::Server(error)) if fail::NO_LOCAL.contains(&error.code) => {
                *self.takes_files = false;
                self.client.run(BACK)?;
                Ok(false)
            }
            Ok(_) => {
                self.client.run(BACK)?;
                Ok(false)
            }
            Err(Fail::Server(error)) if fail::is_of_row(&error) => {
                self.client.run(BACK)?;
                Ok(false)
            }
            Err(fail) => Err(fail),
        }
    }

    /// Inserts rows, many in a statement; what is refused is halved.
    fn insert(&mut self, encoder: &Encoder, batch: &Batch) -> Result<(), Fail> {
        let most = (self.client.server.packet_max / 2).min(STATEMENT_BYTES);
        let (mut rows, mut bytes) = (Vec::new(), Vec::new());
        let mut literals = Vec::new();
        for row in 0..batch.rows() {
            literals.clear();
            if let Err(why) = encoder.literals(batch, row, &mut literals) {
                self.refuse(encoder, batch, row, why, None)?;
                continue;
            }
            if literals.len() + STATEMENT_MARGIN > self.client.server.packet_max {
                let why = "the row is longer than the server takes at once (max_allowed_packet)".to_owned();
                self.refuse(encoder, batch, row, why, None)?;
                continue;
            }
            if !rows.is_empty() && bytes.len() + literals.len() > most {
                self.halve(encoder, batch, &std::mem::take(&mut rows), &std::mem::take(&mut bytes))?;
            }
            let start = bytes.len();
            bytes.extend_from_slice(&literals);
            rows.push((row, start, bytes.len()));
        }
        self.halve(encoder, batch, &rows, &bytes)
    }

    /// Rows by their number, and where their literals lie.
    fn halve(
        &mut self,
        encoder: &Encoder,
        batch: &Batch,
        rows: &[(usize, usize, usize)],
        bytes: &[u8],
    ) -> Result<(), Fail> {
        let mut left = vec![rows];
        while let Some(rows) = left.pop() {
            let Some((row, ..)) = rows.first() else { continue };
            match self.statement(rows, bytes)? {
                Ok(landed) => self.landed += landed,
                Err((why, code)) if rows.len() == 1 => self.refuse(encoder, batch, *row, why, code)?,
                Err(_) => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    left.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// One statement; why it was taken back.
    #[allow(clippy::type_complexity, reason = "a reason with its number")]
    fn statement(
        &mut self,
        rows: &[(usize, usize, usize)],
        bytes: &[u8],
    ) -> Result<Result<u64, (String, Option<u16>)>, Fail> {
        let contract = &self.place.staged;
        let mut names = quoted(contract.items.iter().map(|item| item.name.as_str()));
        let mut own = String::new();
        if self.staging.premade {
            names.push_str(&format!(", {}", quote(TRANSFER_COLUMN)));
            own = format!(", {}", literal(self.place.transfer()));
        }
        let mut sql = format!("INSERT INTO {} ({names}) VALUES ", self.staging.name).into_bytes();
        for (index, (_, start, end)) in rows.iter().enumerate() {
            sql.extend_from_slice(if index > 0 { b",(" } else { b"(" });
            sql.extend_from_slice(bytes.get(*start..*end).unwrap_or_default());
            sql.extend_from_slice(own.as_bytes());
            sql.push(b')');
        }
        let sql = String::from_utf8(sql).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
        self.client.run(SAVEPOINT)?;
        let refused = match self.client.run_warned(&sql) {
            Ok((landed, 0)) => {
                self.client.run(RELEASE)?;
                return Ok(Ok(landed));
            }
            // A value was shortened, and the server only mentions it.
            Ok(_) => (self.client.warnings()?.join("; "), None),
            Err(Fail::Server(error)) if fail::is_of_row(&error) => {
                let by = Refused::by(&error, String::new(), String::new());
                (by.reason, by.code)
            }
            Err(fail) => return Err(fail),
        };
        self.client.run(BACK)?;
        Ok(Err(refused))
    }

    fn refuse(
        &mut self,
        encoder: &Encoder,
        batch: &Batch,
        row: usize,
        reason: String,
        code: Option<u16>,
    ) -> Result<(), Fail> {
        let refused = Refused { key: batch.key_text(row), reason, original: batch.json(row), code };
        let mut key = Vec::new();
        // A key that these columns do not take is not in the table either.
        let is_key = self.marks && encoder.key_literals(batch, row, &mut key).is_ok();
        self.refused.push(refused, is_key.then_some(key))
    }

    /// Keeps the keys of refused rows: the rows that stand in the table with them are not gone.
    fn mark(&mut self, encoder: &Encoder) -> Result<(), Fail> {
        let mut names = format!("{}, {}", encoder.key_names(), quote(REFUSED_COLUMN));
        let mut more = ", 1".to_owned();
        if self.staging.premade {
            names.push_str(&format!(", {}", quote(TRANSFER_COLUMN)));
            more.push_str(&format!(", {}", literal(self.place.transfer())));
        }
        for key in self.refused.take_keys() {
            let key = String::from_utf8(key).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
            self.client.run(SAVEPOINT)?;
            let sql = format!("INSERT INTO {} ({names}) VALUES ({key}{more})", self.staging.name);
            let end = match self.client.run_warned(&sql) {
                Ok((_, 0)) => RELEASE,
                // These columns would have changed it.
                Ok(_) => BACK,
                // It is here already, say.
                Err(Fail::Server(error)) if fail::is_of_row(&error) => BACK,
                Err(fail) => return Err(fail),
            };
            self.client.run(end)?;
        }
        Ok(())
    }
}

/// The account may not make what is needed, and nobody made it beforehand.
pub(super) fn no_right(place: &Place) -> Problem {
    let cause = "the account may not create tables there; have the DBA run the script that `posthouse doctor --config FILE \
                 --sql CONNECTION` prints";
    Problem::new(Code::DestinationFailed).with("target", place.target.to_string()).cause(cause)
}

const SAVEPOINT: &str = "SAVEPOINT posthouse";
const RELEASE: &str = "RELEASE SAVEPOINT posthouse";
const BACK: &str = "ROLLBACK TO SAVEPOINT posthouse";
/// Comment of the column that numbers rows, where the target could not give way to the staging table for that reason.
const REFERRED: &str = "a table out of sight refers to the target";
/// A key too long, a text without a length in a key, a type that no index takes.
const NO_INDEX: &[u16] = &[1071, 1170, 1167, 3152];
/// Rows that are loaded by one statement, as they lie in memory.
const WINDOW_BYTES: usize = 12 << 20;
/// Of an INSERT.
const STATEMENT_BYTES: usize = 1 << 20;
const STATEMENT_MARGIN: usize = 16 << 10;
