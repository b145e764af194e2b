//! What the checks look at, read once: packages with their dependencies, and every Rust source.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Folders that hold sources.
pub(crate) const FOLDERS: [&str; 5] = ["benches", "crates", "kernels", "models", "scripts"];

/// Folders that builds and tools make; git does not know them.
pub(crate) const GENERATED: [&str; 4] = ["target", "node_modules", "__pycache__", ".venv"];

/// The repository as the checks see it.
pub(crate) struct Workspace {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// The members, by name.
    pub(crate) packages: Vec<Package>,
    /// Every `.rs` file under [`FOLDERS`], by path.
    pub(crate) sources: Vec<Source>,
}

/// A member of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder, relative to the root.
    pub(crate) folder: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// An edge to another package, ours or not.
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests and benches see it.
    pub(crate) development: bool,
}

/// A Rust file.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Workspace {
    pub(crate) fn read() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .no_deps()
            .exec()
            .context("cannot read the workspace with `cargo metadata`")?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let mut packages = Vec::new();
        for package in &metadata.packages {
            let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
            let dependencies = package
                .dependencies
                .iter()
                .map(|dependency| Dependency {
                    name: dependency.name.clone(),
                    development: dependency.kind == DependencyKind::Development,
                })
                .collect();
            packages.push(Package {
                name: package.name.to_string(),
                folder: folder.strip_prefix(&metadata.workspace_root)?.to_path_buf().into(),
                dependencies,
            });
        }
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        let mut sources = Vec::new();
        for folder in FOLDERS {
            collect_sources(&root, &root.join(folder), &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root, packages, sources })
    }
}

fn collect_sources(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !GENERATED.iter().any(|generated| path.file_name() == Some(OsStr::new(generated))) {
                collect_sources(root, &path, sources)?;
            }
        } else if path.extension() == Some(OsStr::new("rs")) {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            sources.push(Source { path, text });
        }
    }
    Ok(())
}
