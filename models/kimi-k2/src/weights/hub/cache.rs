//! One repository in the cache: `blobs/<etag>`, `snapshots/<commit>/<file>` that link to them, `refs/<revision>`, and
//! the locks, all as `huggingface_hub` has them, so that programs share what they fetched.

use std::{
    fmt::Write,
    fs::{self, File},
    path::{Component, Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType};

use super::HubError;

/// The cached files of one repository and the revision that is asked for.
pub(super) struct RepoCache {
    root: PathBuf,
    folder: String,
    repo: Repo,
    id: String,
}

impl RepoCache {
    pub(super) fn new(root: &Path, id: &str, revision: &str) -> Result<Self, HubError> {
        check_repo_id(id)?;
        if !is_plain_path(revision) {
            let expected = "a branch, a tag or a commit";
            return Err(HubError::Name { what: "revision", name: revision.to_owned(), expected });
        }
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        Ok(Self { root: root.to_owned(), folder: repo.folder_name(), repo, id: id.to_owned() })
    }

    /// Address of the list of files at the revision.
    pub(super) fn api_url(&self, endpoint: &str) -> String {
        format!("{endpoint}/api/models/{}/revision/{}", self.id, escaped(self.repo.revision(), false))
    }

    /// Address of a file at a commit.
    pub(super) fn file_url(&self, endpoint: &str, commit: &str, file: &str) -> String {
        format!("{endpoint}/{}/resolve/{commit}/{}", self.id, escaped(file, true))
    }

    /// Where the contents with this hash lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.path().join("blobs").join(etag)
    }

    /// The directory that looks like the repository at `commit`.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path().join("snapshots").join(commit)
    }

    /// The commit that the revision meant when it was last fetched. A revision may be a commit itself.
    pub(super) fn cached_commit(&self) -> Option<String> {
        let revision = self.repo.revision();
        if is_commit(revision) && self.snapshot(revision).is_dir() {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.path().join("refs").join(revision)).ok()?.trim().to_owned();
        (check_commit(&commit).is_ok() && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Remembers what the revision means now.
    pub(super) fn write_ref(&self, commit: &str) -> Result<(), HubError> {
        if self.repo.revision() == commit {
            return Ok(());
        }
        let written = Cache::new(self.root.clone()).repo(self.repo.clone()).create_ref(commit);
        written.map_err(|error| HubError::io(&self.path().join("refs"), &error))
    }

    /// Keeps other processes (and threads) from fetching the same contents. Held until dropped.
    pub(super) fn lock(&self, etag: &str) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| HubError::io(&path, &error))?;
        // Some network file systems cannot lock. Then two processes may fetch the same file, which wastes bytes but
        // damages nothing: what they write is verified.
        if let Err(error) = file.lock() {
            tracing::debug!(%error, path = %path.display(), "the cache's file system cannot lock");
        }
        Ok(file)
    }

    /// Makes `file` of the snapshot mean the contents with this hash.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let depth = Path::new(file).components().count() + 1;
        let target: PathBuf = std::iter::repeat_n("..", depth).chain(["blobs", etag]).collect();
        let linked = match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => link_or_copy(&target, &self.blob(etag), &path),
        };
        linked.map_err(|error| HubError::io(&path, &error))
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.folder)
    }
}

#[cfg(unix)]
fn link_or_copy(relative: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    // Some file systems have no symbolic links; huggingface_hub copies there, too.
    std::os::unix::fs::symlink(relative, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

#[cfg(not(unix))]
fn link_or_copy(_relative: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

/// Makes the directory of `path`.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().expect("invariant: paths in the cache have a directory");
    fs::create_dir_all(parent).map_err(|error| HubError::io(parent, &error))
}

/// Refuses what is not `name` or `organisation/name`.
fn check_repo_id(id: &str) -> Result<(), HubError> {
    let part = |part: &str| {
        let known = part.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char));
        known && !part.is_empty() && !part.starts_with('.') && !part.contains("..") && !part.contains("--")
    };
    let parts: Vec<&str> = id.split('/').collect();
    if parts.len() <= 2 && parts.into_iter().all(part) {
        return Ok(());
    }
    Err(HubError::Name { what: "repository id", name: id.to_owned(), expected: "organisation/name" })
}

/// Refuses file names that would lead outside the snapshot.
pub(super) fn check_file_name(name: &str) -> Result<(), HubError> {
    if is_plain_path(name) {
        return Ok(());
    }
    Err(HubError::Name { what: "file name", name: name.to_owned(), expected: "a path inside the repository" })
}

/// Refuses what cannot be a commit: it becomes the name of a directory.
pub(super) fn check_commit(commit: &str) -> Result<(), HubError> {
    if (1..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(HubError::Name { what: "commit", name: commit.to_owned(), expected: "a hash" })
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_plain_path(path: &str) -> bool {
    let clean = !path.is_empty() && !path.contains(['\\', '\0', '\n']);
    clean && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Percent-encodes a path for an address; `/` stays when `keep_slash`.
fn escaped(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b'/' if keep_slash => out.push('/'),
            _ => write!(out, "%{byte:02X}").expect("invariant: writing to a String never fails"),
        }
    }
    out
}
