//! Disks that fail in the middle of a load: what pods can see is never half of something, and the next load goes on
//! (loop mounts, which need root).

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, Outcome, Reason, Report, S3Task, Source, TaskKind},
    storage::Mounts,
    worker::{ProgressSink, perform},
};
use checkpoint_operator_e2e::{
    command::capture,
    folder_server::{BUCKET, Manner, Server},
    wait::{Now, wait_until_async},
};
use tokio_util::sync::CancellationToken;

use crate::{place, place::task};

const FILES: usize = 48;
const FILE_SIZE: usize = 1 << 20;
/// Of each connection, so that there is a middle of the load.
const RATE: u64 = 1 << 20;
/// A third more than the files need.
const DISK: u64 = 64 << 20;

/// Files of a checkpoint and the server that has them.
struct Origin {
    folder: tempfile::TempDir,
    server: Server,
}

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static ORIGIN: LazyLock<Origin> = LazyLock::new(|| Origin::start().expect("the server starts"));

impl Origin {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for number in 0..FILES {
            fs::write(folder.path().join(format!("{number}.data")), vec![u8::try_from(number)?; FILE_SIZE])?;
        }
        let server = Server::start(folder.path(), Manner { rate: Some(RATE), ..Manner::default() })?;
        Ok(Self { folder, server })
    }

    fn source(&self) -> Source {
        Source::S3(S3Task {
            bucket: BUCKET.into(),
            region: "us-east-1".into(),
            endpoint: Some(self.server.endpoint()),
            insecure: true,
            access: Access::Anonymous,
            ..S3Task::default()
        })
    }
}

/// A small file system of its own.
struct Disk {
    folder: tempfile::TempDir,
    /// The volume below where the file system is mounted.
    volume: &'static str,
}

impl Disk {
    /// An ext4, which becomes read-only when something is wrong with it.
    fn mounted() -> Result<Self> {
        let disk = Self { folder: tempfile::tempdir()?, volume: "" };
        disk.mount(DISK, &["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal"], "loop,errors=remount-ro")?;
        Ok(disk)
    }

    /// A folder of a btrfs that may hold so many bytes, while the file system has room for more.
    fn with_quota(bytes: u64) -> Result<Self> {
        let disk = Self { folder: tempfile::tempdir()?, volume: "volume" };
        disk.mount(8 * DISK, &["mkfs.btrfs", "-q", "-f"], "loop")?;
        let btrfs = |arguments: &[&str], place: &Path| capture(Command::new("btrfs").args(arguments).arg(place));
        btrfs(&["quota", "enable"], &disk.mount_point())?;
        btrfs(&["subvolume", "create"], &disk.root())?;
        btrfs(&["qgroup", "limit", &bytes.to_string()], &disk.root())?;
        Ok(disk)
    }

