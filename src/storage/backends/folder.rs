//! A claim that is mounted as a folder. Does I/O; file system calls run on threads that may block.

use std::{
    fs::File,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use rustix::{
    fs::{AtFlags, Dir, FileType, Stat, fstat, statat},
    io::Errno,
};

use crate::contract::manifest::is_reserved;

use super::{
    Entry, Listing, Storage, StorageError,
    beneath::{BeneathError, Root},
    paths::{self, ENTRY_LIMIT},
};

/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// A folder below the root of a claim.
#[derive(Clone, Debug)]
pub struct Folder {
    uri: String,
    place: String,
    root: PathBuf,
    path: String,
}

impl Folder {
    /// The folder `path` below the root of a claim that is mounted at `root`.
    #[must_use]
    pub fn claim(claim: &str, root: &Path, path: &str) -> Self {
        let uri = if path.is_empty() { format!("pvc://{claim}") } else { format!("pvc://{claim}/{path}") };
        let place = format!("claim {claim}");
        Self { uri, place, root: root.to_owned(), path: path.trim_matches('/').to_owned() }
    }

    fn full(&self, path: &str) -> String {
        if self.path.is_empty() { path.to_owned() } else { format!("{}/{path}", self.path) }
    }

    fn open_root(&self) -> Result<Root, StorageError> {
        Root::open(&self.root).map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound(format!("the {} is not mounted", self.place)),
            errno => self.system(errno, "its root"),
        })
    }

    fn system(&self, errno: Errno, what: &str) -> StorageError {
        let place = &self.place;
        match errno {
            Errno::ACCESS | Errno::PERM => StorageError::AccessDenied(format!(
                "{what} of the {place} may not be read by the worker: set worker.runAsUser or worker.fsGroup to its owner"
            )),
            errno => StorageError::Unreachable(format!("{what} of the {place} cannot be read: {errno}")),
        }
    }

    fn list_blocking(&self) -> Result<Listing, StorageError> {
        let root = self.open_root()?;
        if !self.path.is_empty() {
            paths::check(&self.path).map_err(|problem| {
                StorageError::InvalidPath(format!("path {} cannot be used: {problem}", self.path))
            })?;
        }
        let top = root.resolve(&self.path).map_err(|error| self.top_error(error))?;
        let stat = fstat(&top).map_err(|errno| self.system(errno, "the folder"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(StorageError::InvalidPath(format!("{} is a file: path must name a folder", self.uri)));
        }
        let mut walk = Walk { folder: self, root: &root, entries: Vec::new(), ahead: Vec::new(), folders: 0 };
        walk.ahead.push(Ahead { path: String::new(), above: Vec::new() });
        while let Some(next) = walk.ahead.pop() {
            walk.visit(&next)?;
        }
        let mut entries = walk.entries;
        if entries.is_empty() {
            return Err(StorageError::Empty(format!("{} holds no file", self.uri)));
        }
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Listing { entries })
    }

    fn top_error(&self, error: BeneathError) -> StorageError {
        match error {
            BeneathError::System(Errno::NOENT | Errno::NOTDIR) => {
                StorageError::NotFound(format!("the {} has no folder {}", self.place, self.path))
            }
            BeneathError::System(errno) => self.system(errno, &self.path),
            other => StorageError::InvalidPath(format!("path {} of the {} {other}", self.path, self.place)),
        }
    }

    fn open_file(&self, entry: &Entry) -> Result<File, StorageError> {
        let opened = self.open_root()?.resolve(&self.full(&entry.path));
        let handle = opened.map_err(|error| match error {
            BeneathError::System(errno @ (Errno::ACCESS | Errno::PERM | Errno::IO | Errno::STALE | Errno::MFILE)) => {
                self.system(errno, &entry.path)
            }
            _ => StorageError::changed(&entry.path),
        })?;
        self.check(&handle, entry)?;
        Ok(File::from(handle))
    }

    /// Without a version there is nothing but the size to compare.
    fn check(&self, handle: impl AsFd, entry: &Entry) -> Result<(), StorageError> {
        let stat = fstat(handle).map_err(|errno| self.system(errno, &entry.path))?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && size(&stat) == entry.size
            && (entry.version.is_empty() || version(&stat) == entry.version);
        if same { Ok(()) } else { Err(StorageError::changed(&entry.path)) }
    }

    fn read_chunk(&self, file: &File, entry: &Entry, at: u64, end: u64) -> Result<Bytes, StorageError> {
        let length = usize::try_from((end - at).min(CHUNK)).unwrap_or(0);
        let mut buffer = vec![0; length];
        file.read_exact_at(&mut buffer, at).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                return StorageError::changed(&entry.path);
            }
            self.system(Errno::from_io_error(&error).unwrap_or(Errno::IO), &entry.path)
        })?;
        Ok(buffer.into())
    }
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The modification time in nanoseconds.
fn version(stat: &Stat) -> String {
    format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec)
}

