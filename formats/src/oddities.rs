//! What is odd about a text, told one by one as far as anybody will read.

/// Most oddities that are told one by one.
const MAX_TOLD: usize = 50;

/// Sentences about a text; a hostile one is odd in more places than memory holds sentences.
#[derive(Debug, Default)]
pub(crate) struct Oddities {
    told: Vec<String>,
    n_more: usize,
}

impl Oddities {
    /// Adds a sentence.
    pub(crate) fn push(&mut self, what: impl Into<String>) {
        if self.told.len() < MAX_TOLD {
            self.told.push(what.into());
        } else {
            self.n_more += 1;
        }
    }

    /// Returns the sentences, the last of them about what is not told.
    pub(crate) fn into_sentences(mut self) -> Vec<String> {
        if self.n_more > 0 {
            self.told
                .push(format!("{} more things are odd", self.n_more));
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let mut oddities = Oddities::default();
        for number in 0..1000 {
            oddities.push(format!("{number} is odd"));
        }
        let sentences = oddities.into_sentences();
        assert_eq!(sentences.len(), MAX_TOLD + 1);
        assert_eq!(sentences[MAX_TOLD], "950 more things are odd");
        assert_eq!(Oddities::default().into_sentences(), [""; 0]);
    }
}
