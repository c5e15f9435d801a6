//! The line to the server: what is verified, what a loss at any moment leaves, how long is waited.

use super::*;
use posthouse_protocol::problem::Code;
use posthouse_test_tds::{Encryption, Fault, Options};

fn error(code: u32, at: &str) -> Fault {
    Fault::Error { code, class: 13, message: "as the test says".to_owned(), at: at.to_owned() }
}

fn staged(bench: &TdsBench, number: u8) -> Box<dyn Destination> {
    let contract = small();
    let mut destination = bench.destination(&landing(number, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter()).unwrap();
    destination
}

#[test]
fn a_failed_bulk_load_leaves_nothing_and_its_session_is_left() {
    let bench = TdsBench::new();
    let contract = small();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let rows = || [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter();
    let before = bench.server().logins();
    bench.server().fault(Fault::BulkError { code: 4_815, class: 16, message: "an odd column".to_owned() });
    let problem = destination.stage("a", [1; 32], &mut rows()).unwrap_err();
    assert_eq!(problem.code, Code::DestinationFailed, "{problem}");
    assert_eq!(destination.applied().unwrap(), []);
    assert_eq!(bench.server().logins(), before + 1, "a new session");
    assert_eq!(destination.stage("a", [1; 32], &mut rows()).unwrap().landed, 2);
    assert_eq!(destination.publish().unwrap().rows, 2);
}

#[test]
fn a_line_that_is_cut_at_any_statement_leaves_nothing_half() {
    for at in [
        "INSERT BULK",
        "SELECT TOP 0",
        "posthouse_applied] (transfer",
        "TABLOCKX",
        "INSERT INTO [dbo].[人口",
        "DROP TABLE",
        "COMMIT",
    ] {
        let bench = TdsBench::new();
        let contract = small();
        let landing = landing(1, Write::Append, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        bench.server().fault(Fault::CutAt { at: at.to_owned() });
        let rows = || [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter();
        let first =
            destination.stage("a", [1; 32], &mut rows()).map(drop).and_then(|()| destination.publish().map(drop));
        assert_eq!(first.unwrap_err().code, Code::ConnectionFailed, "{at}");
        assert!([0, 2].contains(&bench.target_rows()), "{at}");
        destination.stage("a", [1; 32], &mut rows()).unwrap();
        assert_eq!(destination.publish().unwrap().rows, 2, "{at}");
        assert_eq!(bench.target_rows(), 2, "{at}");
    }
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let bench = TdsBench::new();
    let mut destination = staged(&bench, 1);
    bench.server().fault(Fault::CutAfter { at: "COMMIT".to_owned() });
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, bench.target_rows()), (2, 2), "it was committed, and told");
}

#[test]
fn a_load_that_is_cut_in_its_midst_leaves_nothing() {
    let bench = TdsBench::new();
    let contract = small();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let names: Vec<(i64, &str, i64)> = (0..5_000).map(|id| (id, "一个相当长的名字", id)).collect();
    bench.server().fault(Fault::CutAfterReceived { bytes: 60_000 });
    let problem = destination.stage("a", [1; 32], &mut [Ok(people(&contract, &names))].into_iter()).unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed, "{problem}");
    assert_eq!(destination.applied().unwrap(), []);
    let staged = destination.stage("a", [1; 32], &mut [Ok(people(&contract, &names))].into_iter()).unwrap();
    assert_eq!((staged.landed, destination.publish().unwrap().rows), (5_000, 5_000));
}

#[test]
fn a_deadlock_is_a_lost_connection_and_no_refused_row() {
    let bench = TdsBench::new();
    let mut destination = staged(&bench, 1);
    bench.server().fault(error(1_205, "INSERT INTO [dbo].[人口"));
    assert_eq!(destination.publish().unwrap_err().code, Code::ConnectionFailed);
    assert_eq!(destination.publish().unwrap().rows, 2);
}

#[test]
fn a_full_disk_is_told_as_one() {
    let bench = TdsBench::new();
    let mut destination = staged(&bench, 1);
    bench.server().fault(error(9_002, "INSERT INTO [dbo].[人口"));
    assert_eq!(destination.publish().unwrap_err().code, Code::DiskFull);
}

#[test]
fn a_statement_ends_where_the_operator_says() {
    let mut bench = TdsBench::new();
    drop(staged(&bench, 1));
    bench.set("statement_timeout", "2s");
    bench.server().fault(Fault::Stall { at: "TABLOCKX".to_owned() });
    let mut destination = bench.destination(&landing(1, Write::Append, &small())).unwrap();
    let problem = destination.publish().unwrap_err();
    assert!(problem.code == Code::ConnectionFailed && problem.cause.contains("no answer within"), "{problem}");
    assert_eq!(destination.publish().unwrap().rows, 2);
}

#[test]
fn a_read_that_breaks_off_is_told_and_not_gone_on_with() {
    let bench = TdsBench::new();
    staged(&bench, 1).publish().unwrap();
    let mut source = bench.source(&spec("人口 base")).unwrap();
    let plan = source.begin(&crate::Read::default()).unwrap();
    bench.server().fault(Fault::CutAt { at: "CAST(t.[name] AS varbinary".to_owned() });
    let mut rows = Rows::default();
    assert_eq!(source.read(&plan.splits[0], &mut rows).unwrap_err().code, Code::ConnectionFailed);
    assert_eq!(source.read(&plan.splits[0], &mut rows).unwrap_err().code, Code::SourceFailed, "its snapshot is gone");
}

#[test]
fn a_server_is_verified_by_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = TdsBench::with(Options { encryption: Encryption::Required, ..Options::default() });
    assert!(bench.connection().probe().is_err(), "it asks for encryption, and none was configured");
    let ours = folder.path().join("ours.pem");
    std::fs::write(&ours, bench.server().ca_pem()).unwrap();
    bench.set("ca_file", ours.to_str().unwrap());
    bench.connection().probe().unwrap();
    let other = TdsBench::with(Options { encryption: Encryption::Required, ..Options::default() });
    std::fs::write(&ours, other.server().ca_pem()).unwrap();
    let problem = bench.connection().probe().unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed, "another authority: {problem}");
}

#[test]
fn a_wrong_password_is_told_as_the_servers_word() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = TdsBench::with(Options { password: "right".to_owned(), ..Options::default() });
    let file = folder.path().join("password");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    bench.set("password_file", file.to_str().unwrap());
    write("wrong\n");
    let problem = bench.connection().probe().unwrap_err();
    assert!(problem.code == Code::ConnectionFailed && problem.cause.contains("18456"), "{problem}");
    // A changed one counts with the next login.
    write("right\n");
    bench.connection().probe().unwrap();
}
