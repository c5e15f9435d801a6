//! The demonstration: exit 0, and exactly the planted findings.

use crate::support::posthouse;

#[test]
fn the_demo_settles_its_transfers_and_finds_exactly_what_was_planted() {
    let ran = posthouse(&["demo", "--once", "--json"]).ok();
    let end = ran.json();
    let transfers = end["transfers"].as_array().expect("transfers");
    let with = |state: &str| transfers.iter().filter(|transfer| transfer["state"] == state).count();
    assert!(with("settled") >= 3, "{end}");
    assert_eq!(with("refused"), 1, "{end}");
    assert_eq!(end["verified"], true, "{end}");
    assert_eq!(transfers.iter().filter_map(|transfer| transfer["quarantined"].as_u64()).max(), Some(1), "{end}");
    let findings = end["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{end}");
    assert_eq!(findings[0]["verdict"], "mismatched", "{end}");
    assert_eq!(findings[0]["party"], "consumer", "{end}");
    assert_eq!(findings[0]["keys"].as_array().map(Vec::len), Some(1), "{end}");
}
