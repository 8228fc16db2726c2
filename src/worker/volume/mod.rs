//! The volume that is filled or verified: every name is opened under its folder's handle, and no link is followed. Does
//! I/O, blocking.

mod workspace;

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, statat},
    io::Errno,
};

use crate::contract::manifest::{FOLDER, Manifest, is_reserved};

use super::failure::Failure;

pub(super) use workspace::{Staged, Workspace};

const MANIFEST: &str = "manifest.json";
/// A manifest of as many files as a checkpoint can have fits.
const MANIFEST_LIMIT: u64 = 1 << 30;
/// Longest mark of a worker, in bytes.
const MARK_LIMIT: u64 = 4 << 10;
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// What lies in a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub path: String,
    pub size: u64,
    /// As [`crate::storage::Folder`] writes versions.
    pub modified: String,
    /// Whether it is a file, and not a link, pipe or device.
    pub is_file: bool,
}

/// The root of a volume.
#[derive(Debug)]
pub(super) struct Volume {
    root: OwnedFd,
}

fn flags() -> OFlags {
    OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open_folder(parent: impl AsFd, name: impl AsRef<OsStr>) -> Result<OwnedFd, Errno> {
    openat(parent, name.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY | flags(), Mode::empty())
}

fn make_folder(parent: impl AsFd, name: impl AsRef<OsStr>) -> Result<OwnedFd, Errno> {
    match mkdirat(&parent, name.as_ref(), FOLDER_MODE) {
        Ok(()) => {
            let folder = open_folder(&parent, name)?;
            set_mode(&folder, FOLDER_MODE)?;
            Ok(folder)
        }
        Err(Errno::EXIST) => open_folder(&parent, name),
        Err(errno) => Err(errno),
    }
}

/// The mode whatever the umask is. Some network file systems have none to set.
fn set_mode(handle: impl AsFd, mode: Mode) -> Result<(), Errno> {
    match fchmod(handle, mode) {
        Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        other => other,
    }
}

impl Volume {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Failure::of_volume(errno, "its root"))?;
        Ok(Self { root })
    }

    /// Everything but folders and what is reserved, sorted.
    pub(super) fn scan(&self) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let mut ahead = vec![String::new()];
        while let Some(folder) = ahead.pop() {
            let shown = if folder.is_empty() { "its root" } else { folder.as_str() };
            let fail = |errno| Failure::of_volume(errno, shown);
            let handle = self.folder(&folder, false).map_err(fail)?;
            for item in Dir::read_from(&handle).map_err(fail)? {
                let item = item.map_err(fail)?;
                let name = item.file_name().to_string_lossy();
                if name == "." || name == ".." {
                    continue;
                }
                let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
                if is_reserved(&path) {
                    continue;
                }
                let stat = statat(&handle, item.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Directory {
                    if item.file_name().to_str().is_err() {
                        return Err(Failure::Conflict(format!(
                            "the folder {path:?} of the volume was not put there by a load"
                        )));
                    }
                    ahead.push(path);
                    continue;
                }
                let is_file = kind == FileType::RegularFile && item.file_name().to_str().is_ok();
                found.push(Found {
                    path,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    modified: modified(&stat),
                    is_file,
                });
            }
        }
        found.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(found)
    }

    /// The manifest; none when there is none.
    pub(super) fn manifest(&self) -> Result<Option<Manifest>, Failure> {
        let what = crate::contract::manifest::PATH;
        let opened = open_folder(&self.root, FOLDER)
            .and_then(|own| openat(own, MANIFEST, OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty()));
        let handle = match opened {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Failure::of_volume(errno, what)),
        };
        let mut text = Vec::new();
        File::from(handle).take(MANIFEST_LIMIT).read_to_end(&mut text).map_err(|error| Failure::of_io(&error, what))?;
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|_| Failure::Corrupt(format!("{what} of the volume is not a manifest")))
    }

    /// What the worker with this number has said of its share.
    pub(super) fn mark(&self, worker: u32) -> Result<Option<String>, Failure> {
        let opened = open_folder(&self.root, FOLDER)
            .and_then(|own| openat(own, mark_name(worker), OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty()));
        let file = match opened {
            Ok(handle) => File::from(handle),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Failure::of_volume(errno, FOLDER)),
        };
        let mut text = String::new();
        match file.take(MARK_LIMIT).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(Failure::of_io(&error, FOLDER)),
        }
    }

    /// Opens a file for reading.
    pub(super) fn file(&self, path: &str) -> Result<File, Errno> {
        let (folder, name) = self.parent(path, false)?;
        let handle = openat(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty())?;
        match FileType::from_raw_mode(fstat(&handle)?.st_mode) {
            FileType::RegularFile => Ok(File::from(handle)),
            _ => Err(Errno::INVAL),
        }
    }

    fn folder(&self, path: &str, create: bool) -> Result<OwnedFd, Errno> {
        let mut handle = self.root.try_clone().map_err(|_| Errno::MFILE)?;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            handle = if create { make_folder(&handle, segment)? } else { open_folder(&handle, segment)? };
        }
        Ok(handle)
    }

    /// The handle of the folder that a path is in, and its name there.
    fn parent<'a>(&self, path: &'a str, create: bool) -> Result<(OwnedFd, &'a str), Errno> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(folder, create)?, name))
    }
}

fn modified(stat: &rustix::fs::Stat) -> String {
    format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec)
}

fn mark_name(worker: u32) -> String {
    format!("share.{worker}")
}
