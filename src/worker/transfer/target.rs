//! A file that a transfer writes, at any offset: past the page cache where its file system can do that. Does I/O, blocking.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use super::{
    super::failure::{Failure, blocking},
    pool::{Buffer, CHUNK},
};

/// A file under a temporary name.
#[derive(Debug)]
pub(in crate::worker) struct Target {
    file: File,
    /// The temporary name.
    pub name: String,
    direct: AtomicBool,
    _held: Option<Arc<OwnedFd>>,
}

impl Target {
    /// A file that is open for reading and writing, for direct I/O if `direct` is set and its file system takes that.
    pub(in crate::worker) fn new(file: File, name: String, direct: bool) -> Self {
        let taken = direct && set_direct(&file, true);
        Self { file, name, direct: AtomicBool::new(taken), _held: None }
    }

    /// Keeps the lock of the volume until the last write has ended: a transfer that is given up waits for none of them.
    pub(in crate::worker) fn held_by(self, lock: Arc<OwnedFd>) -> Self {
        Self { _held: Some(lock), ..self }
    }

    /// The file, to be made durable.
    pub(in crate::worker) fn file(&self) -> &File {
        &self.file
    }

    /// Lets go of what is durable and still in the page cache.
    pub(in crate::worker) fn drop_cache(&self) {
        if !self.direct.load(Ordering::Acquire) {
            _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }

    /// Writes the bytes at an offset that is a whole number of chunks. What direct I/O has to write beyond the file's end is cut
    /// off by [`Target::finish`].
    pub(super) fn write(&self, buffer: &mut Buffer, offset: u64) -> io::Result<()> {
        if self.direct.load(Ordering::Acquire) {
            match self.file.write_all_at(buffer.blocks(), offset) {
                // Some file systems take the flag and refuse the writes.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => self.give_up_direct(),
                other => return other,
            }
        }
        self.file.write_all_at(buffer.bytes(), offset)
    }

    /// Everything was written: the file gets its size.
    pub(super) fn finish(&self, size: u64) -> io::Result<()> {
        if self.file.metadata()?.len() == size { Ok(()) } else { self.file.set_len(size) }
    }

    /// Reads what was written.
    pub(super) fn read(&self, range: std::ops::Range<u64>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.give_up_direct();
        let mut buffer = vec![0; CHUNK];
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
            self.file.read_exact_at(&mut buffer[..length], at)?;
            each(&buffer[..length]);
            at += length as u64;
        }
        Ok(())
    }

    fn give_up_direct(&self) {
        if self.direct.load(Ordering::Acquire) {
            set_direct(&self.file, false);
            // Not before: whoever sees this writes and reads what direct I/O would refuse.
            self.direct.store(false, Ordering::Release);
        }
    }
}

/// [`Target::finish`] on a thread that may block.
pub(in crate::worker) async fn finish(target: Arc<Target>, size: u64, path: String) -> Result<(), Failure> {
    blocking(move || target.finish(size).map_err(|error| Failure::of_io(&error, &path))).await
}

/// Whether the file is now in that mode.
fn set_direct(file: &File, direct: bool) -> bool {
    let Ok(flags) = fcntl_getfl(file) else { return false };
    let wanted = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    fcntl_setfl(file, wanted).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{super::pool::Pool, *};

    fn open(path: &std::path::Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[tokio::test]
    async fn any_size_is_written_and_read_in_both_modes() {
        let folder = tempfile::Builder::new().tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let pool = Pool::new();
        for direct in [true, false] {
            for size in [0, 1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5000] {
                let bytes: Vec<u8> = crate::worker::tests::sample(size);
                let path = folder.path().join(format!("{direct}-{size}"));
                let target = Target::new(open(&path), "t".into(), direct);
                for (index, piece) in bytes.chunks(CHUNK).enumerate() {
                    let mut buffer = pool.buffer().await.unwrap();
                    buffer.take(piece);
                    target.write(&mut buffer, (index * CHUNK) as u64).unwrap();
                }
                target.finish(size as u64).unwrap();
                assert!(std::fs::read(&path).unwrap() == bytes, "{direct} {size}");
                let mut read = Vec::new();
                target.read(0..size as u64, |piece| read.extend_from_slice(piece)).unwrap();
                assert!(read == bytes, "{direct} {size}");
                assert!(target.read(0..size as u64 + 1, |_| ()).is_err());
            }
        }
    }
}
