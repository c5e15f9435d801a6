//! The staging table of one transfer: its columns are like the target's, so that what a column cannot keep is told
//! row by row before anything is sent, and publishing converts nothing. Rows are numbered from 1 in the order in which
//! they came; a split's are loaded in bulk, batch by batch, and counted by the server in the same transaction.

use super::catalog::Relation;
use super::client::{Client, SqlError, id, number, param};
use super::control::Refused;
use super::kind::{self, Kind};
use super::name::{TableName, quote};
use super::place::{Fail, Place};
use super::reading::{RowReader, Wanted};
use super::writing::Slot;
use crate::{BadRow, types};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, Value};
use posthouse_protocol::problem::{Code, Problem};
use tiberius::{ColumnData, TokenRow};

pub(super) struct Staging {
    pub(super) name: TableName,
    /// One for each item of the contract.
    pub(super) slots: Vec<Slot>,
    /// What each row does, where that is said: a column that the target does not have.
    pub(super) operation: Option<Slot>,
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
            true => Ok(Self { name: place.staging(), slots, operation: operation(place) }),
            false => {
                let resource = types::schema_text(contract);
                Err(types::drift(&place.landing.table, &resource, &target.text(), &why.join("; ")))
            }
        }
    }

    /// The columns of the staging table behind the number.
    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.operation)
    }

    pub(super) fn create(&self) -> String {
        let number = kind::column(NUMBER, Kind::BigInt, None, true);
        let column = |slot: &Slot| kind::column(&slot.name, slot.staged, slot.collation.as_deref(), false);
        let columns: Vec<String> = self.all().map(column).collect();
        format!("CREATE TABLE {} ({number}, {}, PRIMARY KEY ({}))", self.name, columns.join(", "), quote(NUMBER))
    }

    /// Reads staged rows as the contract has them.
    pub(super) fn reader(&self, place: &Place) -> RowReader {
        let contract = &place.landing.contract;
        let wanted = |(slot, item): (&Slot, &posthouse_protocol::schema::Item)| Wanted {
            name: slot.name.clone(),
            kind: slot.staged,
            r#type: item.r#type,
        };
        RowReader::of_all(self.slots.iter().zip(&contract.items).map(wanted).collect(), contract)
    }

    /// How many rows are staged, and the numbers of the first and the last.
    pub(super) fn extent(&self, client: &mut Client) -> Result<(u64, i64, i64), SqlError> {
        let place = quote(NUMBER);
        let sql = format!("SELECT COUNT_BIG(*), MIN(s.{place}), MAX(s.{place}) FROM {} AS s", self.name);
        let rows = client.query(&sql, &[])?;
        let at = |index: usize| rows.first().and_then(|row| number(row, index)).unwrap_or_default();
        Ok((u64::try_from(at(0)).unwrap_or_default(), at(1), at(2)))
    }

    /// Takes a split's rows. How many the server has of them, and those for which the table has no place.
    pub(super) fn take(
        &self,
        client: &mut Client,
        place: &Place,
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<(u64, Vec<Refused>), Fail> {
        let (_, _, before) = self.extent(client)?;
        let (mut last, mut sent, mut refused) = (before, 0u64, Vec::new());
        let table = self.name.to_string();
        let columns = self.columns();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let staged = place.landing.staged();
        let encodings = match self.all().any(|slot| slot.staged.page().is_some()) {
            true => client.encodings(&table, &columns)?,
            false => Vec::new(),
        };
        // Behind the number.
        let encoding = |at: usize| encodings.get(at + 1).copied().flatten();
        for batch in batches {
            let batch = Batch::new(&staged, batch?).map_err(Problem::from)?;
            let (mut short, mut long) = (Vec::with_capacity(batch.rows()), Vec::new());
            for row in 0..batch.rows() {
                match self.row(&batch, row, last + 1) {
                    Ok(values) => {
                        last += 1;
                        let numbered = Numbered { row, number: last, values };
                        let mut data = self.all().zip(numbered.values.iter().skip(1)).enumerate();
                        let is_loadable = data.all(|(at, (slot, data))| slot.is_loadable(data, encoding(at)));
                        if is_loadable { short.push(numbered) } else { long.push(numbered) }
                    }
                    Err(reason) => refused.push(refused_here(&batch, row, reason)),
                }
            }
            if !short.is_empty() {
                let (rows, values): (Vec<usize>, Vec<TokenRow<'_>>) =
                    short.into_iter().map(|numbered| (numbered.row, numbered.values)).unzip();
                sent += rows.len() as u64;
                for (index, reason) in client.load(&table, &columns, values)? {
                    sent -= 1;
                    refused.push(refused_here(&batch, rows.get(index).copied().unwrap_or_default(), reason));
                }
            }
            for Numbered { row, number, values } in long {
                match self.insert(client, number, values)? {
                    None => sent += 1,
                    Some(reason) => refused.push(refused_here(&batch, row, reason)),
                }
            }
        }
        let sql = format!("SELECT COUNT_BIG(*) FROM {table} AS s WHERE s.{} > @P1", quote(NUMBER));
        let landed = client.count(&sql, &[id(before)])?;
        if landed != sent {
            let cause = format!("{sent} rows were sent to the staging table, and the server counts {landed}");
            return Err(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause).into());
        }
        Ok((landed, refused))
    }

    fn columns(&self) -> Vec<String> {
        std::iter::once(quote(NUMBER)).chain(self.all().map(|slot| quote(&slot.name))).collect()
    }

    fn row<'b>(&self, batch: &'b Batch, row: usize, number: i64) -> Result<TokenRow<'b>, String> {
        let mut values = TokenRow::with_capacity(self.slots.len() + 2);
        values.push(id(number));
        for (index, slot) in self.all().enumerate() {
            values.push(slot.write(batch.value(index, row)).map_err(|why| format!("`{}`: {why}", slot.name))?);
        }
        Ok(values)
    }

    /// A row with a value that is too long for the driver's bulk load, or that it would say otherwise, goes by
    /// parameters. Why it did not, where the server would keep another text than the one that was sent.
    fn insert(&self, client: &mut Client, number: i64, values: TokenRow<'_>) -> Result<Option<String>, SqlError> {
        let mut places = vec!["@P1".to_owned()];
        let mut params: Vec<ColumnData<'_>> = Vec::with_capacity(self.slots.len() + 2);
        for (at, data) in values.into_iter().enumerate() {
            let Some(slot) = at.checked_sub(1).and_then(|at| self.all().nth(at)) else {
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
        for (slot, data) in self.all().zip(params.iter().skip(1)) {
            let (Some(_), ColumnData::String(Some(text))) = (slot.staged.page(), data) else { continue };
            let place = quote(NUMBER);
            let sql = format!(
                "SELECT COUNT_BIG(*) FROM {table} AS s WHERE s.{place} = @P1 \
                 AND CAST(s.{} AS nvarchar(max)) COLLATE {} = @P2",
                quote(&slot.name),
                kind::BINARY
            );
            if client.count(&sql, &[id(number), param(text)])? == 0 {
                client.execute(&format!("DELETE FROM {table} WHERE {place} = @P1"), &[id(number)])?;
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
        collation: None,
        not_null: true,
        identity: false,
        is_key: false,
    })
}

fn refused_here(batch: &Batch, row: usize, reason: String) -> Refused {
    Refused::here(BadRow { key: batch.key_text(row), reason, original: batch.json(row) })
}

/// The column that numbers staged rows.
pub(super) const NUMBER: &str = "posthouse_number";
