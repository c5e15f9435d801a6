//! Reads a filter from text. Keywords in any case; names plain or in double quotes; text in single
//! quotes, both doubled inside themselves. An error names the character at which it was seen.

use super::{Comparison, Filter, Literal};
use crate::limits;
use std::fmt;

/// What is wrong with a filter's text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// Character from 1.
    pub at: usize,
    pub what: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.what)
    }
}
impl std::error::Error for FilterError {}

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > limits::FILTER_BYTES_MAX {
        return Err(FilterError { at: 1, what: format!("a filter has at most {} bytes", limits::FILTER_BYTES_MAX) });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.chars().count() + 1 };
    let filter = parser.either(0)?;
    match parser.peek() {
        None if filter.depth() > limits::FILTER_DEPTH_MAX => Err(too_deep(1)),
        None => Ok(filter),
        Some(token) => Err(parser.unexpected(&format!("{token}"), "AND, OR or the end")),
    }
}

/// Whether a name can stand without quotes.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(starts_name)
        && letters.all(continues_name)
        && !KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name))
}

/// `-12.50`: digits, one point, digits.
pub(super) fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.len() <= DECIMAL_MAX && unsigned.split_once('.').is_some_and(|(whole, part)| digits(whole) && digits(part))
}

/// Days since 1970-01-01 as a date.
pub(super) fn date(days: i32) -> Option<jiff::civil::Date> {
    let epoch = jiff::civil::Date::constant(1970, 1, 1);
    epoch.checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name or keyword as written; true where it was quoted and so is no keyword.
    Word(String, bool),
    Text(String),
    Integer(i64),
    Decimal(String),
    Symbol(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word, _) => write!(f, "`{word}`"),
            Self::Text(_) => f.write_str("a text"),
            Self::Integer(value) => write!(f, "`{value}`"),
            Self::Decimal(text) => write!(f, "`{text}`"),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
}

impl Parser {
    fn either(&mut self, nested: usize) -> Result<Filter, FilterError> {
        self.joined(nested, "OR", Self::both, Filter::Or)
    }

    fn both(&mut self, nested: usize) -> Result<Filter, FilterError> {
        self.joined(nested, "AND", Self::negated, Filter::And)
    }

