//! What stands in the way at folders: those that are offered and landed in, and the boxes through which parts are carried.
//! Deliberately absent: what the parts hold, which the running node looks at.

use crate::config::{Config, Ferry, Origin, Target};
use crate::ferry::ASIDE;
use posthouse_connectors::examine::{Finding, Grade, Topic};
use posthouse_platform::disk::Disk;
use posthouse_platform::settings::Size;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::time::Timestamp;
use rustix::fs::{Access, access};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Examines folders: that those which are read can be, that those which are landed in can be written to, and that parts
/// can be put into outboxes and taken from inboxes, and move on. Each is told of once. Blocks.
pub fn folders(config: &Config, disk: &dyn Disk, now: Timestamp) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for resource in config.resources.values() {
        if let Origin::Folder { path, .. } = &resource.origin {
            found.push(right(path, Access::READ_OK, "read", "读取"));
        }
    }
    for job in config.jobs.values() {
        let path = match &job.into {
            Some(Target::Folder { path, .. } | Target::Parquet { path }) => path,
            _ => continue,
        };
        found.push(match path.exists() {
            true => right(path, Access::READ_OK | Access::WRITE_OK, "read and write", "读取和写入"),
            // It is made when it is missing, in what there is above it.
            false => {
                let above = path.ancestors().find(|above| above.exists()).unwrap_or(path);
                right(above, Access::WRITE_OK, "write", "写入")
            }
        });
    }
    for (peer, ferry) in &config.ferries {
        found.extend(boxes(peer, ferry, disk, now));
    }
    let mut said: Vec<Finding> = Vec::new();
    for finding in found {
        if !said.contains(&finding) {
            said.push(finding);
        }
    }
    said
}

/// The outbox and the inbox of a peer that is reached by a ferry.
fn boxes(peer: &NodeId, ferry: &Ferry, disk: &dyn Disk, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for (folder, is_outbox) in [(&ferry.outbox, true), (&ferry.inbox, false)] {
        let finding = right(folder, Access::READ_OK | Access::WRITE_OK, "read and write", "读取和写入");
        let is_well = finding.grade == Grade::Well;
        found.push(if folder.exists() { finding } else { finding.fix(made(folder)) });
        if is_well {
            found.extend(room(folder, ferry, is_outbox, disk));
            found.extend(parts(folder, peer, ferry, is_outbox, now));
        }
    }
    found
}

/// What a shell is told to make it, whatever its name.
fn made(folder: &Path) -> String {
    format!("mkdir -p '{}'", folder.display().to_string().replace('\'', "'\\''"))
}

/// Whether one more part has room.
fn room(folder: &Path, ferry: &Ferry, is_outbox: bool, disk: &dyn Disk) -> Option<Finding> {
    let free = disk.free_bytes(folder).ok()?;
    let (free_text, part) = (Size(free >> 20 << 20), ferry.part_size);
    if free >= part.0 {
        let (en, zh) = (format!("{free_text} are free"), format!("剩余 {free_text}"));
        return Some(Finding::new(Topic::Room, Grade::Well, folder.display(), en, zh));
    }
    let (en, zh) = (
        format!("{free_text} are free: a part of {part} has no room"),
        format!("剩余 {free_text}：容不下一个 {part} 的分件"),
    );
    // How long the parts are that are brought here, their maker says.
    let grade = if is_outbox { Grade::Wrong } else { Grade::Note };
    Some(Finding::new(Topic::Room, grade, folder.display(), en, zh))
}

/// Parts that do not move on, and those that were put aside.
fn parts(folder: &Path, peer: &NodeId, ferry: &Ferry, is_outbox: bool, now: Timestamp) -> Vec<Finding> {
    let object = folder.display();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let (en, zh) = (format!("it cannot be read: {error}"), format!("无法读取：{error}"));
            return vec![Finding::new(Topic::Parts, Grade::Wrong, object, en, zh)];
        }
    };
    let (mut old, mut aside, mut oldest) = (0_u64, 0_u64, now);
    for entry in entries.flatten() {
        // One that was carried away meanwhile is none any more.
        let Some(meta) = entry.metadata().ok().filter(std::fs::Metadata::is_file) else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What is being made or copied bears another name; what else stands in an outbox is nobody's part.
        if name.starts_with('.') || (is_outbox && !name.ends_with(&ferry.suffix)) {
            continue;
        }
        if name.ends_with(ASIDE) {
            aside += 1;
            continue;
        }
        // When it came here: the time of its contents may be another machine's.
        let since = Timestamp(meta.ctime().saturating_mul(1_000));
        if now.since_ms(since) > STANDS_MS {
            old += 1;
            oldest = oldest.min(since);
        }
    }
    let mut found = Vec::new();
    if aside > 0 {
        let (en, zh) = (
            format!("{aside} damaged parts were put aside: have {peer} make them again"),
            format!("有 {aside} 个损坏的分件被搁置：请 {peer} 重新制作"),
        );
        found.push(Finding::new(Topic::Parts, Grade::Note, &object, en, zh));
    }
    if old == 0 {
        found.push(Finding::new(Topic::Parts, Grade::Well, &object, "none is older than a day", "没有超过一天的分件"));
        return found;
    }
    let (why, zh_why) = match is_outbox {
        true => ("nobody carries them", "无人搬运"),
        false => (
            "the node does not run, others of their set are missing, or their job is held",
            "节点未运行、同批分件不全，或任务被暂停",
        ),
    };
    let (en, zh) = (
        format!("{old} parts stand there for more than a day, the oldest since {oldest}: {why}"),
        format!("有 {old} 个分件停留超过一天，最早为 {oldest}：{zh_why}"),
    );
    found.push(Finding::new(Topic::Parts, Grade::Note, &object, en, zh));
    found
}

