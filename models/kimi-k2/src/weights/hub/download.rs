//! One file from the hub to the disk: goes on after a cut, and is verified before it gets its name.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::{
    Body,
    http::{Response, StatusCode},
};

use super::{
    HubError,
    cache::create_parent,
    client::{self, Checksum, Client, MAX_ATTEMPTS, RemoteFile},
};

const BUFFER: usize = 256 * 1024;

/// Fetches `file` to `blob`. What arrived so far lies beside it as `.incomplete`, the name that `huggingface_hub` uses,
/// and is where a later call goes on. `report` is told how many bytes are here.
///
/// # Errors
/// The hub refuses, the transfer brings nothing several times in a row, the contents are wrong twice, the disk is full.
pub(super) fn download(
    client: &Client,
    file: &RemoteFile,
    blob: &Path,
    report: &mut dyn FnMut(u64),
) -> Result<(), HubError> {
    create_parent(blob)?;
    let large = matches!(file.checksum(), Some(Checksum::Sha256(_)));
    let mut partial = Partial::open(blob, large)?;
    let mut damaged = false;
    loop {
        report(partial.length);
        let size = transfer(client, file, &mut partial, report)?;
        match partial.verify(file, size) {
            Ok(()) => return partial.finish(blob),
            // One wrong file may be a wrong beginning left by an earlier program; a second one has another cause.
            Err(_) if !damaged => {
                damaged = true;
                tracing::warn!(file = file.name, "arrived damaged; fetching it again");
                partial.restart()?;
            }
            Err(error) => {
                partial.restart()?;
                partial.remove()?;
                return Err(error);
            }
        }
    }
}

/// Brings the partial file to its full length, over as many connections as it takes. Returns that length.
fn transfer(
    client: &Client,
    file: &RemoteFile,
    partial: &mut Partial,
    report: &mut dyn FnMut(u64),
) -> Result<u64, HubError> {
    let mut size = file.size;
    let mut fruitless = 0;
    if size.is_some_and(|size| partial.length > size) {
        partial.restart()?;
    }
    loop {
        if let Some(size) = size.filter(|&size| partial.length >= size) {
            return Ok(size);
        }
        let before = partial.length;
        let problem = match client.open(file, before) {
            Ok(response) => {
                size = size.or_else(|| client::whole_size(&response));
                match partial.receive(response, size, report)? {
                    // Without an announced size, the end of the body is the end of the file.
                    None if size.is_none() => return Ok(partial.length),
                    None if size.is_some_and(|size| partial.length >= size) => continue,
                    None => "the connection closed early".to_owned(),
                    Some(problem) => problem,
                }
            }
            Err(error) if client::is_passing(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        fruitless = if partial.length > before { 1 } else { fruitless + 1 };
        if fruitless == MAX_ATTEMPTS {
            return Err(HubError::Cut { file: file.name.clone(), done: partial.length, problem });
        }
        tracing::debug!(file = file.name, done = partial.length, problem, "going on from there");
        client.pause(fruitless);
    }
}

/// A file that is not complete yet.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    /// Of the bytes so far, kept along so that a large file is not read again; `None` when its SHA-256 is not known.
    hash: Option<Sha256>,
}

impl Partial {
    /// Opens what an earlier call left, or begins.
    fn open(blob: &Path, hashed: bool) -> Result<Self, HubError> {
        let mut path = blob.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let open = || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut hash = hashed.then(Sha256::new);
            if let Some(hash) = &mut hash {
                let mut buffer = vec![0; BUFFER];
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        read => hash.update(&buffer[..read]),
                    }
                }
            }
            let length = file.seek(SeekFrom::End(0))?;
            Ok((file, length, hash))
        };
        let (file, length, hash) = open().map_err(|error| HubError::io(&path, &error))?;
        Ok(Self { path, file, length, hash })
    }

    /// Appends the body of an answer. Returns what cut it off, if something did.
    fn receive(
        &mut self,
        response: Response<Body>,
        size: Option<u64>,
        report: &mut dyn FnMut(u64),
    ) -> Result<Option<String>, HubError> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = client::text(response.headers(), "content-range").unwrap_or_default();
                let wanted = format!("bytes {}-", self.length);
                if !range.starts_with(&wanted) {
                    self.restart()?;
                    return Ok(Some(format!("asked for {wanted}, got {range:?}")));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart()?;
                return Ok(Some("the server does not know the range asked for".to_owned()));
            }
            // The server sends everything, whatever was asked.
            _ if self.length > 0 => self.restart()?,
            _ => {}
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error.to_string())),
            };
            self.append(&buffer[..read])?;
            report(self.length);
            if size.is_some_and(|size| self.length > size) {
                // More than announced can only be wrong; the verification will say so.
                return Ok(None);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|error| HubError::io(&self.path, &error))?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| HubError::io(&self.path, &error))?;
        self.length = 0;
        self.hash = self.hash.take().map(|_| Sha256::new());
        Ok(())
    }

    /// Compares size and hash with what the hub announced.
    fn verify(&self, file: &RemoteFile, size: u64) -> Result<(), HubError> {
        let damaged =
            |expected: String, found: String| HubError::Damaged { file: file.name.clone(), expected, found };
        if self.length != size {
            return Err(damaged(format!("{size} bytes"), format!("{} bytes", self.length)));
        }
        let (kind, expected, found) = match (file.checksum(), &self.hash) {
            (Some(Checksum::Sha256(expected)), Some(hash)) => {
                ("sha256", expected, hex(&hash.clone().finalize()))
            }
            (Some(Checksum::GitBlob(expected)), _) => ("git hash", expected, self.git_hash()?),
            _ => return Ok(()),
        };
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(damaged(format!("{kind} {expected}"), format!("{kind} {found}")))
    }

    /// As `git hash-object` computes it. Reads the file again: the header holds the length, which is known only now, and
    /// such files are small.
    fn git_hash(&self) -> Result<String, HubError> {
        let contents = fs::read(&self.path).map_err(|error| HubError::io(&self.path, &error))?;
        let mut hash = Sha1::new_with_prefix(format!("blob {}\0", contents.len()));
        hash.update(&contents);
        Ok(hex(&hash.finalize()))
    }

    /// Gives the file its name.
    fn finish(self, blob: &Path) -> Result<(), HubError> {
        fs::rename(&self.path, blob).map_err(|error| HubError::io(blob, &error))
    }

    fn remove(self) -> Result<(), HubError> {
        fs::remove_file(&self.path).map_err(|error| HubError::io(&self.path, &error))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(digit.into(), 16).expect("invariant: four bits are a digit"))
        .collect()
}
