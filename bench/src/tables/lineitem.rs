//! TPC-H `lineitem` at scale factor 1: sixteen narrow columns, as in a ledger of payments. Rows are those of dbgen.

use super::values::Values;
use tpchgen::generators::LineItemGenerator;

pub const ROWS: u64 = 6_001_215;

pub const COLUMNS: &[(&str, &str)] = &[
    ("l_orderkey", "bigint NOT NULL"),
    ("l_partkey", "bigint NOT NULL"),
    ("l_suppkey", "bigint NOT NULL"),
    ("l_linenumber", "integer NOT NULL"),
    ("l_quantity", "numeric(15,2) NOT NULL"),
    ("l_extendedprice", "numeric(15,2) NOT NULL"),
    ("l_discount", "numeric(15,2) NOT NULL"),
    ("l_tax", "numeric(15,2) NOT NULL"),
    ("l_returnflag", "char(1) NOT NULL"),
    ("l_linestatus", "char(1) NOT NULL"),
    ("l_shipdate", "date NOT NULL"),
    ("l_commitdate", "date NOT NULL"),
    ("l_receiptdate", "date NOT NULL"),
    ("l_shipinstruct", "char(25) NOT NULL"),
    ("l_shipmode", "char(10) NOT NULL"),
    ("l_comment", "varchar(44) NOT NULL"),
];

pub fn write(rows: u64, out: &mut dyn Values) -> std::io::Result<()> {
    // A larger table is that of a larger scale factor; the number of lines of an order varies, so one more is asked.
    let scale = if rows <= ROWS { 1.0 } else { (rows / ROWS + 1) as f64 };
    let rows = usize::try_from(rows).map_err(std::io::Error::other)?;
    for item in LineItemGenerator::new(scale, 1, 1).into_iter().take(rows) {
        out.begin(COLUMNS.len() as i16);
        out.int8(item.l_orderkey);
        out.int8(item.l_partkey);
        out.int8(item.l_suppkey);
        out.int4(item.l_linenumber);
        out.hundredths(item.l_quantity * 100);
        out.hundredths(item.l_extendedprice.into_inner());
        out.hundredths(item.l_discount.into_inner());
        out.hundredths(item.l_tax.into_inner());
        out.text(item.l_returnflag);
        out.text(item.l_linestatus);
        out.date(item.l_shipdate.to_unix_epoch());
        out.date(item.l_commitdate.to_unix_epoch());
        out.date(item.l_receiptdate.to_unix_epoch());
        out.text(&format!("{:<25}", item.l_shipinstruct));
        out.text(&format!("{:<10}", item.l_shipmode));
        out.text(item.l_comment);
        out.end()?;
    }
    Ok(())
}
