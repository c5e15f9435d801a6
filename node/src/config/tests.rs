//! Configurations as people write them, right and wrong.

use super::*;
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::statement::Proof;

const HEAD: &str = "[node]\nname = \"housing.test.example\"\ndata_dir = \"data\"\n[coordinator]\naddress = \"centre.test.example:7840\"\n";

fn read(rest: &str) -> Result<Config, Mistakes> {
    Config::read(Path::new("/etc/posthouse/node.toml"), &format!("{HEAD}{rest}"))
}

/// (line within `rest`, what is said, nearest key)
fn mistakes(rest: &str) -> Vec<(usize, String)> {
    let before = HEAD.lines().count();
    read(rest)
        .expect_err("it has mistakes")
        .list
        .into_iter()
        .map(|m| (m.line.saturating_sub(before), m.say.en))
        .collect()
}

fn only(rest: &str) -> String {
    let mut found = mistakes(rest);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0).1
}

#[test]
fn the_shortest_configuration_is_two_names_a_folder_and_an_address() {
    let config = read("").unwrap();
    assert_eq!(config.node.data_dir, Path::new("/etc/posthouse/data"));
    assert_eq!(config.node.listen, None);
    assert_eq!(config.node.memory, MEMORY_DEFAULT);
    assert_eq!(config.coordinator, "centre.test.example:7840");
}

#[test]
fn a_folder_is_offered_taken_pushed_and_accepted() {
    let config = read(
        "[[resource]]\nid = \"scans\"\nfolder = \"scans\"\ninclude = [\"**/*.pdf\"]\nlinks = \"keep\"\nquiet = \"5s\"\nxattrs = true\n\
         [[job]]\nname = \"take\"\nresource = \"police.test.example/tree\"\ninto = { folder = \"/srv/in\", versions = \"old\", versions_keep = \"30d\" }\nwrite = \"mirror\"\nproof = \"reread\"\n\
         [[job]]\nname = \"push\"\npush = \"scans\"\nto = \"bureau.test.example\"\nschedule = \"0 2 * * *\"\n\
         [[job]]\nname = \"accept\"\naccept = \"police.test.example/daily\"\ninto = { folder = \"in\" }\n",
    )
    .unwrap();
    let Origin::Folder { path, options } = &config.resources.values().next().unwrap().origin else {
        panic!("a folder")
    };
    assert_eq!(path, Path::new("/etc/posthouse/scans"));
    assert_eq!((options.include.len(), options.quiet_ms, options.xattrs), (1, 5000, true));
    let job = |name: &str| &config.jobs[&name.parse::<JobId>().unwrap()];
    assert_eq!((job("take").write, job("take").proof, job("take").mode), (Write::Mirror, Proof::Reread, Mode::Full));
    let versions = KeptVersions { path: "/etc/posthouse/old".into(), keep: Some("30d".parse().unwrap()) };
    assert_eq!(job("take").into, Some(Target::Folder { path: "/srv/in".into(), versions: Some(versions) }));
    assert!(matches!(&job("push").kind, Kind::Push { to, .. } if to.as_str() == "bureau.test.example"));
    assert!(job("push").into.is_none() && job("push").starts_here() && !job("accept").starts_here());
    let pusher: NodeId = "police.test.example".parse().unwrap();
    assert_eq!(config.accepting(&pusher, &"daily".parse().unwrap()).unwrap().name.as_str(), "accept");
    assert!(config.accepting(&pusher, &"other".parse().unwrap()).is_none());
}

#[test]
fn only_a_folder_that_is_pushed_is_watched() {
    let job = |kind: &str| format!("{RESOURCES}[[job]]\nname = \"j\"\n{kind}\nschedule = \"watch\"\n");
    const RESOURCES: &str = "[connection.db]\nkind = \"sqlite\"\npath = \"/x.db\"\n\
         [[resource]]\nid = \"files\"\nfolder = \"/x\"\n[[resource]]\nid = \"rows\"\nconnection = \"db\"\ntable = \"t\"\n";
    let config = read(&job("push = \"files\"\nto = \"a.example\"")).unwrap();
    assert!(matches!(config.jobs.values().next().unwrap().schedule, Schedule::Watch));
    for kind in ["push = \"rows\"\nto = \"a.example\"", "resource = \"a.example/r\"\ninto = { folder = \"/y\" }"] {
        let found = only(&job(kind));
        assert!(found.starts_with("only a job that pushes a folder can watch it"), "{found}");
    }
}

