//! Opens what lies below a folder, following links only while they stay below it. Does I/O, blocking.
//!
//! Every segment is opened under the handle of its parent and never through a link by the kernel, so that a name that is
//! swapped meanwhile cannot lead out. `openat2` would do the same in one call, but sandboxes do not have it.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

/// As many links as the kernel follows in one path.
const LINK_LIMIT: usize = 40;

/// Handle of a folder that nothing is opened outside of.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
}

/// Why a path could not be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum BeneathError {
    #[error("leads out of the claim")]
    Escapes,
    #[error("is a loop of links")]
    Loop,
    #[error("is neither a file nor a folder")]
    Special,
    #[error("{0}")]
    System(Errno),
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a file or folder for reading.
    pub(super) fn resolve(&self, path: &str) -> Result<OwnedFd, BeneathError> {
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut ahead: Vec<Vec<u8>> = segments(path.as_bytes());
        let mut links = 0;
        while let Some(segment) = ahead.pop() {
            match segment.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    above.pop().ok_or(BeneathError::Escapes)?;
                    continue;
                }
                _ => {}
            }
            let parent = above.last().map_or(self.folder.as_fd(), AsFd::as_fd);
            match enter(parent, OsStr::from_bytes(&segment)).map_err(BeneathError::System)? {
                Entered::Opened(handle) => above.push(handle),
                Entered::Special => return Err(BeneathError::Special),
                Entered::Link(target) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(BeneathError::Loop);
                    }
                    if target.first() == Some(&b'/') {
                        return Err(BeneathError::Escapes);
                    }
                    ahead.extend(segments(&target));
                }
            }
        }
        above.pop().map_or_else(|| self.folder.try_clone().map_err(|_| BeneathError::System(Errno::MFILE)), Ok)
    }
}

enum Entered {
    Opened(OwnedFd),
    Link(Vec<u8>),
    Special,
}

fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Entered, Errno> {
    let kind = FileType::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    // NONBLOCK: what was a file a moment ago may be a pipe now, and opening that would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(match kind {
        FileType::Symlink => Entered::Link(readlinkat(parent, name, Vec::new())?.into_bytes()),
        FileType::Directory => Entered::Opened(openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty())?),
        FileType::RegularFile => Entered::Opened(openat(parent, name, flags, Mode::empty())?),
        _ => Entered::Special,
    })
}

/// The segments, last first, to be taken from the end.
fn segments(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
}
