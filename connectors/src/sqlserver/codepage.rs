//! Texts of `char` and `varchar` columns: bytes of the code page that the column's collation has, or of the charset
//! that the operator names instead. Texts of `nchar` and `nvarchar`: UTF-16. Exactly, or not at all.

use crate::charset::{Charset, Edition};
use encoding_rs::{
    BIG5, EUC_KR, EncoderResult, Encoding, SHIFT_JIS, WINDOWS_874, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252,
    WINDOWS_1253, WINDOWS_1254, WINDOWS_1255, WINDOWS_1256, WINDOWS_1257, WINDOWS_1258,
};
use std::borrow::Cow;

/// What the bytes of a column are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Page {
    Ours(Charset),
    Other(&'static Encoding),
}

impl Page {
    /// Of a code page by Windows' number; none of one that cannot be read exactly here.
    pub(super) fn of(number: i64) -> Option<Self> {
        Some(match number {
            936 => Self::Ours(Charset::Gbk),
            54_936 => Self::Ours(Charset::Gb18030(Edition::Of2022)),
            65_001 => Self::Ours(Charset::Utf8),
            874 => Self::Other(WINDOWS_874),
            932 => Self::Other(SHIFT_JIS),
            949 => Self::Other(EUC_KR),
            950 => Self::Other(BIG5),
            1_250 => Self::Other(WINDOWS_1250),
            1_251 => Self::Other(WINDOWS_1251),
            1_252 => Self::Other(WINDOWS_1252),
            1_253 => Self::Other(WINDOWS_1253),
            1_254 => Self::Other(WINDOWS_1254),
            1_255 => Self::Other(WINDOWS_1255),
            1_256 => Self::Other(WINDOWS_1256),
            1_257 => Self::Other(WINDOWS_1257),
            1_258 => Self::Other(WINDOWS_1258),
            _ => return None,
        })
    }

    pub(super) fn is_utf8(self) -> bool {
        self == Self::Ours(Charset::Utf8)
    }

    /// None where bytes are no characters of it.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Ours(charset) => charset.decode(bytes).ok(),
            Self::Other(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
        }
    }

    /// A text as its bytes, where they read back as the same text; else none.
    pub(super) fn encode(self, text: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Ours(charset) => charset.encode(text).ok(),
            Self::Other(_) if text.is_ascii() => Some(Cow::Borrowed(text.as_bytes())),
            Self::Other(encoding) => {
                let bytes = encode(encoding, text)?;
                self.decode(&bytes).is_some_and(|back| back == text).then_some(Cow::Owned(bytes))
            }
        }
    }

    /// Whether the driver, which has tables made for web pages, makes the same bytes of a text by what it takes for the
    /// column's encoding: for Chinese collations that is GB 18030, with four bytes for what GBK lacks and two others for
    /// the euro sign.
    pub(super) fn is_said_alike(self, driver: Option<&'static Encoding>, text: &str) -> bool {
        text.is_ascii() || driver.is_some_and(|driver| encode(driver, text).as_deref() == self.encode(text).as_deref())
    }
}

/// None where there is a character that the encoding lacks.
fn encode(encoding: &'static Encoding, text: &str) -> Option<Vec<u8>> {
    let mut encoder = encoding.new_encoder();
    let room = encoder.max_buffer_length_from_utf8_without_replacement(text.len())?;
    let mut bytes = Vec::with_capacity(room);
    let (result, _) = encoder.encode_from_utf8_to_vec_without_replacement(text, &mut bytes, true);
    (result == EncoderResult::InputEmpty).then_some(bytes)
}

/// Appends what UTF-16 bytes (the lower first) say; false where they are no characters.
pub(super) fn read_utf16(bytes: &[u8], out: &mut String) -> bool {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return false;
    }
    out.reserve(units.len());
    for decoded in char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))) {
        match decoded {
            Ok(character) => out.push(character),
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(page: Page, text: &str) -> Option<usize> {
        page.encode(text).map(|bytes| bytes.len())
    }

    #[test]
    fn texts_of_a_chinese_collation_read_back_or_have_no_place() {
        let gbk = Page::of(936).unwrap();
        for (text, bytes) in [("", 0), ("plain", 5), ("驿站", 4), ("镕é", 4), ("€", 1)] {
            assert_eq!(length(gbk, text), Some(bytes), "{text}");
        }
        for text in ["𠮷", "😀", "x\u{301}"] {
            assert_eq!(length(gbk, text), None, "{text}");
        }
        assert_eq!(gbk.decode(&[0xd6, 0xd0]).as_deref(), Some("中"));
        assert_eq!(gbk.decode(&[0xd6]), None, "half of a character");
    }

    #[test]
    fn what_the_driver_says_otherwise_is_known() {
        let gbk = Page::of(936).unwrap();
        let driver = Some(encoding_rs::GB18030);
        assert!(gbk.is_said_alike(driver, "驿站 plain") && gbk.is_said_alike(None, "plain"));
        assert!(!gbk.is_said_alike(driver, "€"), "0x80 in the code page");
        assert!(!gbk.is_said_alike(driver, "𠮷"), "four bytes that are no character there");
        assert!(!gbk.is_said_alike(None, "驿站") && !gbk.is_said_alike(Some(WINDOWS_1252), "驿站"));
    }

    #[test]
    fn other_code_pages_are_exact_too() {
        let latin = Page::of(1_252).unwrap();
        assert_eq!((length(latin, "é€"), length(latin, "中")), (Some(2), None));
        assert_eq!(latin.decode(&[0xe9]).as_deref(), Some("é"));
        assert_eq!(length(Page::of(950).unwrap(), "驛站"), Some(4));
        assert!(Page::of(65_001).unwrap().is_utf8());
        assert_eq!(Page::of(437), None);
    }

    #[test]
    fn half_of_a_character_is_none() {
        let read = |bytes: &[u8]| {
            let mut out = String::new();
            read_utf16(bytes, &mut out).then_some(out)
        };
        assert_eq!(read(&[0x2d, 0x4e, 0x42, 0xd8, 0xb7, 0xdf]).as_deref(), Some("中𠮷"));
        assert_eq!(read(&[0x42, 0xd8]), None);
        assert_eq!(read(&[0x2d]), None);
        assert_eq!(read(&[0, 0]).as_deref(), Some("\0"));
    }
}
