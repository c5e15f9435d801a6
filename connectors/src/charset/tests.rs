//! GB 18030 whole, in all its editions, against tables of others; GBK; what is refused, and where.

use super::*;
use posthouse_protocol::codec::sha256;
use proptest::prelude::*;

const EDITIONS: [Charset; 3] =
    [Charset::Gb18030(Edition::Of2000), Charset::Gb18030(Edition::Of2005), Charset::Gb18030(Edition::Of2022)];

fn characters() -> impl Iterator<Item = char> {
    '\0'..=char::MAX
}

fn decoded(charset: Charset, bytes: &[u8]) -> Option<String> {
    charset.decode(bytes).ok().map(Cow::into_owned)
}

#[test]
fn every_character_has_one_code_of_gb18030_and_reads_back_from_it() {
    for charset in EDITIONS {
        let mut codes = Vec::new();
        for character in characters() {
            let text = character.to_string();
            let code = charset.encode(&text).unwrap().into_owned();
            assert!(matches!(code.len(), 1 | 2 | 4), "{code:02x?}");
            assert_eq!(decoded(charset, &code).as_deref(), Some(text.as_str()), "{} {code:02x?}", charset.name());
            codes.push(code);
        }
        assert_eq!(codes.len(), 0x11_0000 - 0x800);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 0x11_0000 - 0x800, "two characters have one code");
    }
}

#[test]
fn every_code_of_gb18030_is_one_character_that_is_written_as_it() {
    for charset in EDITIONS {
        let mut whole = 0;
        let mut see = |code: &[u8]| {
            if let Some(text) = decoded(charset, code) {
                whole += 1;
                assert_eq!(text.chars().count(), 1, "{code:02x?}");
                assert_eq!(charset.encode(&text).unwrap(), code, "{}", charset.name());
            }
        };
        for first in 0..=0xff {
            see(&[first]);
            for second in 0x40..=0xff {
                // Two characters of one byte are not one of two.
                if first >= 0x80 {
                    see(&[first, second]);
                }
            }
        }
        for a in 0x80..=0xff {
            for b in b'0'..=b'9' {
                for c in 0x80..=0xff {
                    for d in b'0'..=b'9' {
                        see(&[a, b, c, d]);
                    }
                }
            }
        }
        assert_eq!(whole, 0x11_0000 - 0x800, "every character, and nothing else");
    }
}

/// SHA-256 of the codes of all characters in their order: of 2000 as Python's own codec has them, the other two from
/// that and the standard's lists of what changed places.
#[test]
fn the_table_is_the_one_that_others_have() {
    for (charset, expected) in EDITIONS.into_iter().zip([
        "764df5e1bec4261b6eaf68b7344e44b48661ac1ca27b824d8dfc72e41ccb210d",
        "6028855ef9543218873f0a520bcfe50dfe174b5b0636890c115c160f08baa8e5",
        "961df022f9134557149ea760041fc82072b770706237083f76abd752e5ea3170",
    ]) {
        let text: String = characters().collect();
        assert_eq!(hex::encode(sha256(&charset.encode(&text).unwrap())), expected, "{}", charset.name());
    }
}

#[test]
fn what_the_editions_changed_is_read_as_each_has_it() {
    let [of_2000, of_2005, of_2022] = EDITIONS;
    for (code, texts) in [
        (&b"\xa8\xbc"[..], ["\u{e7c7}", "ḿ", "ḿ"]),
        (b"\x81\x35\xf4\x37", ["ḿ", "\u{e7c7}", "\u{e7c7}"]),
        (b"\xa6\xd9", ["\u{e78d}", "\u{e78d}", "︐"]),
        (b"\x84\x31\x82\x36", ["︐", "︐", "\u{e78d}"]),
        (b"\xfe\x59", ["\u{e81e}", "\u{e81e}", "龴"]),
        (b"\x82\x35\x90\x37", ["龴", "龴", "\u{e81e}"]),
        // The six that stay where they are; their characters have codes of four bytes.
        (b"\xfe\x51", ["\u{e816}"; 3]),
        (b"\xfe\x91", ["\u{e855}"; 3]),
        (b"\x95\x32\x90\x31", ["𠂇"; 3]),
        (b"\x96\x35\xb6\x30", ["𤇾"; 3]),
    ] {
        let found = [of_2000, of_2005, of_2022].map(|charset| decoded(charset, code).unwrap());
        assert_eq!(found, texts, "{code:02x?}");
    }
}

