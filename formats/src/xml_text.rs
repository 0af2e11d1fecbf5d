//! Writes XML: indented, escaped, every element closed.

/// A text that grows. Names of elements and attributes are the caller's own words; values are
/// anybody's.
pub(crate) struct XmlText {
    text: String,
    open: Vec<&'static str>,
}

/// Attributes of an element: name and value.
pub(crate) type Attributes<'a> = [(&'a str, &'a str)];

impl XmlText {
    /// Begins a text with the declaration of XML 1.0 in UTF-8.
    pub(crate) fn new() -> Self {
        Self {
            text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
            open: Vec::new(),
        }
    }

    /// Opens an element.
    pub(crate) fn open(&mut self, name: &'static str, attributes: &Attributes<'_>) {
        self.tag(name, attributes);
        self.text.push_str(">\n");
        self.open.push(name);
    }

    /// Closes the element that was opened last.
    pub(crate) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.indent();
            self.text.push_str(&format!("</{name}>\n"));
        }
    }

    /// Writes an element with nothing in it.
    pub(crate) fn empty(&mut self, name: &str, attributes: &Attributes<'_>) {
        self.tag(name, attributes);
        self.text.push_str("/>\n");
    }

    /// Writes an element with a text in it.
    pub(crate) fn leaf(&mut self, name: &str, attributes: &Attributes<'_>, text: &str) {
        self.tag(name, attributes);
        self.text.push('>');
        push_escaped(&mut self.text, text, false);
        self.text.push_str(&format!("</{name}>\n"));
    }

    /// Closes what is open and returns the text.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }

    fn tag(&mut self, name: &str, attributes: &Attributes<'_>) {
        self.indent();
        self.text.push('<');
        self.text.push_str(name);
        for (name, value) in attributes {
            self.text.push_str(&format!(" {name}=\""));
            push_escaped(&mut self.text, value, true);
            self.text.push('"');
        }
    }

    fn indent(&mut self) {
        self.text.push_str(&"  ".repeat(self.open.len()));
    }
}

/// Returns whether XML 1.0 has a place for a character, escaped or not (production 2).
pub(crate) fn is_xml_char(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' => true,
        '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => true,
    }
}

/// Returns text as XML has it between tags.
pub fn xml_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    push_escaped(&mut escaped, text, false);
    escaped
}

/// What XML cannot hold becomes U+FFFD. Blanks that a reader would change are written by number.
fn push_escaped(into: &mut String, text: &str, is_attribute: bool) {
    for char in text.chars() {
        match char {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' if is_attribute => into.push_str("&quot;"),
            '\n' | '\t' if is_attribute => into.push_str(&format!("&#{};", u32::from(char))),
            '\r' => into.push_str("&#13;"),
            char if is_xml_char(char) => into.push(char),
            _ => into.push('\u{fffd}'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_elements_closed() {
        let mut xml = XmlText::new();
        xml.open("a", &[("b", "<&>\"'\n\u{1}")]);
        xml.leaf("c", &[], "x < y\n& \"z\"\r");
        xml.open("d", &[]);
        xml.empty("e", &[]);
        let text = xml.finish();
        let expected = "<a b=\"&lt;&amp;&gt;&quot;'&#10;\u{fffd}\">\n  <c>x &lt; y\n&amp; \"z\"&#13;</c>\n  <d>\n    <e/>\n  </d>\n</a>\n";
        assert_eq!(text.split_once('\n').unwrap().1, expected);
    }
}
