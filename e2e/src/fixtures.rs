//! Checkpoints of `e2e/fixtures` in memory, damaged or whole, and the judge's verdict on them (file I/O).

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use checkpoint_operator::{
    contract::{CodePolicy, Depth, PicklePolicy, Validation},
    format::{File, Input, Judge, Step, Verdict},
};

use crate::paths;

/// Files by their path below the checkpoint's root.
pub type Files = BTreeMap<String, Vec<u8>>;

/// All files of a fixture.
///
/// # Errors
/// When there is none.
pub fn read(folder: &str) -> Result<Files> {
    read_folder(&paths::workspace().join("e2e/fixtures").join(folder))
}

/// All files below a folder.
///
/// # Errors
/// When there is none.
pub fn read_folder(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    gather(root, root, &mut files)?;
    if files.is_empty() {
        bail!("{} is empty", root.display());
    }
    Ok(files)
}

fn gather(root: &Path, folder: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            gather(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root)?.to_str().context("a fixture has a name that is no text")?;
        files.insert(name.to_owned(), fs::read(&path)?);
    }
    Ok(())
}

/// Judges files in memory.
///
/// # Errors
/// When the judge asks for something that is not there.
pub fn judge(files: &Files, validation: &Validation) -> Result<Verdict> {
    let listed = files.iter().map(|(path, bytes)| File { path: path.clone(), size: bytes.len() as u64 }).collect();
    let contents: Vec<&Vec<u8>> = files.values().collect();
    let mut judge = Judge::new(listed, validation, &[]);
    let mut open = Vec::new();
    let mut step = judge.step(Input::Start);
    loop {
        match step {
            Step::Done(verdict) => return Ok(*verdict),
            Step::Read(reads) => open.extend(reads),
        }
        let read = open.pop().context("the judge waits for nothing")?;
        let range = usize::try_from(read.range.start)?..usize::try_from(read.range.end)?;
        let bytes = contents.get(read.file).and_then(|bytes| bytes.get(range)).context("a read out of bounds")?;
        step = judge.step(Input::Bytes { id: read.id, bytes });
    }
}

/// Accepts everything that is asked of pickles and code, so that only the bytes themselves decide.
#[must_use]
pub fn bytes_alone(depth: Depth) -> Validation {
    Validation { depth, pickle: PicklePolicy::Allow, code: CodePolicy::Allow, ..Validation::default() }
}