#[test]
fn the_zones_for_private_use_are_the_standards() {
    for charset in [Charset::Gbk, EDITIONS[2]] {
        for (code, character) in [
            (b"\xaa\xa1", '\u{e000}'),
            (b"\xaf\xfe", '\u{e233}'),
            (b"\xf8\xa1", '\u{e234}'),
            (b"\xfe\xfe", '\u{e4c5}'),
            (b"\xa1\x40", '\u{e4c6}'),
            (b"\xa7\xa0", '\u{e765}'),
            // What web browsers take for a blank.
            (b"\xa3\xa0", '\u{e5e5}'),
        ] {
            let text = character.to_string();
            assert_eq!(decoded(charset, code).as_deref(), Some(text.as_str()), "{code:02x?}");
            assert_eq!(&*charset.encode(&text).unwrap(), code);
        }
        // All of them, in their order.
        let zones = ('\u{e000}'..='\u{e765}').collect::<String>();
        let bytes = charset.encode(&zones).unwrap();
        assert_eq!(bytes.len(), 2 * (0xe765 - 0xe000 + 1));
        assert_eq!(charset.decode(&bytes).unwrap(), zones);
    }
}

#[test]
fn every_code_of_gbk_reads_back_but_the_one_of_the_euro_sign_in_two_bytes() {
    let (mut whole, mut others) = (0, Vec::new());
    for lead in 0x80..=0xff {
        for trail in 0..=0xff {
            let code = [lead, trail];
            let Some(text) = decoded(Charset::Gbk, &code).filter(|text| text.chars().count() == 1) else { continue };
            whole += 1;
            let is_same = *Charset::Gbk.encode(&text).unwrap() == code;
            match is_same {
                true => assert_eq!(decoded(EDITIONS[2], &code), Some(text), "GBK is a part of GB 18030"),
                false => others.push((code, text)),
            }
        }
    }
    assert_eq!(whole, 126 * 190);
    assert_eq!(others, [([0xa2, 0xe3], "€".to_owned())]);
    assert_eq!(Charset::Gbk.decode(b"\x80").unwrap(), "€");
    assert_eq!(&*Charset::Gbk.encode("12€").unwrap(), b"12\x80");
    assert_eq!(&*EDITIONS[2].encode("12€").unwrap(), b"12\xa2\xe3");
}

#[test]
fn bytes_that_are_no_characters_are_refused_at_their_place() {
    let gb18030 = EDITIONS[2];
    for (charset, bytes, at) in [
        (Charset::Utf8, &b"ab\xcd\xf5"[..], 2),
        (Charset::Gbk, b"\xcd\xf5\xff", 2),
        (Charset::Gbk, b"a\xcd", 1),
        (Charset::Gbk, b"\xcd\x7f", 0),
        (Charset::Gbk, b"\xcd\x39", 0),
        (Charset::Gbk, b"\xcd\xff", 0),
        (Charset::Gbk, b"ok\x81\x30\x81\x30", 2),
        // 你 in UTF-8: one character of GBK, and half of another.
        (Charset::Gbk, "你".as_bytes(), 2),
        (gb18030, b"\x80", 0),
        (gb18030, b"\xff\xff", 0),
        (gb18030, b"\x81\x30\x81", 0),
        (gb18030, b"\x81\x30\x81\x40", 0),
        (gb18030, b"\x81\x30\xff\x30", 0),
        // Behind the first plane, and behind the last.
        (gb18030, b"\x84\x31\xa4\x40", 0),
        (gb18030, b"\xcd\xf5\x84\x31\xa5\x30", 2),
        (gb18030, b"\xe3\x32\x9a\x36", 0),
    ] {
        assert_eq!(charset.decode(bytes), Err(Undecodable { charset, at }), "{bytes:02x?}");
    }
    assert_eq!(gb18030.decode(b"\x84\x31\xa4\x39").unwrap(), "\u{ffff}");
    assert_eq!(gb18030.decode(b"\xe3\x32\x9a\x35").unwrap(), "\u{10ffff}");
    let said = Charset::Gbk.decode(b"a\xff").unwrap_err().to_string();
    assert_eq!(said, "it has bytes that are no characters of GBK, the first at byte 1");
}

