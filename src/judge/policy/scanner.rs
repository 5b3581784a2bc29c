//! Splits a policy file into statements, so that each is parsed alone and every fault has its
//! place.
//!
//! The lexical rules are Cedar's: `//` comments to the end of the line (LF or CR), strings in
//! double quotes with backslash escapes, and `;` as the end of a statement everywhere else. A
//! statement that this scanner cut wrongly could only fail to parse, never merge with another: the
//! parser takes one.

use std::ops::Range;

/// One statement of a file, from its first token to its `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement<'t> {
    /// The text, `;` included.
    pub(super) text: &'t str,
    /// Byte offset of `text` in the file.
    pub(super) offset: usize,
}

impl Statement<'_> {
    /// Byte offset, within the file, of the annotation `@name`; of the statement when there is
    /// none.
    #[must_use]
    pub(super) fn annotation(&self, name: &str) -> usize {
        let mut tokens = Tokens::new(self.text);
        let mut after_at = None;
        while let Some((at, token)) = tokens.next() {
            match token {
                Token::At => after_at = Some(at),
                Token::Word(word) if word == name => {
                    if let Some(at) = after_at {
                        return self.offset + at;
                    }
                }
                Token::Word(_) | Token::Text | Token::End | Token::Other(_) | Token::Unclosed => {
                    after_at = None;
                }
            }
        }
        self.offset
    }

    /// Measures the statement without recursion: the parser, the validator and the release of a
    /// policy all recurse, so a form that is too deep for a stack must not reach them.
    pub(super) fn depth(&self) -> Depth {
        let mut tokens = Tokens::new(self.text);
        let (mut open, mut depth) = (0_usize, Depth::default());
        while let Some((_, token)) = tokens.next() {
            match token {
                Token::Other('(' | '[' | '{') => {
                    open += 1;
                    depth.nesting = depth.nesting.max(open);
                }
                Token::Other(')' | ']' | '}') => open = open.saturating_sub(1),
                Token::Other(',' | ':') => {}
                Token::Word(word) if !matches!(word, "else" | "has" | "if" | "is" | "like") => {}
                Token::Other(_) | Token::Word(_) => depth.operators += 1,
                Token::At | Token::End | Token::Text | Token::Unclosed => {}
            }
        }
        depth
    }

    /// What stands between quotes, as it is written.
    pub(super) fn strings(&self) -> impl Iterator<Item = &'_ str> {
        let mut tokens = Tokens::new(self.text);
        std::iter::from_fn(move || {
            loop {
                let (at, token) = tokens.next()?;
                if token == Token::Text {
                    return self.text.get(at + 1..tokens.at.saturating_sub(1));
                }
            }
        })
    }

    /// Names and numbers, as they are written.
    pub(super) fn words(&self) -> impl Iterator<Item = &'_ str> {
        let mut tokens = Tokens::new(self.text);
        std::iter::from_fn(move || {
            loop {
                if let (_, Token::Word(word)) = tokens.next()? {
                    return Some(word);
                }
            }
        })
    }

    /// The parts of the conditions that must all be true, as byte ranges of `text`: what stands
    /// between `&&` at the top of a `when`, and the whole of an `unless`, which must be false.
    #[must_use]
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut tokens = Tokens::new(self.text);
        let (mut depth, mut found, mut clause) = (0_usize, Vec::new(), None::<Clause>);
        let mut word = None;
        while let Some((_, token)) = tokens.next() {
            if let Some(clause) = &mut clause {
                clause.look(depth == 1, tokens.at, token);
            }
            match token {
                Token::Other('{') if depth == 0 && word.is_some() => {
                    clause = word.take().map(|unless| Clause::new(unless, tokens.at));
                    depth = 1;
                }
                Token::Other('(' | '[' | '{') => depth += 1,
                Token::Other(')' | ']' | '}') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0
                        && let Some(clause) = clause.take()
                    {
                        clause.end(self.text, &mut found);
                    }
                }
                Token::Word(name @ ("when" | "unless")) if depth == 0 => {
                    word = Some(name == "unless");
                }
                Token::At | Token::End | Token::Other(_) | Token::Text | Token::Word(_) => {}
                Token::Unclosed => return found,
            }
        }
        found
    }

    /// Byte offset, within the file, of the first `word` that stands outside comments, as a name or
    /// as a whole string; of the statement when there is none.
    #[must_use]
    pub(super) fn word(&self, word: &str) -> usize {
        let mut tokens = Tokens::new(self.text);
        while let Some((at, token)) = tokens.next() {
            let found = match token {
                Token::Word(found) => found == word,
                Token::Text => self
                    .text
                    .get(at + 1..tokens.at.saturating_sub(1))
                    .is_some_and(|inner| inner == word),
                Token::At | Token::End | Token::Other(_) | Token::Unclosed => false,
            };
            if found {
                return self.offset + at;
            }
        }
        self.offset
    }
}

/// A part of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// It stands in an `unless`: it must be false.
    pub(super) unless: bool,
    /// Where it stands in the statement.
    pub(super) range: Range<usize>,
}

/// A condition that is being cut into its parts.
struct Clause {
    unless: bool,
    /// Where the part under way begins.
    from: usize,
    cuts: Vec<Range<usize>>,
    /// Up to where tokens were seen.
    seen: usize,
    /// Something at the top binds weaker than `&&`: the whole is one part.
    whole: bool,
}

impl Clause {
    fn new(unless: bool, from: usize) -> Self {
        Self { unless, from, cuts: Vec::new(), seen: from, whole: unless }
    }

