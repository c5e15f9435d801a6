//! Rows that have to be looked at: taken apart into batches, kept or left out by the grant's filter, and brought
//! down to the columns that are handed over. A row that cannot be carried is a bad row, with its original.

use super::transcode::{Incoming, Stream, Transcoder};
use crate::types::compared;
use crate::{BadRow, Sink};
use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, arrow_schema};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::pgcopy::Shape;
use posthouse_protocol::pgcopy::decode::{Decoded, Decoder};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;

/// Reads streams of one shape, one after another.
pub(super) struct Reader {
    shape: Shape,
    filtered: Option<Filtered>,
    /// Where the server does not give UTF-8.
    coded: Option<Coded>,
    decoder: Option<Decoder>,
    counts: SplitCounts,
}

struct Coded {
    transcoder: Transcoder,
    stream: Stream,
}

/// What is kept of the rows.
struct Filtered {
    filter: Filter,
    /// Leading columns of the shape's contract; the others are there for the filter.
    kept: Contract,
}

impl Reader {
    pub(super) fn new(shape: Shape, filtered: Option<(Filter, Contract)>, transcoder: Option<Transcoder>) -> Self {
        let filtered = filtered.map(|(filter, kept)| Filtered { filter, kept });
        let coded = transcoder.map(|transcoder| Coded { transcoder, stream: Stream::default() });
        Self { shape, filtered, coded, decoder: None, counts: SplitCounts::default() }
    }

    /// The columns that the stream has.
    pub(super) fn wide(&self) -> &Contract {
        self.shape.contract()
    }

    /// The next bytes of a stream.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), Problem> {
        let Self { shape, filtered, coded, decoder, counts } = self;
        let decoder = decoder.get_or_insert_with(|| Decoder::new(shape));
        let Some(Coded { transcoder, stream }) = coded else {
            return decoder
                .feed(bytes, &mut |decoded| hand_on(shape.contract(), filtered.as_ref(), counts, decoded, sink));
        };
        stream.feed(transcoder, bytes, &mut |incoming| match incoming {
            Incoming::Bytes(bytes) => {
                decoder.feed(bytes, &mut |decoded| hand_on(shape.contract(), filtered.as_ref(), counts, decoded, sink))
            }
            Incoming::Bad(row) => hand_on(shape.contract(), filtered.as_ref(), counts, Decoded::Bad(row), sink),
        })
    }

    /// The stream has ended, with so many rows by the server's own count.
    pub(super) fn finish(&mut self, rows: u64, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let Self { shape, filtered, coded, decoder, counts } = self;
        let stuck = coded.as_mut().map_or(0, |coded| std::mem::take(&mut coded.stream).bad);
        let decoder = decoder.take().unwrap_or_else(|| Decoder::new(shape));
        let seen =
            decoder.finish(&mut |decoded| hand_on(shape.contract(), filtered.as_ref(), counts, decoded, sink))?;
        let seen = seen + stuck;
        if seen != rows {
            return Err(Problem::new(Code::InsideFailed)
                .cause(format!("the server counts {rows} rows, {seen} were taken apart")));
        }
        Ok(std::mem::take(counts))
    }
}

fn hand_on(
    contract: &Contract,
    filtered: Option<&Filtered>,
    counts: &mut SplitCounts,
    decoded: Decoded,
    sink: &mut dyn Sink,
) -> Result<(), Problem> {
    match decoded {
        Decoded::Bad(row) => {
            counts.read += 1;
            counts.quarantined += 1;
            sink.bad_row(BadRow { key: format!("row {}", row.row), reason: row.reason, original: row.original })
        }
        Decoded::Batch(record) => {
            counts.read += record.num_rows() as u64;
            let kept = match filtered {
                None => record,
                Some(filtered) => filtered.keep(contract, record)?,
            };
            counts.sent += kept.num_rows() as u64;
            counts.filtered = counts.read - counts.sent - counts.quarantined;
            if kept.num_rows() == 0 { Ok(()) } else { sink.batch(kept) }
        }
    }
}

impl Filtered {
    fn keep(&self, contract: &Contract, record: RecordBatch) -> Result<RecordBatch, Problem> {
        let batch = Batch::new(contract, record)?;
        let refused = |cause: &dyn std::fmt::Display| {
            Problem::new(Code::FilterUnsupported).with("resource", "the resource").cause(cause)
        };
        let passes = |row: usize| {
            let value = |name: &str| Some(compared(batch.value(contract.position(name)?, row)));
            self.filter.evaluate(&value).map(|passes| passes == Some(true))
        };
        let kept: BooleanArray =
            (0..batch.rows()).map(|row| passes(row).map(Some)).collect::<Result<_, _>>().map_err(|e| refused(&e))?;
        let rows = filter_record_batch(batch.record(), &kept).map_err(|e| refused(&e))?;
        let columns = rows.columns().iter().take(self.kept.items.len()).cloned().collect();
        RecordBatch::try_new(arrow_schema(&self.kept), columns).map_err(|e| refused(&e))
    }
}
