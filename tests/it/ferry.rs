//! Two nodes that no line joins: what one gives is carried to the other in files, by us in the gatekeeper's place, and
//! the receipt is the same.

use crate::centre::newest;
use crate::exchange::{assert_settled, folder, make_table, make_tree, table, table_print};
use crate::folders::{attributes, set_attribute};
use crate::support::{CONSUMER, PROVIDER, Ran, Scene, Site, compare_folders, posthouse, run, text, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn parts_that_come_shuffled_repeated_and_late_lead_to_the_same_receipt() {
    let data = tempfile::tempdir().expect("a folder");
    let (tree, source) = (data.path().join("tree"), data.path().join("source.db"));
    make_tree(&tree);
    random(&tree.join("large.bin"), 40 << 20);
    make_table(&source, 20_000);
    let carried = Carried::new();
    let site = carried.site(&[folder("keep", &tree, true), whole(table(&source, true))], &["tree", "person"]);
    let given: Vec<Value> = ["tree", "person"].map(|job| site.job(PROVIDER, job).ok().json()).into();
    for given in &given {
        assert_eq!((&given["state"], &given["transport"]), (&json!("staged"), &json!("ferry")), "{given}");
    }
    let mut parts = carried.parts("out");
    assert!(parts.len() >= 5, "{parts:?}");
    let secret = std::fs::read(tree.join("large.bin")).expect("the file");
    for part in &parts {
        let sealed = std::fs::read(part).expect("a part");
        assert!(!sealed.windows(64).any(|window| window == &secret[..64]), "{}", part.display());
    }
    // The last first, the first twice and under another name; one is late.
    parts.reverse();
    let late = parts.remove(1);
    for part in &parts {
        carry(part, &carried.at("there"));
    }
    std::fs::copy(&parts[0], carried.at("there").join("copy of it.part")).expect("a copy");
    std::thread::sleep(Duration::from_secs(3));
    let of = |transfer: &Value| transfer["transfer"].as_str().expect("an id").to_owned();
    let is_here = |given: &Value| shows(&site, CONSUMER, &of(given));
    assert!(!given.iter().all(is_here), "it lands before all of it is there");
    carry(&late, &carried.at("there"));
    for given in &given {
        let settled = settled(&site, CONSUMER, &of(given));
        assert_eq!(settled["transport"], "ferry", "{settled}");
    }
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
    assert_eq!(table_print(&source), table_print(&site.dir().join("target.db")));
    wait_for("the inbox is empty", Duration::from_secs(20), || carried.parts("there").is_empty());

    // The way back, with a repeat.
    let answers = carried.parts("back");
    assert_eq!(answers.len(), 2, "{answers:?}");
    for (at, answer) in answers.iter().enumerate() {
        carry(answer, &carried.at("here"));
        std::fs::copy(answer, carried.at("here").join(format!("again {at}.part"))).expect("a copy");
    }
    for given in &given {
        let settled = settled(&site, PROVIDER, &of(given));
        assert_settled(&settled);
        assert_eq!((&settled["bytes"], &settled["files"]), (&given["bytes"], &given["files"]), "{settled}");
        assert!(settled["bytes"].as_u64() > Some(0), "{settled}");
        matched(&site, &of(given));
    }
    wait_for("the inbox is empty", Duration::from_secs(20), || carried.parts("here").is_empty());

    // Carried once more, it is answered once more and lands nothing anew.
    let before = newest(&site.config(CONSUMER));
    for answer in &answers {
        std::fs::remove_file(answer).expect("it was carried");
    }
    for part in parts.iter().chain([&late]) {
        carry(part, &carried.at("there"));
    }
    wait_for("it is answered again", Duration::from_secs(30), || answers.iter().all(|answer| answer.exists()));
    assert_eq!(newest(&site.config(CONSUMER))["ended"], before["ended"]);
}

#[test]
fn a_disk_is_exported_and_imported_and_brings_the_statement_back() {
    let data = tempfile::tempdir().expect("a folder");
    let (tree, disk) = (data.path().join("tree"), data.path().join("disk"));
    make_tree(&tree);
    std::fs::create_dir(&disk).expect("the disk");
    std::fs::write(tree.join("marked"), "marked").expect("a file");
    set_attribute(&tree.join("marked"), "user.level", b"2");
    let mut scene = Scene { provider_node: deaf(), consumer_node: deaf(), ..folder("keep", &tree, true) };
    scene.provider = scene.provider.replace("links = \"keep\"\n", "links = \"keep\"\nxattrs = true\n");
    let site = Site::start(&scene);
    let (provider, consumer) = (site.config(PROVIDER), site.config(CONSUMER));
    let export = || posthouse(&["bundle", "export", "--config", &provider, "tree", "--out", text(&disk), "--json"]);
    wait_for("the consumer's key is known", Duration::from_secs(90), || export().code == 0);
    let import = |config: &str| -> Ran { posthouse(&["bundle", "import", "--config", config, text(&disk), "--json"]) };
    let landed = import(&consumer).ok();
    let landed: Value = serde_json::from_str(landed.stdout.lines().next().expect("a line")).expect("JSON");
    assert_settled(&landed);
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
    let carried = attributes(&site.dir().join("inbox/marked"));
    assert!(carried.len() == 1 && carried == attributes(&tree.join("marked")), "{carried:?}");
    // The same disk goes back: the consumer's statement is on it, and its own parts are no harm.
    let shown = import(&provider);
    let id = landed["transfer"].as_str().expect("an id");
    assert!(shown.stdout.contains(id) && shown.code == 0, "{shown:#?}");
    assert_settled(&settled(&site, PROVIDER, id));
    matched(&site, id);
    // Once more it says the same.
    assert!(import(&consumer).ok().stdout.contains(id));

    let wrong = posthouse(&["bundle", "export", "--config", &consumer, "tree", "--out", text(&disk)]);
    assert!(wrong.code == 2 && wrong.stderr.contains("PH1003"), "{wrong:#?}");
    let none = tempfile::tempdir().expect("a folder");
    let empty = posthouse(&["bundle", "import", "--config", &consumer, text(none.path())]).ok();
    assert!(empty.stderr.contains("nothing there is complete"), "{empty:#?}");
}

#[test]
fn a_damaged_part_is_put_aside_and_another_copy_of_it_goes_on() {
    let data = tempfile::tempdir().expect("a folder");
    let tree = data.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    random(&tree.join("a.bin"), 24 << 20);
    random(&tree.join("b.bin"), 24 << 20);
    let carried = Carried::new();
    let site = carried.site(&[folder("keep", &tree, true)], &["tree"]);
    let given = site.job(PROVIDER, "tree").ok().json();
    let id = given["transfer"].as_str().expect("an id").to_owned();
    let parts = carried.parts("out");
    for part in parts.iter().filter(|part| **part != parts[1]) {
        carry(part, &carried.at("there"));
    }
    let damaged = carried.at("there").join(parts[1].file_name().expect("a name"));
    let mut content = std::fs::read(&parts[1]).expect("the part");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&damaged, &content).expect("the part");
    let aside = format!("{}.damaged", damaged.display());
    wait_for("it is put aside", Duration::from_secs(60), || Path::new(&aside).exists());
    assert!(!compare_folders(&tree, &site.dir().join("inbox")).is_empty());
    // It stays so, and is not tried again and again.
    std::thread::sleep(Duration::from_secs(5));
    assert!(Path::new(&aside).exists());
    carry(&parts[1], &carried.at("there"));
    settled(&site, CONSUMER, &id);
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
}

