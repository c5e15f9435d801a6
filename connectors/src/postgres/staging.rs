//! The staging table of one transfer. A split's rows come into it by COPY, as the source's server wrote them
//! where that is possible; what COPY refuses is halved until the refused rows stand alone. A split's rows, its
//! refused rows and its row in `posthouse_applied` are one transaction of the caller's; so are the keys of the refused
//! rows, where a mirror needs them ([`super::keys`]).
//!
//! Where there is no target yet, the staging table is made so that it can become the target: final types, no
//! columns of its own. Where all rows of a target are to be replaced, it is made like the target. Otherwise its
//! columns have the source's types, and the target's apply on publishing. A type that needs a definition which
//! this database lacks is staged as text: labels of an enumeration are that already, a composite is rendered.

use super::catalog::{Column, Relation, TableName, literal, quote, quoted};
use super::control::{self, Refused};
use super::keys::{Key, Refusals};
use super::place::Fail;
use super::place::Place;
use super::sieve::attempt;
use super::transcode::{Transcoder, holds_texts_within};
use super::wire::{Client, WireError};
use super::{ddl, keys, replace};
use crate::RawRows;
use crate::charset::Charset;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::Batch;
use posthouse_protocol::job::Write;
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::pgcopy::{
    Decoder, Encoder, HEADER, NativeType, Rewriter, Shape, TRAILER, complete_prefix, encodable,
};
use posthouse_protocol::problem::{Code, Problem};

#[derive(Debug, Clone)]
pub(super) struct Staging {
    pub(super) name: TableName,
    /// What holds for this transfer's rows `s` in it.
    pub(super) own: String,
    /// Made by the DBA for all transfers of the job; it stays when a transfer ends.
    pub(super) premade: bool,
    /// One for each of the items that are staged.
    pub(super) columns: Vec<Column>,
    /// Of its texts.
    pub(super) charset: Charset,
    /// Where the keys of refused rows are. None where nothing is mirrored, and beside a table that a DBA made.
    pub(super) keys: Option<TableName>,
}

