//! Python literals as the headers of NumPy have them: texts, whole numbers, booleans, tuples, lists, dicts. Pure, no I/O.
//!
//! NumPy reads them with `ast.literal_eval`, so what is no literal is refused there, too.

/// How deep literals may be nested.
const DEPTH: u32 = 16;

/// A literal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Literal {
    /// Without its quotes.
    Text(String),
    Int(i64),
    Bool(bool),
    None,
    Tuple(Vec<Literal>),
    List(Vec<Literal>),
    /// In its order; a key may stand there twice.
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number that it is, when it is not negative.
    pub fn size(&self) -> Option<u64> {
        if let Self::Int(number) = self { u64::try_from(*number).ok() } else { None }
    }

    /// The value of a key of the dict that it is; the last one, as in Python.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(items) = self else { return None };
        items.iter().rev().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }
}

/// Reads a text that is one literal and white space.
pub(super) fn parse(text: &str) -> Option<Literal> {
    let mut reader = Reader { rest: text };
    let literal = reader.value(0)?;
    reader.rest.trim_matches([' ', '\n', '\t', '\r']).is_empty().then_some(literal)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t', '\r']);
    }

    fn take(&mut self, text: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn while_in(&mut self, known: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !known(character)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn value(&mut self, depth: u32) -> Option<Literal> {
        if depth > DEPTH {
            return None;
        }
        self.skip();
        match self.rest.chars().next()? {
            '\'' | '"' => self.text(),
            '(' => self.tuple(depth),
            '[' => {
                self.take("[");
                Some(Literal::List(self.items("]", depth)?.0))
            }
            '{' => self.dict(depth),
            '-' | '0'..='9' => self.number(),
            _ => match self.while_in(|character| character.is_ascii_alphabetic()) {
                "True" => Some(Literal::Bool(true)),
                "False" => Some(Literal::Bool(false)),
                "None" => Some(Literal::None),
                _ => None,
            },
        }
    }

    /// Texts with escapes are in no header; their meaning is left open.
    fn text(&mut self) -> Option<Literal> {
        let quote = self.rest.chars().next()?;
        let inner = self.rest.get(1..)?;
        let end = inner.find(quote)?;
        let text = inner.get(..end).filter(|text| !text.contains(['\\', '\n']))?;
        self.rest = inner.get(end + 1..)?;
        Some(Literal::Text(text.to_owned()))
    }

    fn number(&mut self) -> Option<Literal> {
        let negative = self.take("-");
        let digits = self.while_in(|character| character.is_ascii_digit());
        // Python 2 wrote long numbers so.
        self.rest = self.rest.strip_prefix('L').unwrap_or(self.rest);
        let leading = digits.len() > 1 && digits.starts_with('0');
        let number: i64 = if leading { None } else { digits.parse().ok() }?;
        Some(Literal::Int(if negative { -number } else { number }))
    }

    /// Items up to the closing bracket, and whether a comma stands before it.
    fn items(&mut self, close: &str, depth: u32) -> Option<(Vec<Literal>, bool)> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.take(close) {
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.value(depth + 1)?);
            comma = self.take(",");
        }
        Some((items, comma))
    }

    /// `(3)` is no tuple.
    fn tuple(&mut self, depth: u32) -> Option<Literal> {
        self.take("(");
        let (mut items, comma) = self.items(")", depth)?;
        if items.len() == 1 && !comma { items.pop() } else { Some(Literal::Tuple(items)) }
    }

    fn dict(&mut self, depth: u32) -> Option<Literal> {
        self.take("{");
        let (mut items, mut comma) = (Vec::new(), true);
        while !self.take("}") {
            if !comma {
                return None;
            }
            let key = self.value(depth + 1)?;
            if !self.take(":") {
                return None;
            }
            items.push((key, self.value(depth + 1)?));
            comma = self.take(",");
        }
        Some(Literal::Dict(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let header =
            parse("{'descr': [('a', '<f4'), ('b', '<i8', (2,))], 'fortran_order': False, 'shape': (3, 2), }  \n");
        let header = header.unwrap();
        assert_eq!(header.get("fortran_order"), Some(&Literal::Bool(false)));
        assert_eq!(header.get("shape"), Some(&Literal::Tuple(vec![Literal::Int(3), Literal::Int(2)])));
        assert_eq!(parse("()"), Some(Literal::Tuple(Vec::new())));
        assert_eq!(parse("(3,)"), Some(Literal::Tuple(vec![Literal::Int(3)])));
        assert_eq!(parse("(3)"), Some(Literal::Int(3)));
        assert_eq!(parse("{'a': 1, \"a\": -2}").unwrap().get("a"), Some(&Literal::Int(-2)));
    }

    #[test]
    fn anything_else_is_refused() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        for text in
            ["", "{", "[1 2]", "{'a'}", "f()", "'a", "01", "[,]", "1 2", "'\\x00'", "{'a': 1 'b': 2}", "Tru", &deep]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "[-\\[\\](){}',: 0-9TrueFalsNonL\\\\é]{0,60}") {
            parse(&text);
        }
    }
}
