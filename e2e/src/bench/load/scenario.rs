//! What is loaded, and from what kind of server (writes the sources, starts the servers).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use checkpoint_operator::output::table::count;
use clap::ValueEnum;

use super::super::sources;
use super::program::Program;
use crate::folder_server::{Manner, Server};

/// What a connection to S3 brings, roughly, in bytes per second.
const CONNECTION: u64 = 64 << 20;
/// How long a server that is some way off takes before it answers.
const AWAY: Duration = Duration::from_millis(40);
/// Files of a deep tree.
const DEEP_FILES: u64 = 4000;
const DEEP_SIZE: u64 = 16 << 10;
const MIB: u64 = 1 << 20;

/// A scenario's name on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Kind {
    /// One file
    Large,
    /// 64 files
    Shards,
    /// Files of 1 MiB, an eighth of the size in all
    Small,
    /// 4,096 files of 1 MiB, whatever the size
    SmallFull,
    /// 4,000 files of 16 KiB, ten folders deep
    Deep,
    /// One file, every connection held to 64 MiB/s
    Capped,
    /// One file, 40 ms before each answer
    Away,
    /// One file over TLS
    Tls,
    /// 64 files, one of which changed since they were copied before
    Changed,
    /// 64 files of a repository of the Hugging Face Hub
    Hub,
}

impl Kind {
    /// What is measured unless something is chosen.
    pub(super) const DEFAULT: [Self; 5] = [Self::Large, Self::Shards, Self::Small, Self::Capped, Self::Away];
}

/// A bucket on a server.
pub(super) struct Scenario {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) server: Server,
    /// What everybody has fetched before the clock starts.
    pub(super) before: Option<Server>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Those of them that nobody has yet.
    pub(super) new: u64,
}

impl Scenario {
    /// Writes what is served below `root`, for scenarios of so many bytes.
    pub(super) fn make(kind: Kind, root: &Path, bytes: u64) -> Result<Self> {
        let folder = root.join("sources").join(format!("{kind:?}"));
        let size =
            |bytes: u64| if bytes < 1 << 30 { format!("{} MiB", bytes / MIB) } else { format!("{} GiB", bytes >> 30) };
        let plain = Manner::default();
        let (name, files, each, manner) = match kind {
            Kind::Large => (format!("1 x {}", size(bytes)), 1, bytes, plain),
            Kind::Shards => (format!("64 x {}", size(bytes / 64)), 64, bytes / 64, plain),
            Kind::Small => (format!("{} x 1 MiB", count(bytes / MIB / 8)), bytes / MIB / 8, MIB, plain),
            Kind::SmallFull => ("4,096 x 1 MiB".to_owned(), 4096, MIB, plain),
            Kind::Deep => (format!("{} x 16 KiB, 10 folders deep", count(DEEP_FILES)), DEEP_FILES, DEEP_SIZE, plain),
            Kind::Capped => {
                let manner = Manner { rate: Some(CONNECTION), ..plain };
                (format!("1 x {}, 64 MiB-s a connection", size(bytes)), 1, bytes, manner)
            }
            Kind::Away => (format!("1 x {}, 40 ms away", size(bytes)), 1, bytes, Manner { wait: AWAY, ..plain }),
            Kind::Tls => (format!("1 x {}, TLS", size(bytes)), 1, bytes, Manner { tls: true, ..plain }),
            Kind::Changed => (format!("64 x {}, one changed", size(bytes / 64)), 64, bytes / 64, plain),
            Kind::Hub => (format!("64 x {}, Hub", size(bytes / 64)), 64, bytes / 64, Manner { hub: true, ..plain }),
        };
        if kind == Kind::Deep {
            sources::deep(&folder, files, each)?;
        } else {
            sources::sized_shards(&folder, files, each)?;
        }
        let before = (kind == Kind::Changed).then(|| Server::start(&folder, manner)).transpose()?;
        let folder = if before.is_some() { with_one_changed(&folder, each)? } else { folder };
        let server = Server::start(&folder, manner)?;
        let bytes = files * each;
        let new = if before.is_some() { each } else { bytes };
        Ok(Self { kind, name, server, before, files, bytes, new })
    }

    /// Who is measured.
    pub(super) fn programs(&self) -> &'static [Program] {
        match self.kind {
            Kind::Hub => &[Program::Product, Program::HuggingFaceHub],
            // The others fetch everything again.
            Kind::Changed => &[Program::Product, Program::Rclone],
            _ => &[Program::Product, Program::Rclone, Program::S5cmd, Program::Boto3, Program::Pyarrow],
        }
    }
}

/// The same files under their other names, so that they are of the same time, and a new one in the place of the first.
fn with_one_changed(folder: &Path, size: u64) -> Result<PathBuf> {
    let changed = folder.with_extension("changed");
    fs::create_dir_all(&changed)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        fs::hard_link(entry.path(), changed.join(entry.file_name()))?;
    }
    let first = changed.join("00000.safetensors");
    let modified = fs::metadata(&first).context("no first file")?.modified()?;
    fs::remove_file(&first)?;
    sources::sized_shard(&changed, 0, size)?;
    fs::File::options().append(true).open(&first)?.set_modified(modified + Duration::from_hours(1))?;
    Ok(changed)
}
