//! What a kill left behind between a commit and what would have followed it: staging tables of transfers that are
//! published. Their rows are in the target, and they stand for nothing.

use super::client::Client;
use super::control;
use super::fail::Fail;
use super::place::Place;

/// Of this transfer, which is published. The caller holds its lock.
pub(super) fn own(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let staging = place.staging();
    if control::is_there(client, &staging)? {
        client.run(&format!("DROP TABLE IF EXISTS {staging}"))?;
    }
    Ok(())
}

/// Of others that landed in the same table. Whoever published one of them drops the same.
pub(super) fn others(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let rows = client.rows(THERE, vec![place.control.as_str().into()])?;
    let there: Vec<String> = rows.iter().filter_map(|row| row.first().map(super::client::text)).collect();
    if there.is_empty() {
        return Ok(());
    }
    for transfer in control::published_lately(client, place)? {
        let staging = place.beside("staging", &transfer);
        if !there.contains(&staging.table) {
            continue;
        }
        match client.run(&format!("DROP TABLE IF EXISTS {staging}")) {
            // Somebody looks at it, or it belongs to another account: the next transfer tries again.
            Err(Fail::Server(error)) => tracing::debug!(table = %staging, %error, "Left it there"),
            Err(fail) => return Err(fail),
            Ok(_) => {}
        }
    }
    Ok(())
}

const THERE: &str = "SELECT TABLE_NAME FROM information_schema.TABLES
  WHERE TABLE_SCHEMA = ? AND TABLE_NAME LIKE 'posthouse\\_staging\\_%' LIMIT 1000";
