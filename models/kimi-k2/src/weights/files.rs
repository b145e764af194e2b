//! A checkpoint's files: a directory, or bytes that are part of the program.

use std::{
    borrow::Cow,
    fs::File,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use kimi_kernels::SharedBytes;

use crate::CheckpointError;

/// Where the files of a checkpoint are.
#[derive(Clone, Debug)]
pub enum CheckpointFiles {
    /// In a directory in hub layout.
    Directory(PathBuf),
    /// In the program itself: name and contents of each file.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl CheckpointFiles {
    /// All bytes of a small file.
    ///
    /// # Errors
    /// The file is absent or unreadable.
    pub fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, CheckpointError> {
        match self {
            Self::Directory(directory) => {
                let path = path_in(directory, name)?;
                std::fs::read(&path).map(Cow::Owned).map_err(|error| self.unreadable(name, &error))
            }
            Self::Embedded(files) => self.embedded(files, name).map(Cow::Borrowed),
        }
    }

    /// The bytes of a large file, mapped rather than read.
    ///
    /// The file must stay as it is while it is mapped: a process that shortens it makes this one fail with SIGBUS, as
    /// with every mapped file. Whoever replaces a checkpoint should write a new file and rename it.
    ///
    /// # Errors
    /// The file is absent or cannot be mapped.
    pub fn map(&self, name: &str) -> Result<SharedBytes, CheckpointError> {
        match self {
            Self::Directory(directory) => {
                let path = path_in(directory, name)?;
                let mapped = File::open(&path).and_then(|file| map_file(&file));
                mapped.map_err(|error| self.unreadable(name, &error))
            }
            Self::Embedded(files) => Ok(SharedBytes::new(Arc::new(self.embedded(files, name)?))),
        }
    }

    /// Whether there is such a file.
    pub fn exists(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => path_in(directory, name).is_ok_and(|path| path.is_file()),
            Self::Embedded(files) => files.iter().any(|(file, _)| *file == name),
        }
    }

    /// The names of the files, sorted; of a directory, those directly inside.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names: Vec<String> = match self {
            Self::Directory(directory) => {
                let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                let entries = entries.map_err(|error| {
                    CheckpointError::new("no checkpoint here")
                        .file(directory.display())
                        .expected("a directory with config.json and safetensors files")
                        .found(error)
                        .advice("check the path")
                })?;
                let files = entries.into_iter().filter(|entry| entry.path().is_file());
                files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            Self::Embedded(files) => files.iter().map(|(name, _)| (*name).to_owned()).collect(),
        };
        names.sort_unstable();
        Ok(names)
    }

    /// How a file is called in messages: with its directory, so that the operator finds it.
    pub fn display(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::Embedded(_) => format!("embedded {name}"),
        }
    }

    fn embedded(
        &self,
        files: &'static [(&'static str, &'static [u8])],
        name: &str,
    ) -> Result<&'static [u8], CheckpointError> {
        let found = files.iter().find(|(file, _)| *file == name);
        found
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| self.unreadable(name, &std::io::Error::from(ErrorKind::NotFound)))
    }

    fn unreadable(&self, name: &str, error: &std::io::Error) -> CheckpointError {
        let problem = if error.kind() == ErrorKind::NotFound { "missing file" } else { "unreadable file" };
        let problem = CheckpointError::new(problem).file(self.display(name));
        match error.kind() {
            ErrorKind::NotFound => problem
                .expected("a file of the checkpoint")
                .found("nothing")
                .advice("check the path, or download the checkpoint again"),
            _ => problem
                .expected("a readable file")
                .found(error)
                .advice("check the file's permissions and the disk"),
        }
    }
}

/// The path of `name` inside `directory`. An index may name any file, so names that lead outside are refused.
fn path_in(directory: &Path, name: &str) -> Result<PathBuf, CheckpointError> {
    let path = Path::new(name);
    let inside = !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if inside {
        return Ok(directory.join(path));
    }
    Err(CheckpointError::new("file name leads outside the checkpoint")
        .file(directory.display())
        .expected("a name inside the directory")
        .found(format!("{name:?}"))
        .advice("download the checkpoint again from a source that you trust"))
}

#[expect(unsafe_code, reason = "mapping a file is how hundreds of gigabytes are opened without reading them")]
fn map_file(file: &File) -> std::io::Result<SharedBytes> {
    // SAFETY: the map is read-only and private to this process's view. Undefined behaviour needs another process to
    // change the file while it is mapped; `CheckpointFiles::map` documents that requirement for operators.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(SharedBytes::of_file(map))
}