#[test]
fn what_is_older_than_what_has_landed_does_not_land_over_it() {
    let data = tempfile::tempdir().expect("a folder");
    let tree = data.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    let carried = Carried::new();
    let site = carried.site(&[folder("keep", &tree, true)], &["tree"]);
    let mut given = Vec::new();
    for state in ["monday", "tuesday"] {
        std::fs::write(tree.join("state"), state).expect("a file");
        let before = carried.parts("out");
        let transfer = site.job(PROVIDER, "tree").ok().json()["transfer"].as_str().expect("an id").to_owned();
        let new = carried.parts("out").into_iter().filter(|part| !before.contains(part)).collect::<Vec<_>>();
        given.push((transfer, new));
    }
    let (monday, tuesday) = (&given[0], &given[1]);
    tuesday.1.iter().for_each(|part| carry(part, &carried.at("there")));
    settled(&site, CONSUMER, &tuesday.0);
    monday.1.iter().for_each(|part| carry(part, &carried.at("there")));
    wait_for("the older one ends", Duration::from_secs(30), || {
        let shown = show(&site, CONSUMER, &monday.0);
        shown.code == 0 && shown.json()["state"] == "failed"
    });
    assert_eq!(std::fs::read_to_string(site.dir().join("inbox/state")).expect("a file"), "tuesday");
    // Its provider hears of it.
    wait_for("both are answered", Duration::from_secs(30), || carried.parts("back").len() == 2);
    carried.parts("back").iter().for_each(|answer| carry(answer, &carried.at("here")));
    wait_for("it ends at the provider", Duration::from_secs(30), || {
        show(&site, PROVIDER, &monday.0).json()["state"] == "failed"
    });
    settled(&site, PROVIDER, &tuesday.0);
}

