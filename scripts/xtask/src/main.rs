#![doc = include_str!("../README.md")]

mod floors;
mod hops;
mod layout;
mod promises;
mod sources;
mod workspace;

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
};

use anyhow::Result;

use crate::workspace::Workspace;

const USAGE: &str = "usage: cargo run -p xtask -- tidy";

fn main() -> Result<ExitCode> {
    if std::env::args().skip(1).collect::<Vec<_>>() != ["tidy"] {
        writeln!(stderr(), "{USAGE}")?;
        return Ok(ExitCode::from(2));
    }
    let problems = tidy()?;
    for problem in &problems {
        writeln!(stderr(), "tidy: {problem}")?;
    }
    if problems.is_empty() {
        writeln!(stdout(), "tidy: floors, hops, layout, promises and sources are as they should be")?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(stderr(), "tidy: {} problems", problems.len())?;
        Ok(ExitCode::FAILURE)
    }
}

/// Every broken rule of the repository, one sentence each.
fn tidy() -> Result<Vec<String>> {
    let workspace = Workspace::read()?;
    let mut problems = floors::check(&workspace.packages);
    problems.extend(hops::check(&workspace.sources));
    problems.extend(layout::check(&workspace)?);
    problems.extend(sources::check(&workspace.sources));
    let promises = std::fs::read_to_string(workspace.root.join(promises::PAGE))?;
    problems.extend(promises::check(&promises, &workspace.sources));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        let problems = super::tidy().unwrap();
        assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    }
}
