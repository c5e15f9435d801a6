//! Row filters of grants: what the database is asked for, and what is looked at here.

use super::*;
use posthouse_protocol::filter::Filter;

#[test]
fn the_database_leaves_out_what_is_surely_none_of_the_grants() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, district varchar(12), fixed char(4), day date, at timestamptz, \"it's\" bigint);
         INSERT INTO t VALUES
           (1, '610102', 'ab', '2026-01-01', '2026-01-01 08:00:00+08', 5),
           (2, '610103', 'ab', '2026-01-01', '2025-06-01 00:00:00+00', 5),
           (3, NULL, NULL, NULL, NULL, NULL),
           (4, '610102', 'ab', 'infinity', 'infinity', 6)",
    );
    let read = |filter: &str| {
        let read = Read { filter: Some(Filter::parse(filter).unwrap()), ..Read::default() };
        let mut source = bench.connection().source(&spec("t")).unwrap();
        let plan = source.begin(&read).unwrap();
        let mut rows = Rows::default();
        let mut sum = [0; 3];
        for split in &plan.splits {
            let counts = source.read(split, &mut rows).unwrap();
            assert_eq!((counts.read, counts.quarantined), (counts.sent + counts.filtered, 0));
            sum = [sum[0] + counts.read, sum[1] + counts.sent, sum[2] + counts.filtered];
        }
        sum
    };
    assert_eq!(read("district = '610102' AND day >= DATE '2026-01-01' AND \"it's\" BETWEEN 5 AND 5"), [1, 1, 0]);
    assert_eq!(read("at > TIMESTAMP '2026-01-01T00:00:00Z'"), [1, 1, 0], "the infinite one");
    assert_eq!(read("NOT (district IN ('610103') OR id = 4)"), [3, 1, 2], "another text is looked for here");
    assert_eq!(read("district IS NULL"), [1, 1, 0]);
    assert_eq!(read("fixed = 'ab'")[0], 3);
    // What is compared is a value, whatever it looks like.
    assert_eq!(read("district = ''' OR true --'"), [0, 0, 0]);
    assert_eq!(read("district > '610102' OR id = 3"), [4, 2, 2]);
    // An oid is compared here: the engine would refuse a number below zero.
    bench.run("ALTER TABLE t ADD COLUMN o oid; UPDATE t SET o = id");
    assert_eq!(read("o > -1 AND o < 3"), [4, 2, 2]);
}