impl Staging {
    /// None where nothing is prepared, or all is published.
    pub(super) fn find(client: &mut Client, place: &Place) -> Result<Option<Self>, Fail> {
        if let Some(found) = Relation::find(client, &place.staging())? {
            let refused = place.refused();
            let has_keys = place.landing.write == Write::Mirror && control::is_there(client, &refused)?;
            let staging = Self::of(place, &found, false, client.charset())?;
            return Ok(Some(Self { keys: has_keys.then_some(refused), ..staging }));
        }
        match Relation::find(client, &place.premade())? {
            Some(found) if found.column(ddl::TRANSFER).is_some() => {
                Self::of(place, &found, true, client.charset()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What an earlier run has left, whatever its columns are called: the job's names may have changed since. To be dropped,
    /// or taken over where it fits.
    pub(super) fn left(client: &mut Client, place: &Place) -> Result<Option<Self>, Fail> {
        let charset = client.charset();
        if let Some(found) = Relation::find(client, &place.staging())? {
            let own = "true".to_owned();
            let keys = control::is_there(client, &place.refused())?.then(|| place.refused());
            return Ok(Some(Self { name: found.name, own, premade: false, columns: found.columns, charset, keys }));
        }
        let found = Relation::find(client, &place.premade())?.filter(|found| found.column(ddl::TRANSFER).is_some());
        let own = format!("s.{} = {}", ddl::TRANSFER, literal(place.transfer()));
        let keys = None;
        Ok(found.map(|found| Self { name: found.name, own, premade: true, columns: found.columns, charset, keys }))
    }

    /// Whether the columns that rows come in are those that were staged.
    pub(super) fn fits(&self, place: &Place) -> bool {
        let items = &place.staged.items;
        items.iter().all(|item| self.columns.iter().any(|column| column.name == item.name))
    }

    fn of(place: &Place, found: &Relation, premade: bool, charset: Charset) -> Result<Self, Fail> {
        let columns = place.staged.items.iter().map(|item| found.column(&item.name).cloned());
        let columns = columns.collect::<Option<Vec<_>>>().ok_or_else(|| {
            let cause = "the staging table has other columns; drop it, or make it anew by the script of `doctor --sql`";
            Problem::new(Code::DestinationFailed).with("target", found.name.to_string()).cause(cause)
        })?;
        let own = match premade {
            true => format!("s.{} = {}", ddl::TRANSFER, literal(place.transfer())),
            false => "true".to_owned(),
        };
        Ok(Self { name: found.name.clone(), own, premade, columns, charset, keys: None })
    }

    /// Makes the table, unless an earlier run of the transfer did, or a DBA for an account that may not.
    pub(super) fn prepare(client: &mut Client, place: &Place, target: Option<&Relation>) -> Result<(), Fail> {
        let found = Self::find(client, place)?;
        if found.as_ref().is_some_and(|found| !found.premade) {
            return Ok(());
        }
        let may_make_target = target.is_some() || may_create(client, &place.target.schema)?;
        if !may_make_target || !may_create(client, &place.control)? {
            return if found.is_some() && target.is_some() { Ok(()) } else { Err(no_right(place).into()) };
        }
        let (version, charset) = (client.version(), client.charset());
        let alike = match target {
            Some(target) if place.landing.write == Write::Replace => {
                let may_give_way = replace::obstacles(client, target)?.is_empty();
                may_give_way.then(|| like(place, target, version, charset)).flatten()
            }
            _ => None,
        };
        let mut statements = alike.unwrap_or_else(|| {
            let columns = ddl::made(&place.staged, &staged_natives(place, target, version, charset), version);
            let comments = ddl::comments(&place.staging(), if target.is_none() { &columns } else { &[] });
            [vec![ddl::create_table(&place.staging(), &columns, &[])], comments].concat()
        });
        if place.landing.write == Write::Mirror && target.is_some() {
            statements.push(keys::create(place));
        }
        Ok(client.batch(&statements.join(";\n"))?)
    }

    pub(super) fn drop(&self, client: &mut Client) -> Result<(), WireError> {
        match self.premade {
            true => client.batch(&format!("DELETE FROM {} s WHERE {}", self.name, self.own)),
            false => {
                let tables = std::iter::once(&self.name).chain(&self.keys).map(TableName::to_string);
                client.batch(&format!("DROP TABLE {}", tables.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// Stages a split whose tuples can lie here as they are. A refusal is the whole transaction's: the split is then
    /// taken row by row.
    pub(super) fn take_whole(&self, client: &mut Client, rows: &mut dyn RawRows) -> Result<u64, Fail> {
        let mut copy = client.copy_in(&self.copy())?;
        while let Some(piece) = rows.next()? {
            copy.write(piece)?;
        }
        Ok(copy.finish()?)
    }

    /// Stages a split in the native form window by window; gives how many rows of it, and what was refused.
    pub(super) fn take_raw(
        &self,
        client: &mut Client,
        place: &Place,
        natives: &[NativeType],
        rows: &mut dyn RawRows,
    ) -> Result<(u64, Vec<Refused>), Fail> {
        let shape = Shape::new(&place.landing.contract, natives)
            .map_err(|e| Problem::new(Code::Mismatch).with("peer", "the provider").cause(e))?;
        let mut load = Load::new(client, self, place);
        if self.lie_alike(natives) {
            load.sift(&shape, rows)?;
        } else if let Some(rewriter) = self.rewriter(&shape, natives) {
            load.rewrite(rewriter, &shape, natives, rows)?;
        } else {
            load.recode(place, &shape, rows)?;
        }
        load.finish()
    }

    /// Stages a split that comes as batches.
    pub(super) fn take_batches(
        &self,
        client: &mut Client,
        place: &Place,
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<(u64, Vec<Refused>), Fail> {
        let mut load = Load::new(client, self, place);
        let mut encoder = self.encoder(place)?;
        for batch in batches {
            let batch = Batch::new(&place.staged, batch?).map_err(Problem::from)?;
            load.batch(&mut encoder, &batch)?;
        }
        load.finish()
    }

    fn encoder(&self, place: &Place) -> Result<Encoder, Problem> {
        let text = || NativeType::Plain(Plain::Text);
        let natives: Vec<_> = self.columns.iter().map(|column| column.native.clone().unwrap_or_else(text)).collect();
        Encoder::new(&place.staged, &natives)
            .map_err(|e| Problem::new(Code::DestinationFailed).with("target", self.name.to_string()).cause(e))
    }

    /// Whether tuples of the source can lie here as they are. Their texts are UTF-8.
    pub(super) fn takes(&self, natives: &[NativeType]) -> bool {
        self.charset.is_utf8() && self.lie_alike(natives)
    }

    fn lie_alike(&self, natives: &[NativeType]) -> bool {
        self.columns.iter().zip(natives).all(|(column, native)| lies_alike(native, column))
    }

    /// For tuples that lie here alike but for columns that are text here; none where there are others.
    fn rewriter(&self, shape: &Shape, natives: &[NativeType]) -> Option<Rewriter> {
        let is_text = |column: &Column| column.native == Some(NativeType::Plain(Plain::Text)) && !column.is_domain;
        let as_text = |(column, native): (&Column, &NativeType)| match lies_alike(native, column) {
            true => Some(false),
            false => is_text(column).then_some(true),
        };
        let as_text = self.columns.iter().zip(natives).map(as_text).collect::<Option<Vec<bool>>>()?;
        Rewriter::new(shape, as_text)
    }

    fn copy(&self) -> String {
        let columns = quoted(self.columns.iter().map(|column| column.name.as_str()));
        format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", self.name)
    }
}

/// One split on its way into the staging table.
struct Load<'a> {
    client: &'a mut Client,
    staging: &'a Staging,
    /// Where the database's texts are not UTF-8.
    transcoder: Option<Transcoder>,
    landed: u64,
    refused: Refusals,
}

/// Tuples that lie one behind the other.
struct Tuples<'a> {
    bytes: &'a [u8],
    /// Where each of them ends.
    ends: Vec<usize>,
    /// Key and original of one of them.
    describe: &'a dyn Fn(usize) -> (String, String),
}

impl<'a> Load<'a> {
    fn new(client: &'a mut Client, staging: &'a Staging, place: &Place) -> Self {
        // A column without a type of its own here is written as text.
        const TEXT: &NativeType = &NativeType::Plain(Plain::Text);
        let columns = staging.columns.iter();
        let columns = columns.map(|column| (column.name.as_str(), column.native.as_ref().unwrap_or(TEXT)));
        let transcoder = Transcoder::new(staging.charset, columns);
        Self { client, staging, transcoder, landed: 0, refused: Refusals::new(place, staging) }
    }

    /// How many rows are staged, and which were refused.
    fn finish(self) -> Result<(u64, Vec<Refused>), Fail> {
        let Self { client, landed, refused, .. } = self;
        Ok((landed, refused.keep(client)?))
    }

    /// A split of which rows are refused, window by window.
    fn sift(&mut self, shape: &Shape, rows: &mut dyn RawRows) -> Result<(), Fail> {
        windows(shape, rows, &mut |window, ends, first| {
            let describe = |index: usize| describe(shape, tuple(window, &ends, index), first + index as u64);
            self.tuples(&Tuples { bytes: window, ends: ends.clone(), describe: &describe })
        })
    }

    /// A split of which some columns are text here.
    fn rewrite(
        &mut self,
        mut rewriter: Rewriter,
        shape: &Shape,
        natives: &[NativeType],
        rows: &mut dyn RawRows,
    ) -> Result<(), Fail> {
        let lies_alike = |at: usize| match (natives.get(at), self.staging.columns.get(at)) {
            (Some(native), Some(column)) => lies_alike(native, column),
            _ => false,
        };
        let is_key_alike = shape.contract().key_positions().into_iter().all(lies_alike);
        windows(shape, rows, &mut |window, ends, first| {
            let (mut bytes, mut written, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
            let describe = |index: usize| describe(shape, tuple(window, &ends, index), first + index as u64);
            for index in 0..ends.len() {
                match rewriter.row(tuple(window, &ends, index), &mut bytes) {
                    Ok(()) => {
                        written.push(bytes.len());
                        numbers.push(index);
                    }
                    Err(fault) => {
                        let (key, original) = describe(index);
                        let (reason, column) = (fault.to_string(), Some(fault.column));
                        let row = Refused { key, reason, original, column, ..Refused::default() };
                        self.refused.add(row, |keys| match is_key_alike {
                            true => keys.of_tuple(tuple(window, &ends, index)),
                            false => Key::Unknown,
                        });
                    }
                }
            }
            let describe = |index: usize| describe(numbers.get(index).copied().unwrap_or_default());
            self.tuples(&Tuples { bytes: &bytes, ends: written, describe: &describe })
        })
    }

    /// A split some of whose columns have no place here in their native form.
    fn recode(&mut self, place: &Place, shape: &Shape, rows: &mut dyn RawRows) -> Result<(), Fail> {
        let mut encoder = self.staging.encoder(place)?;
        let mut decoder = Decoder::new(shape);
        // The decoder hands out problems only; what else goes wrong waits here.
        let mut failed = None;
        let mut take = |decoded: Decoded| {
            let taken = match decoded {
                Decoded::Batch(batch) => Batch::new(&place.landing.contract, batch)
                    .map_err(|e| Fail::Problem(e.into()))
                    .and_then(|batch| self.batch(&mut encoder, &batch)),
                Decoded::Bad(bad) => {
                    let key = format!("row {}", bad.row + 1);
                    let row = Refused { key, reason: bad.reason, original: bad.original, ..Refused::default() };
                    self.refused.add(row, |_| Key::Unknown);
                    Ok(())
                }
            };
            taken.map_err(|fail| {
                failed = Some(fail);
                Problem::new(Code::InsideFailed)
            })
        };
        let all = || {
            while let Some(piece) = rows.next()? {
                decoder.feed(piece, &mut take)?;
            }
            decoder.finish(&mut take)
        };
        let done = all();
        match failed {
            Some(fail) => Err(fail),
            None => Ok(done.map(|_| ())?),
        }
    }

    fn batch(&mut self, encoder: &mut Encoder, batch: &Batch) -> Result<(), Fail> {
        let (mut bytes, mut ends, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..batch.rows() {
            match encoder.row(batch, row, &mut bytes) {
                Ok(()) => {
                    ends.push(bytes.len());
                    numbers.push(row);
                }
                Err(fault) => {
                    let (key, reason, original) = (batch.key_text(row), fault.to_string(), batch.json(row));
                    let refused = Refused { key, reason, original, column: Some(fault.column), ..Refused::default() };
                    self.refused.add(refused, |keys| keys.of_batch(batch, row));
                }
            }
        }
        let describe = |index: usize| {
            let row = numbers.get(index).copied().unwrap_or_default();
            (batch.key_text(row), batch.json(row))
        };
        self.tuples(&Tuples { bytes: &bytes, ends, describe: &describe })
    }

    /// Copies tuples in, in the database's own charset.
    fn tuples(&mut self, tuples: &Tuples<'_>) -> Result<(), Fail> {
        let Some(transcoder) = &self.transcoder else { return self.copy(tuples) };
        let (mut bytes, mut ends, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..tuples.ends.len() {
            match transcoder.encode(tuple(tuples.bytes, &tuples.ends, index), &mut bytes) {
                Ok(()) => {
                    ends.push(bytes.len());
                    numbers.push(index);
                }
                Err(stuck) => {
                    let (key, original) = (tuples.describe)(index);
                    let (reason, column) = (format!("`{}`: {}", stuck.column, stuck.why), Some(stuck.column));
                    let row = Refused { key, reason, original, column, ..Refused::default() };
                    self.refused.add(row, |keys| keys.of_tuple(tuple(tuples.bytes, &tuples.ends, index)));
                }
            }
        }
        let describe = |index: usize| (tuples.describe)(numbers.get(index).copied().unwrap_or_default());
        self.copy(&Tuples { bytes: &bytes, ends, describe: &describe })
    }

    /// Copies tuples in; what is refused is halved.
    fn copy(&mut self, tuples: &Tuples<'_>) -> Result<(), Fail> {
        let sql = self.staging.copy();
        let mut left = vec![(0, tuples.ends.len())];
        while let Some((first, end)) = left.pop() {
            if first >= end {
                continue;
            }
            let bound =
                |index: usize| index.checked_sub(1).and_then(|index| tuples.ends.get(index)).copied().unwrap_or(0);
            let bytes = tuples.bytes.get(bound(first)..bound(end)).unwrap_or_default();
            let landed = attempt(self.client, WireError::is_refusal_of_copied, |client| {
                let mut copy = client.copy_in(&sql)?;
                copy.write(&HEADER)?;
                copy.write(bytes)?;
                copy.write(&TRAILER)?;
                Ok(copy.finish()?)
            })?;
            match landed {
                Ok(landed) => self.landed += landed,
                Err(error) if end - first == 1 => {
                    let (key, original) = (tuples.describe)(first);
                    self.refused.add(Refused::by(&error, key, original), |keys| {
                        keys.of_copied(tuple(tuples.bytes, &tuples.ends, first))
                    });
                }
                Err(_) => {
                    let middle = first + (end - first) / 2;
                    left.extend([(middle, end), (first, middle)]);
                }
            }
        }
        Ok(())
    }
}

/// A split's tuples, many at a time: their bytes, where each of them ends, and the number of the first.
type Window<'a> = dyn FnMut(&[u8], Vec<usize>, u64) -> Result<(), Fail> + 'a;

fn windows(shape: &Shape, rows: &mut dyn RawRows, take: &mut Window<'_>) -> Result<(), Fail> {
    let width = shape.contract().items.len();
    let mut window = Vec::new();
    let mut header = HEADER.len();
    let mut wanted = WINDOW_BYTES;
    let mut first = 0;
    let mut is_end = false;
    while !is_end {
        match rows.next()? {
            Some(piece) => {
                let skipped = header.min(piece.len());
                header -= skipped;
                window.extend_from_slice(piece.get(skipped..).unwrap_or_default());
            }
            None => is_end = true,
        }
        if window.len() < wanted && !is_end {
            continue;
        }
        let mut ends = Vec::new();
        loop {
            let from = ends.last().copied().unwrap_or(0);
            match complete_prefix(window.get(from..).unwrap_or_default(), width, 1).map_err(Problem::from)? {
                (0, _) | (_, 0) => break,
                (length, _) => ends.push(from + length),
            }
        }
        let done = ends.last().copied().unwrap_or(0);
        // A tuple that is larger than the window is waited for.
        wanted = if done == 0 { window.len() + WINDOW_BYTES } else { WINDOW_BYTES };
        let count = ends.len() as u64;
        take(&window, ends, first)?;
        first += count;
        window.drain(..done);
    }
    Ok(())
}

/// One of the tuples that end there.
fn tuple<'a>(window: &'a [u8], ends: &[usize], index: usize) -> &'a [u8] {
    let from = index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(index).and_then(|to| window.get(from..*to)).unwrap_or_default()
}

/// Key and original of one tuple.
fn describe(shape: &Shape, tuple: &[u8], number: u64) -> (String, String) {
    let mut found = (format!("row {}", number + 1), String::new());
    let mut decoder = Decoder::new(shape);
    let mut take = |decoded: Decoded| {
        match decoded {
            Decoded::Batch(batch) => {
                let batch = Batch::new(shape.contract(), batch)?;
                found.1 = batch.json(0);
                if !batch.key().is_empty() {
                    found.0 = batch.key_text(0);
                }
            }
            Decoded::Bad(bad) => found.1 = bad.original,
        }
        Ok(())
    };
    let stream = [&HEADER[..], tuple, &TRAILER].concat();
    // The tuple was walked before; were it none, its number still stands.
    let _ = decoder.feed(&stream, &mut take).and_then(|()| decoder.finish(&mut take));
    found
}

/// Types that a staging table of its own has, one for each item.
fn staged_natives(place: &Place, target: Option<&Relation>, version: u32, charset: Charset) -> Vec<NativeType> {
    let items = &place.staged.items;
    match &place.natives {
        Some(natives) => {
            let choose = |(item, native): (&posthouse_protocol::schema::Item, &NativeType)| {
                // Texts within other values could not be written in another charset.
                let is_plain = charset.is_utf8() || !holds_texts_within(native);
                let stays = is_plain && ddl::sql_type(native, version).is_some();
                if stays { native.clone() } else { ddl::of_contract(item.r#type) }
            };
            items.iter().zip(natives).map(choose).collect()
        }
        None => {
            let choose = |item: &posthouse_protocol::schema::Item| {
                let native = target.and_then(|target| target.column(&item.name)?.native.clone());
                let fits =
                    |native: &NativeType| encodable(item.r#type, native) && ddl::sql_type(native, version).is_some();
                native.filter(fits).unwrap_or_else(|| ddl::of_contract(item.r#type))
            };
            items.iter().map(choose).collect()
        }
    }
}

/// Statements that make a staging table like a target whose place it is to take; none where rows do not come in
/// the target's types. What the target does not take is refused on publishing, not by COPY.
fn like(place: &Place, target: &Relation, version: u32, charset: Charset) -> Option<Vec<String>> {
    let contract = &place.landing.contract;
    for (index, item) in contract.items.iter().enumerate() {
        let column = target.column(&item.name).filter(|column| !column.generated && !column.is_domain)?;
        let native = column.native.as_ref()?;
        if !charset.is_utf8() && holds_texts_within(native) {
            return None;
        }
        let alike = match &place.natives {
            Some(natives) => natives.get(index).is_some_and(|native| lies_alike(native, column)),
            None => encodable(item.r#type, native) && !column.has_fields(),
        };
        if !alike {
            return None;
        }
    }
    let name = place.staging();
    let mut statements = vec![replace::create_like(&name, target, version)];
    for item in &contract.items {
        let may_be_null = item.nullable && !contract.key.contains(&item.name);
        let verb = if may_be_null { "DROP" } else { "SET" };
        statements.push(format!("ALTER TABLE {name} ALTER COLUMN {} {verb} NOT NULL", quote(&item.name)));
    }
    Some(statements)
}

/// Whether a field of the source's type is one of the column's, byte by byte.
fn lies_alike(native: &NativeType, column: &Column) -> bool {
    let Some(found) = &column.native else { return false };
    let text = |native: &NativeType| matches!(native, NativeType::Varchar(_) | NativeType::Plain(Plain::Text));
    let alike = match (native, found) {
        (NativeType::Plain(Plain::Enum), NativeType::Plain(Plain::Text)) => true,
        (NativeType::Numeric(_), NativeType::Numeric(None)) => true,
        (native, NativeType::Plain(Plain::Text) | NativeType::Varchar(None)) if text(native) => true,
        (native, found) => native == found && !by_number(found),
    };
    alike && column.read_as.is_none() && !column.has_fields()
}

/// Whether in the binary form there stands a number of a type that each database gives by itself.
fn by_number(native: &NativeType) -> bool {
    match native {
        NativeType::Array(element) => {
            matches!(**element, NativeType::Plain(Plain::Enum) | NativeType::Array(_)) || by_number(element)
        }
        NativeType::Composite(_) => true,
        _ => false,
    }
}

/// Whether the account may make tables in a schema; also false where there is no such schema.
pub(super) fn may_create(client: &mut Client, schema: &str) -> Result<bool, WireError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_namespace n
               WHERE n.nspname = $1 AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')";
    control::count(client, sql, &[Some(schema)]).map(|found| found > 0)
}

/// What an account lacks that may only read and write rows, and what would help.
pub(super) fn no_right(place: &Place) -> Problem {
    let cause = format!(
        "the account may not create tables in the schema {0}; have the DBA run the script that `posthouse doctor --config \
         FILE --sql CONNECTION` prints, or grant CREATE on the schema {0}",
        place.control
    );
    Problem::new(Code::DestinationFailed).with("target", place.target.to_string()).cause(cause)
}

/// Tuples that are looked at together.
const WINDOW_BYTES: usize = 4 << 20;
