//! Brings a file that is there already: its blocks are shared where the file system can do that, else its bytes are copied.
//! Either way all bytes are read, hashed and compared. Does I/O, blocking, a part at a time.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use rustix::fs::{copy_file_range, ioctl_ficlone};

use crate::storage::Window;

use super::{
    PART, PartSums,
    hash::{self, PartHash, PartHasher},
    is_part,
    pool::CHUNK,
    sums::{Check, OrderedSums, PieceSums},
    target::Target,
};

/// So many copied bytes are made durable at once, so that they do not fill the page cache.
const DURABLE: u64 = 256 << 20;

/// A file that is read from its beginning to its end, and written if there is a target.
#[derive(Debug)]
pub(in crate::worker) struct Bringing {
    from: File,
    target: Option<Arc<Target>>,
    shared: bool,
    /// Bytes to read.
    size: u64,
    at: u64,
    /// The size of the file that parts are hashed for.
    wanted: u64,
    whole: blake3::Hasher,
    parts: Vec<PartHash>,
    check: Check,
    pieces: PieceSums,
    ordered: Option<OrderedSums>,
    found: Vec<super::sums::Piece>,
}

/// What all bytes turned out to be.
#[derive(Debug)]
pub(in crate::worker) struct Brought {
    pub hash: blake3::Hash,
    /// What they do not sum up to.
    pub wrong: Vec<Window>,
    /// Whether they were compared with sums of all of the file.
    pub verified: bool,
    /// The hash of each part, in the file that is wanted.
    pub parts: Vec<PartHash>,
}

/// Lets the target share the blocks of this file. False when the file system cannot. Blocks.
pub(in crate::worker) fn share(from: &File, target: &File) -> bool {
    ioctl_ficlone(target, from).is_ok()
}

impl Bringing {
    /// Reads `size` bytes for a file of `wanted` bytes with these sums. A target that shares the blocks is read, and not written.
    pub(in crate::worker) fn new(
        from: File,
        target: Option<(Arc<Target>, bool)>,
        size: u64,
        wanted: u64,
        windows: Vec<Window>,
    ) -> Self {
        let windows = windows.into_iter().filter(|window| window.range.end <= size).collect();
        let check = Check::new(windows, wanted);
        let shared = target.as_ref().is_some_and(|(_, shared)| *shared);
        Self {
            from,
            target: target.map(|(target, _)| target),
            shared,
            size,
            at: 0,
            wanted,
            whole: blake3::Hasher::new(),
            parts: Vec::new(),
            pieces: PieceSums::new(check.clone(), 0),
            ordered: OrderedSums::new(&check),
            found: Vec::new(),
            check,
        }
    }

    /// Reads the next part; none when there is no more. How many bytes that were. Blocks.
    pub(in crate::worker) fn step(&mut self) -> io::Result<Option<u64>> {
        let range = self.at..(self.at + PART).min(self.size);
        if range.is_empty() {
            return Ok(None);
        }
        let copied = match &self.target {
            Some(target) if !self.shared => copy(&self.from, target.file(), range.clone())?,
            _ => false,
        };
        let mut hasher = PartHasher::new(range.start, self.wanted);
        let mut buffer = vec![0; CHUNK];
        while self.at < range.end {
            let length = usize::try_from(range.end - self.at).unwrap_or(CHUNK).min(CHUNK);
            let bytes = &mut buffer[..length];
            match &self.target {
                Some(target) if self.shared || copied => target.file().read_exact_at(bytes, self.at)?,
                Some(target) => {
                    self.from.read_exact_at(bytes, self.at)?;
                    target.file().write_all_at(bytes, self.at)?;
                }
                None => self.from.read_exact_at(bytes, self.at)?,
            }
            hasher.update(bytes);
            // Only parts of a file of another size do not merge into the hash of this one.
            if self.size != self.wanted {
                self.whole.update(bytes);
            }
            self.pieces.update(bytes);
            if let Some(ordered) = &mut self.ordered {
                ordered.update(bytes);
            }
            self.at += length as u64;
        }
        self.parts.push(hasher.finish());
        if let Some(target) = self.target.as_ref().filter(|_| !self.shared && self.at.is_multiple_of(DURABLE)) {
            target.file().sync_data()?;
            target.drop_cache();
        }
        Ok(Some(range.end - range.start))
    }

    /// The end, once all was read.
    pub(in crate::worker) fn finish(mut self) -> Brought {
        self.found.extend(self.pieces.finish());
        let wrong = self.ordered.map_or_else(|| self.check.wrong_pieces(&self.found), OrderedSums::finish);
        let merged = if self.size == self.wanted { hash::merge(&self.parts) } else { None };
        let hash = merged.unwrap_or_else(|| self.whole.finalize());
        Brought { hash, wrong, verified: self.check.covers(self.wanted), parts: self.parts }
    }
}

