//! The staging table of one transfer: its columns are like the target's, so that what a column cannot keep is told
//! row by row before anything is sent, and publishing converts nothing. Rows are numbered from 1 in the order in which
//! they came; a split's are loaded in bulk, batch by batch, and counted by the server in the same transaction. Of a mirror
//! the keys of refused rows are there too, under numbers below 1: what stands with such a key is not gone.

use super::catalog::{self, Column, Relation};
use super::client::{Client, SqlError, id, number, param};
use super::control::Refused;
use super::kind::{self, Kind};
use super::name::{TableName, literal, quote};
use super::place::{Fail, Place};
use super::reading::{RowReader, Wanted};
use super::writing::Slot;
use crate::{BadRow, types};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Item;
use tiberius::{ColumnData, TokenRow};

pub(super) struct Staging {
    pub(super) name: TableName,
    /// Set where the DBA made it for all transfers of the job: the one whose rows these are. It stays when that ends.
    transfer: Option<String>,
    /// One for each item of the contract.
    pub(super) slots: Vec<Slot>,
    /// What each row does, where that is said: a column that the target does not have.
    pub(super) operation: Option<Slot>,
    /// Whether keys of refused rows are kept.
    marks: bool,
}

/// What became of a split's rows.
pub(super) struct Taken {
    /// How many the server has of them.
    pub(super) landed: u64,
    /// Those for which the table has no place.
    pub(super) refused: Vec<Refused>,
    /// All others have numbers from the first to the last.
    pub(super) numbers: (i64, i64),
}

/// A row on its way: where it stands in its batch, and its values with its number before them.
struct Numbered<'b> {
    row: usize,
    number: i64,
    values: TokenRow<'b>,
}

impl Staging {
    /// Beside a target whose columns take the contract's values. Refuses one whose columns do not, with both shown.
    pub(super) fn beside(place: &Place, target: &Relation, has_charset: bool) -> Result<Self, Problem> {
        let contract = &place.landing.contract;
        let (mut slots, mut why) = (Vec::with_capacity(contract.items.len()), Vec::new());
        for item in &contract.items {
            let Some(column) = target.column(&item.name) else {
                why.push(format!("`{}` is missing in the table", item.name));
                continue;
            };
            match column.kind {
                _ if column.is_its_own() => why.push(format!("the table itself says what `{}` is", item.name)),
                // What the bytes of such a column are is the operator's word, and the driver writes by the collation.
                Some(kind) if has_charset && kind.page().is_some() => why.push(format!(
                    "`{}` is {} in the table, which is read by `charset` and cannot be landed in",
                    item.name, column.declared
                )),
                Some(kind) if kind::carries(item.r#type, kind) => slots.push(Slot {
                    name: item.name.clone(),
                    kind,
                    staged: kind.staged(),
                    collation: column.collation.clone(),
                    not_null: column.not_null,
                    identity: column.identity,
                    is_key: contract.key.contains(&item.name),
                }),
                _ => why.push(format!(
                    "`{}` is {} in the resource and {} in the table",
                    item.name,
                    types::type_name(item.r#type),
                    column.declared
                )),
            }
        }
        for column in target.columns.iter().filter(|column| contract.position(&column.name).is_none()) {
            if column.not_null && !column.has_default && !column.identity && !column.is_its_own() {
                why.push(format!("`{}` is in the table only, and takes no NULL", column.name));
            }
        }
        match why.is_empty() {
            true => Ok(Self {
                name: place.staging(),
                transfer: None,
                slots,
                operation: operation(place),
                marks: place.landing.write == Write::Mirror,
            }),
            false => {
                let resource = types::schema_text(contract);
                Err(types::drift(&place.landing.table, &resource, &target.text(), &why.join("; ")))
            }
        }
    }

