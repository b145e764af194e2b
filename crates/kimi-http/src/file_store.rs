//! Uploaded files: on disk in a directory of their own that only this user can read, in memory only what they are called.
//! Nobody but the key that uploaded a file sees it, and no name a client chooses is ever part of a path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kimi_api::FileObject;
use tempfile::{NamedTempFile, TempDir, TempPath};

use crate::ApiError;
use crate::auth::Caller;

/// How much may be uploaded, and for how long it stays. All but the size of one file holds for each API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// How many files.
    pub files: usize,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Files older than this are deleted.
    pub keep_for: Duration,
}

impl FileLimits {
    /// The hosted service's limits, and a day.
    pub const DEFAULT: Self = Self {
        file_bytes: 100 * 1000 * 1000,
        files: 1000,
        total_bytes: 10 * 1000 * 1000 * 1000,
        keep_for: Duration::from_hours(24),
    };
}

/// The uploads of one server. They end with it.
pub(crate) struct FileStore {
    limits: FileLimits,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// Made for the first upload. After the files, or they would be deleted before it.
    files: BTreeMap<String, StoredFile>,
    directory: Option<TempDir>,
}

struct StoredFile {
    owner: Caller,
    uploaded: Instant,
    mime_type: &'static str,
    object: FileObject,
    /// Deletes the file when dropped.
    path: TempPath,
}

impl FileStore {
    pub(crate) fn new(limits: FileLimits) -> Self {
        Self { limits, contents: Mutex::default() }
    }

    pub(crate) fn limits(&self) -> FileLimits {
        self.limits
    }

    /// An empty file to upload into, readable by this user only.
    pub(crate) fn begin(&self) -> io::Result<NamedTempFile> {
        let mut contents = self.contents();
        if contents.directory.is_none() {
            contents.directory = Some(private_directory()?);
        }
        let directory = contents.directory.as_ref().map_or(Path::new(""), TempDir::path);
        NamedTempFile::new_in(directory)
    }

    /// Whether `owner` may upload `bytes` more in one file.
    pub(crate) fn check_room(&self, owner: Caller, bytes: u64) -> Result<(), ApiError> {
        self.contents().check_room(&self.limits, owner, bytes)
    }

    /// Keeps what was uploaded, if there is room for it.
    pub(crate) fn keep(
        &self,
        owner: Caller,
        object: FileObject,
        mime_type: &'static str,
        path: TempPath,
    ) -> Result<FileObject, ApiError> {
        let mut contents = self.contents();
        contents.check_room(&self.limits, owner, object.bytes)?;
        let stored = StoredFile { owner, uploaded: Instant::now(), mime_type, object: object.clone(), path };
        contents.files.insert(object.id.clone(), stored);
        Ok(object)
    }

    /// The files of `owner`, oldest first.
    pub(crate) fn list(&self, owner: Caller) -> Vec<FileObject> {
        let contents = self.contents();
        let mut files: Vec<&StoredFile> =
            contents.files.values().filter(|file| file.owner == owner).collect();
        files.sort_by_key(|file| file.uploaded);
        files.into_iter().map(|file| file.object.clone()).collect()
    }

    /// What is known of a file of `owner`.
    pub(crate) fn get(&self, owner: Caller, id: &str) -> Result<FileObject, ApiError> {
        self.contents().find(owner, id).map(|file| file.object.clone())
    }

    /// A file of `owner`, opened, with its MIME type and its size. `None` in place of the file when the disk lost it.
    pub(crate) fn open(
        &self,
        owner: Caller,
        id: &str,
    ) -> Result<(io::Result<File>, &'static str, u64), ApiError> {
        let contents = self.contents();
        let file = contents.find(owner, id)?;
        Ok((File::open(&file.path), file.mime_type, file.object.bytes))
    }

    /// Deletes a file of `owner`.
    pub(crate) fn delete(&self, owner: Caller, id: &str) -> Result<(), ApiError> {
        let mut contents = self.contents();
        contents.find(owner, id)?;
        contents.files.remove(id);
        Ok(())
    }

    /// Deletes everything, the directory included.
    pub(crate) fn clear(&self) {
        *self.contents() = Contents::default();
    }

    /// What is there, after whatever is too old was deleted.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic while it was held cannot have left it half changed: every change is one insertion or removal.
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.files.retain(|_, file| file.uploaded.elapsed() < self.limits.keep_for);
        contents
    }
}

impl Contents {
    fn find(&self, owner: Caller, id: &str) -> Result<&StoredFile, ApiError> {
        // Somebody else's file is answered like one that does not exist.
        self.files.get(id).filter(|file| file.owner == owner).ok_or_else(|| ApiError::file_not_found(id))
    }

    fn check_room(&self, limits: &FileLimits, owner: Caller, bytes: u64) -> Result<(), ApiError> {
        let own = || self.files.values().filter(|file| file.owner == owner);
        if own().count() >= limits.files {
            return Err(ApiError::invalid(format!(
                "Invalid request: at most {} files can be kept; delete some first",
                limits.files
            )));
        }
        let used: u64 = own().map(|file| file.object.bytes).sum();
        if used + bytes > limits.total_bytes {
            return Err(ApiError::invalid(format!(
                "Invalid request: at most {} bytes of files can be kept, of which {used} are used; delete some first",
                limits.total_bytes
            )));
        }
        Ok(())
    }
}

fn private_directory() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("kimi-files-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_end_with_the_store() {
        let store = FileStore::new(FileLimits::DEFAULT);
        let mut file = store.begin().unwrap();
        file.write_all(b"content").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (path, directory) = (file.path().to_owned(), file.path().parent().unwrap().to_owned());
        assert_eq!((mode(&path), mode(&directory)), (0o600, 0o700));
        let object = FileObject {
            id: "file-1".into(),
            object: FileObject::OBJECT,
            bytes: 7,
            created_at: 1,
            filename: "a".into(),
            purpose: kimi_api::FilePurpose::Image,
            status: "ready",
            status_details: "",
        };
        store.keep(Caller::default(), object, "image/png", file.into_temp_path()).unwrap();
        assert!(path.exists());
        store.clear();
        assert!(!path.exists() && !directory.exists());
    }
}