#[test]
fn keys_of_features_that_do_not_exist_yet_are_refused_and_not_ignored() {
    let cases = [
        (
            "[[job]]\nname = \"j\"\nresource = \"a.example/r\"\ninto = { folder = \"/x\", format = \"parquet\" }\nmode = \"follow\"\n",
            "mode = \"follow\" is not available",
        ),
        ("[connection.a]\nkind = \"odbc\"\nurl = \"odbc://x\"\n", "kind = \"odbc\" is not available"),
    ];
    for (text, expected) in cases {
        let found = only(text);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_front_end_table_is_read_and_mistakes_are_told_at_their_place() {
    const TABLE: &str = "[connection.db]\nkind = \"sqlite\"\npath = \"/x.db\"\n\
         [[resource]]\nid = \"r\"\nconnection = \"db\"\n";
    let with = |table: &str, exchange: &str| format!("{TABLE}{table}\n[resource.exchange]\n{exchange}\n");
    let of = |exchange: &str| with("table = \"t\"\nkey = [\"id\"]\nwatermark = \"seen\"", exchange);
    let flag = "processed = { column = \"clzt\", from = \"0\", to = \"1\" }\n";
    let words = "operation = { column = \"czbs\", insert = \"I\", update = \"U\", delete = \"D\" }\n";
    let whole = read(&of(&format!("{words}batch = \"pch\"\n{flag}keep = \"30d\""))).unwrap();
    let exchange = whole.resources[&"r".parse().unwrap()].exchange.clone().unwrap();
    assert_eq!(exchange.own_columns().collect::<Vec<_>>(), ["czbs", "pch", "clzt"]);
    assert_eq!((exchange.keep_ms, exchange.spec.purges), (Some(30 * 86_400_000), true));
    assert_eq!(exchange.watermark.as_deref(), Some("seen"));
    let operation = exchange.operation.unwrap();
    assert_eq!(operation.read("D "), Some(posthouse_protocol::operation::Operation::Delete));
    assert_eq!((operation.read("d"), operation.read("")), (None, None));
    let least = read(&of(flag)).unwrap();
    let exchange = least.resources[&"r".parse().unwrap()].exchange.clone().unwrap();
    assert!(exchange.operation.is_none() && exchange.batch.is_none() && !exchange.spec.purges);

    let query = with("query = \"select 1\"\nkey = [\"id\"]", flag);
    assert!(only(&query).contains("`exchange` needs a `table`"));
    assert!(only(&with("table = \"t\"", flag)).contains("the resource's `key`"));
    assert!(only(&of("processed = { column = \"clzt\", from = \"0\", to = \"0\" }")).contains("differ"));
    assert!(only(&of("processed = { column = \"clzt\", from = \"it's\", to = \"1\" }")).contains("without quotes"));
    assert!(only(&of("processed = { column = \"id\", from = \"0\", to = \"1\" }")).contains("cannot be two of"));
    assert!(only(&of(&format!("{}{flag}", words.replace('D', "U")))).contains("differ from each other"));
    assert!(only(&of("batch = \"pch\"")).contains("processed"));
    let late = with("table = \"t\"\nkey = [\"id\"]\nwatermark = \"seen\"\nlate = \"1m\"", flag);
    assert!(only(&late).contains("no meaning beside `exchange`"));
    let folder = format!("[[resource]]\nid = \"f\"\nfolder = \"/x\"\n[resource.exchange]\n{flag}");
    assert!(only(&folder).contains("`exchange` belongs to tables"));
}

#[test]
fn names_given_twice_are_duplicates() {
    let found = mistakes(
        "[[resource]]\nid = \"a\"\nfolder = \"/a\"\n[[resource]]\nid = \"a\"\nfolder = \"/b\"\n\
         [[job]]\nname = \"j\"\npush = \"a\"\nto = \"b.example\"\n[[job]]\nname = \"j\"\npush = \"a\"\nto = \"c.example\"\n",
    );
    let texts: Vec<_> = found.iter().map(|(line, text)| (*line, text.split(':').next().unwrap())).collect();
    assert_eq!(texts, [(5, "duplicate id"), (12, "duplicate name")]);
}

#[test]
fn mistakes_of_all_parts_are_told_at_once() {
    let found = mistakes(
        "[[resource]]\nid = \"r s\"\nfolder = \"/a\"\nkey = [\"id\"]\n\
         [[job]]\nname = \"j\"\nresource = \"nonsense\"\ninto = { foldr = \"/x\" }\nschedule = \"61 * * * *\"\n\
         [[job]]\nname = \"k\"\npush = \"absent\"\nto = \"b.example\"\ninto = { folder = \"/x\" }\n",
    );
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 4, 7, 8, 8, 9, 12, 14], "{found:#?}");
}