/// A folder that is still to be listed, and the identities of the folders that led to it.
struct Ahead {
    path: String,
    above: Vec<(u64, u64)>,
}

struct Walk<'a> {
    folder: &'a Folder,
    root: &'a Root,
    entries: Vec<Entry>,
    ahead: Vec<Ahead>,
    folders: usize,
}

impl Walk<'_> {
    fn visit(&mut self, next: &Ahead) -> Result<(), StorageError> {
        let shown = if next.path.is_empty() { "the folder" } else { next.path.as_str() };
        let handle = self.root.resolve(&self.folder.full(&next.path)).map_err(|error| self.link_error(shown, error))?;
        let stat = fstat(&handle).map_err(|errno| self.folder.system(errno, shown))?;
        let identity = (stat.st_dev, stat.st_ino);
        if next.above.contains(&identity) {
            return Err(StorageError::Incomplete(format!("{shown} is a link to a folder above itself")));
        }
        let above: Vec<_> = next.above.iter().copied().chain([identity]).collect();
        self.folders += 1;
        let names = Dir::read_from(&handle).map_err(|errno| self.folder.system(errno, shown))?;
        for item in names {
            let item = item.map_err(|errno| self.folder.system(errno, shown))?;
            let bytes = item.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let path = join(&next.path, bytes)?;
            let full = self.folder.full(&path);
            // Both at the claim's root and at the checkpoint's, which a copy of a volume has below its own.
            if is_reserved(&full) || is_reserved(&path) {
                continue;
            }
            let found = statat(&handle, item.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.folder.system(errno, &path))?;
            self.add(path, &full, &found, &above)?;
        }
        Ok(())
    }

    fn add(&mut self, path: String, full: &str, found: &Stat, above: &[(u64, u64)]) -> Result<(), StorageError> {
        let mut stat = *found;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = self.root.resolve(full).map_err(|error| self.link_error(&path, error))?;
            stat = fstat(&target).map_err(|errno| self.folder.system(errno, &path))?;
        }
        if self.entries.len() + self.folders + self.ahead.len() >= ENTRY_LIMIT {
            return Err(StorageError::InvalidPath(format!("{} has more than {ENTRY_LIMIT} files", self.folder.uri)));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.entries.push(Entry {
                    path,
                    size: size(&stat),
                    version: version(&stat),
                    checksum: None,
                    content: None,
                });
            }
            FileType::Directory => self.ahead.push(Ahead { path, above: above.to_vec() }),
            _ => {
                return Err(StorageError::InvalidPath(format!(
                    "{path} is neither a file nor a folder: a checkpoint cannot hold pipes, sockets and devices"
                )));
            }
        }
        Ok(())
    }

    fn link_error(&self, path: &str, error: BeneathError) -> StorageError {
        match error {
            BeneathError::System(Errno::NOENT | Errno::NOTDIR) => {
                StorageError::Incomplete(format!("{path} is a link to something that is not there"))
            }
            BeneathError::System(errno) => self.folder.system(errno, path),
            BeneathError::Special => StorageError::InvalidPath(format!("{path} {error}")),
            BeneathError::Escapes | BeneathError::Loop => StorageError::Incomplete(format!(
                "{path} is a link that cannot be followed: it {error}; put the file itself there"
            )),
        }
    }
}

