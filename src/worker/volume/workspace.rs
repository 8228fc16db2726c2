//! The side of a volume that a load writes: temporary names, durable bytes, own names, the manifest. One load at a time, or the
//! workers of one. Does I/O, blocking.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{
        AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, fallocate, flock, fstat, fstatfs,
        fstatvfs, fsync, openat, renameat, renameat_with, statat, syncfs, unlinkat,
    },
    io::Errno,
};

use crate::{
    contract::manifest::{FOLDER, Manifest},
    storage::paths,
    worker::{failure::Failure, split::share::is_shared},
};

use super::{MANIFEST, Volume, flags, make_folder, mark_name, modified, set_mode};

const STAGING: &str = "staging";
const MANIFEST_NEXT: &str = "manifest.json.next";
/// A file, since network file systems lock no folders and let only those lock a file who may write it.
const LOCK: &str = "lock";
/// So many files are made durable one by one.
const ONE_BY_ONE: usize = 4;
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// A file under a temporary name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::worker) struct Staged {
    pub name: String,
    pub size: u64,
    /// Bytes that the file system has set aside for it.
    pub allocated: u64,
}

/// The folders of a volume that a load writes to. As long as it lives, no other load can have it.
#[derive(Debug)]
pub(in crate::worker) struct Workspace {
    pub volume: Volume,
    own: OwnedFd,
    staging: OwnedFd,
    held: Arc<OwnedFd>,
    #[cfg(test)]
    crash: crate::worker::tests::Crash,
}

impl Workspace {
    /// Makes the folders that a load needs, unless another load is at work; only workers that are not `alone` go together.
    pub(in crate::worker) fn open(path: &Path, alone: bool) -> Result<Self, Failure> {
        let volume = Volume::open(path)?;
        let own = make_folder(&volume.root, FOLDER).map_err(|errno| Failure::of_volume(errno, FOLDER))?;
        let held = openat(&own, LOCK, OFlags::RDWR | OFlags::CREATE | flags(), FILE_MODE)
            .map_err(|errno| Failure::of_volume(errno, ".checkpoint/lock"))?;
        lock(&held, alone)?;
        let staging = make_folder(&own, STAGING).map_err(|errno| Failure::of_volume(errno, ".checkpoint/staging"))?;
        Ok(Self {
            volume,
            own,
            staging,
            held: Arc::new(held),
            #[cfg(test)]
            crash: crate::worker::tests::Crash::of(path),
        })
    }