    /// Parts with a keyword between them; one part alone is itself.
    fn joined(
        &mut self,
        nested: usize,
        keyword: &str,
        part: fn(&mut Self, usize) -> Result<Filter, FilterError>,
        join: fn(Vec<Filter>) -> Filter,
    ) -> Result<Filter, FilterError> {
        let first = part(self, nested)?;
        if !self.is_keyword(keyword) {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.take_keyword(keyword) {
            all.push(part(self, nested)?);
        }
        Ok(join(all))
    }

    fn negated(&mut self, nested: usize) -> Result<Filter, FilterError> {
        if self.is_keyword("NOT") {
            let nested = self.deeper(nested)?;
            self.next += 1;
            return Ok(Filter::Not(Box::new(self.negated(nested)?)));
        }
        if self.peek() == Some(&Token::Symbol("(")) {
            let nested = self.deeper(nested)?;
            self.next += 1;
            let inner = self.either(nested)?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Filter, FilterError> {
        let column = match self.peek() {
            Some(Token::Word(word, quoted)) if *quoted || is_plain_name(word) => word.clone(),
            other => return Err(self.unexpected_token(other.cloned(), "a column's name")),
        };
        self.next += 1;
        if self.take_keyword("IS") {
            let negated = self.take_keyword("NOT");
            self.expect_keyword("NULL")?;
            return Ok(perhaps_not(negated, Filter::IsNull(column)));
        }
        let negated = self.take_keyword("NOT");
        if self.take_keyword("IN") {
            self.expect_symbol("(")?;
            let mut literals = vec![self.literal()?];
            while self.take_symbol(",") {
                literals.push(self.literal()?);
            }
            self.expect_symbol(")")?;
            return Ok(perhaps_not(negated, Filter::In(column, literals)));
        }
        if self.take_keyword("BETWEEN") {
            let low = self.literal()?;
            self.expect_keyword("AND")?;
            let high = self.literal()?;
            return Ok(perhaps_not(negated, Filter::Between(column, low, high)));
        }
        let comparison = match self.peek() {
            Some(Token::Symbol("=")) => Comparison::Equal,
            Some(Token::Symbol("<>" | "!=")) => Comparison::NotEqual,
            Some(Token::Symbol("<")) => Comparison::Less,
            Some(Token::Symbol("<=")) => Comparison::LessOrEqual,
            Some(Token::Symbol(">")) => Comparison::Greater,
            Some(Token::Symbol(">=")) => Comparison::GreaterOrEqual,
            other if negated => return Err(self.unexpected_token(other.cloned(), "IN or BETWEEN")),
            other => {
                let expected = "a comparison (= <> < <= > >=), IN, BETWEEN or IS NULL";
                return Err(self.unexpected_token(other.cloned(), expected));
            }
        };
        if negated {
            return Err(self.unexpected_token(self.peek().cloned(), "IN or BETWEEN"));
        }
        self.next += 1;
        Ok(Filter::Compare(column, comparison, self.literal()?))
    }

    fn literal(&mut self) -> Result<Literal, FilterError> {
        let token = self.peek().cloned();
        let at = self.at();
        self.next += 1;
        match token {
            Some(Token::Integer(value)) => Ok(Literal::Integer(value)),
            Some(Token::Decimal(text)) => Ok(Literal::Decimal(text)),
            Some(Token::Text(text)) => Ok(Literal::Text(text)),
            Some(Token::Word(word, false)) if word.eq_ignore_ascii_case("TRUE") => Ok(Literal::Boolean(true)),
            Some(Token::Word(word, false)) if word.eq_ignore_ascii_case("FALSE") => Ok(Literal::Boolean(false)),
            Some(Token::Word(word, false)) if word.eq_ignore_ascii_case("DATE") => {
                let text = self.quoted_text("DATE '2026-01-31'")?;
                let date = text.parse::<jiff::civil::Date>().ok().filter(|date| date.to_string() == text);
                let days =
                    date.and_then(|date| jiff::civil::Date::constant(1970, 1, 1).until((jiff::Unit::Day, date)).ok());
                days.map(|span| Literal::Date(span.get_days()))
                    .ok_or_else(|| FilterError { at, what: format!("`{text}` is no date like 2026-01-31") })
            }
            Some(Token::Word(word, false)) if word.eq_ignore_ascii_case("TIMESTAMP") => {
                let text = self.quoted_text("TIMESTAMP '2026-01-31T08:00:00Z'")?;
                let time = text.parse::<jiff::Timestamp>().ok();
                // Finer than a microsecond cannot be kept, and rounding would change what is granted.
                time.filter(|time| time.subsec_nanosecond() % 1000 == 0)
                    .map(|time| Literal::Timestamp(time.as_microsecond()))
                    .ok_or_else(|| FilterError {
                        at,
                        what: format!("`{text}` is no time with its zone like 2026-01-31T08:00:00+08:00"),
                    })
            }
            other => {
                self.next -= 1;
                Err(self.unexpected_token(other, "a value: a number, 'text', TRUE, FALSE, DATE '…' or TIMESTAMP '…'"))
            }
        }
    }

    fn quoted_text(&mut self, example: &str) -> Result<String, FilterError> {
        match self.peek().cloned() {
            Some(Token::Text(text)) => {
                self.next += 1;
                Ok(text)
            }
            other => Err(self.unexpected_token(other, &format!("as in {example}"))),
        }
    }

    /// One more parenthesis or NOT around what comes.
    fn deeper(&self, nested: usize) -> Result<usize, FilterError> {
        if nested < limits::FILTER_DEPTH_MAX { Ok(nested + 1) } else { Err(too_deep(self.at())) }
    }
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }
    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word, false)) if word.eq_ignore_ascii_case(keyword))
    }
    fn take_keyword(&mut self, keyword: &str) -> bool {
        let taken = self.is_keyword(keyword);
        self.next += usize::from(taken);
        taken
    }
    fn expect_keyword(&mut self, keyword: &str) -> Result<(), FilterError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.unexpected_token(self.peek().cloned(), keyword)) }
    }
    fn take_symbol(&mut self, symbol: &'static str) -> bool {
        let taken = self.peek() == Some(&Token::Symbol(symbol));
        self.next += usize::from(taken);
        taken
    }
    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), FilterError> {
        if self.take_symbol(symbol) {
            return Ok(());
        }
        Err(self.unexpected_token(self.peek().cloned(), &format!("`{symbol}`")))
    }
    fn unexpected_token(&self, found: Option<Token>, expected: &str) -> FilterError {
        let found = found.map_or_else(|| "the end".to_owned(), |token| token.to_string());
        self.unexpected(&found, expected)
    }
    fn unexpected(&self, found: &str, expected: &str) -> FilterError {
        FilterError { at: self.at(), what: format!("expected {expected}, found {found}") }
    }
}

