//! Tokens of an expression, read one at a time: what comes after the expression is never looked at.

use std::ops::Range;

use super::ExpressionError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    /// Without sign; `-9223372036854775808` is one more than what fits without.
    Int(u64),
    Double(f64),
    Text(String),
    /// An operator or a bracket; the words `in`, `true`, `false` and `null`.
    Symbol(&'static str),
    End,
}

/// Longer ones first, where one begins with another.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ".", ",",
    ":", "?",
];

const WORDS: [&str; 4] = ["in", "true", "false", "null"];

pub(super) struct Lexer<'s> {
    text: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    pub fn new(text: &'s str, from: usize) -> Self {
        Self { text, at: from }
    }

    /// The next token and where it stands.
    pub fn next(&mut self) -> Result<(Token, Range<usize>), ExpressionError> {
        self.skip_space();
        let start = self.at;
        let token = self.token()?;
        Ok((token, start..self.at))
    }

    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !keep(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn error(&self, from: usize, message: impl Into<String>, hint: impl Into<String>) -> ExpressionError {
        ExpressionError { at: from..self.at, message: message.into(), hint: hint.into() }
    }

    fn token(&mut self) -> Result<Token, ExpressionError> {
        let start = self.at;
        let Some(c) = self.peek() else { return Ok(Token::End) };
        if c.is_ascii_alphabetic() || c == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if let Some('"' | '\'') = self.peek() {
                return self.prefixed(start, word);
            }
            return Ok(match WORDS.iter().find(|known| **known == word) {
                Some(known) => Token::Symbol(known),
                None => Token::Name(word.to_owned()),
            });
        }
        if c == '"' || c == '\'' {
            return self.string(start, Escapes::Read).map(Token::Text);
        }
        if c.is_ascii_digit() || (c == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number(start);
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
            self.at += symbol.len();
            return Ok(Token::Symbol(symbol));
        }
        self.at += c.len_utf8();
        let hint = match c {
            '=' => "write == to compare".to_owned(),
            '&' => "write && for 'and'".to_owned(),
            '|' => "write || for 'or'".to_owned(),
            '$' => "inside an expression names stand without ${ }".to_owned(),
            '`' | '‘' | '’' | '“' | '”' | '„' => {
                "a text stands in straight quotes: \"text\" or 'text'".to_owned()
            }
            c if c.is_alphabetic() => {
                "names have letters from a to z; other fields are read with event[\"größe\"]".to_owned()
            }
            _ => "operators are + - * / % == != < <= > >= && || ! ? : in".to_owned(),
        };
        Err(self.error(start, format!("unexpected {c:?}"), hint))
    }

    /// A string after a prefix: only `r` has a meaning here.
    fn prefixed(&mut self, start: usize, prefix: &str) -> Result<Token, ExpressionError> {
        match prefix {
            "r" | "R" => self.string(start, Escapes::Keep).map(Token::Text),
            "b" | "B" | "rb" | "br" | "Rb" | "rB" | "RB" | "bR" | "Br" | "BR" => {
                Err(self.error(start, "there are no bytes here", "write the text without the prefix"))
            }
            // A word before a quote: the parser says what is wrong with that.
            _ => Ok(match WORDS.iter().find(|known| **known == prefix) {
                Some(known) => Token::Symbol(known),
                None => Token::Name(prefix.to_owned()),
            }),
        }
    }

    fn number(&mut self, start: usize) -> Result<Token, ExpressionError> {
        let digits = |c: char| c.is_ascii_digit();
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let hex = self.take_while(|c| c.is_ascii_hexdigit());
            let value = u64::from_str_radix(hex, 16);
            self.after_number(start)?;
            return value.map(Token::Int).map_err(|_| self.too_large(start));
        }
        self.take_while(digits);
        let mut whole = true;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(digits) {
            self.at += 1;
            self.take_while(digits);
            whole = false;
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        if let Some(rest) = exponent.filter(|rest| rest.starts_with(digits)) {
            self.at = self.text.len() - rest.len();
            self.take_while(digits);
            whole = false;
        }
        let text = &self.text[start..self.at];
        self.after_number(start)?;
        if whole {
            return text.parse().map(Token::Int).map_err(|_| self.too_large(start));
        }
        match text.parse::<f64>() {
            Ok(value) if value.abs() < super::value::INT_END => Ok(Token::Double(value)),
            _ => Err(self.too_large(start)),
        }
    }

    /// What may not follow a number at once.
    fn after_number(&mut self, start: usize) -> Result<(), ExpressionError> {
        let number = &self.text[start..self.at];
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        match word {
            "" => Ok(()),
            "u" | "U" => Err(self.error(start, "numbers have no suffix", format!("write {number}"))),
            _ => {
                let whole = &self.text[start..self.at];
                let hint = if super::Span::parse(whole).is_ok() {
                    format!("a duration stands in duration(\"{whole}\")")
                } else {
                    "a name begins with a letter; a text stands in quotes".to_owned()
                };
                Err(self.error(start, format!("'{whole}' is no number"), hint))
            }
        }
    }

    fn too_large(&self, start: usize) -> ExpressionError {
        self.error(start, "the number leaves 64 bits", "numbers go from -9223372036854775808 to 9223372036854775807")
    }

    fn string(&mut self, start: usize, escapes: Escapes) -> Result<String, ExpressionError> {
        let quote = if self.rest().starts_with('"') { '"' } else { '\'' };
        let triple: String = [quote; 3].iter().collect();
        let end = if self.rest().starts_with(&triple) { triple } else { quote.to_string() };
        self.at += end.len();
        let mut out = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(out);
            }
            let at = self.at;
            let Some(c) = self.peek() else {
                return Err(self.error(start, "the text has no end", format!("close it with {end}")));
            };
            if matches!(c, '\n' | '\r') && end.len() == 1 {
                return Err(self.error(
                    start,
                    "the text has no end on its line",
                    format!("close it with {end}, or write \\n for a new line"),
                ));
            }
            self.at += c.len_utf8();
            if c == '\\' && matches!(escapes, Escapes::Read) {
                out.push(self.escape(at)?);
            } else {
                out.push(c);
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, ExpressionError> {
        let c = self.peek();
        self.at += c.map_or(0, char::len_utf8);
        let code = match c {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => 0x0a,
            Some('r') => 0x0d,
            Some('t') => 0x09,
            Some('v') => 0x0b,
            Some(c @ ('\\' | '?' | '"' | '\'' | '`')) => u32::from(c),
            Some('x' | 'X') => self.code(start, 2, 16)?,
            Some('u') => self.code(start, 4, 16)?,
            Some('U') => self.code(start, 8, 16)?,
            Some('0'..='3') => {
                self.at -= 1;
                self.code(start, 3, 8)?
            }
            _ => return Err(self.bad_escape(start)),
        };
        char::from_u32(code).ok_or_else(|| self.bad_escape(start))
    }

    fn code(&mut self, start: usize, length: usize, radix: u32) -> Result<u32, ExpressionError> {
        let mut code: u32 = 0;
        for _ in 0..length {
            let digit = self.peek().and_then(|c| c.to_digit(radix)).ok_or_else(|| self.bad_escape(start))?;
            code = code.wrapping_mul(radix) | digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn bad_escape(&self, start: usize) -> ExpressionError {
        let escape = &self.text[start..self.at];
        self.error(start, format!("unknown escape '{escape}'"), "write \\\\ for a backslash, or a raw text: r\"…\"")
    }
}

/// Whether a backslash has a meaning.
#[derive(Clone, Copy)]
enum Escapes {
    Read,
    Keep,
}
