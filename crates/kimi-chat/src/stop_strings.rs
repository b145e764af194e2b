//! Ending a text where a stop string begins.

use std::sync::Arc;

/// The strings that end an answer, and whether they are part of it. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStrings {
    strings: Arc<[String]>,
    included: bool,
}

impl StopStrings {
    /// Keeps the non-empty strings. They are not part of the answer.
    pub fn new(strings: impl IntoIterator<Item = String>) -> Self {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).collect();
        Self { strings, included: false }
    }

    /// The same strings; `included` says whether the one that ends an answer is part of it.
    #[must_use]
    pub fn included(self, included: bool) -> Self {
        Self { included, ..self }
    }

    /// The first stop string that is complete in `text`, and where the answer ends. The one that ends first counts, as if
    /// the text came character by character; of those that end together, the longest.
    fn find(&self, text: &str) -> Option<(usize, &str)> {
        let matches = self
            .strings
            .iter()
            .filter_map(|stop| text.find(stop).map(|start| (start + stop.len(), start, stop)));
        matches.min().map(|(end, start, stop)| (if self.included { end } else { start }, stop.as_str()))
    }

    /// The length of the longest end of `text` that a stop string may still grow from.
    fn open_suffix(&self, text: &str) -> usize {
        let longest = |stop: &String| {
            let prefixes = stop.char_indices().map(|(at, _)| &stop[..at]).rev();
            prefixes.into_iter().find(|prefix| text.ends_with(prefix)).map_or(0, str::len)
        };
        self.strings.iter().map(longest).max().unwrap_or(0)
    }
}

/// Passes text on until a stop string completes, holding back what may become one.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: StopStrings,
    held: String,
}

impl StopMatcher {
    pub(crate) fn new(stops: StopStrings) -> Self {
        Self { stops, held: String::new() }
    }

    /// Appends to `out` the text that is certainly before any stop string, and returns the one that completed; then
    /// nothing more must be pushed.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> Option<String> {
        if self.stops.strings.is_empty() {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        if let Some((end, stop)) = self.stops.find(&self.held) {
            let stop = stop.to_owned();
            out.push_str(&self.held[..end]);
            self.held.clear();
            return Some(stop);
        }
        let certain = self.held.len() - self.stops.open_suffix(&self.held);
        out.extend(self.held.drain(..certain));
        None
    }

    /// Ends the text: what was held back did not become a stop string. The matcher can be used again.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one sees when characters come one at a time and nothing is held back.
    fn reference(stops: &[String], included: bool, text: &str) -> (String, Option<String>) {
        let mut seen = String::new();
        for c in text.chars() {
            seen.push(c);
            let longest =
                stops.iter().filter(|stop| seen.ends_with(stop.as_str())).max_by_key(|stop| stop.len());
            if let Some(longest) = longest {
                seen.truncate(seen.len() - if included { 0 } else { longest.len() });
                return (seen, Some(longest.clone()));
            }
        }
        (seen, None)
    }

    proptest! {
        #[test]
        fn cuts_at_the_same_place_for_every_split(
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
            included in any::<bool>(),
            pieces in proptest::collection::vec("[abéc]{0,4}", 0..12),
        ) {
            let mut matcher = StopMatcher::new(StopStrings::new(stops.clone()).included(included));
            let mut out = String::new();
            let hit = pieces.iter().find_map(|piece| matcher.push(piece, &mut out));
            if hit.is_none() {
                matcher.finish(&mut out);
            }
            prop_assert_eq!((out, hit), reference(&stops, included, &pieces.concat()));
        }
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut matcher = StopMatcher::new(StopStrings::new(["\n\nUser:".to_owned(), String::new()]));
        let mut out = String::new();
        assert_eq!(matcher.push("done\n\nUs", &mut out), None);
        assert_eq!(out, "done");
        assert_eq!(matcher.push("ing", &mut out), None);
        assert_eq!(out, "done\n\nUsing");
        assert_eq!(matcher.push(" it\n\nUser: more", &mut out).as_deref(), Some("\n\nUser:"));
        assert_eq!(out, "done\n\nUsing it");
    }
}
