//! The codes of GB 18030 in both directions. Codes of two bytes are those of the WHATWG's index, which encoding_rs
//! carries (0.8.44: of the index since it took in GB 18030-2022, and before that the edition of 2005); codes of four
//! bytes within the first plane are all other characters of it in their order, beyond it a calculation.
//! The index is made for web pages, and differs from the standard in three things, which are put right here: 0xA3A0 is
//! read as a blank there; the eighteen codes of four bytes that an edition gives to private-use characters are read as
//! the characters that two bytes stand for too; and such private-use characters are written as those.

use super::Edition;
use encoding_rs::GB18030;
use std::sync::OnceLock;

pub(super) struct Table {
    /// By lead and trail byte; 0 where there is none.
    two: Vec<u16>,
    /// By number, within the first plane.
    four: Vec<u16>,
    /// By character of the first plane: two bytes, or the number of four behind [`FOUR`]; 0 for none.
    codes: Vec<u32>,
}

/// A character's code.
pub(super) enum Code {
    None,
    Two([u8; 2]),
    Four([u8; 4]),
}

impl Table {
    /// Made once for each edition that is used; about 400 KB.
    pub(super) fn of(edition: Edition) -> &'static Self {
        static TABLES: [OnceLock<Table>; 3] = [const { OnceLock::new() }; 3];
        let [first, second, third] = &TABLES;
        let table = match edition {
            Edition::Of2000 => first,
            Edition::Of2005 => second,
            Edition::Of2022 => third,
        };
        table.get_or_init(|| Self::make(edition))
    }

    fn make(edition: Edition) -> Self {
        let mut two = characters((0..TWO_BYTES).map(two_bytes));
        let mut four = characters((0..FOUR_BYTES).map(four_bytes));
        if let Some(place) = two_place([0xa3, 0xa0]).and_then(|place| two.get_mut(place)) {
            *place = 0xe5e5;
        }
        for (since, code, character, private) in EXCHANGED {
            let (here, there) = if edition >= since { (character, private) } else { (private, character) };
            // In four bytes stands whichever of them two bytes do not.
            if let Some(place) = four.iter_mut().find(|found| **found == character || **found == private) {
                *place = there;
            }
            if let Some(place) = two_place(code).and_then(|place| two.get_mut(place)) {
                *place = here;
            }
        }
        let mut codes = vec![0; 0x1_0000];
        let mut set = |character: u16, code: u32| {
            if let Some(place) = codes.get_mut(usize::from(character)).filter(|_| character != 0) {
                *place = code;
            }
        };
        for (number, character) in (0..).zip(&four) {
            set(*character, FOUR | number);
        }
        for (number, character) in (0..).zip(&two) {
            let [lead, trail] = two_bytes(number);
            set(*character, u32::from(u16::from_be_bytes([lead, trail])));
        }
        Self { two, four, codes }
    }

    /// The character of a code of two bytes.
    pub(super) fn two(&self, code: [u8; 2]) -> Option<char> {
        let character = self.two.get(two_place(code)?).copied().filter(|character| *character != 0)?;
        char::from_u32(u32::from(character))
    }

    /// The character of a code of four bytes.
    pub(super) fn four(&self, code: [u8; 4]) -> Option<char> {
        let number = four_number(code)?;
        match self.four.get(number as usize) {
            Some(0) => None,
            Some(character) => char::from_u32(u32::from(*character)),
            None => char::from_u32(number.checked_sub(PLANES)?.checked_add(0x1_0000)?),
        }
    }

    pub(super) fn code(&self, character: char) -> Code {
        let character = u32::from(character);
        if let Some(above) = character.checked_sub(0x1_0000) {
            return Code::Four(four_bytes(PLANES + above));
        }
        match self.codes.get(character as usize).copied().unwrap_or(0) {
            0 => Code::None,
            number if number & FOUR != 0 => Code::Four(four_bytes(number & !FOUR)),
            two => Code::Two([(two >> 8) as u8, two as u8]),
        }
    }
}

/// What encoding_rs reads of codes that all have one character of the first plane; none of them where it does not.
fn characters<const N: usize>(codes: impl Iterator<Item = [u8; N]>) -> Vec<u16> {
    let bytes: Vec<u8> = codes.flatten().collect();
    let text = GB18030.decode_without_bom_handling_and_without_replacement(&bytes).unwrap_or_default();
    text.chars().map(|character| u16::try_from(u32::from(character)).unwrap_or(0)).collect()
}

