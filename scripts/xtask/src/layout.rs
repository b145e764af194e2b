//! Where things lie: the top level, and the same few files in every crate.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace::{FOLDERS, GENERATED, Package, Workspace};

/// A README that is also the crate's documentation should be read in one go.
const README_LINES: usize = 120;

/// Packages whose folder has a name of its own.
const RENAMED: [(&str, &str); 2] = [("kernels", "kimi-kernels"), ("benches", "kimi-bench")];

pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(&workspace.root).context("cannot list the repository")? {
        let entry = entry?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?.is_dir()));
    }
    entries.sort();
    let mut problems = top_level(&entries);
    for package in &workspace.packages {
        problems.extend(package_folder(&workspace.root, package)?);
    }
    Ok(problems)
}

/// `entries`: name and whether it is a folder.
fn top_level(entries: &[(String, bool)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, is_folder) in entries {
        if name.starts_with('.') || GENERATED.contains(&name.as_str()) {
            continue;
        }
        if *is_folder && !FOLDERS.contains(&name.as_str()) {
            problems.push(format!("the top level holds {} only, not {name}/", FOLDERS.join(", ")));
        }
        if !is_folder && !is_root_text(name) {
            problems.push(format!("{name} does not belong at the top level; only manifests and texts do"));
        }
    }
    for wanted in FOLDERS.into_iter().chain(["Cargo.toml", "README.md"]) {
        if !entries.iter().any(|(name, _)| name == wanted) {
            problems.push(format!("the top level lacks {wanted}"));
        }
    }
    problems
}

fn is_root_text(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("md" | "toml" | "lock")) || name.starts_with("LICENSE")
}

fn package_folder(root: &Path, package: &Package) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (name, folder) = (&package.name, package.folder.display().to_string());
    let base = package.folder.file_name().map(|base| base.to_string_lossy().into_owned()).unwrap_or_default();
    let expected =
        RENAMED.iter().find(|(renamed, _)| *renamed == folder).map_or(base.as_str(), |(_, name)| name);
    if expected != name {
        problems.push(format!("the package in {folder} is named {name}; a package is named like its folder"));
    }
    let readme: PathBuf = root.join(&package.folder).join("README.md");
    if !readme.is_file() {
        problems
            .push(format!("{folder} has no README.md: what it owns, how to use it, what it must not know"));
        return Ok(problems);
    }
    let text = fs::read_to_string(&readme).with_context(|| format!("cannot read {folder}/README.md"))?;
    let lines = text.lines().count();
    if lines > README_LINES {
        problems.push(format!("{folder}/README.md has {lines} lines; {README_LINES} are enough"));
    }
    let library = root.join(&package.folder).join("src/lib.rs");
    if library.is_file()
        && !fs::read_to_string(library)?.contains(r#"#![doc = include_str!("../README.md")]"#)
    {
        problems.push(format!(
            r#"{folder}/src/lib.rs must show its README: #![doc = include_str!("../README.md")]"#
        ));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_at_the_top_level_are_named() {
        let mut entries: Vec<(String, bool)> = FOLDERS.iter().map(|name| ((*name).into(), true)).collect();
        entries.extend(
            ["Cargo.toml", "README.md", "LICENSE-MIT", ".gitignore"].map(|name| (name.into(), false)),
        );
        entries.extend([".github", "target"].map(|name| (name.into(), true)));
        assert_eq!(top_level(&entries), [""; 0]);
        entries.push(("docs".into(), true));
        entries.push(("run.sh".into(), false));
        entries.retain(|(name, _)| name != "models");
        assert_eq!(
            top_level(&entries),
            [
                "the top level holds benches, crates, kernels, models, scripts only, not docs/",
                "run.sh does not belong at the top level; only manifests and texts do",
                "the top level lacks models",
            ]
        );
    }
}
