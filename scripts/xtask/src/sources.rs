//! What Rust files look like, and what some of them must not say.

use crate::workspace::Source;

/// Beyond this a reader gets lost.
const FILE_LINES: usize = 600;

/// A phrase that only some folders may use.
struct Forbidden {
    phrase: &'static str,
    /// Paths that the rule is about.
    within: &'static str,
    /// Paths inside of it that may.
    except: &'static [&'static str],
    why: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        phrase: "env::var",
        within: "",
        except: &["crates/kimi-serve/src/", "scripts/xtask/"],
        why: "only kimi-serve reads the environment; pass the value down as configuration",
    },
    Forbidden {
        phrase: "std::thread",
        within: "crates/kimi-scheduler/",
        except: &[],
        why: "the scheduler is pure: no threads",
    },
    Forbidden {
        phrase: "std::time",
        within: "crates/kimi-scheduler/",
        except: &[],
        why: "the scheduler is pure: no clock",
    },
];

/// One sentence for each file that is too long, opens without saying what it owns, or says what it must not.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for Source { path, text } in sources {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            problems.push(format!("{path} has {lines} lines; split it below {FILE_LINES}"));
        }
        if is_test(path) {
            continue;
        }
        if !text.starts_with("//!") && !text.starts_with("#!") {
            problems.push(format!("{path} must open with a //! comment that says what it owns"));
        }
        for (index, line) in outside_tests(text).enumerate() {
            for rule in FORBIDDEN.iter().filter(|rule| path.starts_with(rule.within)) {
                if line.contains(rule.phrase) && !rule.except.iter().any(|folder| path.starts_with(folder)) {
                    problems.push(format!("{path}:{}: `{}`: {}", index + 1, rule.phrase, rule.why));
                }
            }
        }
    }
    problems
}

/// Test files and build scripts.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/build.rs")
}

/// The lines before a file's test module.
fn outside_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.into(), text: text.into() }])
    }

    #[test]
    fn the_environment_is_read_in_one_place() {
        let text = "//! Owns it.\nlet home = std::env::var(\"HOME\");\n";
        assert_eq!(
            problems("models/kimi-k2/src/hub.rs", text),
            ["models/kimi-k2/src/hub.rs:2: `env::var`: only kimi-serve reads the environment; \
              pass the value down as configuration"]
        );
        assert_eq!(problems("crates/kimi-serve/src/config.rs", text), [""; 0]);
        assert_eq!(problems("models/kimi-k2/tests/hub.rs", text), [""; 0]);
        assert_eq!(
            problems("models/kimi-k2/src/a.rs", &format!("//! A.\n#[cfg(test)]\nmod tests {{{text}}}")),
            [""; 0]
        );
    }

    #[test]
    fn files_are_short_and_say_what_they_own() {
        assert_eq!(problems("kernels/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(problems("kernels/src/a.rs", &"//!\n".repeat(601)).len(), 1);
        assert_eq!(problems("kernels/src/a.rs", &"//!\n".repeat(600)), [""; 0]);
    }

    #[test]
    fn the_scheduler_has_no_clock() {
        assert_eq!(problems("crates/kimi-scheduler/src/a.rs", "//! A.\nuse std::time::Instant;\n").len(), 1);
        assert_eq!(problems("crates/kimi-engine/src/a.rs", "//! A.\nuse std::time::Instant;\n"), [""; 0]);
    }
}