fn right(path: &Path, access_to: Access, right: &str, zh: &str) -> Finding {
    let object = path.display();
    let (en, zh) = if !path.exists() {
        ("it is not there".to_owned(), "不存在".to_owned())
    } else if !path.is_dir() {
        ("it is no folder".to_owned(), "不是目录".to_owned())
    } else if access(path, access_to | Access::EXEC_OK).is_err() {
        (format!("this program's user lacks the right to {right}"), format!("本程序的用户缺少{zh}权限"))
    } else {
        return Finding::new(Topic::Rights, Grade::Well, object, right, zh);
    };
    Finding::new(Topic::Rights, Grade::Wrong, object, en, zh)
}

/// A day.
const STANDS_MS: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_folder;
    use posthouse_platform::World;

    const CONFIG: &str = r#"[peer."bureau.test.example".ferry]
outbox = "out"
inbox = "in"
part_size = "16 MiB"
[[resource]]
id = "scans"
folder = "scans"
[[resource]]
id = "scans-too"
folder = "scans"
[[job]]
name = "plans"
resource = "police.test.example/plans"
into = { folder = "plans/new" }
"#;

    /// What is not well, by the last part of its path.
    fn wrong(found: &[Finding]) -> Vec<(String, Topic, Grade)> {
        let short = |object: &str| object.rsplit('/').next().unwrap_or_default().to_owned();
        let of = found.iter().filter(|finding| finding.grade != Grade::Well);
        of.map(|finding| (short(&finding.object), finding.topic, finding.grade)).collect()
    }

    #[test]
    fn folders_and_boxes_that_are_missing_full_or_stand_still_are_each_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let config = in_folder(folder.path(), CONFIG);
        let world = World::real();
        let look =
            |config: &Config, days: i64| folders(config, &*world.disk, world.clock.now().plus_ms(days * STANDS_MS));
        let before = look(&config, 0);
        let missing = ["scans", "out", "in"].map(|name| (name.to_owned(), Topic::Rights, Grade::Wrong));
        assert_eq!(wrong(&before), missing, "{before:#?}");
        let fix =
            before.iter().find(|finding| finding.object.ends_with("/out")).and_then(|finding| finding.fix.clone());
        assert_eq!(fix, Some(format!("mkdir -p '{}'", at("out").display())));
        assert_eq!(made(Path::new("/srv/the bureau's")), r"mkdir -p '/srv/the bureau'\''s'");

        for name in ["scans", "out", "in"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in ["out/a.part", "out/.b.part.making", "out/note.txt", "in/c.dat", "in/d.part.damaged"] {
            std::fs::write(at(name), "x").unwrap();
        }
        let today = look(&config, 0);
        assert_eq!(
            wrong(&today),
            [("in".to_owned(), Topic::Parts, Grade::Note)],
            "only what was put aside: {today:#?}"
        );
        let later = look(&config, 2);
        let stand: Vec<&str> = later
            .iter()
            .filter(|finding| finding.en.contains("more than a day"))
            .map(|finding| finding.en.split(',').next().unwrap_or_default())
            .collect();
        assert_eq!(stand, ["1 parts stand there for more than a day"; 2], "{later:#?}");

        // No disk has room for such a part.
        let large = CONFIG.replace("16 MiB", "1048576 TiB");
        let config = in_folder(folder.path(), &large);
        let full = look(&config, 0);
        let rooms: Vec<Grade> =
            full.iter().filter(|finding| finding.topic == Topic::Room).map(|finding| finding.grade).collect();
        assert_eq!(rooms, [Grade::Wrong, Grade::Note], "{full:#?}");

        // A file is no folder.
        std::fs::remove_dir(at("scans")).unwrap();
        std::fs::write(at("scans"), "x").unwrap();
        let file = look(&config, 0);
        assert!(file.iter().any(|finding| finding.object.ends_with("/scans") && finding.en == "it is no folder"));
    }
}
