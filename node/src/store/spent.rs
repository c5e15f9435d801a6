//! Where the time of transfers went, for each epoch of this node: what a process has counted is its own, and a restart
//! begins at nothing. Counted while a transfer runs, beside whatever else is written of it.

use super::{Side, failed, signed, unsigned};
use crate::spent::Spent;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::Problem;
use rusqlite::{Connection, Transaction, params};

/// Keeps what this process has counted so far. A count never falls.
pub fn put(tx: &Transaction<'_>, transfer: &TransferId, epoch: u64, spent: &Spent) -> Result<(), Problem> {
    let [source, line, destination] = [spent.source_ms, spent.line_ms, spent.destination_ms].map(|ms| ms.map(signed));
    tx.prepare_cached(PUT)
        .map_err(failed)?
        .execute(params![transfer.as_str(), signed(epoch), source, line, destination])
        .map_err(failed)?;
    Ok(())
}

/// What was counted of a transfer on this side, in all epochs, or in those before one. None: nothing was.
pub fn get(db: &Connection, transfer: &TransferId, side: Side, before: Option<u64>) -> Result<Option<Spent>, Problem> {
    // A consumer has these by the provider's word, which may have come more than once.
    let told = match side {
        Side::Provider => "sum",
        Side::Consumer => "max",
    };
    let sql = format!(
        "SELECT count(*), {told}(source_ms), {told}(line_ms), sum(destination_ms) FROM spent
         WHERE transfer = ?1 AND (?2 IS NULL OR epoch < ?2)"
    );
    let found = db.query_row(&sql, params![transfer.as_str(), before.map(signed)], |row| {
        let ms = |at: usize| row.get::<_, Option<i64>>(at).map(|ms| ms.map(unsigned));
        let rows: i64 = row.get(0)?;
        Ok((rows > 0).then_some(Spent { source_ms: ms(1)?, line_ms: ms(2)?, destination_ms: ms(3)? }))
    });
    found.map_err(failed)
}

const PUT: &str = "INSERT INTO spent (transfer, epoch, source_ms, line_ms, destination_ms) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET
      source_ms = coalesce(max(source_ms, excluded.source_ms), excluded.source_ms, source_ms),
      line_ms = coalesce(max(line_ms, excluded.line_ms), excluded.line_ms, line_ms),
      destination_ms = coalesce(max(destination_ms, excluded.destination_ms), excluded.destination_ms, destination_ms)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use posthouse_platform::World;

    #[tokio::test]
    async fn each_epoch_adds_its_own_and_a_count_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let id = TransferId::from_random([1; 16]);
        let of = |source, line, destination| Spent { source_ms: source, line_ms: line, destination_ms: destination };
        for (epoch, spent) in [
            (1, of(Some(100), Some(5), None)),
            (1, of(Some(40), None, None)),
            (2, of(Some(10), Some(7), Some(3))),
            (3, of(None, None, Some(4))),
        ] {
            let id = id.clone();
            store.write(move |tx| put(tx, &id, epoch, &spent)).await.unwrap();
        }
        let found = |side, before| {
            let (store, id) = (store.clone(), id.clone());
            async move { store.read(move |db| get(db, &id, side, before)).await.unwrap() }
        };
        assert_eq!(found(Side::Provider, None).await, Some(of(Some(110), Some(12), Some(7))));
        assert_eq!(found(Side::Consumer, None).await, Some(of(Some(100), Some(7), Some(7))));
        assert_eq!(found(Side::Provider, Some(2)).await, Some(of(Some(100), Some(5), None)));
        assert_eq!(found(Side::Provider, Some(1)).await, None);
    }
}