#[test]
fn one_mistake_causes_no_others() {
    assert_eq!(
        only("[[job]]\nname = \"j\"\npush = \"a b\"\nto = \"b.example\"\nproof = \"reread\"\nschedule = \"manual\"\n")
            .split(':')
            .next(),
        Some("`a b` is not a valid resource id")
    );
    assert!(
        only("[[job]]\nname = \"j\"\naccept = \"nobody\"\ninto = { folder = \"/x\" }\noverlap = \"queue\"\n")
            .contains("NODE/JOB")
    );
    let text = "[node]\nname = \"a.example\"\ntransport = \"tcp\"\nspool_max = \"1 GiB\"\nadvertise = \"a:1\"\ndepartment = \"x\"\n[coordinator]\naddress = \"c:1\"\n";
    let found = Config::read(Path::new("node.toml"), text).expect_err("data_dir is missing");
    assert_eq!(found.list.iter().map(|m| m.say.en.as_str()).collect::<Vec<_>>(), ["`node.data_dir` is missing"]);
    let text = "[[resource]]\nid = \"r\"\nfolder = \"/x\"\n[resource.catalog]\ntitle = \"t\"\nsharing = \"conditional\"\nupdate = \"daily\"\nversion = \"1\"\n";
    assert_eq!(only(text), "`resource.catalog.code` is missing");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let job = |keys: &str| format!("[[job]]\nname = \"j\"\nresource = \"a.example/r\"\n{keys}\n");
    let cases = [
        (job("into = { folder = \"/x\" }\nmode = \"incremental\""), "a folder is taken with mode = \"full\""),
        (job("into = { folder = \"/x\", format = \"parquet\" }\nwrite = \"upsert\""), "parquet files are appended or replaced"),
        (job("into = { folder = \"/x\" }\nto = \"b.example\""), "`to` does not belong here"),
        (job("into = { folder = \"/x\", versions = \"/x/old\" }"), "older versions are kept elsewhere"),
        (job("into = { folder = \"/x\", versions_keep = \"30d\" }"), "`versions_keep` says how long"),
        (job("into = { folder = \"/x\", format = \"parquet\", versions = \"/y\" }"), "`versions` does not belong here"),
        (job("into = { folder = \"/x\", versions = \"/y\" }\nwrite = \"append\""), "append takes the place of nothing"),
        (job("into = { connection = \"c\", table = \"t\" }"), "there is no connection `c`"),
        (job(""), "`job.into` is missing"),
        ("[[job]]\nname = \"j\"\nresource = \"housing.test.example/r\"\ninto = { folder = \"/x\" }\n".to_owned(), "a node exchanges with other nodes"),
        ("[[job]]\nname = \"j\"\naccept = \"a.example/r\"\ninto = { folder = \"/x\" }\nschedule = \"manual\"\n".to_owned(), "`schedule` does not belong here"),
        ("[[resource]]\nid = \"r\"\nfolder = \"/x\"\n[resource.catalog]\ncode = \"1\"\ntitle = \"t\"\nsharing = \"none\"\nbasis = \"law\"\n".to_owned(), "a resource with sharing = \"none\""),
        ("[[resource]]\nid = \"r\"\nfolder = \"/x\"\ntable = \"t\"\n".to_owned(), "a resource has exactly one of"),
    ];
    for (text, expected) in cases {
        let found = mistakes(&text);
        assert!(found.iter().any(|(_, said)| said.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn node_settings_are_checked() {
    let node = |keys: &str| {
        let text =
            format!("[node]\nname = \"a.example\"\ndata_dir = \"/d\"\n{keys}\n[coordinator]\naddress = \"c:1\"\n");
        Config::read(Path::new("node.toml"), &text)
    };
    let config = node("listen = \"none\"\nadvertise = [{ zone = \"政务外网\", address = \"10.1.2.3:7843\" }]\nmemory = \"128 MiB\"\ntransport = \"tcp\"").unwrap();
    assert_eq!(config.node.listen, None);
    assert_eq!(config.node.advertise, [(Some("政务外网".to_owned()), "10.1.2.3:7843".to_owned())]);
    assert_eq!(config.node.memory, Size::mib(128));
    for bad in [
        "listen = \"7843\"",
        "advertise = \"10.1.2.3\"",
        "memory = \"1 MiB\"",
        "memory = 96",
        "department_code = \"91350100M000100Y44\"",
        "division = \"6101\"",
        "transport = \"udp\"",
        "bandwidth = \"1 KiB\"",
    ] {
        let found = node(bad).expect_err(bad);
        assert_eq!((found.list.len(), found.list[0].line), (1, 4), "{bad}: {found:#?}");
    }
}

#[test]
fn the_shipped_configuration_is_valid_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let text = load(&path).unwrap();
    if let Err(mistakes) = Config::read(&path, &text) {
        panic!("{}", mistakes.render(Lang::En));
    }
    // Each commented-out example is valid too once its comment sign is taken off.
    let all: String = text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    if let Err(mistakes) = Config::read(&path, &all) {
        panic!("{}", mistakes.render(Lang::En));
    }
    for key in [
        "name",
        "department",
        "department_code",
        "division",
        "data_dir",
        "listen",
        "transport",
        "advertise",
        "memory",
        "spool_max",
        "staging_max",
        "bandwidth",
        "address",
        "kind",
        "path",
        "tls_off_for",
        "charset",
        "id",
        "connection",
        "table",
        "query",
        "key",
        "watermark",
        "late",
        "folder",
        "include",
        "exclude",
        "links",
        "quiet",
        "xattrs",
        "empty",
        "blanks",
        "zero_dates",
        "dates",
        "code",
        "title",
        "sharing",
        "level",
        "update",
        "basis",
        "version",
        "resource",
        "into",
        "names",
        "versions",
        "versions_keep",
        "format",
        "mode",
        "write",
        "schedule",
        "timezone",
        "proof",
        "quarantine_max",
        "overlap",
        "missed",
        "via",
        "push",
        "to",
        "accept",
        "outbox",
        "inbox",
        "part_size",
        "suffix",
        "url",
        "control_schema",
        "columns",
        "mask_key_file",
        "keep_first",
        "keep_last",
        "null",
        "constant",
        "hash",
        "required",
        "length",
        "min",
        "max",
        "pattern",
        "codes",
        "codes_file",
        "id_card",
        "credit_code",
        "severity",
        "operation",
        "insert",
        "delete",
        "batch",
        "processed",
        "from",
        "keep",
    ] {
        let named = text.lines().any(|line| {
            let line = line.trim_start_matches("#: ").trim_start();
            line.starts_with(&format!("{key} ="))
                || line.contains(&format!("{{ {key} ="))
                || line.contains(&format!(", {key} ="))
        });
        assert!(named, "config/node.toml does not show `{key}`");
    }
    // Every explanation stands in both languages.
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        if !comment.is_empty() {
            let chinese = comment.iter().any(|words| words.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)));
            let english =
                comment.iter().any(|words| words.split_whitespace().filter(|word| word.is_ascii()).count() > 2);
            assert!(chinese && english, "only one language: {comment:#?}");
            comment.clear();
        }
    }
}

