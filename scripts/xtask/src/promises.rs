//! The promises of `PROMISES.md` are kept by tests that exist.

use crate::workspace::Source;

/// The page, relative to the root.
pub(crate) const PAGE: &str = "crates/kimi-http/PROMISES.md";

/// One sentence for each test that `page` names and no source has.
pub(crate) fn check(page: &str, sources: &[Source]) -> Vec<String> {
    let is_test = |name: &str| {
        let definition = format!("fn {name}(");
        sources.iter().any(|source| {
            source.text.match_indices(&definition).any(|(at, _)| follows_test_attribute(&source.text[..at]))
        })
    };
    let names: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)).collect();
    if names.is_empty() {
        return vec![format!("{PAGE} names no test")];
    }
    let missing = names.into_iter().filter(|name| !is_test(name));
    missing.map(|name| format!("{PAGE} promises the test {name}, which does not exist")).collect()
}

/// Names of tests are sentences; metrics begin with the product's name.
fn is_test_name(name: &str) -> bool {
    let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_sentence = name.split('_').count() > 2 && name.split('_').all(is_word);
    is_sentence && !name.starts_with("kimi_") || name.starts_with("kimi_nano_")
}

/// Whether the text before a function ends with an attribute of a test, lints and modifiers aside.
fn follows_test_attribute(before: &str) -> bool {
    let paragraph = before.trim_end().lines().rev().take_while(|line| !line.trim().is_empty());
    paragraph
        .map(str::trim)
        .take_while(|line| !line.ends_with(['}', ';']))
        .any(|line| line.ends_with("test]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_without_its_test_is_named() {
        let text = "#[test]\nfn a_b_c() {}\n\n#[tokio::test]\nasync fn d_e_f() {}\n\nfn g_h_i() {}\n";
        let sources = [Source { path: "a.rs".into(), text: text.into() }];
        assert_eq!(
            check("`a_b_c`, `d_e_f`; `kimi_x_total`, `retry-after`, `ms://`, `a_b`", &sources),
            [""; 0]
        );
        let missing = |name| format!("{PAGE} promises the test {name}, which does not exist");
        assert_eq!(check("`a_b_c` `g_h_i` `x_y_z`", &sources), [missing("g_h_i"), missing("x_y_z")]);
        assert_eq!(check("nothing", &sources), [format!("{PAGE} names no test")]);
    }
}
