//! Words, numbers, texts and signs of a batch.

use crate::store::SqlError;
use crate::store::value::unhex;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A bare word: a keyword where one is expected, a name elsewhere.
    Word(String),
    /// In brackets or double quotes: never a keyword.
    Quoted(String),
    /// With its `@` or `@@`.
    Variable(String),
    Text(String, bool),
    Binary(Vec<u8>),
    Number(String),
    Sign(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub struct Placed {
    pub token: Token,
    pub line: u32,
    /// Bytes of the batch before it and up to its end.
    pub from: usize,
    pub to: usize,
}

const SIGNS: &[&str] = &[
    "<>", "!=", "<=", ">=", "!<", "!>", "+=", "-=", "*=", "/=", "::", "(", ")", ",", ".", ";", "=", "<", ">", "+", "-",
    "*", "/", "%", "&", "|", "^", "~",
];

pub fn lex(text: &str) -> Result<Vec<Placed>, SqlError> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() || first == '\u{feff}' {
            line += u32::from(first == '\n');
            at += first.len_utf8();
            continue;
        }
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or_else(|| SqlError::new(113, "Missing end comment mark '*/'."))?;
            line += rest.get(..end).map_or(0, |comment| comment.matches('\n').count()) as u32;
            at += end + 2;
            continue;
        }
        let (token, length) = one(rest, first, line)?;
        tokens.push(Placed { token, line, from: at, to: at + length });
        line += rest.get(..length).map_or(0, |token| token.matches('\n').count()) as u32;
        at += length;
    }
    tokens.push(Placed { token: Token::End, line, from: text.len(), to: text.len() });
    Ok(tokens)
}

fn one(rest: &str, first: char, line: u32) -> Result<(Token, usize), SqlError> {
    if let Some(body) = rest.strip_prefix("N'").or_else(|| rest.strip_prefix("n'")) {
        let (text, length) = quoted(body, '\'')?;
        return Ok((Token::Text(text, true), length + 2));
    }
    match first {
        '\'' => {
            let (text, length) = quoted(rest.get(1..).unwrap_or_default(), '\'')?;
            return Ok((Token::Text(text, false), length + 1));
        }
        '[' => {
            let (name, length) = quoted(rest.get(1..).unwrap_or_default(), ']')?;
            return Ok((Token::Quoted(name), length + 1));
        }
        '"' => {
            let (name, length) = quoted(rest.get(1..).unwrap_or_default(), '"')?;
            return Ok((Token::Quoted(name), length + 1));
        }
        _ => {}
    }
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let digits: String = rest.chars().skip(2).take_while(char::is_ascii_hexdigit).collect();
        let bytes = unhex(&digits).ok_or_else(|| SqlError::syntax(&digits, line))?;
        return Ok((Token::Binary(bytes), digits.len() + 2));
    }
    let second_is_digit = rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
    if first.is_ascii_digit() || (first == '.' && second_is_digit) {
        return Ok(number(rest));
    }
    if is_name_start(first) {
        let name: String = rest.chars().take_while(|c| is_name_start(*c) || c.is_ascii_digit() || *c == '$').collect();
        let length = name.len();
        let token = if name.starts_with('@') { Token::Variable(name) } else { Token::Word(name) };
        return Ok((token, length));
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => Ok((Token::Sign(sign), sign.len())),
        None => Err(SqlError::syntax(&first.to_string(), line)),
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '@' | '#')
}

/// What stands before the closing mark, which is doubled within; and the length with the mark.
fn quoted(body: &str, mark: char) -> Result<(String, usize), SqlError> {
    let mut text = String::new();
    let mut chars = body.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != mark {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == mark) {
            chars.next();
            text.push(mark);
        } else {
            return Ok((text, at + mark.len_utf8()));
        }
    }
    Err(SqlError::new(105, "Unclosed quotation mark after the character string."))
}

fn number(rest: &str) -> (Token, usize) {
    let mut length = 0;
    let mut point = false;
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let exponent = matches!(c, 'e' | 'E') && next.is_some_and(|c| c.is_ascii_digit() || c == '-' || c == '+');
        let sign = matches!(c, '-' | '+') && rest.get(..at).is_some_and(|before| before.ends_with(['e', 'E']));
        if !(c.is_ascii_digit() || (c == '.' && !point) || exponent || sign) {
            break;
        }
        point |= c == '.' || exponent;
        length = at + 1;
    }
    (Token::Number(rest.get(..length).unwrap_or_default().to_owned()), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        lex(text).expect("tokens").into_iter().map(|placed| placed.token).collect()
    }

    #[test]
    fn names_texts_and_numbers_are_told_apart() {
        assert_eq!(
            tokens("SELECT [a]]b], N'驿''站' -- why\n, 0x0aF, 1.5e3, @P1, 表"),
            [
                Token::Word("SELECT".into()),
                Token::Quoted("a]b".into()),
                Token::Sign(","),
                Token::Text("驿'站".into(), true),
                Token::Sign(","),
                Token::Binary(vec![0x00, 0xaf]),
                Token::Sign(","),
                Token::Number("1.5e3".into()),
                Token::Sign(","),
                Token::Variable("@P1".into()),
                Token::Sign(","),
                Token::Word("表".into()),
                Token::End,
            ]
        );
        assert_eq!(tokens("a.1")[1], Token::Number(".1".into()));
        assert!(lex("'open").is_err() && lex("/* open").is_err() && lex("a ? b").is_err());
    }
}
