//! The language of GRUB's scripts ("Shell-like scripting" of its manual): words, quotes, variables,
//! blocks.

use std::rc::Rc;

/// Commands, one after the other.
pub(super) type List = Rc<Vec<Command>>;

#[derive(Debug, Clone)]
pub(super) enum Command {
    /// Words, and the block in braces after them, as of menuentry.
    Simple(Vec<Word>, Option<List>),
    /// Conditions with what follows them, and what else.
    If(Vec<(List, List)>, List),
    /// A variable, its values, what is done with each.
    For(String, Vec<Word>, List),
    /// A condition, whether it is to be false, what is done meanwhile.
    While(List, bool, List),
    Function(String, List),
}

/// Pieces that stand side by side.
pub(super) type Word = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it is.
    Text(String),
    /// Text in quotes: a word even if it is empty.
    Quoted(String),
    /// A variable, and whether it is in quotes.
    Variable(String, bool),
}

/// How deep blocks may stand in one another.
const DEEPEST: u32 = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A newline or `;`.
    End,
    Open,
    Close,
}

/// Parses a script. What is no script gives what was understood before it, and why it ends there.
pub(super) fn parse(text: &str) -> (List, Option<String>) {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
        depth: 0,
    };
    let mut list = Vec::new();
    let problem = match parser.list_into(&mut list, &[]) {
        Ok(()) if parser.at < parser.tokens.len() => Some("a } without its {".to_owned()),
        Ok(()) => None,
        Err(problem) => Some(problem),
    };
    (Rc::new(list), problem)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

type Parsed<T> = Result<T, String>;