fn two_bytes(number: u32) -> [u8; 2] {
    let (lead, trail) = (number / TRAILS, number % TRAILS);
    [(0x81 + lead) as u8, (trail + if trail < 0x3f { 0x40 } else { 0x41 }) as u8]
}

fn two_place([lead, trail]: [u8; 2]) -> Option<usize> {
    let lead = lead.checked_sub(0x81).filter(|lead| *lead < 126)?;
    let trail = match trail {
        0x40..=0x7e => trail - 0x40,
        0x80..=0xfe => trail - 0x41,
        _ => return None,
    };
    Some(usize::from(lead) * TRAILS as usize + usize::from(trail))
}

fn four_bytes(number: u32) -> [u8; 4] {
    let digit = |unit: u32, of: u32, first: u8| first + (number / unit % of) as u8;
    [0x81 + (number / 12_600) as u8, digit(1_260, 10, b'0'), digit(10, 126, 0x81), digit(1, 10, b'0')]
}

fn four_number(code: [u8; 4]) -> Option<u32> {
    let place = |byte: u8, first: u8, of: u8| byte.checked_sub(first).filter(|place| *place < of).map(u32::from);
    let [a, b, c, d] = code;
    let (a, b) = (place(a, 0x81, 126)?, place(b, b'0', 10)?);
    let (c, d) = (place(c, 0x81, 126)?, place(d, b'0', 10)?);
    Some(((a * 10 + b) * 126 + c) * 10 + d)
}

/// Codes whose character an edition has changed for what was a private-use character before: the code of two bytes, the
/// character, the private-use character. The other of the two stands in four bytes.
const EXCHANGED: [(Edition, [u8; 2], u16, u16); 19] = [
    (Edition::Of2005, [0xa8, 0xbc], 0x1e3f, 0xe7c7),
    (Edition::Of2022, [0xa6, 0xd9], 0xfe10, 0xe78d),
    (Edition::Of2022, [0xa6, 0xda], 0xfe12, 0xe78e),
    (Edition::Of2022, [0xa6, 0xdb], 0xfe11, 0xe78f),
    (Edition::Of2022, [0xa6, 0xdc], 0xfe13, 0xe790),
    (Edition::Of2022, [0xa6, 0xdd], 0xfe14, 0xe791),
    (Edition::Of2022, [0xa6, 0xde], 0xfe15, 0xe792),
    (Edition::Of2022, [0xa6, 0xdf], 0xfe16, 0xe793),
    (Edition::Of2022, [0xa6, 0xec], 0xfe17, 0xe794),
    (Edition::Of2022, [0xa6, 0xed], 0xfe18, 0xe795),
    (Edition::Of2022, [0xa6, 0xf3], 0xfe19, 0xe796),
    (Edition::Of2022, [0xfe, 0x59], 0x9fb4, 0xe81e),
    (Edition::Of2022, [0xfe, 0x61], 0x9fb5, 0xe826),
    (Edition::Of2022, [0xfe, 0x66], 0x9fb6, 0xe82b),
    (Edition::Of2022, [0xfe, 0x67], 0x9fb7, 0xe82c),
    (Edition::Of2022, [0xfe, 0x6d], 0x9fb8, 0xe832),
    (Edition::Of2022, [0xfe, 0x7e], 0x9fb9, 0xe843),
    (Edition::Of2022, [0xfe, 0x90], 0x9fba, 0xe854),
    (Edition::Of2022, [0xfe, 0xa0], 0x9fbb, 0xe864),
];

/// Trail bytes of a lead byte: 0x40 to 0xFE without 0x7F.
const TRAILS: u32 = 190;
const TWO_BYTES: u32 = 126 * TRAILS;
/// Characters of the first plane without ASCII, surrogates, and those of two bytes.
const FOUR_BYTES: u32 = 0x1_0000 - 0x800 - 0x80 - TWO_BYTES;
/// The number of U+10000.
const PLANES: u32 = 189_000;
/// Marks a number in [`Table::codes`].
const FOUR: u32 = 1 << 31;