#[test]
fn what_is_carried_survives_kills_of_either_node() {
    let data = tempfile::tempdir().expect("a folder");
    let tree = data.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    for number in 0..6 {
        random(&tree.join(format!("{number}.bin")), 32 << 20);
    }
    let carried = Carried::new();
    let mut site = carried.site(&[folder("keep", &tree, true)], &["tree"]);
    // Killed while it writes parts: what was being given is given up, and none of it stays as if it were whole.
    let config = site.config(PROVIDER);
    posthouse(&["job", "run", "--config", &config, "tree"]).ok();
    wait_for("a part is begun", Duration::from_secs(30), || {
        std::fs::read_dir(carried.at("out")).expect("the outbox").count() > 0
    });
    site.provider.kill();
    site.provider.restart();
    wait_for("it is given up", Duration::from_secs(30), || newest(&config)["state"] == "cancelled");
    wait_for("what was made is taken back", Duration::from_secs(10), || {
        std::fs::read_dir(carried.at("out")).expect("the outbox").count() == 0
    });
    let given = site.job(PROVIDER, "tree").ok().json();
    let id = given["transfer"].as_str().expect("an id").to_owned();
    for part in carried.parts("out") {
        carry(&part, &carried.at("there"));
    }
    for pause in [2_500, 300, 600] {
        std::thread::sleep(Duration::from_millis(pause));
        site.consumer.kill();
        site.consumer.restart();
    }
    let settled = settled(&site, CONSUMER, &id);
    assert_eq!(settled["files"], 6, "{settled}");
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
}

#[test]
fn what_is_paused_while_its_parts_are_made_waits_and_goes_on() {
    let data = tempfile::tempdir().expect("a folder");
    let tree = data.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    for number in 0..4 {
        random(&tree.join(format!("{number}.bin")), 24 << 20);
    }
    let carried = Carried::new();
    // So all of it would take a quarter of a minute.
    let site = carried.site_with(&[folder("keep", &tree, true)], &["tree"], "bandwidth = \"6 MiB\"");
    let config = site.config(PROVIDER);
    let job = |verb: &str| posthouse(&["job", verb, "--config", &config, "tree"]).ok();
    let written = || -> u64 {
        let entries = std::fs::read_dir(carried.at("out")).expect("the outbox");
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    };
    job("run");
    wait_for("a part is begun", Duration::from_secs(60), || written() > 0);
    job("pause");
    wait_for("it is paused", Duration::from_secs(30), || newest(&config)["state"] == "paused");
    // What was read by then still comes.
    let rests = || {
        let before = written();
        std::thread::sleep(Duration::from_secs(2));
        written() == before
    };
    wait_for("nothing more is written", Duration::from_secs(30), rests);
    assert!(written() < 80 << 20, "{}", written());
    let paused = newest(&config);
    assert_eq!(paused["state"], "paused", "{paused}");
    job("resume");
    wait_for("all of it is written", Duration::from_secs(90), || newest(&config)["state"] == "staged");
    assert_eq!(newest(&config)["transfer"], paused["transfer"]);
    for part in carried.parts("out") {
        carry(&part, &carried.at("there"));
    }
    settled(&site, CONSUMER, paused["transfer"].as_str().expect("an id"));
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
}