    /// `top`: the token, which goes up to `end`, stands in no bracket of its own.
    fn look(&mut self, top: bool, end: usize, token: Token<'_>) {
        match token {
            Token::Other('}') if top => return,
            Token::Other('&') if top => {
                self.cuts.push(self.from..self.seen);
                self.from = end;
            }
            Token::Other('|') | Token::Word("if") if top => self.whole = true,
            Token::At
            | Token::End
            | Token::Other(_)
            | Token::Text
            | Token::Unclosed
            | Token::Word(_) => {}
        }
        self.seen = end;
    }

    fn end(mut self, text: &str, found: &mut Vec<Part>) {
        self.cuts.push(self.from..self.seen);
        if self.whole {
            self.cuts.truncate(1);
            self.cuts.iter_mut().for_each(|cut| cut.end = self.seen);
        }
        for cut in self.cuts {
            let inner = text.get(cut.clone()).unwrap_or_default();
            let mut tokens = Tokens::new(inner);
            let begins = tokens.next().map_or(0, |(at, _)| at);
            found.push(Part { unless: self.unless, range: cut.start + begins..cut.end });
        }
    }
}

/// How deep a statement can make whoever walks over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// Brackets within brackets.
    pub(super) nesting: usize,
    /// Operators, attribute accesses and `if`: a chain of them is as deep as it is long.
    pub(super) operators: usize,
}

/// Why a file could not be cut into statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Torn {
    /// A string that begins here never ends.
    String(usize),
    /// A statement that begins here has no `;`.
    Statement(usize),
}

/// Cuts a text into its statements, one after another.
pub(super) struct Statements<'t> {
    tokens: Tokens<'t>,
    /// Where the text stops being statements.
    pub(super) torn: Option<Torn>,
}

impl<'t> Statements<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { tokens: Tokens::new(text), torn: None }
    }
}

impl<'t> Iterator for Statements<'t> {
    type Item = Statement<'t>;

    fn next(&mut self) -> Option<Statement<'t>> {
        let mut start = None;
        while let Some((at, token)) = self.tokens.next() {
            let from = *start.get_or_insert(at);
            match token {
                Token::Unclosed => {
                    self.torn = Some(Torn::String(at));
                    self.tokens.at = self.tokens.text.len();
                    return None;
                }
                Token::End => {
                    let text = self.tokens.text.get(from..self.tokens.at)?;
                    return Some(Statement { text, offset: from });
                }
                Token::At | Token::Other(_) | Token::Text | Token::Word(_) => {}
            }
        }
        self.torn = self.torn.or(start.map(Torn::Statement));
        None
    }
}

/// All statements of `text`. What was cut before a torn end is given too, so that all faults can be
/// told at once.
#[cfg(test)]
pub(super) fn statements(text: &str) -> (Vec<Statement<'_>>, Option<Torn>) {
    let mut cut = Statements::new(text);
    (cut.by_ref().collect(), cut.torn)
}

/// Line and column, from 1, of a byte offset. A column counts characters.
#[must_use]
pub(super) fn place(text: &str, offset: usize) -> (u32, u32) {
    let mut cut = offset.min(text.len());
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let before = text.get(..cut).unwrap_or_default();
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Places of offsets that only grow: a file of many policies is walked over once.
pub(super) struct Places<'t> {
    text: &'t str,
    /// The offset asked for last, and its place.
    last: (usize, u32, u32),
}

impl<'t> Places<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, last: (0, 1, 1) }
    }

    /// Line and column, as [`place`].
    pub(super) fn at(&mut self, offset: usize) -> (u32, u32) {
        let (before, line, column) = self.last;
        let Some(between) = self.text.get(before..offset) else { return place(self.text, offset) };
        let (lines, columns) = place(between, between.len());
        let column = if lines == 1 { column + columns - 1 } else { columns };
        let line = line + lines - 1;
        self.last = (offset, line, column);
        (line, column)
    }
}

/// Operators of two characters.
const PAIRS: [&str; 6] = ["!=", "&&", "<=", "==", ">=", "||"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    At,
    End,
    Other(char),
    Text,
    Unclosed,
    Word(&'t str),
}

/// Walks over tokens; comments and white space fall away.
struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tokens<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn next(&mut self) -> Option<(usize, Token<'t>)> {
        self.skip_blank();
        let at = self.at;
        let rest = self.text.get(at..)?;
        let first = rest.chars().next()?;
        let (token, length) = match first {
            '@' => (Token::At, 1),
            ';' => (Token::End, 1),
            '"' => string(rest),
            // A number reads as a word: neither ends anything.
            _ if first == '_' || first.is_ascii_alphanumeric() => {
                let end = rest
                    .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                    .unwrap_or(rest.len());
                (Token::Word(rest.get(..end).unwrap_or_default()), end)
            }
            _ if PAIRS.iter().any(|pair| rest.starts_with(pair)) => (Token::Other(first), 2),
            _ => (Token::Other(first), first.len_utf8()),
        };
        self.at += length;
        Some((at, token))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let blank = rest.len() - rest.trim_start().len();
            let after = rest.get(blank..).unwrap_or_default();
            let comment = if after.starts_with("//") {
                after.find(['\n', '\r']).unwrap_or(after.len())
            } else {
                0
            };
            if blank + comment == 0 {
                return;
            }
            self.at += blank + comment;
        }
    }
}

/// The string at the start of `rest`, and its length with both quotes.
fn string<'t>(rest: &str) -> (Token<'t>, usize) {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (Token::Text, at + 1),
            _ => {}
        }
    }
    (Token::Unclosed, rest.len())
}