#[test]
fn rules_of_a_resource_and_names_of_a_table_are_read_and_mistakes_told_at_their_place() {
    let database = "[connection.db]\nkind = \"sqlite\"\npath = \"x.db\"\ncharset = \"gbk\"\n";
    let resource = "[[resource]]\nid = \"r\"\nconnection = \"db\"\ntable = \"t\"\n";
    let with = |rules: &str| format!("{database}{resource}[resource.rules]\n{rules}\n");
    let dialect =
        |rules: &str| read(&with(rules)).unwrap().resources[&"r".parse().unwrap()].govern.governing.dialect.clone();
    assert!(!dialect("").changes_values());
    assert!(!dialect("empty = \"keep\"\nblanks = \"keep\"\nzero_dates = \"refuse\"").changes_values());
    let all = dialect("empty = \"null\"\nblanks = \"trim\"\nzero_dates = \"null\"\ndates = { born = \"yyyyMMdd\" }");
    assert!(all.empty_null && all.trim && all.zero_dates_null);
    assert_eq!(all.dates["born"].to_string(), "yyyyMMdd");
    assert!(only(&with("empty = \"nul\"")).contains("`empty` is one of keep, null"));
    assert!(only(&with("dates = { born = \"YYYYMMDD\" }")).contains("`YYYY` is no part of a date"));
    assert!(only(&with("trim = true")).contains("trim"));
    let folder = "[[resource]]\nid = \"f\"\nfolder = \"/x\"\nrules = { empty = \"null\" }\n";
    assert!(only(folder).contains("`rules` belongs to tables"));

    let job =
        |into: &str| format!("{database}[[job]]\nname = \"j\"\nresource = \"a.example/r\"\ninto = {{ {into} }}\n");
    let names = |into: &str| match read(&job(into)).unwrap().jobs[&"j".parse().unwrap()].into.clone() {
        Some(Target::Table { names, .. }) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(names("connection = \"db\", table = \"t\""), Names::Keep);
    assert_eq!(names("connection = \"db\", table = \"t\", names = \"upper\""), Names::Upper);
    assert!(only(&job("folder = \"/x\", names = \"upper\"")).contains("`names` does not belong here"));
    let ruled = |rules: &str| format!("{}{rules}\n", job("connection = \"db\", table = \"t\""));
    let asked = read(&ruled("rules = { empty = \"null\", dates = { born = \"yyyyMMdd\" } }")).unwrap();
    let asked = asked.jobs[&"j".parse().unwrap()].asked_rules().unwrap();
    let asked: Vec<_> = asked.iter().map(|rule| (rule.column.as_deref(), rule.what.as_str())).collect();
    assert_eq!(asked, [(None, "empty = null"), (Some("born"), "dates = yyyyMMdd")]);
    assert_eq!(read(&ruled("")).unwrap().jobs[&"j".parse().unwrap()].asked_rules(), None);
    let lands_files = format!("{}rules = {{ empty = \"null\" }}\n", job("folder = \"/x\""));
    assert!(only(&lands_files).contains("`rules` does not belong here"));
    let pushed = format!(
        "{database}{resource}[[job]]\nname = \"p\"\npush = \"r\"\nto = \"a.example\"\nrules = {{ blanks = \"trim\" }}\n"
    );
    assert!(only(&pushed).contains("`rules` does not belong here"));
    let charset = database.replace("gbk", "latin-1");
    assert!(only(&charset).contains("gb18030"));
}

#[test]
fn names_are_changed_where_no_two_become_one() {
    use posthouse_protocol::schema::{Contract, ContractType, Item};
    let item = |name: &str| Item { name: name.to_owned(), r#type: ContractType::Text, nullable: true, comment: None };
    let contract = |names: &[&str]| Contract {
        items: names.iter().map(|name| item(name)).collect(),
        key: vec![names[0].to_owned()],
    };
    let changed = Names::Upper.of(&contract(&["id", "姓名a", "Name"])).unwrap();
    assert_eq!(changed, contract(&["ID", "姓名A", "NAME"]));
    assert_eq!(Names::Lower.of(&contract(&["ID", "é"])).unwrap(), contract(&["id", "é"]));
    assert_eq!(Names::Upper.of(&contract(&["a", "A"])), Err("A".to_owned()));
    assert_eq!(Names::Keep.of(&contract(&["a", "A"])).unwrap(), contract(&["a", "A"]));
}

#[test]
fn a_node_its_peers_and_its_jobs_have_bandwidths() {
    let config = read("[peer.\"bureau.test.example\"]\nbandwidth = [\"1 MiB 00:00-23:59\", \"2 MiB\"]\n").unwrap();
    let now = posthouse_protocol::time::Timestamp(0);
    assert_eq!(config.peers[&"bureau.test.example".parse().unwrap()].at(now), Some(1 << 20));
    let job = "[[job]]\nname = \"j\"\nresource = \"a.example/r\"\ninto = { folder = \"/x\" }\n";
    let config = read(&format!("{job}bandwidth = \"3 MiB\"\nvia = [\"gate.example\"]\n")).unwrap();
    let read_job = &config.jobs[&"j".parse().unwrap()];
    assert_eq!(read_job.bandwidth.as_ref().and_then(|bandwidth| bandwidth.at(now)), Some(3 << 20));
    assert_eq!(read_job.via, Some(vec!["gate.example".parse().unwrap()]));
    for (text, starts) in [
        ("[peer.\"Not A Name\"]\nbandwidth = \"1 MiB\"\n", "`Not A Name` is no name of a node"),
        ("[peer.\"a.example\"]\n", "`peer.a.example.bandwidth` is missing"),
        ("[peer.\"a.example\"]\nbandwidth = [\"1 MiB at night\"]\n", "`1 MiB at night` is not a size"),
    ] {
        assert!(only(text).starts_with(starts), "{}", only(text));
    }
}

#[test]
fn a_connection_may_have_hours_of_its_own() {
    let config = read("[connection.db]\nkind = \"sqlite\"\npath = \"a.db\"\nwindow = \"22:00-06:00\"\n").unwrap();
    assert!(config.connections["db"].window.is_some());
    let wrong = "[connection.db]\nkind = \"sqlite\"\npath = \"a.db\"\nwindow = \"at night\"\n";
    assert!(only(wrong).starts_with("it is two times of the day"), "{}", only(wrong));
}

#[test]
fn rows_in_quarantine_are_limited_by_number_or_by_share() {
    let job = |max: &str| {
        let job = "[connection.db]\nkind = \"sqlite\"\npath = \"a.db\"\n[[job]]\nname = \"take\"\nresource = \"police.test.example/people\"\ninto = { connection = \"db\", table = \"people\" }\n";
        format!("{job}quarantine_max = {max}\n")
    };
    let limit = |max: &str| read(&job(max)).unwrap().jobs.values().next().unwrap().quarantine_max.unwrap();
    assert_eq!((limit("1000").of(10), limit("\"0.5%\"").of(1_999), limit("\"0%\"").of(1_999)), (1_000, 9, 0));
    assert_eq!(limit("\"100 %\"").of(u64::MAX), u64::MAX);
    for wrong in ["\"half\"", "\"101%\"", "\"-1%\"", "\"NaN%\""] {
        assert!(only(&job(wrong)).contains("neither a number of rows nor a share"), "{wrong}");
    }
}

#[test]
fn what_is_carried_is_pushed_whole_through_two_folders() {
    let peer = "\"bureau.test.example\"";
    let ferry = format!("[peer.{peer}.ferry]\noutbox = \"out\"\ninbox = \"/srv/in\"\n");
    let config = read(&ferry).unwrap();
    let found = &config.ferries[&"bureau.test.example".parse().unwrap()];
    assert!(found.outbox.is_absolute() && found.outbox.ends_with("out"), "{found:?}");
    assert_eq!((found.part_size, found.suffix.as_str()), (PART_SIZE_DEFAULT, ".part"));
    assert!(config.peers.is_empty());
    let push = "[[resource]]\nid = \"a\"\nfolder = \"/srv/a\"\n\n[[job]]\nname = \"j\"\npush = \"a\"\n\
                to = \"bureau.test.example\"\n";
    assert!(read(&format!("{ferry}\n{push}")).is_ok());
    for (more, said) in [
        ("part_size = \"1 MiB\"\n".to_owned(), "at least 16 MiB"),
        ("suffix = \"part\"\n".to_owned(), "begins with a dot"),
        ("suffix = \"./x\"\n".to_owned(), "begins with a dot"),
        ("outfox = \"x\"\n".to_owned(), "outfox"),
        (
            "\n[[job]]\nname = \"t\"\nresource = \"bureau.test.example/r\"\ninto = { folder = \"x\" }\n".to_owned(),
            "accept what it pushes",
        ),
    ] {
        let mistakes = read(&format!("{ferry}{more}")).unwrap_err().render(posthouse_protocol::problem::Lang::En);
        assert!(mistakes.contains(said), "{said}: {mistakes}");
    }
    let same = format!("[peer.{peer}.ferry]\noutbox = \"x\"\ninbox = \"x\"\n");
    let mistakes = read(&same).unwrap_err().render(posthouse_protocol::problem::Lang::En);
    assert!(mistakes.contains("two folders"), "{mistakes}");
}

const PERSONS: &str = "[connection.db]\nkind = \"sqlite\"\npath = \"a.db\"\n[[resource]]\nid = \"persons\"\n\
     connection = \"db\"\ntable = \"t\"\nkey = [\"id\"]\nwatermark = \"at\"\n";

#[test]
fn a_resource_says_what_its_rows_go_through() {
    let config = read(&format!(
        "{PERSONS}columns = [\"id\", \"xm\", \"phone\", \"age\", \"at\"]\nmask_key_file = \"key\"\n\
         [resource.rename]\nxm = \"name\"\nat = \"updated\"\n\
         [resource.mask]\nid = {{ hash = \"hmac-sm3\" }}\nphone = {{ keep_first = 3, keep_last = 4 }}\nxm = {{ keep_last = 1 }}\n\
         [resource.check]\nid = {{ id_card = true }}\nage = {{ min = 0, max = 150, severity = \"count\" }}\n\
         [[job]]\nname = \"j\"\nresource = \"a.example/r\"\ninto = {{ connection = \"db\", table = \"u\" }}\n\
         [job.check]\nname = {{ required = true, length = [1, 20] }}\n",
    ))
    .unwrap();
    let resource = config.resources.values().next().unwrap();
    let Govern { governing, checks, key } = &resource.govern;
    assert_eq!(governing.outward("xm"), "name");
    let masks: Vec<String> = governing.masks.iter().map(|(column, mask)| format!("{column} {mask}")).collect();
    assert_eq!(masks, ["id hmac-sm3", "phone keep 3+4", "xm keep 0+1"]);
    let rules: Vec<String> = checks.load().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["check range (count)", "check id_card (quarantine)"]);
    assert_eq!(key.as_ref().unwrap().to_string(), "/etc/posthouse/key");
    let Origin::Table { spec, .. } = &resource.origin else { panic!("a table") };
    assert_eq!(resource.watermark_offered(spec).as_deref(), Some("updated"));
    let job = config.jobs.values().next().unwrap();
    assert_eq!(job.check.load().unwrap()[0].to_string(), "check required, length (quarantine)");
}

#[test]
fn a_slip_in_what_rows_go_through_is_found_before_anything_is_handed_over() {
    let columns = "columns = [\"id\", \"phone\", \"at\"]\n";
    for (text, said) in [
        // A mask for another name would hand over the column as it is.
        (format!("{columns}[resource.mask]\nphon = {{ null = true }}\n"), "`phon` is not among the `columns`"),
        ("[resource.mask]\nphone = { null = true }\n".to_owned(), "lists those it offers in `columns`"),
        ("[resource.check]\nphone = { required = true }\n".to_owned(), "lists those it offers in `columns`"),
        (format!("{columns}[resource.mask]\nid = {{ null = true }}\n"), "belongs to the key"),
        (format!("{columns}[resource.mask]\nat = {{ hash = \"sm3\" }}\n"), "the watermark cannot be masked"),
        (format!("{columns}[resource.mask]\nid = {{ hash = \"hmac-sm3\" }}\n"), "needs `mask_key_file`"),
        (format!("{columns}[resource.mask]\nid = {{ hash = \"md5\" }}\n"), "`hash` is one of"),
        (format!("{columns}[resource.mask]\nphone = {{ null = true, constant = \"x\" }}\n"), "a mask is one of"),
        (format!("{columns}[resource.mask]\nphone = {{ null = false }}\n"), "`null` is true or absent"),
        (format!("{columns}[resource.mask]\nphone = {{ nul = true }}\n"), "unknown key `nul`"),
        (format!("{columns}[resource.rename]\nphone = \"id\"\n"), "two columns are offered as `id`"),
        (format!("{columns}[resource.check]\nphone = {{ severity = \"count\" }}\n"), "it has no rule"),
        (format!("{columns}[resource.check]\nphone = {{ pattern = \"(\" }}\n"), "it is no pattern"),
        (format!("{columns}[resource.check]\nphone = {{ length = [3, 2] }}\n"), "the least and the most"),
        (format!("{columns}[resource.check]\nphone = {{ codes = [] }}\n"), "it lists 1 to"),
        (format!("{columns}[resource.check]\nphone = {{ min = 1e3 }}\n"), "bounds are numbers"),
        (format!("{columns}[resource.check]\nphone = {{ min = 2, max = 1 }}\n"), "`min` is above `max`"),
        (format!("{columns}[resource.check]\nphone = {{ min = 0, max = \"2026-01-01\" }}\n"), "both of one kind"),
        (
            format!("{columns}[resource.rules]\ndates = {{ phne = \"yyyyMMdd\" }}\n"),
            "`phne` is not among the `columns`",
        ),
        ("columns = [\"id\", \"id\"]\n".to_owned(), "stands there twice"),
        (format!("{columns}mask_key_file = \"credential:../x\"\n"), "`credential:` takes a name"),
    ] {
        let found = mistakes(&format!("{PERSONS}{text}"));
        assert!(found.iter().any(|(_, what)| what.contains(said)), "{said}: {found:#?}");
    }
    let job = "[[job]]\nname = \"j\"\nresource = \"a.example/r\"\ninto = { folder = \"/x\" }\n";
    assert!(only(&format!("{job}[job.check]\na = {{ required = true }}\n")).starts_with("rows are checked"));
    let folder = "[[resource]]\nid = \"r\"\nfolder = \"/x\"\ncolumns = [\"a\"]\n";
    assert!(only(folder).starts_with("`columns` belongs to tables"));
}

#[test]
fn items_are_declared_as_a_catalogue_has_them() {
    let columns = "columns = [\"id\", \"phone\", \"at\"]\n";
    let config = read(&format!("{PERSONS}[resource.items]\nphone = \"C(11)\"\nat = \"T\"\n")).unwrap();
    let items = &config.resources.values().next().unwrap().govern.governing.dialect.items;
    let items: Vec<String> = items.iter().map(|(column, item)| format!("{column} {item}")).collect();
    assert_eq!(items, ["at T", "phone C(11)"]);
    for (text, said) in [
        ("[resource.items]\nphone = \"C(0)\"\n".to_owned(), "`C(0)` is none of C, C(50)"),
        ("[resource.items]\nphone = 11\n".to_owned(), "a string"),
        (format!("{columns}[resource.items]\nphon = \"C(11)\"\n"), "`phon` is none of the columns"),
    ] {
        let found = only(&format!("{PERSONS}{text}"));
        assert!(found.contains(said), "{said}: {found}");
    }
    let folder = "[[resource]]\nid = \"r\"\nfolder = \"/x\"\n[resource.items]\na = \"C\"\n";
    assert!(only(folder).starts_with("`items` belongs to tables"), "{}", only(folder));
}