#[test]
fn what_a_killed_export_has_left_on_a_disk_is_taken_back_and_nothing_else() {
    let data = tempfile::tempdir().expect("a folder");
    let (tree, disk, shelf) = (data.path().join("tree"), data.path().join("disk"), data.path().join("shelf"));
    for folder in [&tree, &disk] {
        std::fs::create_dir(folder).expect("a folder");
    }
    std::fs::write(tree.join("small"), "small").expect("a file");
    let scene = Scene {
        provider_node: format!("{}\nbandwidth = \"6 MiB\"", deaf()),
        consumer_node: deaf(),
        ..folder("keep", &tree, true)
    };
    let mut site = Site::start(&scene);
    let (provider, consumer) = (site.config(PROVIDER), site.config(CONSUMER));
    let arguments: Vec<String> =
        ["bundle", "export", "--config", &provider, "tree", "--out", text(&disk), "--json"].map(str::to_owned).into();
    // The first lies there whole, beside something of somebody else's.
    wait_for("the consumer's key is known", Duration::from_secs(90), || posthouse(&arguments).code == 0);
    std::fs::write(disk.join("report.pdf"), "theirs").expect("a file");
    let on_disk = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&disk).expect("the disk").map(|entry| entry.expect("an entry").path());
        let mut all: Vec<PathBuf> = entries.collect();
        all.sort();
        all
    };
    let whole = on_disk();
    for number in 0..3 {
        random(&tree.join(format!("{number}.bin")), 24 << 20);
    }
    let killed = |site: &mut Site| {
        let arguments = arguments.clone();
        let export = std::thread::spawn(move || posthouse(&arguments));
        wait_for("a part is begun", Duration::from_secs(60), || on_disk().len() > whole.len());
        site.provider.kill();
        assert_ne!(export.join().expect("it ends").code, 0);
        assert!(on_disk().len() > whole.len(), "nothing is left to be taken back");
    };
    // At the next start.
    killed(&mut site);
    site.provider.restart();
    wait_for("it is taken back", Duration::from_secs(30), || on_disk() == whole);
    wait_for("it is given up", Duration::from_secs(30), || newest(&provider)["state"] == "cancelled");
    // The disk is away then: with the next export.
    killed(&mut site);
    let left = on_disk();
    std::fs::rename(&disk, &shelf).expect("it is taken away");
    std::fs::create_dir(&disk).expect("where it is put on");
    site.provider.restart();
    wait_for("it is given up", Duration::from_secs(30), || newest(&provider)["state"] == "cancelled");
    std::fs::remove_dir(&disk).expect("it is empty");
    std::fs::rename(&shelf, &disk).expect("it is back");
    assert_eq!(on_disk(), left);
    posthouse(&["node", "set", "--config", &provider, "bandwidth=none"]).ok();
    let exported = posthouse(&arguments).ok().json();
    let gone: Vec<&PathBuf> = left.iter().filter(|path| !whole.contains(path)).collect();
    let now = on_disk();
    assert!(gone.iter().all(|path| !path.exists()), "{gone:?}");
    assert!(whole.iter().all(|path| now.contains(path)), "{now:?}");
    assert_eq!(now.len() as u64, whole.len() as u64 + exported["parts"].as_u64().expect("a number"), "{now:?}");
    // What lies there lands: both that were whole.
    posthouse(&["bundle", "import", "--config", &consumer, text(&disk)]).ok();
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
}

#[test]
fn what_nobody_accepts_and_what_cannot_be_carried_is_named() {
    let data = tempfile::tempdir().expect("a folder");
    let (tree, disk) = (data.path().join("tree"), data.path().join("disk"));
    make_tree(&tree);
    std::fs::create_dir(&disk).expect("the disk");
    let scene = folder("keep", &tree, true);
    let site = Site::start(&Scene {
        consumer: scene.consumer.replace("write = \"upsert\"", "write = \"mirror\""),
        provider_node: deaf(),
        consumer_node: deaf(),
        ..scene
    });
    let (provider, consumer) = (site.config(PROVIDER), site.config(CONSUMER));
    let export = |more: &[&str]| {
        let args = ["bundle", "export", "--config", &provider, "tree", "--out", text(&disk)];
        posthouse(&[&args[..], more].concat())
    };
    wait_for("the consumer's key is known", Duration::from_secs(90), || export(&[]).code == 0);
    let refused = posthouse(&["bundle", "import", "--config", &consumer, text(&disk)]);
    assert!(refused.code != 0 && refused.stderr.contains("write = \"upsert\""), "{refused:#?}");
    let small = export(&["--part-size", "1 MiB"]);
    assert!(small.code == 2 && small.stderr.contains("16 MiB"), "{small:#?}");
    let nowhere = posthouse(&["bundle", "import", "--config", &consumer, "/nowhere/at/all"]);
    assert!(nowhere.code == 2, "{nowhere:#?}");
    // A damaged file among the parts is named.
    let part = std::fs::read_dir(&disk).expect("the disk").next().expect("a part").expect("a part").path();
    let mut bad = std::fs::read(&part).expect("a part");
    let label = bad.len() - 60;
    bad[label] ^= 1;
    std::fs::write(disk.join("bad.part"), bad).expect("a file");
    let named = posthouse(&["bundle", "import", "--config", &consumer, text(&disk)]);
    assert!(named.stderr.contains("PH2016") && named.stderr.contains("bad.part"), "{named:#?}");
}

