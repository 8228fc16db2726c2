//! An OCI image of one layer, written by code: no builder, no registry (reads the files, writes one tar).
//!
//! The same files always give the same bytes, so that an image can be named by its content.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cache::hex;

/// What an image holds and how it starts.
#[derive(Debug, Clone, Default)]
pub struct Image {
    entrypoint: Vec<String>,
    user: Option<String>,
    environment: Vec<String>,
    labels: Vec<(String, String)>,
    files: Vec<(PathBuf, Content)>,
}

#[derive(Debug, Clone)]
enum Content {
    CopyOf(PathBuf),
    LinkTo(String),
    Text(String),
}

impl Image {
    /// An empty image that starts with the given command.
    pub fn starting(entrypoint: &[&str]) -> Self {
        Self {
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            environment: vec!["PATH=/bin:/usr/bin".to_owned()],
            ..Self::default()
        }
    }

    /// Adds a copy of `source`, executable, at `path`; symbolic links are followed.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, source: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), Content::CopyOf(source.into())));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: impl Into<PathBuf>, to: &str) -> Self {
        self.files.push((path.into(), Content::LinkTo(to.to_owned())));
        self
    }

    /// Adds a small text file.
    #[must_use]
    pub fn text(mut self, path: impl Into<PathBuf>, text: &str) -> Self {
        self.files.push((path.into(), Content::Text(text.to_owned())));
        self
    }

    /// The user that containers run as unless the pod says otherwise.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// A label in the image's configuration; another label makes another image of the same files.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Writes the image below `folder` as an archive for `ctr images import`, named by `name` applied to the first
    /// 12 hex digits of its manifest; returns that name and the archive.
    pub fn write(&self, folder: &Path, name: impl FnOnce(&str) -> String) -> Result<(String, PathBuf)> {
        fs::create_dir_all(folder)?;
        let layer_file = folder.join(format!("layer-{}.tar", std::process::id()));
        let layer = self.write_layer(&layer_file)?;
        let config = self.configuration(&layer.digest);
        let config_blob = Blob::of(&config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_blob.reference(), "size": config_blob.size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.reference(), "size": layer.size}],
        });
        let manifest_blob = Blob::of(&manifest)?;
        let name = name(manifest_blob.digest.get(..12).unwrap_or_default());
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_blob.reference(), "size": manifest_blob.size,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }]});
        let archive = folder.join(format!("{}.tar", name.replace(['/', ':'], "_")));
        let mut tar =
            Builder::new(File::create(&archive).with_context(|| format!("cannot write {}", archive.display()))?);
        append_bytes(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append_bytes(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
        append_bytes(&mut tar, &config_blob.path(), &serde_json::to_vec(&config)?)?;
        append_bytes(&mut tar, &manifest_blob.path(), &serde_json::to_vec(&manifest)?)?;
        append_file(&mut tar, Path::new(&layer.path()), &layer_file, 0o644)?;
        tar.into_inner()?.flush()?;
        fs::remove_file(&layer_file)?;
        Ok((name, archive))
    }

    fn configuration(&self, layer_digest: &str) -> Value {
        let labels: serde_json::Map<_, _> =
            self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": self.environment, "User": self.user.clone().unwrap_or_default(), "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        })
    }

    fn write_layer(&self, file: &Path) -> Result<Blob> {
        let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        let mut tar = Builder::new(Hashing { out, hash: Sha256::new(), size: 0 });
        let mut folders = BTreeSet::new();
        append_folder(&mut tar, Path::new("tmp"), 0o1777)?;
        folders.insert(PathBuf::from("tmp"));
        for (path, content) in &self.files {
            let path = path.strip_prefix("/").unwrap_or(path);
            for parent in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if !parent.as_os_str().is_empty() && folders.insert(parent.to_path_buf()) {
                    append_folder(&mut tar, parent, 0o755)?;
                }
            }
            match content {
                Content::CopyOf(source) => append_file(&mut tar, path, source, 0o755)?,
                Content::LinkTo(to) => append_link(&mut tar, path, to)?,
                Content::Text(text) => append_bytes(&mut tar, &path.to_string_lossy(), text.as_bytes())?,
            }
        }
        let mut written = tar.into_inner()?;
        written.flush()?;
        Ok(Blob { digest: hex(&written.hash.finalize()), size: written.size })
    }
}

/// The machine's architecture in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn of(value: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Self { digest: hex(&Sha256::digest(&bytes)), size: bytes.len() as u64 })
    }

    fn reference(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }
}

/// A file whose digest and size are known once it is written.
struct Hashing {
    out: File,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_folder<W: Write>(tar: &mut Builder<W>, path: &Path, mode: u32) -> Result<()> {
    Ok(tar.append_data(&mut header(EntryType::Directory, mode, 0), path, io::empty())?)
}

fn append_link<W: Write>(tar: &mut Builder<W>, path: &Path, to: &str) -> Result<()> {
    Ok(tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, to)?)
}

fn append_bytes<W: Write>(tar: &mut Builder<W>, path: &str, bytes: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), path, bytes)?)
}

fn append_file<W: Write>(tar: &mut Builder<W>, path: &Path, source: &Path, mode: u32) -> Result<()> {
    let file = File::open(source).with_context(|| format!("an image needs {}", source.display()))?;
    let size = file.metadata()?.len();
    Ok(tar.append_data(&mut header(EntryType::Regular, mode, size), path, file)?)
}
