//! Every bound in one place, with the relations between them checked when compiling.

/// Node names are DNS names.
pub const ID_BYTES_MAX: usize = 253;
pub const LABEL_BYTES_MAX: usize = 64;
/// One control frame on the line.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Nesting of CBOR items in a frame; the deepest that exists (a heartbeat's catalog references) has 9.
pub const NESTING_MAX: usize = 12;
/// Nesting in what is signed: a grant's filter has up to three CBOR levels for each of its own.
pub const NESTING_SIGNED_MAX: usize = 3 * FILTER_DEPTH_MAX + 16;
/// A signed statement as bytes.
pub const STATEMENT_BYTES_MAX: usize = 16 << 10;
/// A public key as PEM.
pub const PEM_BYTES_MAX: usize = 256;
/// A receipt as bytes: two statements, a proof and a checkpoint.
pub const RECEIPT_BYTES_MAX: usize = 64 << 10;
/// A receipt of inclusion, a checkpoint with its signatures, a list of nodes with their keys.
pub const INCLUSION_BYTES_MAX: usize = 8 << 10;
pub const CHECKPOINT_BYTES_MAX: usize = 8 << 10;
pub const NODES_BYTES_MAX: usize = 4 << 20;
/// Leaves of a ledger: sizes above this are refused before any arithmetic.
pub const LEDGER_SIZE_MAX: u64 = 1 << 48;
/// A signed policy as bytes.
pub const POLICY_BYTES_MAX: usize = 8 << 20;
pub const CHUNK_BYTES: u32 = 1 << 20;
/// Chunk size of files over [`LARGE_FILE_BYTES`].
pub const CHUNK_BYTES_LARGE: u32 = 4 << 20;
pub const LARGE_FILE_BYTES: u64 = 4 << 30;
/// Compressed form of a chunk may exceed it by this much at most.
pub const CHUNK_WIRE_OVERHEAD: u32 = 64 << 10;
/// One file or split; its chunks are then numbered within 28 bits.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// What a chunk takes of the credit beside its content, so that empty and tiny files are bounded too.
pub const CHUNK_CREDIT_OVERHEAD: u64 = 1024;
/// Of files from this length on a provider remembers the values of chunks before it knows the root.
pub const RECALLED_BYTES_MIN: u64 = 64 << 20;
/// Times that a bad chunk or a file that does not add up is asked again before the transfer ends.
pub const CHUNK_TRIES_MAX: u32 = 5;
pub const BAD_CHUNKS_MAX: u32 = 1000;
/// Deltas that could not be put together: files that others write to while they are used make many at once.
pub const BAD_DELTAS_MAX: u32 = 100_000;
/// Ranges in one `Want`; what is missing in more pieces is asked from there to the end.
pub const WANT_RANGES_MAX: usize = 1024;
/// Files or splits in one transfer.
pub const ENTRIES_MAX: u64 = 16 << 20;
/// Entries in one frame.
pub const ENTRIES_PER_FRAME_MAX: usize = 1024;
/// A provider lists at most this many entries beyond the first that is not finished.
pub const ENTRIES_AHEAD_MAX: usize = 16_384;
/// Things left out of one transfer, listed by name in its attachment.
pub const LEFT_OUT_MAX: usize = 100_000;
pub const LEFT_OUT_BYTES_MAX: usize = 32 << 20;
pub const REASON_BYTES_MAX: usize = 1024;
/// What of it a statement lists itself, beside [`LEFT_OUT_LISTED_MAX`].
pub const LEFT_OUT_LISTED_BYTES_MAX: usize = 6 << 10;
/// Entries that a consumer keeps open: what the provider lists ahead, and what is in flight.
pub const ENTRIES_OPEN_MAX: u64 = 65_536;
/// Ranges of chunks that wait to be sent.
pub const WANTED_RANGES_MAX: usize = 1 << 20;
/// Fill of one frame that carries a list, before the next is begun.
pub const FRAME_FILL_BYTES: usize = 256 << 10;
/// Files with further names that either side remembers in one transfer; of others each name is a file of its own.
pub const SAME_FILES_MAX: usize = 200_000;
/// A file's name relative to its folder, in bytes, and one component of it.
pub const PATH_BYTES_MAX: usize = 4096;
pub const COMPONENT_BYTES_MAX: usize = 255;
pub const LINK_BYTES_MAX: usize = 4095;
/// The name of an extended attribute with its namespace, and names and values of all that an entry has.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 255;
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// What each counts for beside them, in memory and in a frame.
pub const ATTRIBUTE_OVERHEAD_BYTES: usize = 64;
/// A provider lists no more while entries with so many bytes of attributes are not finished.
pub const ATTRIBUTES_AHEAD_BYTES_MAX: usize = 16 << 20;
/// Attributes of the entries that a consumer keeps open.
pub const ATTRIBUTES_OPEN_BYTES_MAX: usize = 128 << 20;
/// Bytes in flight of one transfer.
pub const CREDIT_BYTES: u64 = 32 << 20;
/// Beyond that of files that come packed over a long line, at most half as long as they are.
pub const CREDIT_PACKED_BYTES: u64 = 16 << 20;
/// Durable progress at least this often.
pub const PROGRESS_BYTES: u64 = 16 << 20;
pub const PROGRESS_MS: u64 = 200;
/// Content of files that is written and not durable.
pub const WRITTEN_BYTES_MAX: u64 = 32 << 20;
/// Pieces of a consumer's content that a provider keeps for one transfer, of all its entries.
pub const PIECES_MAX: usize = 1 << 19;
/// Shorter contents are sent as they are.
pub const DELTA_BYTES_MIN: u64 = 64 << 10;
/// Data channels of a transfer: what a consumer opens at least, and what a provider offers.
pub const DATA_CHANNELS: u8 = 2;
pub const DATA_CHANNELS_MAX: u8 = 8;
/// Connections that one pair of nodes holds.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Columns of a table and rows of a batch.
pub const COLUMNS_MAX: usize = 1600;
pub const BATCH_ROWS: usize = 8192;
/// A batch ends at the row that brings it to this many bytes.
pub const BATCH_BYTES: usize = 8 << 20;
/// Rows of a batch and bytes of a message's head that a reader of splits accepts.
pub const STREAM_BATCH_ROWS_MAX: usize = 1 << 17;
/// A batch as it is read back: the bytes of one that was not full and of one more row.
pub const STREAM_BATCH_BYTES_MAX: usize = BATCH_BYTES + VALUE_BYTES_MAX + (16 << 20);
pub const SPLIT_META_BYTES_MAX: usize = 4 << 20;
/// Forms of rows in a request.
pub const FORMATS_MAX: usize = 8;
/// Rows of a split, the unit of landing.
pub const SPLIT_ROWS: u64 = 65_536;
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// A native type as text, and how deep types stand in it.
pub const NATIVE_BYTES_MAX: usize = 8 << 10;
pub const NATIVE_DEPTH_MAX: usize = 8;
/// A tuple of binary COPY: PostgreSQL itself makes no larger one.
pub const TUPLE_BYTES_MAX: usize = 1 << 30;
/// A tuple that is kept whole while it is hashed; a larger one is hashed as it passes.
pub const TUPLE_HELD_BYTES_MAX: usize = 1 << 20;
/// A value that must be whole to be hashed (char, json, what is made into text), and a text that is made.
pub const VALUE_HELD_BYTES_MAX: usize = 64 << 20;
/// Buckets of a table's standing digest.
pub const BUCKETS: usize = 4096;
/// Relays in the way of one grant.
pub const RELAYS_MAX: usize = 4;
/// One grant in a policy.
pub const GRANT_BYTES_MAX: usize = 256 << 10;
/// A row filter's text and depth.
pub const FILTER_BYTES_MAX: usize = 16 << 10;
pub const FILTER_DEPTH_MAX: usize = 32;
/// What is done to columns, and which rules rows have failed, as a statement says it.
pub const GOVERNED_BYTES_MAX: usize = 3 << 10;
pub const QUALITY_BYTES_MAX: usize = 3 << 10;
/// A text that stands in place of values, and a pattern.
pub const MASK_CONSTANT_BYTES_MAX: usize = 256;
pub const PATTERN_BYTES_MAX: usize = 1 << 10;
/// A code list, and what it takes together.
pub const CODES_MAX: usize = 100_000;
pub const CODES_BYTES_MAX: usize = 4 << 20;
/// Statements in one submission to the centre, and what was left out listed in one statement.
pub const SUBMIT_MAX: usize = 32;
pub const LEFT_OUT_LISTED_MAX: usize = 32;
/// A peer that says nothing for this long is given up; the transfer then resumes over a new connection.
pub const IDLE_MS: u64 = 30_000;
pub const HANDSHAKE_MS: u64 = 5_000;
/// One stretch of a line through relays: its neighbour may have to be asked to dial.
pub const RELAY_HOP_MS: u64 = 15_000;
pub const CLOCK_SKEW_MS: i64 = 300_000;