    /// Keeps other loads away for as long as it lives.
    pub(in crate::worker) fn held(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.held)
    }

    /// A point at which tests let the process die.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "does nothing outside tests")
    )]
    pub(in crate::worker) fn step(&self) -> Result<(), Failure> {
        #[cfg(test)]
        self.crash.step()?;
        Ok(())
    }

    /// Bytes that can still be written; none when the file system does not say.
    pub(in crate::worker) fn available(&self) -> Option<u64> {
        let stat = fstatvfs(&self.volume.root).ok()?;
        (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// A journal to be read and written, by nobody else meanwhile; made if there is none.
    pub(in crate::worker) fn journal(&self, name: &str) -> Result<File, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | flags();
        let handle = openat(&self.own, name, flags, FILE_MODE)
            .map_err(|errno| Failure::of_volume(errno, ".checkpoint/journal"))?;
        // Kubernetes may start a worker anew while the one before is still there.
        lock(&handle, true)?;
        fsync(&self.own).map_err(|errno| Failure::of_volume(errno, FOLDER))?;
        Ok(File::from(handle))
    }

    /// The names in the folder that is ours.
    pub(in crate::worker) fn own_names(&self) -> Result<Vec<String>, Failure> {
        let fail = |errno| Failure::of_volume(errno, FOLDER);
        let name = |item: Result<rustix::fs::DirEntry, Errno>| Ok(item?.file_name().to_string_lossy().into_owned());
        Dir::read_from(&self.own).map_err(fail)?.map(name).collect::<Result<_, _>>().map_err(fail)
    }

    /// A file in the folder that is ours, to be read.
    pub(in crate::worker) fn own_file(&self, name: &str) -> Result<Option<File>, Failure> {
        match openat(&self.own, name, OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty()) {
            Ok(handle) => Ok(Some(File::from(handle))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failure::of_volume(errno, FOLDER)),
        }
    }

    /// Removes a file of the folder that is ours.
    pub(in crate::worker) fn remove_own(&self, name: &str) -> Result<(), Failure> {
        self.step()?;
        match unlinkat(&self.own, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Failure::of_volume(errno, FOLDER)),
        }
    }

    /// Makes the names of files durable that were removed from the folder that is ours.
    pub(in crate::worker) fn settle_own(&self) -> Result<(), Failure> {
        fsync(&self.own).map_err(|errno| Failure::of_volume(errno, FOLDER))
    }

    /// Makes it durable that the worker with this number has brought its share.
    pub(in crate::worker) fn set_mark(&self, worker: u32, text: &str) -> Result<(), Failure> {
        let name = mark_name(worker);
        self.replace_own(&name, &format!("{name}.next"), text.as_bytes())
    }

    /// The files under temporary names.
    pub(in crate::worker) fn staged(&self) -> Result<Vec<Staged>, Failure> {
        let fail = |errno| Failure::of_volume(errno, ".checkpoint/staging");
        let mut staged = Vec::new();
        for item in Dir::read_from(&self.staging).map_err(fail)? {
            let item = item.map_err(fail)?;
            let name = item.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                let stat = match statat(&self.staging, item.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    // Another worker gave it its own name meanwhile.
                    Err(Errno::NOENT) => continue,
                    other => other.map_err(fail)?,
                };
                let of = |number: i64| u64::try_from(number).unwrap_or(0);
                staged.push(Staged { name, size: of(stat.st_size), allocated: of(stat.st_blocks).saturating_mul(512) });
            }
        }
        Ok(staged)
    }

    /// Whether something has this temporary name.
    pub(in crate::worker) fn is_staged(&self, name: &str) -> bool {
        statat(&self.staging, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Bytes that the file system has set aside for what has this temporary name now.
    pub(in crate::worker) fn allocated(&self, name: &str) -> u64 {
        let stat = statat(&self.staging, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512))
    }

    /// A new file under a temporary name, with its space reserved where that is possible.
    pub(in crate::worker) fn create(&self, name: &str, size: u64, path: &str) -> Result<File, Failure> {
        self.step()?;
        let fail = |errno| Failure::of_volume(errno, path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | flags();
        let handle = openat(&self.staging, name, flags, FILE_MODE).map_err(fail)?;
        set_mode(&handle, FILE_MODE).map_err(fail)?;
        let file = File::from(handle);
        Self::reserve(&file, size, path)?;
        Ok(file)
    }

    /// Sets space aside where that is possible.
    pub(in crate::worker) fn reserve(file: &File, size: u64, path: &str) -> Result<(), Failure> {
        if size == 0 {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV | Errno::INTR) => Ok(()),
            Err(errno) => Err(Failure::of_volume(errno, path)),
        }
    }

    /// Opens a file that other workers write too.
    pub(in crate::worker) fn reopen_or_create(&self, name: &str, size: u64, path: &str) -> Result<File, Failure> {
        self.step()?;
        let fail = |errno| Failure::of_volume(errno, path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | flags();
        let handle = openat(&self.staging, name, flags, FILE_MODE).map_err(fail)?;
        set_mode(&handle, FILE_MODE).map_err(fail)?;
        let file = File::from(handle);
        Self::reserve(&file, size, path)?;
        Ok(file)
    }

    /// Opens a file that an earlier attempt left under a temporary name.
    pub(in crate::worker) fn reopen(&self, name: &str, path: &str) -> Result<File, Failure> {
        let handle = openat(&self.staging, name, OFlags::RDWR | OFlags::NONBLOCK | flags(), Mode::empty());
        handle.map(File::from).map_err(|errno| Failure::of_volume(errno, path))
    }

    /// Makes the bytes of these files durable: one by one, or all that the file system holds when they are many and it is known
    /// to say what went wrong. Files whose sync failed must be given up: the kernel reports such an error once only.
    pub(in crate::worker) fn settle<'a>(
        &self,
        files: impl IntoIterator<Item = (&'a File, &'a str)>,
    ) -> Result<(), Failure> {
        self.step()?;
        let files: Vec<_> = files.into_iter().collect();
        let synced = if files.len() > ONE_BY_ONE && self.syncs_as_a_whole() {
            syncfs(&self.staging).map_err(|errno| Failure::of_volume(errno, "its files"))
        } else {
            let sync = |(file, name): &(&File, &str)| file.sync_all().map_err(|error| Failure::of_io(&error, name));
            files.iter().try_for_each(sync)
        };
        if synced.is_err() {
            // What others write too is theirs as well: of it, only what was synced is in a journal.
            for (_, name) in files.iter().filter(|(_, name)| !is_shared(name)) {
                self.discard(name);
            }
        }
        synced
    }

    /// Whether one call makes everything of the file system durable and reports all errors. Network file systems and those in
    /// user space may do less.
    fn syncs_as_a_whole(&self) -> bool {
        const EXT4: u64 = 0xEF53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683E;
        let kind = fstatfs(&self.staging).map(|stat| u64::try_from(stat.f_type).unwrap_or(0));
        kind.is_ok_and(|kind| [EXT4, XFS, BTRFS].contains(&kind))
    }

    /// When the bytes of a file were last changed, as the journal has it.
    pub(in crate::worker) fn modified(file: &File, path: &str) -> Result<String, Failure> {
        fstat(file).map(|stat| modified(&stat)).map_err(|errno| Failure::of_volume(errno, path))
    }

    /// Makes the temporary names durable.
    pub(in crate::worker) fn settle_names(&self) -> Result<(), Failure> {
        self.step()?;
        fsync(&self.staging).map_err(|errno| Failure::of_volume(errno, ".checkpoint/staging"))
    }

    /// Gives a file its own name. `ours` says that what has this name now may be replaced.
    pub(in crate::worker) fn publish(&self, name: &str, path: &str, ours: bool) -> Result<(), Failure> {
        self.step()?;
        let fail = |errno| match errno {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => conflict(path),
            errno => Failure::of_volume(errno, path),
        };
        let (folder, last) = self.volume.parent(path, true).map_err(fail)?;
        if ours {
            return renameat(&self.staging, name, &folder, last).map_err(fail);
        }
        match renameat_with(&self.staging, name, &folder, last, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                // A network file system without that flag: looking first is the best there is.
                match statat(&folder, last, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => renameat(&self.staging, name, &folder, last).map_err(fail),
                    Ok(_) => Err(conflict(path)),
                    Err(errno) => Err(fail(errno)),
                }
            }
            other => other.map_err(fail),
        }
    }

    /// Removes a file of ours and the folders that it leaves empty.
    pub(in crate::worker) fn remove(&self, path: &str) -> Result<(), Failure> {
        self.step()?;
        let fail = |errno| Failure::of_volume(errno, path);
        let (folder, name) = self.volume.parent(path, false).map_err(fail)?;
        unlinkat(&folder, name, AtFlags::empty()).map_err(fail)?;
        let mut folders: Vec<_> = paths::parents(path).collect();
        while let Some(last) = folders.pop() {
            let (above, name) = self.volume.parent(last, false).map_err(fail)?;
            match unlinkat(&above, name, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS | Errno::PERM | Errno::BUSY) => break,
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    /// Removes a temporary name. What stays is removed by the next load.
    pub(in crate::worker) fn discard(&self, name: &str) {
        _ = unlinkat(&self.staging, OsStr::from_bytes(name.as_bytes()), AtFlags::empty());
    }

    /// Makes the names of files durable.
    pub(in crate::worker) fn settle_folders<'a>(
        &self,
        files: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        self.step()?;
        let mut folders: Vec<&str> = paths::folders(files).into_iter().collect();
        folders.sort_unstable();
        for path in folders {
            let synced = self.volume.folder(path, false).and_then(fsync);
            synced.map_err(|errno| Failure::of_volume(errno, path))?;
        }
        fsync(&self.volume.root).map_err(|errno| Failure::of_volume(errno, "its root"))
    }

    /// Removes the manifest: what it says is about to be wrong.
    pub(in crate::worker) fn remove_manifest(&self) -> Result<(), Failure> {
        self.step()?;
        let fail = |errno| Failure::of_volume(errno, crate::contract::manifest::PATH);
        match unlinkat(&self.own, MANIFEST, AtFlags::empty()) {
            Ok(()) => fsync(&self.own).map_err(fail),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(fail(errno)),
        }
    }

    /// Writes the manifest: the volume is then what it says.
    pub(in crate::worker) fn write_manifest(&self, manifest: &Manifest) -> Result<(), Failure> {
        let what = crate::contract::manifest::PATH;
        let mut text = serde_json::to_vec(manifest).map_err(|error| Failure::Volume(format!("{what}: {error}")))?;
        text.push(b'\n');
        self.replace_own(MANIFEST, MANIFEST_NEXT, &text)
    }

    /// Replaces a file of the folder that is ours, so that either the old or the new content is there, whatever happens.
    fn replace_own(&self, name: &str, next: &str, text: &[u8]) -> Result<(), Failure> {
        self.step()?;
        let what = format!("{FOLDER}/{name}");
        let fail = |errno| Failure::of_volume(errno, &what);
        let io = |error: std::io::Error| Failure::of_io(&error, &what);
        match unlinkat(&self.own, next, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags();
        let handle = openat(&self.own, next, flags, FILE_MODE).map_err(fail)?;
        set_mode(&handle, FILE_MODE).map_err(fail)?;
        let mut file = File::from(handle);
        file.write_all(text).map_err(io)?;
        file.sync_all().map_err(io)?;
        self.step()?;
        renameat(&self.own, next, &self.own, name).map_err(fail)?;
        self.step()?;
        fsync(&self.own).map_err(fail)
    }
}

fn conflict(path: &str) -> Failure {
    Failure::Conflict(format!("{path} is in the volume already and was not put there by a load: it is left alone"))
}

/// Waits a little: the worker before this one may still be ending.
fn lock(file: &OwnedFd, alone: bool) -> Result<(), Failure> {
    const TRIES: u32 = 20;
    let operation =
        if alone { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
    for tried in 1..=TRIES {
        match flock(file, operation) {
            Err(Errno::WOULDBLOCK) if tried < TRIES => std::thread::sleep(Duration::from_millis(250)),
            Err(Errno::WOULDBLOCK) => {
                return Err(Failure::Busy("another load is at work on this volume".into()));
            }
            // Not every network file system has locks.
            Ok(()) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}
