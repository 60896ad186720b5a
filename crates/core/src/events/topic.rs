//! Topic patterns, which select events by their type.

use std::fmt;
use std::str::FromStr;

use crate::types::field_error::is_invisible;
use crate::types::serde_as_text::serde_as_text;

/// Pattern for event types, by the rules of RabbitMQ's topic exchange.
///
/// Types and patterns are words with a `.` between them. In a pattern, `*` stands for exactly one word, and
/// `#` for any number of words, including none. Every other word stands for itself. Case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic(String);

/// The text is not a topic pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// The pattern is empty or too long.
    #[error("expected 1 to {} bytes", Topic::MAX_BYTES)]
    Length,
    /// A wildcard is only a part of a word. RabbitMQ would treat such a wildcard as a plain character.
    #[error("expected `*` and `#` only as whole words, as in `order.*`")]
    PartOfWord,
    /// The pattern contains a space or a control character.
    #[error("expected no spaces and no control characters")]
    Character,
}

impl Topic {
    /// Maximum length of a pattern, in bytes. RabbitMQ has the same maximum.
    pub const MAX_BYTES: usize = 255;

    /// Returns true if the pattern matches the type.
    pub fn matches(&self, event_type: &str) -> bool {
        let (pattern, words) = (split(&self.0), split(event_type));
        let (mut at, mut word) = (0, 0);
        // Position of the last `#`, and of the first word after the words that this `#` matches. After a
        // mismatch, the last `#` takes one more word. An earlier `#` needs no second try, because the last
        // `#` can take any word.
        let mut last: Option<(usize, usize)> = None;
        while word < words.len() {
            match pattern.get(at) {
                Some(&"#") => {
                    last = Some((at, word));
                    at += 1;
                }
                Some(&part) if part == "*" || part == words[word] => (at, word) = (at + 1, word + 1),
                _ => {
                    let Some((hash, first)) = last else { return false };
                    last = Some((hash, first + 1));
                    (at, word) = (hash + 1, first + 1);
                }
            }
        }
        pattern[at..].iter().all(|part| *part == "#")
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        if !(1..=Self::MAX_BYTES).contains(&text.len()) {
            return Err(InvalidTopic::Length);
        }
        if text.chars().any(|character| character.is_whitespace() || is_invisible(character)) {
            return Err(InvalidTopic::Character);
        }
        if text.split('.').any(|word| word.len() > 1 && word.contains(['*', '#'])) {
            return Err(InvalidTopic::PartOfWord);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Topic);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        pattern.parse::<Topic>().unwrap().matches(event_type)
    }

    #[test]
    fn topics_match_by_the_rules_of_rabbitmq() {
        // The first rows are the example of RabbitMQ's tutorial on topics.
        let matching = [
            ("*.orange.*", "quick.orange.rabbit"),
            ("*.*.rabbit", "quick.orange.rabbit"),
            ("lazy.#", "lazy.orange.elephant"),
            ("lazy.#", "lazy.pink.rabbit"),
            ("lazy.#", "lazy.orange.new.rabbit"),
            ("lazy.#", "lazy"),
            ("#", "order.created"),
            ("#", "order"),
            ("#.created", "created"),
            ("#.created", "a.b.created"),
            ("a.#.d", "a.d"),
            ("a.#.d", "a.b.c.d"),
            ("a.#.b.#.c", "a.b.x.b.c"),
            ("*", "order"),
            ("order.created", "order.created"),
            ("#.#", "a"),
            ("a.*.#", "a.b"),
            ("a..b", "a..b"),
        ];
        for (pattern, event_type) in matching {
            assert!(matches(pattern, event_type), "{pattern} {event_type}");
        }
        let others = [
            ("*.orange.*", "orange"),
            ("*.orange.*", "quick.orange.new.rabbit"),
            ("*.orange.*", "quick.brown.fox"),
            ("lazy.#", "quick.lazy"),
            ("*", "order.created"),
            ("a.*.#", "a"),
            ("order.created", "order.Created"),
            ("order.*", "order"),
            ("a.#.d", "a.b.c"),
        ];
        for (pattern, event_type) in others {
            assert!(!matches(pattern, event_type), "{pattern} {event_type}");
        }
    }

    #[test]
    fn invalid_topics_are_refused() {
        let long = "a".repeat(256);
        for (text, error) in [
            ("", InvalidTopic::Length),
            (long.as_str(), InvalidTopic::Length),
            ("order*", InvalidTopic::PartOfWord),
            ("order.#x", InvalidTopic::PartOfWord),
            ("**", InvalidTopic::PartOfWord),
            ("order created", InvalidTopic::Character),
            ("order\u{7}", InvalidTopic::Character),
        ] {
            assert_eq!(text.parse::<Topic>(), Err(error), "{text}");
        }
    }

    /// The definition of a match, word by word.
    fn by_definition(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern, words) {
            ([], []) => true,
            (["#", rest @ ..], _) => {
                by_definition(rest, words) || (!words.is_empty() && by_definition(pattern, &words[1..]))
            }
            ([part, rest @ ..], [word, others @ ..]) => {
                (*part == "*" || part == word) && by_definition(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(
            pattern in "([ab*#]\\.){0,6}[ab*#]", event_type in "([ab]\\.){0,6}[ab]",
        ) {
            let expected = by_definition(&split(&pattern), &split(&event_type));
            prop_assert_eq!(matches(&pattern, &event_type), expected);
        }
    }
}
