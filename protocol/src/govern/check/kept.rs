//! Rules as bytes, for who has to hold on to those that something began with: their lists of codes are in them, whatever
//! becomes of the files. Never sent to anybody.

use super::{Check, Pattern, Rule, Severity};
use crate::codec;
use minicbor::{Decode, Encode};
use std::sync::Arc;

#[derive(Encode, Decode)]
#[cbor(map)]
struct KeptCheck {
    #[n(0)]
    column: String,
    /// A row that fails moves, and is counted.
    #[n(1)]
    counts: bool,
    #[n(2)]
    rules: Vec<KeptRule>,
}

#[derive(Encode, Decode)]
enum KeptRule {
    #[n(0)]
    Required,
    #[n(1)]
    Length(#[n(0)] u64, #[n(1)] u64),
    #[n(2)]
    Range(#[n(0)] Option<String>, #[n(1)] Option<String>),
    #[n(3)]
    Pattern(#[n(0)] String),
    #[n(4)]
    Codes(#[n(0)] Vec<String>),
    #[n(5)]
    IdCard,
    #[n(6)]
    CreditCode,
}

/// The rules as bytes.
pub fn keep(checks: &[Check]) -> Vec<u8> {
    let rule = |rule: &Rule| match rule {
        Rule::Required => KeptRule::Required,
        Rule::Length(min, max) => KeptRule::Length(*min, *max),
        Rule::Range(min, max) => KeptRule::Range(min.clone(), max.clone()),
        Rule::Pattern(pattern) => KeptRule::Pattern(pattern.text().to_owned()),
        Rule::Codes(codes) => KeptRule::Codes(codes.iter().cloned().collect()),
        Rule::IdCard => KeptRule::IdCard,
        Rule::CreditCode => KeptRule::CreditCode,
    };
    let check = |check: &Check| KeptCheck {
        column: check.column.clone(),
        counts: check.severity == Severity::Count,
        rules: check.rules.iter().map(rule).collect(),
    };
    codec::encode(&checks.iter().map(check).collect::<Vec<_>>())
}

/// The same rules again. None of bytes that are none.
pub fn kept(bytes: &[u8]) -> Option<Vec<Check>> {
    let rule = |rule: KeptRule| -> Option<Rule> {
        Some(match rule {
            KeptRule::Required => Rule::Required,
            KeptRule::Length(min, max) => Rule::Length(min, max),
            KeptRule::Range(min, max) => Rule::Range(min, max),
            KeptRule::Pattern(text) => Rule::Pattern(Pattern::new(&text).ok()?),
            KeptRule::Codes(codes) => Rule::Codes(Arc::new(codes.into_iter().collect())),
            KeptRule::IdCard => Rule::IdCard,
            KeptRule::CreditCode => Rule::CreditCode,
        })
    };
    let check = |check: KeptCheck| -> Option<Check> {
        let rules = check.rules.into_iter().map(rule).collect::<Option<_>>()?;
        let severity = if check.counts { Severity::Count } else { Severity::Quarantine };
        Some(Check { column: check.column, rules, severity })
    };
    let all: Vec<KeptCheck> = codec::decode(bytes, bytes.len()).ok()?;
    all.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_the_same_again_with_their_codes() {
        let rules = vec![
            Rule::Required,
            Rule::Length(1, 3),
            Rule::Range(Some("-1".to_owned()), None),
            Rule::Pattern(Pattern::new("a|b").unwrap()),
            Rule::Codes(Arc::new(["1", "男"].map(str::to_owned).into())),
            Rule::IdCard,
            Rule::CreditCode,
        ];
        let checks = [
            Check { column: "列".to_owned(), rules, severity: Severity::Quarantine },
            Check { column: "b".to_owned(), rules: vec![Rule::Required], severity: Severity::Count },
        ];
        let again = kept(&keep(&checks)).unwrap();
        assert_eq!(format!("{again:?}"), format!("{checks:?}"));
        assert!(kept(&keep(&[])).unwrap().is_empty());
        assert!(kept(b"").is_none() && kept(&[0xff]).is_none());
    }
}
