//! 授权脚本: what a database's administrator runs, so that a connection's account can do its work with no right to
//! create anything. It follows from the configuration and, for what lands here, from the last offer of each job:
//! nothing else says which columns come. Looks only; works while the node runs and while it does not.

use crate::config::{Config, ConnectionConfig, Origin, Target};
use crate::store::transfers::{self, Filter, Transfer};
use crate::store::{STORE_FILE, Side, exchange};
use posthouse_connectors::front::FrontSpec;
use posthouse_connectors::{Connector, Landing, TableSpec, registry};
use posthouse_protocol::frame::Offer;
use posthouse_protocol::id::JobId;
use posthouse_protocol::operation;
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// The script for one connection.
#[derive(Debug)]
pub struct Script {
    pub sql: String,
    /// Jobs that land there and were never offered anything: they are not in it.
    pub unknown: Vec<JobId>,
}

/// Blocks.
pub fn script(config: &Config, connection: &str) -> Result<Script, Problem> {
    let (connector, found) = find(config, connection)?;
    let Needs { reads, landings, fronts, unknown } = needs(config, connection)?;
    let mut sql = connector.script(connection, &found.settings, &reads, &landings)?.ok_or_else(|| {
        let what = format!("`{connection}` has kind = \"{}\", which has no accounts to grant anything to", found.kind);
        Problem::new(Code::UsageInvalid).with("what", what)
    })?;
    for front in &fronts {
        for grant in connector.front_grants(connection, &found.settings, front)? {
            let line = grant + "\n";
            if !sql.contains(&line) {
                sql.push_str(&line);
            }
        }
    }
    Ok(Script { sql, unknown })
}

/// A connection of the configuration, with what opens it.
pub(crate) fn find<'c>(
    config: &'c Config,
    connection: &str,
) -> Result<(&'static dyn Connector, &'c ConnectionConfig), Problem> {
    let unknown_name = |kind: &str, name: &str| Problem::new(Code::UnknownName).with("kind", kind).with("name", name);
    let found = config.connections.get(connection).ok_or_else(|| unknown_name("connection", connection))?;
    let connector = registry::find(&found.kind).ok_or_else(|| unknown_name("connector", &found.kind))?;
    Ok((connector, found))
}

/// What a connection's account has to do.
pub(crate) struct Needs {
    pub(crate) reads: Vec<TableSpec>,
    pub(crate) landings: Vec<Landing>,
    /// Those of the reads that are front-end tables.
    pub(crate) fronts: Vec<FrontSpec>,
    /// Jobs that land there and were never offered anything.
    pub(crate) unknown: Vec<JobId>,
}

/// Blocks.
pub(crate) fn needs(config: &Config, connection: &str) -> Result<Needs, Problem> {
    let reads: Vec<_> = config
        .resources
        .values()
        .filter_map(|resource| match &resource.origin {
            Origin::Table { connection: of, spec } if of == connection => Some(spec.clone()),
            _ => None,
        })
        .collect();
    let fronts = config.resources.values().filter_map(|resource| match &resource.origin {
        Origin::Table { connection: of, .. } if of == connection => Some(resource.exchange.as_ref()?.spec.clone()),
        _ => None,
    });
    let fronts = fronts.collect();
    let store = config.node.data_dir.join(STORE_FILE);
    let store = store.exists().then(|| open(&store)).transpose()?;
    let (mut landings, mut unknown) = (Vec::new(), Vec::new());
    for job in config.jobs.values() {
        let Some(Target::Table { connection: of, table, names }) = &job.into else { continue };
        if of != connection {
            continue;
        }
        let offered = store.as_ref().map(|store| last_offer(store, &job.name)).transpose()?.flatten();
        let landing = offered.and_then(|(row, offer)| {
            let mut contract = offer.contract?;
            let landed = offer.operation.as_ref().and_then(|column| operation::landed(&contract, column));
            let operation = offer.operation.filter(|_| landed.is_some());
            if let Some(landed) = landed {
                contract = landed;
            }
            let contract = names.of(&contract).ok()?;
            let watermark_column = offer.watermark_column.map(|mut mark| {
                names.change(&mut mark);
                mark
            });
            Some(Landing {
                transfer: row.id,
                job: job.name.clone(),
                table: table.clone(),
                write: job.write,
                watermark_column: watermark_column.filter(|mark| contract.position(mark).is_some()),
                contract,
                operation,
                native: offer.native,
                node_epoch: 0,
                work_dir: config.node.data_dir.clone(),
            })
        });
        match landing {
            Some(landing) => landings.push(landing),
            None => unknown.push(job.name.clone()),
        }
    }
    Ok(Needs { reads, landings, fronts, unknown })
}

