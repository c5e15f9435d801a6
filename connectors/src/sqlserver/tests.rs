//! The suite on SQL Server: against the TDS test server, and against a real one where `POSTHOUSE_TEST_MSSQL_URL` names
//! it. Beside it what SQL Server and its driver alone can do wrong, trap by trap. The test server tells what it did not
//! know; a bench that ends asserts that there was nothing. The counts that it tells beside its results are false.
//!
//! | trap | test |
//! |---|---|
//! | money comes as a double | `money_keeps_its_last_digit`, `columns_that_stand_keep_what_they_can_and_refuse_the_rest` |
//! | bulk takes no value above 65,535 bytes | `values_around_the_bulk_loads_limit_land_whole`, `a_long_text_that_the_code_page_lacks_is_a_bad_row_too` |
//! | commands end after 30 s | `the_driver_has_no_limit_of_its_own`, `a_statement_ends_where_the_operator_says` |
//! | bulk rounds to a smaller scale | `a_decimal_that_would_lose_its_scale_is_refused_before_anything_moves`, `decimals_of_every_length_land_with_all_their_digits` |
//! | unpadded `char(n)` hangs readers | `columns_that_stand_keep_what_they_can_and_refuse_the_rest` (the server refuses unpadded ones), `a_text_of_fixed_length_is_padded_before_it_is_sent` |
//! | a session is not usable after a failed load | `a_failed_bulk_load_leaves_nothing_and_its_session_is_left`, `a_load_that_stalls_ends_and_its_session_is_left` |
//! | names go into statements as they are | `names_of_any_kind_are_names`, `a_bracket_in_a_name_ends_nothing` |
//! | counts are those of the driver | `what_a_driver_loses_in_bulk_is_noticed_by_the_servers_count`, the whole suite with false counts |
//! | times are multiplied as doubles | `times_land_with_every_digit_or_not_at_all`, `the_first_and_the_last_of_all_times_are_read` |
//! | a `datetime` counts three-hundredths | `every_three_hundredth_is_a_time_of_its_own`, `bounds_between_two_steps_of_a_datetime_lose_no_row` |
//! | NaN and infinities have no place | `floats_that_the_engine_lacks_are_bad_rows` |
//! | characters become question marks | `columns_that_stand_keep_what_they_can_and_refuse_the_rest`, `bytes_that_are_no_characters_of_the_code_page_are_bad_rows_with_them` |
//! | TLS without an authority | `a_server_is_verified_by_its_authority`, `a_line_is_verified_unless_it_stays_here_or_is_named` |

mod examining;
mod fronts;
mod landing;
mod lines;
mod marks;
mod place;
mod reading;
mod real;
mod refusing;
mod rights;
mod taking_over;
mod traps;

use super::*;
use crate::Published;
use crate::contract::{Bench, Rows, item, land, landing, people, read_all, small, spec, standing};
use place::SqlBench;
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::schema::{Contract, ContractType};

type TdsBench = SqlBench<false>;

crate::contract::suite!(TdsBench);

const TARGET: &str = "[dbo].[人口 base]";

/// One row of a contract.
fn row(contract: &Contract, values: &[Value<'_>]) -> arrow::record_batch::RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    builder.push(values).unwrap();
    builder.finish().unwrap()
}

/// Reads all of a table as it is.
fn read_table(bench: &TdsBench, table: &str) -> (crate::Plan, Rows) {
    let mut source = bench.source(&spec(table)).unwrap();
    read_all(source.as_mut(), &crate::Read::default())
}
