//! The part of YAML that netplan's files are written in: mappings and lists by indentation or in
//! brackets, and plain or quoted scalars. Anchors, tags and block scalars are refused.

/// How deep values may lie in each other, and how many there may be.
const DEEPEST: usize = 24;
const MOST_LINES: usize = 20_000;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Scalar(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Returns what a key has; none if it has nothing, or this is no mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        let mut pairs = pairs.iter();
        pairs
            .find(|(known, _)| known == key)
            .map(|(_, value)| value)
    }

    /// Returns the pairs of a mapping; of anything else none.
    pub(super) fn pairs(&self) -> &[(String, Self)] {
        match self {
            Self::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Returns the values of a list; of anything else none.
    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// Returns a scalar's text; of anything else an empty one.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Scalar(text) => text,
            _ => "",
        }
    }

    /// Returns the text that a key has.
    pub(super) fn text_of(&self, key: &str) -> &str {
        self.get(key).map_or("", Self::text)
    }
}

/// A line: how far it is indented, and what it says.
type Line = (usize, String);

/// Reads a text; none if it is not understood.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines() {
        let said = without_comment(line).trim_end();
        let words = said.trim_start();
        if words.is_empty() || words == "---" || words == "..." {
            continue;
        }
        if lines.len() == MOST_LINES || line.contains('\t') {
            return None;
        }
        lines.push((said.len() - words.len(), words.to_owned()));
    }
    if lines.is_empty() {
        return Some(Value::Map(Vec::new()));
    }
    let mut reader = Reader { lines, at: 0 };
    let indent = reader.peek()?.0;
    let value = reader.block(indent, 0)?;
    reader.peek().is_none().then_some(value)
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (c, quote) {
            ('#', None) if before.is_whitespace() => return line.get(..at).unwrap_or(line),
            ('"' | '\'', None) if !before.is_alphanumeric() => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

struct Reader {
    lines: Vec<Line>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<(usize, &str)> {
        let (indent, text) = self.lines.get(self.at)?;
        Some((*indent, text))
    }

    /// Reads what is indented by `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        match is_item(self.peek()?.1) {
            true => self.list(indent, depth),
            false => self.map(indent, depth),
        }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Value> {
        let mut values = Vec::new();
        while let Some((at, text)) = self.peek() {
            if at != indent || !is_item(text) {
                break;
            }
            let rest = text.get(1..)?;
            let said = rest.trim_start();
            if said.is_empty() {
                self.at += 1;
                values.push(self.below(indent, depth)?);
                continue;
            }
            // What begins behind the dash goes on in the lines below, as if it stood alone there.
            let inner = indent + 1 + (rest.len() - said.len());
            let said = said.to_owned();
            if key_of(&said).is_some() || is_item(&said) {
                *self.lines.get_mut(self.at)? = (inner, said);
                values.push(self.block(inner, depth + 1)?);
            } else {
                self.at += 1;
                values.push(self.inline(said, depth)?);
            }
        }
        self.ended(indent)?;
        Some(Value::List(values))
    }

    fn map(&mut self, indent: usize, depth: usize) -> Option<Value> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        while let Some((at, text)) = self.peek() {
            if at != indent || is_item(text) {
                break;
            }
            let (key, rest) = key_of(text)?;
            let (key, rest) = (key.to_owned(), rest.to_owned());
            self.at += 1;
            let value = match rest.is_empty() {
                true => self.below(indent, depth)?,
                false => self.inline(rest, depth)?,
            };
            pairs.push((key, value));
        }
        self.ended(indent)?;
        Some(Value::Map(pairs))
    }

    /// What follows is indented less, or a list's item where a mapping was.
    fn ended(&self, indent: usize) -> Option<()> {
        match self.peek() {
            Some((at, _)) if at > indent => None,
            _ => Some(()),
        }
    }

    /// Reads what lies below a key or a dash: nothing, if the next line is not indented more.
    fn below(&mut self, indent: usize, depth: usize) -> Option<Value> {
        match self.peek() {
            Some((at, _)) if at > indent => self.block(at, depth + 1),
            Some((at, text)) if at == indent && is_item(text) => self.list(at, depth + 1),
            _ => Some(Value::Scalar(String::new())),
        }
    }

    /// Reads a value that stands behind its key; brackets may be closed lines later.
    fn inline(&mut self, mut text: String, depth: usize) -> Option<Value> {
        if text.starts_with(['&', '*', '!', '|', '>']) {
            return None;
        }
        if !text.starts_with(['[', '{']) {
            return scalar(&text).map(Value::Scalar);
        }
        while !is_closed(&text) {
            let (_, more) = self.peek()?;
            text.push(' ');
            text.push_str(more);
            self.at += 1;
        }
        let mut rest = text.as_str();
        let value = flow(&mut rest, depth)?;
        rest.trim().is_empty().then_some(value)
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Splits `key: value` and `key:`.
fn key_of(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['[', '{']) {
        return None;
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (key, rest) = text.get(1..)?.split_once(quote)?;
        return Some((key, rest.trim_start().strip_prefix(':')?.trim()));
    }
    match text.split_once(": ") {
        Some((key, value)) => Some((key.trim(), value.trim())),
        None => Some((text.strip_suffix(':')?, "")),
    }
}

