//! A fixed pool of buffers, aligned for direct I/O: what a transfer holds in memory, whatever the files' sizes are.
//! Reads the memory limit of the process's control group.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a buffer holds. A whole number of these makes a part.
pub(super) const CHUNK: usize = 1 << 20;
/// What direct I/O wants addresses, offsets and lengths to be a multiple of: the largest block of common devices.
pub(super) const ALIGNMENT: usize = 4096;
/// Buffers when there is memory for all of them.
const MOST: usize = 64;
/// Buffers however little memory there is: two parts under way.
const FEWEST: usize = 4;

/// The buffers.
#[derive(Debug)]
pub(super) struct Pool {
    turns: Arc<Semaphore>,
    free: Mutex<Vec<Vec<u8>>>,
    size: usize,
}

/// A buffer on loan: it goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    /// As many buffers as half of the memory limit holds, within bounds. They are made when they are first needed.
    pub(super) fn new() -> Arc<Self> {
        Self::of(buffers(memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))))
    }

    fn of(size: usize) -> Arc<Self> {
        Arc::new(Self { turns: Arc::new(Semaphore::new(size)), free: Mutex::default(), size })
    }

    /// Buffers in all.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A buffer, empty, as soon as there is one.
    pub(super) async fn buffer(self: &Arc<Self>) -> Option<Buffer> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = free.unwrap_or_else(|| vec![0; CHUNK + ALIGNMENT]);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Some(Buffer { memory, start, length: 0, pool: Arc::clone(self), _turn: turn })
    }
}

impl Buffer {
    /// The bytes that were put in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// The bytes, followed by zeros up to a whole number of blocks.
    pub(super) fn blocks(&mut self) -> &[u8] {
        let padded = self.length.next_multiple_of(ALIGNMENT);
        self.memory[self.start + self.length..self.start + padded].fill(0);
        &self.memory[self.start..self.start + padded]
    }

    /// Takes as many of the bytes as there is room for and says how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(CHUNK - self.length);
        let end = self.start + self.length;
        self.memory[end..end + count].copy_from_slice(&bytes[..count]);
        self.length += count;
        count
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

fn buffers(limit: Option<u64>) -> usize {
    let half = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
    (half / CHUNK).clamp(FEWEST, MOST)
}

/// The smallest memory limit of the control groups (version 2) that this process is in; none when there is none.
fn memory_limit(membership: &Path, root: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let limit = |folder: &Path| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok();
    root.join(own).ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_is_the_most() {
        assert_eq!(buffers(None), MOST);
        assert_eq!(buffers(Some(64 << 20)), 32);
        assert_eq!(buffers(Some(1 << 20)), FEWEST);
        assert_eq!(buffers(Some(u64::MAX)), MOST);
    }

    #[test]
    fn the_smallest_limit_of_the_groups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (membership, root) = (folder.path().join("cgroup"), folder.path().join("fs"));
        fs::create_dir_all(root.join("pods/one")).unwrap();
        fs::write(&membership, "12:cpu:/elsewhere\n0::/pods/one\n").unwrap();
        assert_eq!(memory_limit(&membership, &root), None);
        fs::write(root.join("pods/memory.max"), "1000\n").unwrap();
        fs::write(root.join("pods/one/memory.max"), "max\n").unwrap();
        assert_eq!(memory_limit(&membership, &root), Some(1000));
        fs::write(root.join("pods/one/memory.max"), "500\n").unwrap();
        assert_eq!(memory_limit(&membership, &root), Some(500));
        assert_eq!(memory_limit(&folder.path().join("none"), &root), None);
    }

    #[tokio::test]
    async fn buffers_are_aligned_padded_and_come_back() {
        let pool = Pool::of(1);
        let mut buffer = pool.buffer().await.unwrap();
        assert_eq!(buffer.take(b"abc"), 3);
        assert_eq!(buffer.bytes(), b"abc");
        assert_eq!((buffer.blocks().len(), &buffer.blocks()[..5]), (ALIGNMENT, &b"abc\0\0"[..]));
        assert_eq!(buffer.blocks().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(buffer.take(&vec![7; 2 * CHUNK]), CHUNK - 3);
        assert_eq!(buffer.take(b"x"), 0, "it is full");
        let waiting = pool.buffer();
        drop(buffer);
        let mut next = waiting.await.unwrap();
        next.take(b"x");
        assert_eq!(next.blocks()[..3], *b"x\0\0", "what was there before is not written");
    }
}
