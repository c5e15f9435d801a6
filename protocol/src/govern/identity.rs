//! 身份证号码 and 统一社会信用代码: whether a text is one that can have been issued, by its form, its date and its
//! check digit. Whether it was issued is known to those who issue them.

/// 公民身份号码 (GB 11643-1999): 18 characters, the last a check digit by ISO 7064 MOD 11-2, written X for ten;
/// or one of the 15 digits that were given out before, which has none and is of the years 1900 to 1999.
pub fn id_card(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let (body, date, century) = match bytes.len() {
        18 => (bytes.get(..17), bytes.get(6..14), None),
        15 => (Some(bytes), bytes.get(6..12), Some(1900)),
        _ => return Err("it has neither 18 nor 15 characters"),
    };
    let (Some(body), Some(date)) = (body, date) else { return Err("it has neither 18 nor 15 characters") };
    if !body.iter().all(u8::is_ascii_digit) {
        return Err("it has a character that is no digit");
    }
    if !REGIONS.contains(&number(body.get(..2).unwrap_or_default())) {
        return Err("it begins with no province");
    }
    if !is_date(date, century) {
        return Err("its date does not exist");
    }
    let Some(last) = bytes.get(17) else { return Ok(()) };
    match mod_11_2(body) {
        10 if *last == b'X' => Ok(()),
        10 if *last == b'x' => Err("its check digit is a small x, which is written X"),
        digit if u32::from(last.wrapping_sub(b'0')) == digit && digit < 10 => Ok(()),
        _ => Err("its check digit is wrong"),
    }
}

/// 统一社会信用代码 (GB 32100-2015): 18 characters without I, O, S, V, Z, the third to the eighth digits (the
/// division), the last a check character over the others (MOD 31-3).
pub fn credit_code(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.len() != 18 {
        return Err("it has not 18 characters");
    }
    let mut weight = 1;
    let mut sum = 0;
    let mut check = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let Some(value) = CREDIT_ALPHABET.iter().position(|known| known == byte) else {
            return Err("it has a character that is not used");
        };
        if (2..8).contains(&at) && !byte.is_ascii_digit() {
            return Err("its division code has a character that is no digit");
        }
        match at {
            17 => check = value,
            _ => sum += value * weight,
        }
        weight = weight * 3 % 31;
    }
    if check == (31 - sum % 31) % 31 { Ok(()) } else { Err("its check character is wrong") }
}

/// The check digit over 17 digits: 0 to 10.
fn mod_11_2(digits: &[u8]) -> u32 {
    let sum = digits.iter().fold(0, |sum, byte| (sum + u32::from(byte.wrapping_sub(b'0'))) * 2 % 11);
    (12 - sum) % 11
}

/// `yyyymmdd`, or `yymmdd` of a century.
fn is_date(digits: &[u8], century: Option<u32>) -> bool {
    let Some((year, rest)) = digits.split_at_checked(digits.len().saturating_sub(4)) else { return false };
    let Some((month, day)) = rest.split_at_checked(2) else { return false };
    let year = century.unwrap_or_default() + number(year);
    let parts = (i16::try_from(year), i8::try_from(number(month)), i8::try_from(number(day)));
    let (Ok(year), Ok(month), Ok(day)) = parts else { return false };
    // Earlier than anybody who can have had a number, and than anybody who will have one for a long time.
    (1800..2200).contains(&year) && jiff::civil::Date::new(year, month, day).is_ok()
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, byte| number * 10 + u32::from(byte.wrapping_sub(b'0')))
}

/// Provinces of GB/T 2260 by their first two digits, with 82 and 83 for residents of Macao and Taiwan, and 9x for
/// foreigners with a permanent residence card.
const REGIONS: [u32; 36] = [
    11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54, 61, 62, 63,
    64, 65, 71, 81, 82, 83, 91,
];
const CREDIT_ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identity_numbers_are_taken_as_the_standard_has_them() {
        // The two examples of GB 11643-1999.
        for good in ["11010519491231002X", "440524188001010014", "110105491231002"] {
            assert_eq!(id_card(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("110105194912310021", "its check digit is wrong"),
            ("11010519491231002x", "its check digit is a small x, which is written X"),
            ("440524188001010015", "its check digit is wrong"),
            ("44052418800101001X", "its check digit is wrong"),
            ("110105194902300021", "its date does not exist"),
            ("110105190002290021", "its date does not exist"),
            ("110105491331002", "its date does not exist"),
            ("000105194912310029", "it begins with no province"),
            ("11010519491231002", "it has neither 18 nor 15 characters"),
            ("1101051949123100２X", "it has neither 18 nor 15 characters"),
            ("1101O519491231002X", "it has a character that is no digit"),
            ("", "it has neither 18 nor 15 characters"),
        ] {
            assert_eq!(id_card(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn credit_codes_are_taken_as_the_standard_has_them() {
        // The example of GB 32100-2015.
        assert_eq!(credit_code("91350100M000100Y43"), Ok(()));
        for (bad, why) in [
            ("91350100M000100Y44", "its check character is wrong"),
            ("91350100M000100Y4", "it has not 18 characters"),
            ("91350100I000100Y43", "it has a character that is not used"),
            ("91350100m000100y43", "it has a character that is not used"),
            ("9135010AM000100Y43", "its division code has a character that is no digit"),
        ] {
            assert_eq!(credit_code(bad), Err(why), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn one_digit_that_is_another_is_always_found(at in 0usize..18, by in 1u8..10) {
            let mut number = *b"440524188001010014";
            number[at] = b'0' + (number[at] - b'0' + by) % 10;
            prop_assert!(id_card(std::str::from_utf8(&number).unwrap()).is_err());
        }

        #[test]
        fn two_neighbours_that_changed_places_are_always_found(at in 0usize..17) {
            let mut code = *b"91350100M000100Y43";
            prop_assume!(code[at] != code[at + 1]);
            code.swap(at, at + 1);
            prop_assert!(credit_code(std::str::from_utf8(&code).unwrap()).is_err());
        }

        #[test]
        fn whatever_the_text_is_nothing_breaks(text in "\\PC{0,24}") {
            let _ = (id_card(&text), credit_code(&text));
        }
    }
}
