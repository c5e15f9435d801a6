//! The command line as a person meets it: exit codes, errors, both languages.

use crate::support::posthouse;

#[test]
fn a_wrong_word_is_a_usage_error_with_a_code() {
    let ran = posthouse(&["nod"]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.stderr.contains("PH1003"), "{ran:#?}");
    assert!(ran.stdout.is_empty(), "{ran:#?}");
}

#[test]
fn help_speaks_both_languages() {
    let english = posthouse(&["--help"]).ok();
    let chinese = posthouse(&["--help", "--lang", "zh"]).ok();
    assert!(english.stdout.contains("receipts"));
    assert!(chinese.stdout.contains("回执"));
}

#[test]
fn explain_prints_a_page_offline() {
    let page = posthouse(&["explain", "PH3001"]).ok();
    assert!(page.stdout.starts_with("# PH3001"), "{page:#?}");
    let page = posthouse(&["explain", "PH3001", "--lang", "zh"]).ok();
    assert!(page.stdout.contains("授权"), "{page:#?}");
}
