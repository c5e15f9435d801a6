//! The line to the server: what is verified, what a loss at any moment leaves, how long is waited.

use super::*;
use posthouse_protocol::problem::Code;
use posthouse_test_tds::Fault;

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
    let before = bench.logins();
    bench.server().fault(Fault::ErrorAtBulkEnd { number: 4_815 });
    let problem = destination.stage("a", [1; 32], &mut rows()).unwrap_err();
    assert_eq!(problem.code, Code::DestinationFailed, "{problem}");
    assert_eq!(destination.applied().unwrap(), []);
    assert_eq!(bench.logins(), before + 1, "a new session");
    assert_eq!(destination.stage("a", [1; 32], &mut rows()).unwrap().landed, 2);
    assert_eq!(destination.publish().unwrap().rows, 2);
}

#[test]
fn a_line_that_is_cut_at_any_byte_leaves_nothing_half() {
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let rows = || [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter();
    let (mut bytes, mut cuts) = (0, 0);
    loop {
        let bench = TdsBench::new();
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        bench.server().fault(Fault::CutAfterReceived(bytes));
        let staged = destination.stage("a", [1; 32], &mut rows());
        let first = staged.map(drop).and_then(|()| destination.publish().map(drop));
        if bench.has_fault() {
            first.unwrap();
            break;
        }
        cuts += 1;
        // What was cut before anything was done is done over a new connection, without a word.
        assert!(first.is_ok() || [0, 2].contains(&bench.target_rows()), "{bytes}");
        destination.stage("a", [1; 32], &mut rows()).unwrap_or_default();
        assert_eq!(destination.publish().unwrap().rows, 2, "{bytes}");
        assert_eq!(bench.target_rows(), 2, "{bytes}");
        bytes += 997;
    }
    assert!(cuts > 5, "{cuts}");
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let bench = TdsBench::new();
    let mut destination = staged(&bench, 1);
    bench.server().fault(Fault::CutAtCommit);
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
    bench.server().fault(Fault::CutAfterReceived(60_000));
    let problem = destination.stage("a", [1; 32], &mut [Ok(people(&contract, &names))].into_iter()).unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed, "{problem}");
    assert_eq!(destination.applied().unwrap(), []);
    let staged = destination.stage("a", [1; 32], &mut [Ok(people(&contract, &names))].into_iter()).unwrap();
    assert_eq!((staged.landed, destination.publish().unwrap().rows), (5_000, 5_000));
}

/// Publishes while each statement in turn fails with an error; what comes of it, until there are no more statements.
fn fail_each_statement(number: u32, check: impl Fn(&TdsBench, &mut dyn Destination, Result<Published, Problem>)) {
    let mut after = 0;
    loop {
        let bench = TdsBench::new();
        let mut destination = staged(&bench, 1);
        bench.server().fault(Fault::ErrorAtStatement { after, number });
        let outcome = destination.publish();
        if bench.has_fault() {
            assert_eq!(outcome.unwrap().rows, 2);
            break;
        }
        check(&bench, destination.as_mut(), outcome);
        after += 1;
    }
    assert!(after > 10, "{after}");
}

#[test]
fn a_deadlock_at_any_statement_is_a_lost_connection_and_no_refused_row() {
    fail_each_statement(1_205, |bench, destination, outcome| {
        assert!(outcome.is_ok_and(|published| published.rows == 2) || bench.target_rows() == 0);
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.quarantined, bench.target_rows()), (2, 0, 2));
    });
}

#[test]
fn an_error_that_undoes_the_whole_transaction_is_tried_once_more() {
    // As of a trigger that rolled back: what it was for is looked for row by row, and not found again.
    fail_each_statement(3_609, |bench, _, outcome| {
        let published = outcome.unwrap();
        assert_eq!((published.rows, published.quarantined, bench.target_rows()), (2, 0, 2));
    });
}

#[test]
fn a_full_disk_is_told_as_one() {
    let bench = TdsBench::new();
    let mut destination = staged(&bench, 1);
    bench.server().fault(Fault::ErrorAtStatement { after: 4, number: 9_002 });
    assert_eq!(destination.publish().unwrap_err().code, Code::DiskFull);
    assert_eq!(destination.publish().unwrap().rows, 2);
}

#[test]
fn a_statement_ends_where_the_operator_says() {
    let mut bench = TdsBench::new();
    bench.set("statement_timeout", "2s");
    let mut destination = staged(&bench, 1);
    bench.server().fault(Fault::StallAfterReceived(2_000));
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
    bench.server().fault(Fault::ErrorInResult { after_rows: 1, number: 605 });
    let mut rows = Rows::default();
    assert_eq!(source.read(&plan.splits[0], &mut rows).unwrap_err().code, Code::SourceFailed);
    assert_eq!(source.read(&plan.splits[0], &mut rows).unwrap_err().code, Code::SourceFailed, "its snapshot is gone");
    let plan = source.begin(&crate::Read::default()).unwrap();
    bench.server().fault(Fault::CutAfterSent(10));
    assert_eq!(source.read(&plan.splits[0], &mut rows).unwrap_err().code, Code::ConnectionFailed);
    assert_eq!(read_table(&bench, "人口 base").1.count(), 2);
}

#[test]
fn a_server_is_verified_by_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = TdsBench::with(place::encrypted());
    assert!(bench.connection().probe().is_err(), "it asks for encryption, and none was configured");
    let ours = folder.path().join("ours.pem");
    std::fs::write(&ours, bench.server().ca_pem()).unwrap();
    bench.set("ca_file", ours.to_str().unwrap());
    bench.connection().probe().unwrap();
    let other = TdsBench::with(place::encrypted());
    std::fs::write(&ours, other.server().ca_pem()).unwrap();
    let problem = bench.connection().probe().unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed, "another authority: {problem}");
}

#[test]
fn a_wrong_password_is_told_as_the_servers_word() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = TdsBench::with(place::with_password("right"));
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
