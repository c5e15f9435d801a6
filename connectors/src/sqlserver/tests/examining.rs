//! What an examination says, as far as the test server has rights and settings: it knows no account that lacks one.

use super::*;
use crate::examine::{Finding, Grade, granted};

fn examine(bench: &TdsBench, reads: &[TableSpec], landings: &[Landing]) -> Vec<Finding> {
    let clock = posthouse_platform::World::real().clock;
    SqlServer.examine("db", &bench.settings(), &granted(reads), landings, &|| clock.now().0).unwrap()
}

fn wrong(found: &[Finding]) -> Vec<&str> {
    let of = |finding: &&Finding| finding.grade == Grade::Wrong;
    found.iter().filter(of).map(|finding| finding.object.as_str()).collect()
}

#[test]
fn a_table_that_is_not_there_is_told_and_one_that_is_has_its_rights_named() {
    let bench = TdsBench::new();
    let landings = [landing(1, Write::Append, &small())];
    let found = examine(&bench, &[spec("nothing")], &landings);
    assert_eq!(wrong(&found), ["[dbo].[nothing]"], "{found:#?}");
    assert!(
        found.iter().any(|finding| finding.object == TARGET && finding.en.contains("first transfer")),
        "{found:#?}"
    );
    land(&bench, &landings[0], people(&small(), &[(1, "王", 1)]));
    let found = examine(&bench, &[spec("人口 base")], &landings);
    assert_eq!(wrong(&found), Vec::<&str>::new(), "{found:#?}");
    for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
        assert!(found.iter().any(|finding| finding.object == TARGET && finding.en == right), "{right}: {found:#?}");
    }
    for object in ["version", "ALLOW_SNAPSHOT_ISOLATION", "READ_COMMITTED_SNAPSHOT", "collation", "clock"] {
        assert!(found.iter().any(|finding| finding.object == object), "{object}: {found:#?}");
    }
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    let bench = TdsBench::new();
    let found = SqlServer.examine("db", &bench.settings(), &[], &[], &|| 0).unwrap();
    assert_eq!(wrong(&found), ["clock"], "{found:#?}");
}

#[test]
fn chinese_behind_many_plain_values_is_found() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE dbo.people (id int NOT NULL PRIMARY KEY, name varchar(50) COLLATE Latin1_General_CI_AS NULL)",
    );
    for first in (0..600).step_by(100) {
        let plain: Vec<String> = (first..first + 100).map(|id| format!("({id}, 'Wang')")).collect();
        bench.run(&format!("INSERT INTO dbo.people VALUES {}", plain.join(", ")));
    }
    assert_eq!(wrong(&examine(&bench, &[spec("dbo.people")], &[])), Vec::<&str>::new());
    // The bytes of three characters in GBK.
    bench.run("INSERT INTO dbo.people VALUES (600, N'ÍõÐ¡Ã÷')");
    let found = examine(&bench, &[spec("dbo.people")], &[]);
    assert_eq!(wrong(&found), ["[dbo].[people].[name]"], "{found:#?}");
}