fn join(folder: &str, name: &[u8]) -> Result<String, StorageError> {
    let lossy = String::from_utf8_lossy(name);
    let path = if folder.is_empty() { lossy.into_owned() } else { format!("{folder}/{lossy}") };
    if std::str::from_utf8(name).is_err() {
        return Err(StorageError::InvalidPath(format!("{path:?} cannot be used: its name is not UTF-8")));
    }
    paths::check(&path).map_err(|problem| StorageError::InvalidPath(format!("{path:?} cannot be used: {problem}")))?;
    Ok(path)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(StorageError::Unreachable(format!("the read was given up: {error}"))))
}

impl Storage for Folder {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        let folder = self.clone();
        blocking(move || folder.list_blocking()).boxed()
    }

    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>> {
        let shared = Arc::new((self.clone(), entry.clone()));
        let start: (Option<Arc<File>>, u64) = (None, range.start);
        stream::try_unfold(start, move |(file, at)| {
            let (shared, end) = (Arc::clone(&shared), range.end);
            async move {
                if at >= end {
                    return Ok(None);
                }
                let (file, bytes) = blocking(move || {
                    let (folder, entry) = &*shared;
                    let file = match file {
                        Some(file) => file,
                        None => Arc::new(folder.open_file(entry)?),
                    };
                    let bytes = folder.read_chunk(&file, entry, at, end)?;
                    if at + bytes.len() as u64 >= end {
                        folder.check(&*file, entry)?;
                    }
                    Ok((file, bytes))
                })
                .await?;
                let next = at + bytes.len() as u64;
                Ok(Some((bytes, (Some(file), next))))
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use futures::TryStreamExt;

    use super::*;
    use crate::contract::Reason;

    struct Claim(tempfile::TempDir);

    impl Claim {
        fn new(files: &[(&str, &str)]) -> Self {
            let claim = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let full = claim.0.path().join(path);
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full, text).unwrap();
            }
            claim
        }

        fn link(self, target: &str, path: &str) -> Self {
            let full = self.0.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            symlink(target, full).unwrap();
            self
        }

        fn folder(&self, path: &str) -> Folder {
            Folder::claim("models", self.0.path(), path)
        }

        async fn paths(&self, path: &str) -> Result<Vec<String>, StorageError> {
            Ok(self.folder(path).list().await?.entries.into_iter().map(|entry| entry.path).collect())
        }
    }

    #[tokio::test]
    async fn files_are_listed_and_read() {
        let claim = Claim::new(&[
            ("run/b", "0123456789"),
            ("run/a b/ü", "x"),
            ("run/a/empty", ""),
            ("run10/c", ""),
            ("run/.checkpoint/manifest.json", "{}"),
        ]);
        assert_eq!(claim.paths("run").await.unwrap(), ["a b/ü", "a/empty", "b"]);
        let folder = claim.folder("run");
        assert_eq!(folder.uri(), "pvc://models/run");
        let listing = folder.list().await.unwrap();
        let read = async |range| {
            Ok::<_, StorageError>(folder.read(&listing.entries[2], range).try_collect::<Vec<_>>().await?.concat())
        };
        assert_eq!(read(2..5).await.unwrap(), b"234");
        assert_eq!(read(0..10).await.unwrap(), b"0123456789");
        assert_eq!(read(4..4).await.unwrap(), b"");
        fs::write(claim.0.path().join("run/b"), "9876543210").unwrap();
        assert_eq!(read(2..5).await.unwrap_err().reason(), Reason::SourceChanged);
        fs::remove_file(claim.0.path().join("run/b")).unwrap();
        assert_eq!(read(2..5).await.unwrap_err().reason(), Reason::SourceChanged);
    }

    #[tokio::test]
    async fn large_files_come_in_pieces() {
        let claim = Claim::new(&[]);
        let bytes: Vec<u8> = (0..3u32 << 20).map(|index| (index % 251) as u8).collect();
        fs::write(claim.0.path().join("big"), &bytes).unwrap();
        let folder = claim.folder("");
        let listing = folder.list().await.unwrap();
        let pieces: Vec<Bytes> = folder.read(&listing.entries[0], 1..(3 << 20) - 1).try_collect().await.unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces.concat(), bytes[1..bytes.len() - 1]);
    }

    #[tokio::test]
    async fn what_is_at_the_root_for_the_file_system_is_left_out() {
        let claim = Claim::new(&[
            ("a", "x"),
            ("lost+found/b", "x"),
            (".checkpoint/manifest.json", "x"),
            ("c/lost+found/d", "x"),
        ]);
        assert_eq!(claim.paths("").await.unwrap(), ["a", "c/lost+found/d"]);
    }

    #[tokio::test]
    async fn links_below_the_root_are_followed() {
        let claim = Claim::new(&[("blobs/abc", "weights"), ("elsewhere/x/y", "1")])
            .link("../../blobs/abc", "snapshots/r1/model.safetensors")
            .link("../../elsewhere/x", "snapshots/r1/x");
        assert_eq!(claim.paths("snapshots/r1").await.unwrap(), ["model.safetensors", "x/y"]);
        let folder = claim.folder("snapshots/r1");
        let listing = folder.list().await.unwrap();
        let read: Vec<Bytes> = folder.read(&listing.entries[0], 0..7).try_collect().await.unwrap();
        assert_eq!(read.concat(), b"weights");
        // What was a file is now a link that leads out.
        fs::remove_file(claim.0.path().join("blobs/abc")).unwrap();
        symlink("/etc/hostname", claim.0.path().join("blobs/abc")).unwrap();
        let error = folder.read(&listing.entries[0], 0..7).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.reason(), Reason::SourceChanged);
    }

    #[tokio::test]
    async fn other_links_make_it_incomplete() {
        for target in ["/etc/hostname", "../../../etc/hostname", "missing", "link", ".", ".."] {
            let claim = Claim::new(&[("run/a", "x")]).link(target, "run/sub/link");
            let result = claim.paths("").await;
            let error = result.expect_err(target);
            assert_eq!(error.reason(), Reason::Incomplete, "{target}: {error}");
            assert!(error.to_string().contains("run/sub"), "{target}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_checkpoint_is_said() {
        let claim = Claim::new(&[("file", "x"), ("empty/sub/.keep", "")]);
        fs::remove_file(claim.0.path().join("empty/sub/.keep")).unwrap();
        for (path, reason) in [
            ("nothing", Reason::NotFound),
            ("file/below", Reason::NotFound),
            ("file", Reason::InvalidPath),
            ("empty", Reason::Empty),
            ("../x", Reason::InvalidPath),
        ] {
            let error = claim.paths(path).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{path}: {error}");
        }
        let gone = Folder::claim("models", Path::new("/nonexistent"), "").list().await.unwrap_err();
        assert_eq!(gone.reason(), Reason::NotFound);
    }

    #[tokio::test]
    async fn pipes_and_odd_names_are_refused() {
        let claim = Claim::new(&[("a", "x")]);
        let pipe = claim.0.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let error = claim.paths("").await.unwrap_err();
        assert!(matches!(&error, StorageError::InvalidPath(text) if text.starts_with("pipe")), "{error}");
        fs::remove_file(&pipe).unwrap();
        fs::write(claim.0.path().join("line\nbreak"), "").unwrap();
        assert_eq!(claim.paths("").await.unwrap_err().reason(), Reason::InvalidPath);
    }

    #[tokio::test]
    async fn a_folder_that_may_not_be_read_is_named() {
        let claim = Claim::new(&[("secret/a", "x")]);
        if fs::metadata(claim.0.path()).unwrap().uid() == 0 {
            // Root may read everything: the mapping below is what other users get.
            let error = Folder::claim("models", Path::new("/x"), "").system(Errno::ACCESS, "secret");
            assert_eq!(error.reason(), Reason::AccessDenied);
            return;
        }
        fs::set_permissions(claim.0.path().join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
        let error = claim.paths("").await.unwrap_err();
        assert!(matches!(&error, StorageError::AccessDenied(text) if text.contains("secret")), "{error}");
    }
}