const _: () = {
    assert!(STATEMENT_BYTES_MAX * SUBMIT_MAX <= FRAME_BYTES_MAX);
    assert!(2 * STATEMENT_BYTES_MAX + INCLUSION_BYTES_MAX + CHECKPOINT_BYTES_MAX < RECEIPT_BYTES_MAX);
    assert!(NODES_BYTES_MAX < POLICY_BYTES_MAX);
    assert!(CHUNK_BYTES.is_power_of_two() && CHUNK_BYTES_LARGE.is_power_of_two());
    assert!(CREDIT_BYTES >= 2 * (CHUNK_BYTES_LARGE + CHUNK_WIRE_OVERHEAD) as u64);
    // After one kill at most what was in flight and what was not yet recorded is sent again; of a file what was
    // written, and some that was being written.
    assert!(CREDIT_BYTES + PROGRESS_BYTES <= 48 << 20);
    assert!((CREDIT_BYTES + CREDIT_PACKED_BYTES) / 2 <= CREDIT_BYTES);
    assert!(WRITTEN_BYTES_MAX + PROGRESS_BYTES <= 48 << 20);
    assert!(FILE_BYTES_MAX / CHUNK_BYTES_LARGE as u64 <= 1 << 28);
    // The last entry that fits into a list may begin just below the fill.
    assert!(FRAME_FILL_BYTES + PATH_BYTES_MAX + LINK_BYTES_MAX + REASON_BYTES_MAX + 256 <= FRAME_BYTES_MAX);
    // An attribute's name has at least six bytes; all that stands around it in a frame takes less than sixteen.
    assert!(
        FRAME_FILL_BYTES + PATH_BYTES_MAX + 256 + ATTRIBUTES_BYTES_MAX + ATTRIBUTES_BYTES_MAX / 6 * 16
            <= FRAME_BYTES_MAX
    );
    assert!(16 < ATTRIBUTE_OVERHEAD_BYTES && ATTRIBUTE_NAME_BYTES_MAX < ATTRIBUTES_BYTES_MAX);
    // What is listed ahead, with as much again that was on its way to be listed, and what is in flight.
    assert!(4 * ATTRIBUTES_AHEAD_BYTES_MAX <= ATTRIBUTES_OPEN_BYTES_MAX);
    const IN_FLIGHT: u64 = (CREDIT_BYTES + CREDIT_PACKED_BYTES) / CHUNK_CREDIT_OVERHEAD;
    assert!(ENTRIES_AHEAD_MAX as u64 + IN_FLIGHT <= ENTRIES_OPEN_MAX);
    assert!(LEFT_OUT_LISTED_BYTES_MAX < STATEMENT_BYTES_MAX / 2);
    // Of a table nothing is left out by name; what is governed takes that place.
    assert!(GOVERNED_BYTES_MAX + QUALITY_BYTES_MAX <= LEFT_OUT_LISTED_BYTES_MAX);
    assert!(WANT_RANGES_MAX * 11 + 32 <= FRAME_FILL_BYTES);
    assert!(NESTING_MAX <= NESTING_SIGNED_MAX);
    assert!(TUPLE_BYTES_MAX <= VALUE_BYTES_MAX && VALUE_HELD_BYTES_MAX < TUPLE_BYTES_MAX);
    assert!(TUPLE_HELD_BYTES_MAX < VALUE_HELD_BYTES_MAX);
    assert!(BATCH_ROWS as u64 <= SPLIT_ROWS && BATCH_ROWS <= STREAM_BATCH_ROWS_MAX);
};
