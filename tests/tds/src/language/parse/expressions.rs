//! Conditions and values, by precedence.

use super::super::lex::Token;
use super::super::tree::{Comparison, Expression, Operator, Over};
use super::Parser;
use crate::store::SqlError;

type Parsed = Result<Expression, SqlError>;

impl Parser<'_> {
    pub(super) fn condition(&mut self) -> Parsed {
        self.deeper()?;
        let mut left = self.conjunction()?;
        while self.word("OR") {
            left = Expression::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed {
        let mut left = self.negation()?;
        while self.word("AND") {
            left = Expression::And(Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed {
        if self.word("NOT") {
            return Ok(Expression::Not(Box::new(self.negation()?)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Parsed {
        if self.word("EXISTS") {
            self.need_sign("(")?;
            let query = self.query()?;
            self.need_sign(")")?;
            return Ok(Expression::Exists(Box::new(query)));
        }
        let left = self.value()?;
        for (sign, comparison) in COMPARISONS {
            if self.sign(sign) {
                return Ok(Expression::Compare(*comparison, Box::new(left), Box::new(self.value()?)));
            }
        }
        if self.word("IS") {
            let negated = self.word("NOT");
            self.need("NULL")?;
            return Ok(Expression::IsNull(Box::new(left), negated));
        }
        let negated = self.word("NOT");
        if self.word("IN") {
            self.need_sign("(")?;
            if self.is_word("SELECT") {
                let query = self.query()?;
                self.need_sign(")")?;
                return Ok(Expression::InQuery(Box::new(left), Box::new(query), negated));
            }
            let list = self.list()?;
            self.need_sign(")")?;
            return Ok(Expression::In(Box::new(left), list, negated));
        }
        if self.word("BETWEEN") {
            let low = self.value()?;
            self.need("AND")?;
            return Ok(Expression::Between(Box::new(left), Box::new(low), Box::new(self.value()?), negated));
        }
        if self.word("LIKE") {
            let pattern = self.value()?;
            let escape = if self.word("ESCAPE") {
                match self.next() {
                    Token::Text(text, _) => text.chars().next(),
                    _ => return Err(self.wrong()),
                }
            } else {
                None
            };
            return Ok(Expression::Like { text: Box::new(left), pattern: Box::new(pattern), escape, negated });
        }
        if negated { Err(self.wrong()) } else { Ok(left) }
    }

    pub(super) fn list(&mut self) -> Result<Vec<Expression>, SqlError> {
        let mut list = vec![self.condition()?];
        while self.sign(",") {
            list.push(self.condition()?);
        }
        Ok(list)
    }

    pub(super) fn value(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("+") => Operator::Add,
                Token::Sign("-") => Operator::Subtract,
                Token::Sign("&") => Operator::BitAnd,
                Token::Sign("|") => Operator::BitOr,
                Token::Sign("^") => Operator::BitXor,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expression::Arithmetic(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("*") => Operator::Multiply,
                Token::Sign("/") => Operator::Divide,
                Token::Sign("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expression::Arithmetic(operator, Box::new(left), Box::new(self.signed()?));
        }
    }

    fn signed(&mut self) -> Parsed {
        if self.sign("-") {
            return Ok(match self.signed()? {
                Expression::Integer(number) => Expression::Integer(-number),
                Expression::Number(digits) if !digits.starts_with('-') => Expression::Number(format!("-{digits}")),
                other => Expression::Negate(Box::new(other)),
            });
        }
        if self.sign("+") {
            return self.signed();
        }
        if self.sign("~") {
            return Ok(Expression::BitNot(Box::new(self.signed()?)));
        }
        let mut value = self.primary()?;
        while self.word("COLLATE") {
            let name = self.identifier()?;
            value = Expression::Collate(Box::new(value), name);
        }
        Ok(value)
    }

    fn primary(&mut self) -> Parsed {
        if self.sign("(") {
            if self.is_word("SELECT") {
                let query = self.query()?;
                self.need_sign(")")?;
                return Ok(Expression::Scalar(Box::new(query)));
            }
            let inner = self.condition()?;
            self.need_sign(")")?;
            return Ok(inner);
        }
        if self.word("NULL") {
            return Ok(Expression::Null);
        }
        if self.word("CASE") {
            return self.case();
        }
        for (word, attempt) in [("CAST", false), ("TRY_CAST", true)] {
            if self.is_call(word) {
                self.at += 2;
                let value = Box::new(self.condition()?);
                self.need("AS")?;
                let to = self.declared()?;
                self.need_sign(")")?;
                return Ok(Expression::Cast { value, to, style: None, attempt });
            }
        }
        for (word, attempt) in [("CONVERT", false), ("TRY_CONVERT", true)] {
            if self.is_call(word) {
                self.at += 2;
                let to = self.declared()?;
                self.need_sign(",")?;
                let value = Box::new(self.condition()?);
                let style = if self.sign(",") { Some(self.integer()?) } else { None };
                self.need_sign(")")?;
                return Ok(Expression::Cast { value, to, style, attempt });
            }
        }
        match self.peek().clone() {
            Token::Number(digits) => {
                self.at += 1;
                Ok(match digits.parse::<i64>() {
                    Ok(number) => Expression::Integer(number),
                    Err(_) => Expression::Number(digits),
                })
            }
            Token::Text(text, unicode) => {
                self.at += 1;
                Ok(Expression::Text(text, unicode))
            }
            Token::Binary(bytes) => {
                self.at += 1;
                Ok(Expression::Binary(bytes))
            }
            Token::Variable(name) => {
                self.at += 1;
                Ok(Expression::Variable(name))
            }
            Token::Word(word)
                if self.peek_at(1) == &Token::Sign("(")
                    && !NEVER_CALLED.contains(&word.to_ascii_uppercase().as_str()) =>
            {
                self.at += 2;
                self.call(word)
            }
            _ => {
                let name = self.name()?;
                // A function of a schema: `sys.fn_…` and the like are not known, but say so by name.
                if self.is_sign("(") {
                    return Err(SqlError::unknown(format!("function {}", name.join("."))));
                }
                Ok(Expression::Column(name))
            }
        }
    }

    fn is_call(&self, word: &str) -> bool {
        self.is_word(word) && self.peek_at(1) == &Token::Sign("(")
    }

    fn call(&mut self, name: String) -> Parsed {
        let mut call = (Vec::new(), false, false);
        if self.sign("*") {
            call.1 = true;
        } else if !self.is_sign(")") {
            call.2 = self.word("DISTINCT");
            // DATEADD and its like take a bare word first, which reads as a column.
            call.0 = self.list()?;
        }
        self.need_sign(")")?;
        let over = if self.word("OVER") { Some(self.over()?) } else { None };
        let (arguments, star, distinct) = call;
        Ok(Expression::Call { name: name.to_ascii_uppercase(), arguments, star, distinct, over })
    }

    fn over(&mut self) -> Result<Over, SqlError> {
        self.need_sign("(")?;
        let partition = if self.words(&["PARTITION", "BY"]) { self.list()? } else { Vec::new() };
        let order = if self.words(&["ORDER", "BY"]) { self.ordering()? } else { Vec::new() };
        self.need_sign(")")?;
        Ok(Over { partition, order })
    }

    pub(super) fn ordering(&mut self) -> Result<Vec<(Expression, bool)>, SqlError> {
        let mut order = Vec::new();
        loop {
            let by = self.condition()?;
            let falls = self.word("DESC");
            if !falls {
                self.word("ASC");
            }
            order.push((by, falls));
            if !self.sign(",") {
                return Ok(order);
            }
        }
    }

    fn case(&mut self) -> Parsed {
        let operand = if self.is_word("WHEN") { None } else { Some(Box::new(self.condition()?)) };
        let mut whens = Vec::new();
        while self.word("WHEN") {
            let when = self.condition()?;
            self.need("THEN")?;
            whens.push((when, self.condition()?));
        }
        if whens.is_empty() {
            return Err(self.wrong());
        }
        let otherwise = if self.word("ELSE") { Some(Box::new(self.condition()?)) } else { None };
        self.need("END")?;
        Ok(Expression::Case { operand, whens, otherwise })
    }
}

const COMPARISONS: &[(&str, Comparison)] = &[
    ("=", Comparison::Equal),
    ("<>", Comparison::NotEqual),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("!>", Comparison::LessOrEqual),
    ("!<", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Keywords that a bracket may follow.
const NEVER_CALLED: &[&str] = &[
    "AND", "OR", "NOT", "IN", "EXISTS", "SELECT", "WHERE", "ON", "VALUES", "WHEN", "THEN", "ELSE", "FROM", "BY", "AS",
];
