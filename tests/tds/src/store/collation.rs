//! Collations: how texts compare, and the code page of those that are not Unicode.
//! Order is by folded code points, which is none of SQL Server's linguistic orders: equality is what counts here.

use encoding_rs::Encoding;
use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Copy)]
pub struct Collation {
    pub name: &'static str,
    lcid: u16,
    flags: u8,
    sort_id: u8,
    pub encoding: &'static Encoding,
}

const IGNORE_CASE: u8 = 0x01;
const IGNORE_KANA: u8 = 0x04;
const IGNORE_WIDTH: u8 = 0x08;
const BINARY: u8 = 0x10;
const BINARY2: u8 = 0x20;
const CI: u8 = IGNORE_CASE | IGNORE_KANA | IGNORE_WIDTH;
const CS: u8 = IGNORE_KANA | IGNORE_WIDTH;

static ALL: &[Collation] = &[
    Collation { name: "Chinese_PRC_CI_AS", lcid: 0x0804, flags: CI, sort_id: 0, encoding: encoding_rs::GBK },
    Collation { name: "Chinese_PRC_CS_AS", lcid: 0x0804, flags: CS, sort_id: 0, encoding: encoding_rs::GBK },
    Collation { name: "Chinese_PRC_BIN", lcid: 0x0804, flags: BINARY, sort_id: 0, encoding: encoding_rs::GBK },
    Collation { name: "Chinese_PRC_BIN2", lcid: 0x0804, flags: BINARY2, sort_id: 0, encoding: encoding_rs::GBK },
    Collation {
        name: "SQL_Latin1_General_CP1_CI_AS",
        lcid: 0x0409,
        flags: CI,
        sort_id: 52,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "SQL_Latin1_General_CP1_CS_AS",
        lcid: 0x0409,
        flags: CS,
        sort_id: 51,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "Latin1_General_CI_AS",
        lcid: 0x0409,
        flags: CI,
        sort_id: 0,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "Latin1_General_CS_AS",
        lcid: 0x0409,
        flags: CS,
        sort_id: 0,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "Latin1_General_BIN",
        lcid: 0x0409,
        flags: BINARY,
        sort_id: 0,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "Latin1_General_BIN2",
        lcid: 0x0409,
        flags: BINARY2,
        sort_id: 0,
        encoding: encoding_rs::WINDOWS_1252,
    },
    Collation {
        name: "Latin1_General_100_BIN2",
        lcid: 0x0409,
        flags: BINARY2,
        sort_id: 0,
        encoding: encoding_rs::WINDOWS_1252,
    },
];

impl Collation {
    pub fn named(name: &str) -> Option<&'static Collation> {
        ALL.iter().find(|collation| collation.name.eq_ignore_ascii_case(name))
    }

    /// What a database has that says nothing: a server in China.
    pub fn usual() -> &'static Collation {
        &ALL[0]
    }

    /// By the five bytes of type information. Several names may share them: the first one stands for all.
    pub fn by_wire(bytes: &[u8]) -> Option<&'static Collation> {
        ALL.iter().find(|collation| collation.wire() == bytes)
    }

    pub fn binary(&self) -> bool {
        self.flags & (BINARY | BINARY2) != 0
    }

    pub fn case_sensitive(&self) -> bool {
        self.flags & IGNORE_CASE == 0
    }

    pub fn code_page(&self) -> i64 {
        if self.encoding == encoding_rs::GBK { 936 } else { 1252 }
    }

    /// The five bytes that stand for it in type information.
    pub fn wire(&self) -> [u8; 5] {
        let [low, high] = self.lcid.to_le_bytes();
        [low, high, (self.flags & 0x0f) << 4, self.flags >> 4, self.sort_id]
    }

    /// Two texts are equal when this is: trailing blanks count for nothing.
    pub fn fold(&self, text: &str) -> String {
        if self.binary() {
            return text.trim_end_matches(' ').to_owned();
        }
        let mut folded = String::with_capacity(text.len());
        for c in text.chars() {
            let mut c = c;
            if self.flags & IGNORE_WIDTH != 0 {
                c = half_width(c);
            }
            if self.flags & IGNORE_KANA != 0 && ('\u{3041}'..='\u{3096}').contains(&c) {
                c = char::from_u32(u32::from(c) + 0x60).unwrap_or(c);
            }
            if self.flags & IGNORE_CASE != 0 {
                folded.extend(c.to_lowercase());
            } else {
                folded.push(c);
            }
        }
        folded.truncate(folded.trim_end_matches(' ').len());
        folded
    }

    /// In this code page, a question mark for each character that it lacks, as SQL Server does without a word.
    pub fn encode<'a>(&self, text: &'a str) -> Cow<'a, [u8]> {
        if text.is_ascii() {
            return Cow::Borrowed(text.as_bytes());
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut buffer = [0_u8; 4];
        for c in text.chars() {
            let (encoded, _, lossy) = self.encoding.encode(c.encode_utf8(&mut buffer));
            if lossy {
                bytes.push(b'?');
            } else {
                bytes.extend_from_slice(&encoded);
            }
        }
        Cow::Owned(bytes)
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        // Four-byte forms belong to GB18030, and code page 936 has none of them.
        if self.encoding == encoding_rs::GBK && four_bytes(bytes) {
            return None;
        }
        self.encoding.decode_without_bom_handling_and_without_replacement(bytes)
    }
}

impl PartialEq for Collation {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Collation {}

impl fmt::Debug for Collation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    }
}

fn four_bytes(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if *first < 0x81 {
            rest = tail;
            continue;
        }
        match tail {
            [0x30..=0x39, ..] => return true,
            [_, after @ ..] => rest = after,
            [] => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_width_and_trailing_blanks_count_only_where_a_collation_says_so() {
        let usual = Collation::usual();
        let binary = Collation::named("Latin1_General_100_BIN2").expect("known");
        assert_eq!(usual.fold("Ａbc  "), usual.fold("aBC"));
        assert_ne!(binary.fold("Abc"), binary.fold("abc"));
        assert_eq!(binary.fold("abc "), binary.fold("abc"));
        assert_ne!(usual.fold(" abc"), usual.fold("abc"));
    }

    #[test]
    fn a_chinese_code_page_is_gbk() {
        let usual = Collation::usual();
        assert_eq!(usual.encode("驿站").as_ref(), [0xe6, 0xe4, 0xd5, 0xbe]);
        assert_eq!(usual.decode(&[0xe6, 0xe4, 0xd5, 0xbe]).as_deref(), Some("驿站"));
        assert_eq!(usual.encode("a😀b").as_ref(), b"a?b");
        assert_eq!(usual.decode(&[0x81, 0x30, 0x81, 0x30]), None);
        assert_eq!(usual.wire(), [0x04, 0x08, 0xd0, 0x00, 0x00]);
        let latin = Collation::named("sql_latin1_general_cp1_ci_as").expect("known");
        assert_eq!(latin.wire(), [0x09, 0x04, 0xd0, 0x00, 0x34]);
    }
}