/// Folders between which we carry.
struct Carried {
    folder: tempfile::TempDir,
}

impl Carried {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["out", "there", "back", "here"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self { folder }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    /// Nodes that reach nothing but the coordinator.
    fn site(&self, scenes: &[Scene], grants: &[&'static str]) -> Site {
        self.site_with(scenes, grants, "")
    }
    /// The same, of whose provider something else is said too.
    fn site_with(&self, scenes: &[Scene], grants: &[&'static str], provider: &str) -> Site {
        let ferry = |peer: &str, outbox: &str, inbox: &str| {
            let (outbox, inbox) = (self.at(outbox), self.at(inbox));
            format!(
                "[peer.\"{peer}\".ferry]\noutbox = \"{}\"\ninbox = \"{}\"\npart_size = \"16 MiB\"\n\n",
                text(&outbox),
                text(&inbox)
            )
        };
        let all =
            |of: fn(&Scene) -> &str| scenes.iter().map(|scene| of(scene).to_owned()).collect::<Vec<_>>().join("\n");
        Site::start(&Scene {
            provider: ferry(CONSUMER, "out", "here") + &all(|scene| &scene.provider),
            consumer: ferry(PROVIDER, "back", "there") + &all(|scene| &scene.consumer),
            provider_node: format!("{}\n{provider}", deaf()),
            consumer_node: deaf(),
            grants: grants.to_vec(),
            ..Scene::default()
        })
    }
    /// Whole parts in one of the folders, in the order of their names.
    fn parts(&self, name: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.at(name)).expect("a folder").map(|entry| entry.expect("a file").path());
        let is_part = |path: &PathBuf| {
            path.extension().is_some_and(|suffix| suffix == "part")
                && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
        };
        let mut parts: Vec<PathBuf> = entries.filter(is_part).collect();
        parts.sort();
        parts
    }
}

fn deaf() -> String {
    "listen = \"none\"".to_owned()
}

/// A table that is given as a whole, and lands as one.
fn whole(scene: Scene) -> Scene {
    Scene {
        provider: scene.provider.replace("mode = \"incremental\"", "mode = \"full\""),
        consumer: scene.consumer.replace("write = \"upsert\"\n", ""),
        ..scene
    }
}

/// As a gatekeeper does it: the file grows in place, under its own name.
fn carry(part: &Path, to: &Path) {
    let name = part.file_name().expect("a name");
    run(Command::new("dd")
        .args(["bs=1M", "status=none"])
        .args([format!("if={}", part.display()), format!("of={}", to.join(name).display())]))
    .ok();
}

fn random(path: &Path, bytes: usize) {
    let mut content = vec![0; bytes];
    let seed = path.file_name().expect("a name").to_string_lossy();
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut content);
    std::fs::write(path, content).expect("a file");
}

fn show(site: &Site, node: &str, transfer: &str) -> Ran {
    posthouse(&["transfer", "show", "--config", &site.config(node), transfer, "--json"])
}

fn shows(site: &Site, node: &str, transfer: &str) -> bool {
    show(site, node, transfer).code == 0
}

fn settled(site: &Site, node: &str, transfer: &str) -> Value {
    wait_for(&format!("{transfer} settles at {node}"), Duration::from_secs(90), || {
        let shown = show(site, node, transfer);
        shown.code == 0 && shown.json()["state"] == "settled"
    });
    show(site, node, transfer).json()
}

/// The centre has both statements and finds that they agree; anyone can check the receipt.
fn matched(site: &Site, transfer: &str) {
    let config = site.config(PROVIDER);
    let receipt = || posthouse(&["receipt", "show", "--config", &config, transfer, "--json"]);
    wait_for("the centre's proof", Duration::from_secs(60), || receipt().stdout.contains("\"proven\":true"));
    assert_eq!(receipt().json()["verdict"], "matched");
    let (out, trust) = (site.dir().join(format!("out-{transfer}")), site.dir().join(format!("trust-{transfer}")));
    posthouse(&["receipt", "export", "--config", &config, transfer, "--out", text(&out)]).ok();
    run(Command::new("cp").args(["-r", text(&out.join("trust")), text(&trust)])).ok();
    let verified = posthouse(&["receipt", "verify", text(&out), "--trust", text(&trust), "--json"]).ok().json();
    assert_eq!(verified["standing"], "proven", "{verified}");
}