impl Parser {
    fn list(&mut self, ends: &[&str]) -> Parsed<List> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("blocks are nested too deep".into());
        }
        let mut list = Vec::new();
        self.list_into(&mut list, ends)?;
        self.depth -= 1;
        Ok(Rc::new(list))
    }

    /// Reads commands up to one of the words `ends` or a `}`, which is not consumed.
    fn list_into(&mut self, list: &mut Vec<Command>, ends: &[&str]) -> Parsed<()> {
        loop {
            match self.tokens.get(self.at) {
                None | Some(Token::Close) => return Ok(()),
                Some(Token::End) => self.at += 1,
                Some(Token::Open) => return Err("a block without a command".into()),
                Some(Token::Word(word)) => {
                    if keyword(word).is_some_and(|word| ends.contains(&word)) {
                        return Ok(());
                    }
                    list.push(self.command()?);
                }
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let first = match self.tokens.get(self.at) {
            Some(Token::Word(word)) => keyword(word).map(str::to_owned),
            _ => None,
        };
        match first.as_deref() {
            Some("if") => self.condition(),
            Some("for") => self.for_each(),
            Some(word @ ("while" | "until")) => {
                self.at += 1;
                let condition = self.list(&["do"])?;
                Ok(Command::While(condition, word == "until", self.body()?))
            }
            Some("function") => {
                self.at += 1;
                let name = self.plain_word()?;
                let block = self.block()?.ok_or("a function without a block")?;
                Ok(Command::Function(name, block))
            }
            _ => self.simple(),
        }
    }

    fn simple(&mut self) -> Parsed<Command> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.get(self.at) {
            words.push(word.clone());
            self.at += 1;
        }
        let block = match self.tokens.get(self.at) {
            Some(Token::Open) => self.block()?,
            _ => None,
        };
        Ok(Command::Simple(words, block))
    }

    fn condition(&mut self) -> Parsed<Command> {
        let mut branches = Vec::new();
        let mut otherwise = List::default();
        loop {
            // At `if` or `elif`.
            self.at += 1;
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            let body = self.list(&["elif", "else", "fi"])?;
            branches.push((condition, body));
            match self.plain_word()?.as_str() {
                "elif" => self.at -= 1,
                "else" => {
                    otherwise = self.list(&["fi"])?;
                    self.expect("fi")?;
                    break;
                }
                "fi" => break,
                other => return Err(format!("{other} instead of fi")),
            }
        }
        Ok(Command::If(branches, otherwise))
    }

    fn for_each(&mut self) -> Parsed<Command> {
        self.at += 1;
        let name = self.plain_word()?;
        self.expect("in")?;
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.get(self.at) {
            words.push(word.clone());
            self.at += 1;
        }
        Ok(Command::For(name, words, self.body()?))
    }

    /// Reads `do … done`.
    fn body(&mut self) -> Parsed<List> {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    /// Reads `{ … }`, which may begin on the next line.
    fn block(&mut self) -> Parsed<Option<List>> {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
        if self.tokens.get(self.at) != Some(&Token::Open) {
            return Ok(None);
        }
        self.at += 1;
        let body = self.list(&[])?;
        if self.tokens.get(self.at) != Some(&Token::Close) {
            return Err("a block without its }".into());
        }
        self.at += 1;
        Ok(Some(body))
    }

    fn expect(&mut self, wanted: &str) -> Parsed<()> {
        match self.plain_word() {
            Ok(word) if word == wanted => Ok(()),
            _ => Err(format!("no {wanted} where one must be")),
        }
    }

    fn plain_word(&mut self) -> Parsed<String> {
        let word = match self.tokens.get(self.at) {
            Some(Token::Word(word)) => keyword(word),
            _ => None,
        };
        let word = word
            .ok_or("something else where a word must be")?
            .to_owned();
        self.at += 1;
        Ok(word)
    }
}

/// Returns a word that is nothing but text without quotes.
fn keyword(word: &Word) -> Option<&str> {
    match word.as_slice() {
        [Piece::Text(text)] => Some(text),
        _ => None,
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: text,
        tokens: Vec::new(),
        word: Vec::new(),
    };
    lexer.run();
    lexer.tokens
}

struct Lexer<'t> {
    rest: &'t str,
    tokens: Vec<Token>,
    word: Word,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(next) = self.next() {
            match next {
                '\\' => match self.next() {
                    Some('\n') | None => (),
                    Some(escaped) => self.push(escaped, true),
                },
                '\'' => self.single_quoted(),
                '"' => self.double_quoted(),
                '$' => self.variable(false),
                '#' if self.word.is_empty() => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                '\n' | ';' | '&' | '|' => self.end(Some(Token::End)),
                '{' if self.word.is_empty() => self.end(Some(Token::Open)),
                '}' if self.word.is_empty() => self.end(Some(Token::Close)),
                next if next.is_whitespace() => self.end(None),
                next => self.push(next, false),
            }
        }
        self.end(None);
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn end(&mut self, token: Option<Token>) {
        if !self.word.is_empty() {
            self.tokens
                .push(Token::Word(std::mem::take(&mut self.word)));
        }
        self.tokens.extend(token);
    }

    fn push(&mut self, next: char, is_quoted: bool) {
        match self.word.last_mut() {
            Some(Piece::Text(text)) if !is_quoted => text.push(next),
            Some(Piece::Quoted(text)) if is_quoted => text.push(next),
            _ if is_quoted => self.word.push(Piece::Quoted(next.into())),
            _ => self.word.push(Piece::Text(next.into())),
        }
    }

    fn single_quoted(&mut self) {
        let end = self.rest.find('\'').unwrap_or(self.rest.len());
        let text = self.rest[..end].to_owned();
        self.word.push(Piece::Quoted(text));
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
    }

    fn double_quoted(&mut self) {
        self.word.push(Piece::Quoted(String::new()));
        while let Some(next) = self.next() {
            match next {
                '"' => return,
                '$' => self.variable(true),
                '\\' => match self.next() {
                    Some(escaped @ ('"' | '\\' | '$')) => self.push(escaped, true),
                    Some('\n') | None => (),
                    Some(other) => {
                        self.push('\\', true);
                        self.push(other, true);
                    }
                },
                next => self.push(next, true),
            }
        }
    }

    /// Reads what follows a `$`: a name, `{name}`, a number or one of `?`, `*`, `@`, `#`.
    fn variable(&mut self, is_quoted: bool) {
        let rest = self.rest;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, len) = if let Some(inner) = rest.strip_prefix('{') {
            match inner.find('}') {
                Some(end) => (&inner[..end], end + 2),
                None => ("", 0),
            }
        } else if rest.starts_with(['?', '*', '@', '#']) {
            (&rest[..1], 1)
        } else {
            let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            (&rest[..len], len)
        };
        if name.is_empty() {
            return self.push('$', is_quoted);
        }
        self.word.push(Piece::Variable(name.to_owned(), is_quoted));
        self.rest = &rest[len..];
    }
}
