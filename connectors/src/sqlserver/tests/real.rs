//! The suite on a real server. It needs one, and a login that may create databases:
//! `POSTHOUSE_TEST_MSSQL_URL=sqlserver://USER@HOST:PORT/DATABASE`, beside it `POSTHOUSE_TEST_MSSQL_PASSWORD_FILE` and,
//! where they are needed, `POSTHOUSE_TEST_MSSQL_CA_FILE` and `POSTHOUSE_TEST_MSSQL_TLS`.

use super::place::SqlBench;
use crate::contract::cases;
use std::io::Write as _;

pub(super) fn url() -> Option<String> {
    std::env::var("POSTHOUSE_TEST_MSSQL_URL").ok().filter(|url| !url.is_empty())
}

/// Runs each case where there is a server, and says where there is none.
macro_rules! on_a_real_server {
    ($($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            if url().is_none() {
                let _ = writeln!(std::io::stderr(), "SKIPPED: needs POSTHOUSE_TEST_MSSQL_URL");
                return;
            }
            cases::$case::<SqlBench<true>>();
        })*
    };
}

on_a_real_server!(
    values_survive_the_round_trip,
    a_repeated_publish_changes_nothing,
    a_split_staged_twice_lands_once,
    an_empty_table_is_created,
    drift_is_refused_with_both_schemas_shown,
    a_refused_row_is_told_apart_from_a_lost_connection,
    a_kill_at_any_step_between_stage_and_publish_resumes,
    a_transfer_that_is_discarded_leaves_nothing,
    what_two_transfers_stage_stays_apart,
    replacing_leaves_the_new_rows_only,
    appending_what_came_before_again_neither_loses_nor_doubles,
    rows_without_a_key_are_appended_by_their_count,
    upserting_adds_and_changes_by_key,
    mirroring_deletes_what_is_gone_but_never_over_a_tenth,
    a_mirror_keeps_the_older_row_of_one_that_is_refused,
    a_mirror_deletes_nothing_where_rows_were_held_back,
    a_key_that_comes_twice_is_a_bad_row,
    more_refused_rows_than_may_be_publish_nothing,
    a_dry_run_tells_and_changes_nothing,
    an_older_copy_of_the_node_is_fenced,
    tables_of_any_shape_land_as_they_are,
);