fn perhaps_not(negated: bool, filter: Filter) -> Filter {
    if negated { Filter::Not(Box::new(filter)) } else { filter }
}

fn too_deep(at: usize) -> FilterError {
    FilterError { at, what: format!("nested deeper than {} levels", limits::FILTER_DEPTH_MAX) }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let letters: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while let Some(&letter) = letters.get(i) {
        let start = i;
        let token = match letter {
            _ if letter.is_whitespace() => {
                i += 1;
                continue;
            }
            '\'' => Token::Text(quoted(&letters, &mut i, '\'')?),
            '"' => {
                let name = quoted(&letters, &mut i, '"')?;
                if name.is_empty() {
                    return Err(FilterError { at: start + 1, what: "a column's name is not empty".to_owned() });
                }
                Token::Word(name, true)
            }
            _ if letter.is_ascii_digit() || letter == '-' => number(&letters, &mut i)?,
            _ if starts_name(letter) => {
                while letters.get(i).is_some_and(|&l| continues_name(l)) {
                    i += 1;
                }
                Token::Word(letters.get(start..i).unwrap_or_default().iter().collect(), false)
            }
            _ => {
                let rest: String = letters.iter().skip(i).take(2).collect();
                let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
                let symbol = symbol
                    .ok_or_else(|| FilterError { at: start + 1, what: format!("`{letter}` has no meaning here") })?;
                i += symbol.len();
                Token::Symbol(symbol)
            }
        };
        out.push((start + 1, token));
    }
    Ok(out)
}

/// Reads from one quote to the next that is not doubled; `i` moves behind it.
fn quoted(letters: &[char], i: &mut usize, quote: char) -> Result<String, FilterError> {
    let start = *i;
    let mut out = String::new();
    *i += 1;
    loop {
        match (letters.get(*i), letters.get(*i + 1)) {
            (Some(&a), Some(&b)) if a == quote && b == quote => {
                out.push(quote);
                *i += 2;
            }
            (Some(&a), _) if a == quote => {
                *i += 1;
                return Ok(out);
            }
            (Some(&a), _) => {
                out.push(a);
                *i += 1;
            }
            (None, _) => return Err(FilterError { at: start + 1, what: format!("the {quote} here is never closed") }),
        }
    }
}

fn number(letters: &[char], i: &mut usize) -> Result<Token, FilterError> {
    let start = *i;
    *i += 1;
    while letters.get(*i).is_some_and(|l| l.is_ascii_digit() || *l == '.') {
        *i += 1;
    }
    let text: String = letters.get(start..*i).unwrap_or_default().iter().collect();
    let stuck = letters.get(*i).is_some_and(|&l| continues_name(l));
    match text.parse::<i64>() {
        Ok(value) if !stuck && value.to_string() == text => Ok(Token::Integer(value)),
        _ if !stuck && is_decimal(&text) => Ok(Token::Decimal(text)),
        _ => Err(FilterError { at: start + 1, what: format!("`{text}` is no number like 12, -3 or 0.50") }),
    }
}

fn starts_name(letter: char) -> bool {
    letter.is_alphabetic() || letter == '_'
}
fn continues_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Longer ones first.
const SYMBOLS: [&str; 10] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","];
const KEYWORDS: [&str; 12] =
    ["AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "DATE", "TIMESTAMP", "LIKE"];
/// Digits of a decimal with its point.
const DECIMAL_MAX: usize = 39;
