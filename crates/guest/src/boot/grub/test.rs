//! The command `test` of GRUB, also written `[ … ]`.

/// What a test may ask of files.
pub(super) trait Files {
    /// Returns whether something is at the path, and if so whether it is a directory and how long.
    fn look(&self, path: &str) -> Option<(bool, u64)>;
}

/// Returns what the words, without the brackets, say. `-a` binds stronger than `-o`.
pub(super) fn test(words: &[String], files: &dyn Files) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut test = Test {
        words: &words,
        files,
        depth: 0,
    };
    test.any()
}

struct Test<'a> {
    words: &'a [&'a str],
    files: &'a dyn Files,
    depth: u32,
}

impl Test<'_> {
    fn any(&mut self) -> bool {
        self.depth += 1;
        let mut is_true = self.all();
        while self.words.first() == Some(&"-o") {
            self.take(1);
            is_true |= self.all();
        }
        is_true
    }

    fn all(&mut self) -> bool {
        let mut is_true = self.one();
        while self.words.first() == Some(&"-a") {
            self.take(1);
            is_true &= self.one();
        }
        is_true
    }

    fn one(&mut self) -> bool {
        let mut is_negated = false;
        while self.words.first() == Some(&"!") && self.words.len() > 1 {
            self.take(1);
            is_negated = !is_negated;
        }
        self.primary() != is_negated
    }

    fn primary(&mut self) -> bool {
        let words = self.words;
        if let [left, operator, right, ..] = words
            && let Some(is_true) = self.compare(left, operator, right)
        {
            self.take(3);
            return is_true;
        }
        match words {
            ["(", ..] if self.depth < 32 => {
                self.take(1);
                let is_true = self.any();
                if self.words.first() == Some(&")") {
                    self.take(1);
                }
                is_true
            }
            ["-n", text, ..] => {
                self.take(2);
                !text.is_empty()
            }
            ["-z", text, ..] => {
                self.take(2);
                text.is_empty()
            }
            [what @ ("-e" | "-f" | "-d" | "-s"), path, ..] => {
                self.take(2);
                match (*what, self.files.look(path)) {
                    (_, None) => false,
                    ("-e", Some(_)) => true,
                    ("-d", Some((is_directory, _))) => is_directory,
                    ("-f", Some((is_directory, _))) => !is_directory,
                    (_, Some((_, len))) => len > 0,
                }
            }
            [text, ..] => {
                self.take(1);
                !text.is_empty()
            }
            [] => false,
        }
    }

    fn compare(&self, left: &str, operator: &str, right: &str) -> Option<bool> {
        let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
        let (a, b) = (number(left), number(right));
        Some(match operator {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            ">=" => left >= right,
            "-eq" => a == b,
            "-ne" => a != b,
            "-lt" => a < b,
            "-le" => a <= b,
            "-gt" => a > b,
            "-ge" => a >= b,
            _ => return None,
        })
    }

    fn take(&mut self, n: usize) {
        self.words = self.words.get(n..).unwrap_or_default();
    }
}