/// The newest transfer of the job that was offered something here.
fn last_offer(store: &Connection, job: &JobId) -> Result<Option<(Transfer, Offer)>, Problem> {
    let filter =
        Filter { job: Some(job.clone()), side: Some(Side::Consumer), limit: Some(LOOKED_AT), ..Filter::default() };
    for row in transfers::list(store, &filter)? {
        if let Some(offer) = exchange::landing_offer(store, &row.id)? {
            return Ok(Some((row, offer)));
        }
    }
    Ok(None)
}

pub(crate) fn open(path: &Path) -> Result<Connection, Problem> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| Problem::new(Code::StoreDamaged).with("path", path.display()).cause(error))
}

/// Failed tries in a row before an offer that is too old to be of use.
const LOOKED_AT: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_folder;
    use crate::store::Store;
    use posthouse_platform::World;
    use posthouse_protocol::id::{GrantId, TransferId};
    use posthouse_protocol::job::{Mode, Write};
    use posthouse_protocol::schema::{Contract, ContractType, Item};
    use posthouse_protocol::time::Timestamp;

    const CONFIG: &str = r#"[connection.db]
kind = "postgres"
url = "postgres://exchange@127.0.0.1:1/housing"
[connection.file]
kind = "sqlite"
path = "housing.sqlite"
[[resource]]
id = "registry"
connection = "db"
table = "public.registry"
[[job]]
name = "residents"
resource = "police.test.example/residents"
into = { connection = "db", table = "public.residents" }
write = "upsert"
[[job]]
name = "fines"
resource = "police.test.example/fines"
into = { connection = "db", table = "public.fines" }
"#;

    #[tokio::test]
    async fn what_was_offered_is_in_it_and_what_was_not_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path(), CONFIG);
        let before = script(&config, "db").unwrap();
        assert_eq!(
            before.sql,
            "GRANT USAGE ON SCHEMA \"public\" TO \"exchange\";\nGRANT SELECT ON \"public\".\"registry\" TO \"exchange\";\n"
        );
        assert_eq!(before.unknown.iter().map(JobId::as_str).collect::<Vec<_>>(), ["fines", "residents"]);

        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        for (number, offered) in [(1, true), (2, false)] {
            let id = TransferId::from_random([number; 16]);
            let resource = "police.test.example/residents".parse().unwrap();
            let (job, peer) = ("residents".parse().unwrap(), "police.test.example".parse().unwrap());
            let (mode, write, at) = (Mode::Full, Write::Upsert, Timestamp(i64::from(number)));
            let row = Transfer::planned(id.clone(), Side::Consumer, job, peer, resource, mode, write, at);
            let offer = offer(id.clone());
            store
                .write(move |tx| {
                    transfers::plan(tx, &row)?;
                    if offered { exchange::set_landing_offer(tx, &id, &offer) } else { Ok(()) }
                })
                .await
                .unwrap();
        }
        // Also while the node runs.
        let after = script(&config, "db").unwrap();
        assert_eq!(after.unknown.iter().map(JobId::as_str).collect::<Vec<_>>(), ["fines"]);
        assert!(after.sql.contains("CREATE TABLE IF NOT EXISTS \"public\".\"residents\""), "{}", after.sql);
        assert!(after.sql.contains("posthouse_staging_residents"), "{}", after.sql);

        assert_eq!(script(&config, "file").unwrap_err().code, Code::UsageInvalid);
        assert_eq!(script(&config, "none").unwrap_err().code, Code::UnknownName);
    }

    #[test]
    fn the_flag_of_a_front_end_table_may_be_set_and_its_rows_deleted_where_they_are_to_go() {
        let folder = tempfile::tempdir().unwrap();
        let table = "[[resource]]\nid = \"changes\"\nconnection = \"db\"\ntable = \"front.bg\"\nkey = [\"id\"]\n\
             [resource.exchange]\nprocessed = { column = \"clzt\", from = \"0\", to = \"1\" }\n";
        for (keep, is_purged) in [("", false), ("keep = \"30d\"\n", true)] {
            let config = in_folder(folder.path(), &format!("{CONFIG}{table}{keep}"));
            let sql = script(&config, "db").unwrap().sql;
            let has = |grant: &str| sql.contains(&format!("GRANT {grant} ON \"front\".\"bg\" TO \"exchange\";\n"));
            assert!(has("SELECT") && has("UPDATE (\"clzt\")"), "{sql}");
            assert_eq!(has("DELETE"), is_purged, "{sql}");
        }
    }

    fn offer(transfer: TransferId) -> Offer {
        let item = Item { name: "id".to_owned(), r#type: ContractType::Integer, nullable: false, comment: None };
        Offer {
            transfer,
            grant: GrantId::from_random([0; 16]),
            policy_epoch: 1,
            policy_sequence: 1,
            provider_epoch: 1,
            contract: Some(Contract { items: vec![item], key: vec!["id".to_owned()] }),
            catalog: None,
            watermark_to: None,
            salt: [1; 32].into(),
            data_channels: 1,
            digest_key: [2; 32].into(),
            watermark_column: None,
            native: None,
            governed: None,
            operation: None,
            database_line: None,
        }
    }
}