    /// The columns of the staging table behind those of its own.
    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.operation)
    }

    /// Beside the target that a landing makes, for all transfers of its job.
    pub(super) fn beside_made(place: &Place, kinds: &[Kind]) -> Self {
        let slot = |(item, kind): (&Item, &Kind)| Slot {
            name: item.name.clone(),
            kind: *kind,
            staged: kind.staged(),
            collation: kind.is_text().then(|| kind::BINARY.to_owned()),
            not_null: false,
            identity: false,
            is_key: place.landing.contract.key.contains(&item.name),
        };
        let slots = place.landing.contract.items.iter().zip(kinds).map(slot).collect();
        let transfer = Some(place.transfer().to_owned());
        Self { name: place.premade(), transfer, slots, operation: operation(place), marks: false }
    }

    /// The table as it stands, the transfer's own or the one that was made beforehand; none where neither does. One that
    /// is not like the target is refused, with the statement that would make it so.
    pub(super) fn found(mut self, client: &mut Client, place: &Place) -> Result<Option<Self>, Fail> {
        if catalog::is_there(client, &self.name)? {
            return Ok(Some(self));
        }
        let Some(found) = Relation::find(client, &place.premade())? else { return Ok(None) };
        (self.name, self.transfer) = (found.name.clone(), Some(place.transfer().to_owned()));
        if found.column(TRANSFER).is_some() && found.column(NUMBER).is_some() && self.is_like(&found) {
            return Ok(Some(self));
        }
        let cause = format!(
            "the staging table {} is not like the target: have the DBA drop it, and make it by: {}",
            self.name,
            self.create()
        );
        Err(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause).into())
    }

    /// Whether a table's columns are those that this one would be made with.
    pub(super) fn is_like(&self, found: &Relation) -> bool {
        let is_like = |slot: &Slot| {
            let column = found.column(&slot.name);
            let same = |column: &Column| {
                column.kind == Some(slot.staged) && (!slot.staged.is_text() || column.collation == slot.collation)
            };
            column.is_some_and(same)
        };
        self.all().all(is_like)
    }

    pub(super) fn create(&self) -> String {
        let own =
            self.transfer.iter().map(|_| kind::column(TRANSFER, Kind::NVarChar(Some(64)), Some(kind::BINARY), true));
        let number = kind::column(NUMBER, Kind::BigInt, None, true);
        let column = |slot: &Slot| kind::column(&slot.name, slot.staged, slot.collation.as_deref(), false);
        let columns: Vec<String> = own.chain([number]).chain(self.all().map(column)).collect();
        let key = self.own_columns().join(", ");
        format!("CREATE TABLE {} ({}, PRIMARY KEY ({key}))", self.name, columns.join(", "))
    }

    /// The transfer's rows that are to land, as what is read from, under this name.
    pub(super) fn rows(&self, alias: &str) -> String {
        match self.marks {
            true => format!("(SELECT * FROM {} WHERE {} > 0 AND {}) AS {alias}", self.name, quote(NUMBER), self.own()),
            false => self.all_rows(alias),
        }
    }

    /// The same, and the keys of those that were refused.
    pub(super) fn all_rows(&self, alias: &str) -> String {
        match &self.transfer {
            None => format!("{} AS {alias}", self.name),
            Some(_) => format!("(SELECT * FROM {} WHERE {}) AS {alias}", self.name, self.own()),
        }
    }

    /// What holds for the transfer's rows.
    pub(super) fn own(&self) -> String {
        match &self.transfer {
            None => "1 = 1".to_owned(),
            Some(transfer) => format!("{} = {}", quote(TRANSFER), literal(transfer)),
        }
    }

    /// Takes out rows with these numbers and between them.
    pub(super) fn delete(&self, client: &mut Client, first: i64, last: i64) -> Result<(), SqlError> {
        let number = quote(NUMBER);
        let sql = format!("DELETE FROM {} WHERE {number} >= @P1 AND {number} <= @P2 AND {}", self.name, self.own());
        client.execute(&sql, &[id(first), id(last)])
    }

    /// Leaves nothing of the transfer there.
    pub(super) fn drop(&self, client: &mut Client) -> Result<(), SqlError> {
        match self.transfer {
            None => client.batch(&format!("DROP TABLE {}", self.name)),
            Some(_) => client.batch(&format!("DELETE FROM {} WHERE {}", self.name, self.own())),
        }
    }

    /// Reads staged rows as the contract has them.
    pub(super) fn reader(&self, place: &Place) -> RowReader {
        let contract = &place.landing.contract;
        let wanted =
            |(slot, item): (&Slot, &Item)| Wanted { name: slot.name.clone(), kind: slot.staged, r#type: item.r#type };
        RowReader::of_all(self.slots.iter().zip(&contract.items).map(wanted).collect(), contract)
    }

    /// How many rows are staged, and the numbers of the first and the last.
    pub(super) fn extent(&self, client: &mut Client) -> Result<(u64, i64, i64), SqlError> {
        let place = quote(NUMBER);
        let sql = format!("SELECT COUNT_BIG(*), MIN(s.{place}), MAX(s.{place}) FROM {}", self.rows("s"));
        let rows = client.query(&sql, &[])?;
        let at = |index: usize| rows.first().and_then(|row| number(row, index)).unwrap_or_default();
        Ok((u64::try_from(at(0)).unwrap_or_default(), at(1), at(2)))
    }

    /// Takes a split's rows.
    pub(super) fn take(
        &self,
        client: &mut Client,
        place: &Place,
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<Taken, Fail> {
        let (_, _, before) = self.extent(client)?;
        let (mut last, mut sent, mut refused) = (before, 0u64, Vec::new());
        let mut lowest = None;
        let table = self.name.to_string();
        let columns = self.columns();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let staged = place.landing.staged();
        let encodings = match self.all().any(|slot| slot.staged.page().is_some()) {
            true => client.encodings(&table, &columns)?,
            false => Vec::new(),
        };
        // Behind what is ours.
        let lead = self.own_columns().len();
        let encoding = |at: usize| encodings.get(at + lead).copied().flatten();
        for batch in batches {
            let batch = Batch::new(&staged, batch?).map_err(Problem::from)?;
            let (mut short, mut long) = (Vec::with_capacity(batch.rows()), Vec::new());
            let mut bad = Vec::new();
            for row in 0..batch.rows() {
                match self.row(&batch, row, last + 1) {
                    Ok(values) => {
                        last += 1;
                        let numbered = Numbered { row, number: last, values };
                        let mut data = self.all().zip(numbered.values.iter().skip(lead)).enumerate();
                        let is_loadable = data.all(|(at, (slot, data))| slot.is_loadable(data, encoding(at)));
                        if is_loadable { short.push(numbered) } else { long.push(numbered) }
                    }
                    Err(reason) => bad.push((row, reason)),
                }
            }
            if !short.is_empty() {
                let (rows, values): (Vec<usize>, Vec<TokenRow<'_>>) =
                    short.into_iter().map(|numbered| (numbered.row, numbered.values)).unzip();
                sent += rows.len() as u64;
                for (index, reason) in client.load(&table, &columns, values)? {
                    sent -= 1;
                    bad.push((rows.get(index).copied().unwrap_or_default(), reason));
                }
            }
            for Numbered { row, number, values } in long {
                match self.insert(client, number, values)? {
                    None => sent += 1,
                    Some(reason) => bad.push((row, reason)),
                }
            }
            for (row, reason) in bad {
                if self.marks {
                    let number = match lowest {
                        Some(lowest) => lowest,
                        None => self.lowest(client)?,
                    } - 1;
                    self.mark(client, &batch, row, number)?;
                    lowest = Some(number);
                }
                refused.push(refused_here(&batch, row, reason));
            }
        }
        let sql = format!("SELECT COUNT_BIG(*) FROM {} WHERE s.{} > @P1", self.rows("s"), quote(NUMBER));
        let landed = client.count(&sql, &[id(before)])?;
        if landed != sent {
            let cause = format!("{sent} rows were sent to the staging table, and the server counts {landed}");
            return Err(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause).into());
        }
        Ok(Taken { landed, refused, numbers: (before + 1, last) })
    }

    /// Those by which a row is found, before those of the contract.
    fn own_columns(&self) -> Vec<String> {
        self.transfer.iter().map(|_| quote(TRANSFER)).chain([quote(NUMBER)]).collect()
    }

    fn columns(&self) -> Vec<String> {
        self.own_columns().into_iter().chain(self.all().map(|slot| quote(&slot.name))).collect()
    }

    fn row<'b>(&self, batch: &'b Batch, row: usize, number: i64) -> Result<TokenRow<'b>, String> {
        let mut values = TokenRow::with_capacity(self.slots.len() + 3);
        if let Some(transfer) = &self.transfer {
            values.push(ColumnData::String(Some(transfer.clone().into())));
        }
        values.push(id(number));
        // Of a row that is to go the key counts: applications leave the others empty.
        let operation = self.operation.as_ref().map(|_| batch.value(self.slots.len(), row));
        let goes = matches!(operation, Some(Value::Text(letter)) if letter == Operation::Delete.letter());
        for (index, slot) in self.all().enumerate() {
            let value = batch.value(index, row);
            values.push(match goes && value.is_null() && !slot.is_key {
                true => slot.null(),
                false => slot.write(value).map_err(|why| format!("`{}`: {why}", slot.name))?,
            });
        }
        Ok(values)
    }

    /// The lowest number of the transfer's rows, 0 where none is below it.
    fn lowest(&self, client: &mut Client) -> Result<i64, SqlError> {
        let sql = format!("SELECT MIN(s.{}) FROM {}", quote(NUMBER), self.all_rows("s"));
        let lowest = client.query(&sql, &[])?.first().and_then(|row| number(row, 0));
        Ok(lowest.unwrap_or_default().min(0))
    }

    /// Keeps the key of a refused row. One that these columns do not take is in no row of the table either.
    fn mark(&self, client: &mut Client, batch: &Batch, row: usize, number: i64) -> Result<(), SqlError> {
        let mut values = TokenRow::with_capacity(self.slots.len() + 3);
        if let Some(transfer) = &self.transfer {
            values.push(ColumnData::String(Some(transfer.clone().into())));
        }
        values.push(id(number));
        for (index, slot) in self.all().enumerate() {
            let value = if slot.is_key { slot.write(batch.value(index, row)) } else { Ok(slot.null()) };
            let Ok(value) = value else { return Ok(()) };
            values.push(value);
        }
        self.insert(client, number, values).map(|_| ())
    }

    /// A row with a value that is too long for the driver's bulk load, or that it would say otherwise, goes by
    /// parameters. Why it did not, where the server would keep another text than the one that was sent.
    fn insert(&self, client: &mut Client, number: i64, values: TokenRow<'_>) -> Result<Option<String>, SqlError> {
        let lead = self.own_columns().len();
        let mut places = Vec::with_capacity(self.slots.len() + lead);
        let mut params: Vec<ColumnData<'_>> = Vec::with_capacity(self.slots.len() + lead);
        for (at, data) in values.into_iter().enumerate() {
            let Some(slot) = at.checked_sub(lead).and_then(|at| self.all().nth(at)) else {
                places.push(format!("@P{}", at + 1));
                params.push(data);
                continue;
            };
            let (place, data) = match data {
                // The driver declares a decimal by the digits that it has, which may be more than there can be.
                ColumnData::Numeric(value) => {
                    let text = value.map(|value| Value::Decimal(value.value(), value.scale() as i8).to_string());
                    let cast = format!("CAST(@P{} AS {})", at + 1, slot.staged.declare());
                    (cast, ColumnData::String(text.map(Into::into)))
                }
                data => (format!("@P{}", at + 1), data),
            };
            places.push(place);
            params.push(data);
        }
        let table = &self.name;
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", self.columns().join(", "), places.join(", "));
        client.execute(&sql, &params)?;
        // The server itself made bytes of these, and has a question mark for what it lacks.
        for (slot, data) in self.all().zip(params.iter().skip(lead)) {
            let (Some(_), ColumnData::String(Some(text))) = (slot.staged.page(), data) else { continue };
            let place = quote(NUMBER);
            let sql = format!(
                "SELECT COUNT_BIG(*) FROM {} WHERE s.{place} = @P1 AND CAST(s.{} AS nvarchar(max)) COLLATE {} = @P2",
                self.all_rows("s"),
                quote(&slot.name),
                kind::BINARY
            );
            if client.count(&sql, &[id(number), param(text)])? == 0 {
                self.delete(client, number, number)?;
                return Ok(Some(format!("`{}`: it has a character that the column's collation lacks", slot.name)));
            }
        }
        Ok(None)
    }
}

/// A letter, and never NULL.
fn operation(place: &Place) -> Option<Slot> {
    let kind = Kind::NVarChar(Some(1));
    place.landing.operation.clone().map(|name| Slot {
        name,
        kind,
        staged: kind,
        collation: Some(kind::BINARY.to_owned()),
        not_null: true,
        identity: false,
        is_key: false,
    })
}

fn refused_here(batch: &Batch, row: usize, reason: String) -> Refused {
    Refused::here(BadRow { key: batch.key_text(row), reason, original: batch.json(row) })
}

/// The column by which transfers share a staging table that was made beforehand.
pub(super) const TRANSFER: &str = "posthouse_transfer";
/// The column that numbers staged rows.
pub(super) const NUMBER: &str = "posthouse_number";
