//! The natural path of a token: twelve functions, each labelled once, so that the map cannot rot.

use crate::workspace::Source;

const HOPS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7a", "7b", "8a", "8b", "9a", "9b"];

/// One sentence for each label that is missing, doubled, unknown or not at the start of a doc comment.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut found: Vec<(&str, String)> = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("scripts/xtask/")) {
        for (index, line) in source.text.lines().enumerate() {
            let Some((before, label)) = label_in(line) else { continue };
            let place = format!("{}:{}", source.path, index + 1);
            if before.trim() != "///" {
                problems.push(format!("{place}: the label of hop {label} must open a doc comment"));
            }
            if !HOPS.contains(&label) {
                problems.push(format!("{place}: there is no hop {label}; there are {}", HOPS.join(", ")));
            }
            found.push((label, place));
        }
    }
    for hop in HOPS {
        let places: Vec<&str> =
            found.iter().filter(|(label, _)| *label == hop).map(|(_, place)| place.as_str()).collect();
        match places.as_slice() {
            [_] => {}
            [] => problems.push(format!("no function carries the label of hop {hop}; see ARCHITECTURE.md")),
            several => problems
                .push(format!("hop {hop} must be one function, but it is at {}", several.join(" and "))),
        }
    }
    problems
}

/// What stands before a label, and the label's number and letter.
fn label_in(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("Hop ")?;
    let (label, _) = rest.split_once(" of 9")?;
    (label.len() <= 3 && label.starts_with(|c: char| c.is_ascii_digit())).then_some((before, label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(labels: &[&str]) -> Vec<Source> {
        let text: Vec<String> =
            labels.iter().map(|label| format!("    /// Hop {label} of 9. Does it.\n")).collect();
        vec![Source { path: "crates/a.rs".into(), text: text.concat() }]
    }

    #[test]
    fn the_whole_path_is_fine() {
        assert_eq!(check(&sources(&HOPS)), [""; 0]);
    }

    #[test]
    fn gaps_doubles_and_strangers_are_named() {
        let labels: Vec<&str> = HOPS.iter().copied().filter(|&hop| hop != "7a").chain(["5", "7"]).collect();
        assert_eq!(
            check(&sources(&labels)),
            [
                "crates/a.rs:13: there is no hop 7; there are 1, 2, 3, 4, 5, 6, 7a, 7b, 8a, 8b, 9a, 9b",
                "hop 5 must be one function, but it is at crates/a.rs:5 and crates/a.rs:12",
                "no function carries the label of hop 7a; see ARCHITECTURE.md",
            ]
        );
    }

    #[test]
    fn a_label_opens_a_doc_comment() {
        let mut all = sources(&HOPS);
        all[0].text = all[0].text.replace("/// Hop 2", "// As Hop 2");
        assert_eq!(check(&all), ["crates/a.rs:2: the label of hop 2 must open a doc comment"]);
    }
}