/// Copies a range within the kernel, which shares blocks where it can. False when it cannot: then nothing is promised of what
/// is in the range now.
fn copy(from: &File, to: &File, range: Range<u64>) -> io::Result<bool> {
    let (mut source, mut target) = (range.start, range.start);
    while target < range.end {
        let length = usize::try_from(range.end - target).unwrap_or(CHUNK);
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::IO)) => {
                return Err(errno.into());
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Brings a part to its place in a file of `wanted` bytes. False when it is not there then: the donor may have changed since its
/// hash was taken. Blocks.
pub(in crate::worker) fn part(
    from: &File,
    target: &File,
    wanted: u64,
    (index, sums): (usize, PartSums),
) -> io::Result<bool> {
    copy_part(from, target, index, wanted)?;
    is_part(target.try_clone()?, wanted, Some((index, sums)))
}

fn copy_part(from: &File, target: &File, index: usize, wanted: u64) -> io::Result<()> {
    let start = index as u64 * PART;
    let range = start..(start + PART).min(wanted);
    if copy(from, target, range.clone())? {
        return Ok(());
    }
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
        from.read_exact_at(&mut buffer[..length], at)?;
        target.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// The parts of a file of `wanted` bytes that lie in windows whose sums hold. Windows are in order and do not overlap.
pub(in crate::worker) fn equal_parts(
    windows: &[Window],
    wrong: &[Window],
    size: u64,
    wanted: u64,
    parts: &[PartHash],
) -> Vec<(usize, PartSums)> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for window in windows.iter().filter(|window| window.range.end <= size && !wrong.contains(window)) {
        match runs.last_mut() {
            Some(last) if last.end == window.range.start => last.end = window.range.end,
            _ => runs.push(window.range.clone()),
        }
    }
    let mut equal = Vec::new();
    for (index, hash) in parts.iter().enumerate() {
        let start = index as u64 * PART;
        let end = (start + PART).min(wanted);
        let inside = runs.partition_point(|run| run.end < end);
        if runs.get(inside).is_some_and(|run| run.start <= start && end <= run.end) {
            equal.push((index, PartSums { hash: *hash, pieces: Vec::new() }));
        }
    }
    equal
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::storage::Checksum;

    fn sample(length: u64) -> Vec<u8> {
        crate::worker::tests::sample(usize::try_from(length).unwrap())
    }

    fn sha(bytes: &[u8]) -> Checksum {
        Checksum::Sha256(Sha256::digest(bytes).into())
    }

    fn run(mut bringing: Bringing) -> io::Result<Brought> {
        while bringing.step()?.is_some() {}
        Ok(bringing.finish())
    }

    #[test]
    fn what_is_brought_is_hashed_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        for size in [1, PART - 1, PART, 2 * PART + 5] {
            let bytes = sample(size);
            std::fs::write(folder.path().join("from"), &bytes).unwrap();
            for damaged in [false, true] {
                let from = File::open(folder.path().join("from")).unwrap();
                let to =
                    File::options().read(true).write(true).create(true).truncate(true).open(folder.path().join("to"));
                let to = Arc::new(Target::new(to.unwrap(), "to".into(), false));
                let checksum = sha(if damaged { b"other" } else { &bytes });
                let windows = vec![Window { range: 0..size, checksum }];
                let brought = run(Bringing::new(from, Some((to, false)), size, size, windows.clone())).unwrap();
                assert_eq!(brought.hash, blake3::hash(&bytes));
                assert_eq!(brought.wrong, if damaged { windows } else { vec![] });
                assert!(brought.verified);
                assert!(std::fs::read(folder.path().join("to")).unwrap() == bytes);
            }
        }
        let from = File::open(folder.path().join("from")).unwrap();
        let longer = 2 * PART + 6;
        assert!(run(Bringing::new(from, None, longer, longer, vec![])).is_err(), "it is shorter than it was");
    }

    #[test]
    fn a_file_of_another_size_has_its_own_hash_and_the_parts_of_the_wanted_one() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (sample(2 * PART + 5), sample(3 * PART));
        std::fs::write(folder.path().join("from"), &old).unwrap();
        let from = File::open(folder.path().join("from")).unwrap();
        let cut = usize::try_from(PART).unwrap();
        let window = |index: usize| Window {
            range: (index * cut) as u64..((index + 1) * cut) as u64,
            checksum: sha(&new[index * cut..(index + 1) * cut]),
        };
        let windows = vec![window(0), window(1), window(2)];
        let brought = run(Bringing::new(from, None, old.len() as u64, new.len() as u64, windows.clone())).unwrap();
        assert_eq!((brought.hash, brought.wrong.len()), (blake3::hash(&old), 0));
        let parts = equal_parts(&windows, &brought.wrong, old.len() as u64, new.len() as u64, &brought.parts);
        assert_eq!(parts.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_part_of_a_donor_that_changed_since_it_was_read_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, size) = (folder.path().join("from"), 2 * PART);
        let mut bytes = sample(size);
        std::fs::write(&path, &bytes).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let brought = run(Bringing::new(open(), None, size, size, vec![])).unwrap();
        let sums = |index: usize| (index, PartSums { hash: brought.parts[index], pieces: vec![] });
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let to = tempfile::tempfile().unwrap();
        assert!(!part(&open(), &to, size, sums(0)).unwrap());
        assert!(part(&open(), &to, size, sums(1)).unwrap());
        open().set_len(PART).unwrap();
        assert!(part(&open(), &to, size, sums(1)).is_err(), "it is shorter than it was");
    }

    #[test]
    fn parts_lie_in_windows_that_hold() {
        let hashes = [PartHash::Subtree([0; 32]); 4];
        let window = |range: Range<u64>| Window { range, checksum: Checksum::Md5([0; 16]) };
        let half = PART / 2;
        let windows: Vec<Window> = (0..7).map(|index| window(index * half..(index + 1) * half)).collect();
        let size = 7 * half;
        for (wrong, expected) in [
            (vec![], vec![0, 1, 2, 3]),
            (vec![windows[2].clone()], vec![0, 2, 3]),
            (vec![windows[6].clone()], vec![0, 1, 2]),
            (windows.clone(), vec![]),
        ] {
            let found = equal_parts(&windows, &wrong, size, size, &hashes);
            assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), expected, "{wrong:?}");
        }
        let gap = [window(0..PART), window(PART + 1..size)];
        assert_eq!(equal_parts(&gap, &[], size, size, &hashes).len(), 3, "a byte without a sum");
        assert_eq!(equal_parts(&windows, &[], 5 * half, size, &hashes).len(), 2, "the donor is shorter");
    }
}
