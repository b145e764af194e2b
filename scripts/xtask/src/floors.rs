//! Who may import whom. A crate knows lower floors only, and each floor keeps its promise about what it never sees.

use crate::workspace::Package;

/// One crate's place in the house.
struct Floor {
    package: &'static str,
    /// The crates of ours that it may import.
    below: &'static [&'static str],
    /// External crates it must never see outside its tests, by name or by the first word of it.
    never: &'static [&'static str],
}

/// Lowest floor first. `ARCHITECTURE.md` draws the same table.
const FLOORS: &[Floor] = &[
    Floor { package: "kimi-tokens", below: &[], never: &["axum", "candle", "serde", "tokenizers", "tokio"] },
    Floor { package: "kimi-api", below: &[], never: &["axum", "candle", "tokenizers", "tokio"] },
    Floor {
        package: "kimi-chat",
        below: &["kimi-api", "kimi-tokens"],
        never: &["axum", "candle", "hyper", "reqwest", "tokio"],
    },
    Floor {
        package: "kimi-scheduler",
        below: &["kimi-tokens"],
        never: &["axum", "candle", "rayon", "serde", "tokenizers", "tokio"],
    },
    Floor { package: "kimi-kernels", below: &[], never: &["axum", "hyper", "tokenizers", "tokio"] },
    Floor {
        package: "kimi-engine",
        below: &["kimi-scheduler", "kimi-tokens"],
        never: &["axum", "candle", "hyper", "tokenizers"],
    },
    Floor {
        package: "kimi-k2",
        below: &["kimi-kernels", "kimi-tokens"],
        never: &["axum", "hyper", "tokenizers", "tokio"],
    },
    Floor {
        package: "kimi-runner",
        below: &["kimi-engine", "kimi-k2", "kimi-kernels", "kimi-scheduler", "kimi-tokens"],
        never: &["axum", "hyper", "reqwest", "tokenizers", "tokio"],
    },
    Floor {
        package: "kimi-guide",
        below: &["kimi-chat", "kimi-engine", "kimi-tokens"],
        never: &["axum", "candle", "hyper", "reqwest", "tokio"],
    },
    Floor {
        package: "kimi-http",
        below: &["kimi-api", "kimi-chat", "kimi-engine", "kimi-guide", "kimi-tokens"],
        never: &["candle"],
    },
    Floor {
        package: "kimi-serve",
        below: &[
            "kimi-api",
            "kimi-chat",
            "kimi-engine",
            "kimi-guide",
            "kimi-http",
            "kimi-k2",
            "kimi-kernels",
            "kimi-runner",
            "kimi-scheduler",
            "kimi-tokens",
        ],
        never: &[],
    },
    Floor { package: "kimi-bench", below: &["kimi-api", "kimi-k2", "kimi-kernels"], never: &["axum"] },
    Floor { package: "xtask", below: &[], never: &["axum", "candle", "tokio"] },
];

/// One sentence for each arrow that points the wrong way and each crate without a floor.
pub(crate) fn check(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some(floor) = FLOORS.iter().find(|floor| floor.package == name) else {
            problems.push(format!(
                "{name} has no floor; give it one in scripts/xtask/src/floors.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let imported = dependency.name.as_str();
            if packages.iter().any(|package| package.name == imported) {
                let allowed = floor.below.contains(&imported)
                    || (dependency.development && is_far_below(floor, imported));
                if !allowed {
                    let may =
                        if floor.below.is_empty() { "none of ours".into() } else { floor.below.join(", ") };
                    problems.push(format!(
                        "{name} imports {imported}, which is not below it; it may import {may}"
                    ));
                }
            } else if !dependency.development
                && let Some(word) = floor.never.iter().find(|word| is_or_belongs_to(imported, word))
            {
                problems.push(format!("{name} imports {imported}; it must never see {word}"));
            }
        }
    }
    for floor in FLOORS {
        if !packages.iter().any(|package| package.name == floor.package) {
            problems.push(format!(
                "{} has a floor in scripts/xtask/src/floors.rs but is no member",
                floor.package
            ));
        }
    }
    problems
}

/// Tests may also use what the crates below import.
fn is_far_below(floor: &Floor, imported: &str) -> bool {
    let below = FLOORS.iter().filter(|lower| floor.below.contains(&lower.package));
    below.into_iter().any(|lower| lower.below.contains(&imported) || is_far_below(lower, imported))
}

/// `candle-core` belongs to `candle`.
fn is_or_belongs_to(package: &str, family: &str) -> bool {
    package.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn house(package: &str, imports: &str, development: bool) -> Vec<String> {
        let packages: Vec<Package> = FLOORS
            .iter()
            .map(|floor| floor.package)
            .chain(["kimi-attic"].into_iter().filter(|&attic| attic == package))
            .map(|name| Package {
                name: name.into(),
                folder: name.into(),
                dependencies: (name == package)
                    .then(|| Dependency { name: imports.into(), development })
                    .into_iter()
                    .collect(),
            })
            .collect();
        check(&packages)
    }

    #[test]
    fn arrows_point_down() {
        assert_eq!(house("kimi-runner", "kimi-k2", false), [""; 0]);
        assert_eq!(
            house("kimi-k2", "kimi-runner", true),
            ["kimi-k2 imports kimi-runner, which is not below it; it may import kimi-kernels, kimi-tokens"]
        );
        assert_eq!(
            house("kimi-tokens", "kimi-api", false),
            ["kimi-tokens imports kimi-api, which is not below it; it may import none of ours"]
        );
    }

    #[test]
    fn tests_may_look_further_down_but_never_up() {
        assert_eq!(house("kimi-http", "kimi-scheduler", true), [""; 0]);
        assert_eq!(house("kimi-http", "kimi-scheduler", false).len(), 1);
        assert_eq!(house("kimi-http", "kimi-runner", true).len(), 1);
    }

    #[test]
    fn floors_keep_their_promises_outside_tests() {
        assert_eq!(
            house("kimi-http", "candle-core", false),
            ["kimi-http imports candle-core; it must never see candle"]
        );
        assert_eq!(house("kimi-chat", "tokio", true), [""; 0]);
        assert_eq!(house("kimi-chat", "tokio-util", false).len(), 1);
        assert_eq!(house("kimi-chat", "tokiology", false), [""; 0]);
    }

    #[test]
    fn every_crate_has_a_floor() {
        assert!(house("kimi-attic", "std", false)[0].starts_with("kimi-attic has no floor"));
    }
}