fn is_closed(text: &str) -> bool {
    let mut open = 0_usize;
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            ('[' | '{', None) => open += 1,
            (']' | '}', None) => open = open.saturating_sub(1),
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(was)) if c == was => quote = None,
            _ => {}
        }
    }
    open == 0
}

fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            return rest.strip_suffix(quote).map(str::to_owned);
        }
    }
    Some(match text {
        "~" | "null" => String::new(),
        text => text.to_owned(),
    })
}

/// Reads a value in brackets.
fn flow(rest: &mut &str, depth: usize) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    *rest = rest.trim_start();
    let close = match rest.chars().next()? {
        '[' => ']',
        '{' => '}',
        _ => return flow_scalar(rest).map(Value::Scalar),
    };
    *rest = rest.get(1..)?;
    let (mut list, mut pairs) = (Vec::new(), Vec::new());
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(close) {
            *rest = after;
            return Some(match close {
                ']' => Value::List(list),
                _ => Value::Map(pairs),
            });
        }
        if let Some(after) = rest.strip_prefix(',') {
            *rest = after;
        } else if close == ']' {
            list.push(flow(rest, depth + 1)?);
        } else {
            let key = flow_scalar(rest)?;
            *rest = rest.trim_start().strip_prefix(':')?;
            pairs.push((key, flow(rest, depth + 1)?));
        }
    }
}

fn flow_scalar(rest: &mut &str) -> Option<String> {
    let text = rest.trim_start();
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (value, after) = text.get(1..)?.split_once(quote)?;
        *rest = after;
        return Some(value.to_owned());
    }
    let is_end = |at: usize, c: char| {
        let next = text
            .get(at + c.len_utf8()..)
            .and_then(|rest| rest.chars().next());
        matches!(c, ',' | ']' | '}') || c == ':' && next.is_none_or(|next| next == ' ')
    };
    let end = text.char_indices().find(|(at, c)| is_end(*at, *c));
    let (value, after) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    // Nothing at all would be read again and again.
    if value.is_empty() {
        return None;
    }
    *rest = after;
    scalar(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_netplan_is_written_in_is_read() {
        let text = "# by hand\nnetwork:\n  version: 2\n  ethernets:\n    lan: # first\n      match:\n        \
            macaddress: \"52:54:00:aa:bb:cc\"\n      addresses:\n      - 192.0.2.5/24\n      - \
            \"2001:db8::5/64\"\n      nameservers: {addresses: [192.0.2.1,\n        192.0.2.2], search: []}\n      \
            routes:\n        - to: default\n          via: 192.0.2.1\n        -\n          to: 10.0.0.0/8\n      \
            empty:\n";
        let value = parse(text).unwrap();
        let lan = value
            .get("network")
            .unwrap()
            .get("ethernets")
            .unwrap()
            .get("lan")
            .unwrap();
        assert_eq!(
            lan.get("match").unwrap().text_of("macaddress"),
            "52:54:00:aa:bb:cc"
        );
        assert_eq!(
            lan.get("addresses").unwrap().list()[1].text(),
            "2001:db8::5/64"
        );
        let servers = lan.get("nameservers").unwrap();
        assert_eq!(
            servers.get("addresses").unwrap().list()[1].text(),
            "192.0.2.2"
        );
        let routes = lan.get("routes").unwrap().list();
        assert_eq!(routes[0].text_of("via"), "192.0.2.1");
        assert_eq!(routes[1].text_of("to"), "10.0.0.0/8");
        assert_eq!(lan.text_of("empty"), "");
    }

    #[test]
    fn what_is_not_understood_is_refused_and_ends() {
        let deep = "- ".repeat(10_000);
        let open = "[".repeat(10_000);
        for text in [
            "a: *b",
            "a: |\n  x",
            "a: [",
            "a: {b}",
            "a: {:}",
            "a\n",
            "\ta: b",
            "a: [b}",
            "a:\n    b: c\n  d: e",
            &deep,
            &format!("a: {open}"),
            "a: \"b",
            "a: [\"b]",
            "- a\nb: c",
        ] {
            assert_eq!(parse(text), None, "{text:.20}");
        }
        assert_eq!(parse(" \n# x\n"), Some(Value::Map(Vec::new())));
    }
}
