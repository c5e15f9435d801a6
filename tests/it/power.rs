//! The power goes at a random moment, and the disk has lost what was not synced: equal afterwards, nothing doubled, and
//! no statement that the disk does not bear out. 2 cuts of each role ordinarily, 17 in the long run, of a table and of a
//! folder each.

use crate::crash::{assert_balanced, one_struck_run, transfers};
use crate::exchange::{assert_settled, folder, make_table, table, table_print};
use crate::support::lossy::is_possible;
use crate::support::{CONSUMER, PROVIDER, Role, Scene, Site, compare_folders, long, posthouse, wait_for};
use std::path::Path;
use std::time::Duration;

fn rounds() -> u64 {
    if long() { 17 } else { 2 }
}

#[test]
fn a_table_survives_power_cuts_of_the_provider() {
    table_under_cuts(Role::Provider);
}
#[test]
fn a_table_survives_power_cuts_of_the_consumer() {
    table_under_cuts(Role::Consumer);
}
#[test]
fn a_table_survives_power_cuts_of_the_coordinator() {
    table_under_cuts(Role::Coordinator);
}
#[test]
fn a_folder_survives_power_cuts_of_the_provider() {
    folder_under_cuts(Role::Provider);
}
#[test]
fn a_folder_survives_power_cuts_of_the_consumer() {
    folder_under_cuts(Role::Consumer);
}

#[test]
fn a_disk_that_cannot_sync_gets_no_receipt() {
    if !is_possible() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let source = data.path().join("source.db");
    make_table(&source, 20_000);
    let mut site = Site::start(&on_lossy_disks(table(&source, false)));
    site.disk(Role::Consumer).set_sync_fails(true);
    // It may refuse to begin, or begin and get no further.
    posthouse(&["job", "run", "--config", &site.config(CONSUMER), "person"]);
    std::thread::sleep(Duration::from_secs(3));
    let settled = |site: &Site| transfers(&site.config(PROVIDER), "person").iter().any(|one| one["state"] == "settled");
    assert!(!settled(&site), "{}", site.consumer.log_tail());
    site.disk(Role::Consumer).set_sync_fails(false);
    site.cut_power(Role::Consumer, 7);
    wait_for("the consumer is back", Duration::from_secs(30), || {
        posthouse(&["job", "list", "--config", &site.config(CONSUMER)]).code == 0
    });
    assert_settled(&site.take("person"));
    assert_eq!(table_print(&landing(&site).join("target.db")), table_print(&source));
}

fn table_under_cuts(role: Role) {
    if !is_possible() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let source = data.path().join("source.db");
    make_table(&source, 100_000);
    let mut scene = on_lossy_disks(table(&source, false));
    scene.consumer = scene.consumer.replace("incremental", "full").replace("upsert", "replace");
    let mut site = Site::start(&scene);
    let target = landing(&site).join("target.db");
    let expected = table_print(&source);
    for round in 0..rounds() {
        cut(&mut site, role, "person", round);
        assert_eq!(table_print(&target), expected, "round {round}");
        // The next round lands everything anew: one cell differs until it has.
        rusqlite::Connection::open(&target)
            .and_then(|db| db.execute("UPDATE person SET note = 'before' WHERE id = 1", []))
            .expect("the target changes");
    }
    assert_balanced(&site, rounds());
}

fn folder_under_cuts(role: Role) {
    if !is_possible() {
        return;
    }
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..40_u32 {
        let mut content = vec![0; if number < 4 { 8 << 20 } else { 40_000 }];
        blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut content);
        let folder = source.path().join(format!("{}", number % 5));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{number}.bin")), content).expect("a file");
    }
    let mut site = Site::start(&on_lossy_disks(folder("keep", source.path(), false)));
    let inbox = landing(&site).join("inbox");
    for round in 0..rounds() {
        let _ = std::fs::remove_dir_all(&inbox);
        cut(&mut site, role, "tree", round);
        assert_eq!(compare_folders(source.path(), &inbox), "", "round {round}");
    }
    assert_balanced(&site, rounds());
}

fn cut(site: &mut Site, role: Role, job: &str, round: u64) {
    one_struck_run(site, role, job, round, |site| site.cut_power(role, round));
}

/// What the consumer lands lies on its disk too.
pub(crate) fn on_lossy_disks(scene: Scene) -> Scene {
    let consumer = scene.consumer.replace("{dir}", &format!("{{dir}}/{CONSUMER}"));
    Scene { consumer, lossy: true, ..scene }
}

pub(crate) fn landing(site: &Site) -> std::path::PathBuf {
    Path::new(site.dir()).join(CONSUMER)
}