    fn mount(&self, size: u64, make: &[&str], options: &str) -> Result<()> {
        File::create(self.image())?.set_len(size)?;
        fs::create_dir(self.mount_point())?;
        capture(Command::new(make[0]).args(&make[1..]).arg(self.image()))?;
        capture(Command::new("mount").args(["-o", options]).arg(self.image()).arg(self.mount_point()))
            .map(drop)
            .context("a loop mount is needed, and root for it")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn root(&self) -> PathBuf {
        self.mount_point().join(self.volume)
    }

    async fn perform(&self, kind: TaskKind, fingerprint: Option<&str>) -> Report {
        let mounts = Mounts { volume: Some(self.root()), ..Mounts::default() };
        let task = task(kind, &ORIGIN.source(), fingerprint);
        perform(&task, &mounts, &ProgressSink::default(), CancellationToken::new()).await
    }

    /// Loads, and does something to the disk once files have begun to arrive.
    async fn load(&self, midway: impl FnOnce(&Path) -> Result<()>) -> Result<Report> {
        let inspected = self.perform(TaskKind::Inspect, None).await;
        let fingerprint = inspected.source.context("no source")?.fingerprint;
        let staging = self.root().join(".checkpoint/staging");
        let acting = async {
            wait_until_async("files to arrive", Duration::from_mins(1), async || {
                let begun = fs::read_dir(&staging).is_ok_and(|mut found| found.next().is_some());
                Ok(Now::when(begun, "nothing has arrived"))
            })
            .await?;
            midway(&self.root())
        };
        let (report, acted) = tokio::join!(self.perform(TaskKind::Load, Some(&fingerprint)), acting);
        acted?;
        Ok(report)
    }

    /// The load ended for this reason and said so; what can be seen is whole, and no manifest says that it is all.
    async fn assert_fails(&self, midway: impl FnOnce(&Path) -> Result<()>, reason: Reason, said: &str) -> Result<()> {
        let report = self.load(midway).await?;
        assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(reason)), "{report:?}");
        assert!(report.message.contains(said), "{}", report.message);
        assert!(!self.root().join(".checkpoint/manifest.json").exists());
        assert!(self.whole_files()? < FILES, "it was not in the middle");
        Ok(())
    }

    /// Whatever has its own name is what it should be; how many there are.
    fn whole_files(&self) -> Result<usize> {
        let mut count = 0;
        for item in fs::read_dir(self.root())? {
            let path = item?.path();
            let name = path.file_name().context("no name")?.to_owned();
            if path.extension().is_some_and(|extension| extension == "data") {
                assert!(
                    fs::read(&path)? == fs::read(ORIGIN.folder.path().join(&name))?,
                    "{} is not whole",
                    path.display()
                );
                count += 1;
            }
        }
        Ok(count)
    }

    async fn assert_goes_on(&self) -> Result<()> {
        let report = self.load(|_| Ok(())).await?;
        assert_eq!(report.outcome, Outcome::Good, "{report:?}");
        assert_eq!(self.whole_files()?, FILES);
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        capture(Command::new("umount").arg(self.mount_point())).ok();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up() -> Result<()> {
    place()?;
    let disk = Disk::mounted()?;
    let filler = disk.root().join("lost+found/filler");
    let fill = |_: &Path| {
        let file = File::create(&filler)?;
        let block = vec![1; 64 << 10];
        let mut at = 0;
        while file.write_all_at(&block, at).is_ok() {
            at += block.len() as u64;
        }
        Ok(())
    };
    disk.assert_fails(fill, Reason::InsufficientSpace, "the volume is full").await?;
    fs::remove_file(&filler)?;
    disk.assert_goes_on().await
}

#[tokio::test]
async fn a_disk_that_becomes_read_only() -> Result<()> {
    place()?;
    let disk = Disk::mounted()?;
    let device = capture(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(disk.mount_point()))?;
    let device = device.trim().trim_start_matches("/dev/").to_owned();
    // As the kernel does when it finds the file system damaged.
    let fail = |_: &Path| Ok(fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test")?);
    disk.assert_fails(fail, Reason::LoadFailed, "read-only").await?;
    capture(Command::new("umount").arg(disk.mount_point()))?;
    capture(Command::new("sh").args(["-c", "e2fsck -fy \"$0\" || test $? -le 2"]).arg(disk.image()))?;
    capture(Command::new("mount").args(["-o", "loop"]).arg(disk.image()).arg(disk.mount_point()))?;
    disk.assert_goes_on().await
}

#[tokio::test]
async fn a_quota_that_is_less_than_the_disk() -> Result<()> {
    place()?;
    let disk = Disk::with_quota(u64::try_from(FILES * FILE_SIZE)? * 2 / 3)?;
    disk.assert_fails(|_| Ok(()), Reason::InsufficientSpace, "the volume is full").await?;
    capture(Command::new("btrfs").args(["qgroup", "limit", "none"]).arg(disk.root()))?;
    disk.assert_goes_on().await
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_any_more() -> Result<()> {
    place()?;
    let disk = Disk::mounted()?;
    let staging = disk.root().join(".checkpoint/staging");
    // Root may write wherever modes forbid it, but not here.
    let attribute = |flag: &str| capture(Command::new("chattr").arg(flag).arg(&staging)).map(drop);
    disk.assert_fails(|_| attribute("+i"), Reason::LoadFailed, "may not write").await?;
    attribute("-i")?;
    disk.assert_goes_on().await
}