#[test]
fn a_character_that_gbk_lacks_is_refused_by_name_and_told_by_an_escape() {
    for character in ['é', 'ß', '한', '\u{e78d}', '𠮷', '😀'] {
        // é is one of pinyin's vowels.
        let is_there = character == 'é';
        assert_eq!(Charset::Gbk.encode(&format!("王{character}")).is_ok(), is_there, "{character}");
    }
    let refused = Charset::Gbk.encode("王😀").unwrap_err();
    assert_eq!(refused.to_string(), "it has the character U+1F600, which gbk lacks");
    let mut out = b"before".to_vec();
    assert!(Charset::Gbk.encode_into("王😀", &mut out).is_err());
    assert_eq!(out, b"before");
    assert_eq!(Charset::Gbk.escaped("王"), "王");
    let json = r#"{"name":"王😀한"}"#;
    let escaped = Charset::Gbk.escaped(json);
    assert_eq!(escaped, r#"{"name":"王\ud83d\ude00\ud55c"}"#);
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&escaped), value(json));
    assert!(Charset::Gbk.encode(&escaped).is_ok());
}

#[test]
fn a_charset_is_named_in_the_configuration() {
    for charset in EDITIONS.into_iter().chain([Charset::Utf8, Charset::Gbk]) {
        assert_eq!(Charset::parse(charset.name()), Ok(charset));
    }
    assert_eq!(Charset::parse("GB18030-2022"), Ok(EDITIONS[2]));
    assert_eq!(Charset::parse("GBK"), Ok(Charset::Gbk));
    assert!(Charset::parse("cp936").unwrap_err().contains("\"gbk\""));
    assert!(Charset::parse("latin-1").unwrap_err().contains("gb18030-2005"));
}

#[test]
fn what_is_utf8_or_ascii_already_is_not_copied() {
    for (charset, text) in [(Charset::Utf8, "王 abc"), (Charset::Gbk, "abc"), (EDITIONS[2], "abc")] {
        assert!(matches!(charset.decode(text.as_bytes()), Ok(Cow::Borrowed(_))));
        assert!(matches!(charset.encode(text), Ok(Cow::Borrowed(_))));
    }
}

proptest! {
    #[test]
    fn text_reads_back(text in any::<String>(), edition in 0usize..3) {
        let charset = EDITIONS[edition];
        let bytes = charset.encode(&text).unwrap();
        prop_assert_eq!(charset.decode(&bytes).unwrap(), text.as_str());
    }

    /// Also bytes that nobody wrote as text: they are the same when written again, or they are refused.
    #[test]
    fn bytes_are_refused_or_written_again_as_they_were(
        bytes in prop::collection::vec(prop_oneof![Just(0x81u8), Just(0xa2), Just(0xfe), 0x30u8..=0x39, any::<u8>()], 0..24),
        edition in 0usize..4,
    ) {
        let charset = EDITIONS.get(edition).copied().unwrap_or(Charset::Gbk);
        if let Ok(text) = charset.decode(&bytes) {
            let again = charset.encode(&text).unwrap();
            let euro = charset == Charset::Gbk && bytes.windows(2).any(|pair| pair == [0xa2, 0xe3]);
            prop_assert!(euro || *again == *bytes);
        }
    }

    #[test]
    fn pieces_of_whole_characters_are_the_whole(first in any::<String>(), second in any::<String>()) {
        let charset = EDITIONS[2];
        let whole = charset.encode(&format!("{first}{second}")).unwrap().into_owned();
        let pieces = [charset.encode(&first).unwrap(), charset.encode(&second).unwrap()].concat();
        prop_assert_eq!(whole, pieces);
    }
}
