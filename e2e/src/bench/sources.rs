//! Checkpoints to be measured on: huge ones that take no room, and ones of very many files (file I/O).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths;

/// Tensors of a shard; each has 100 MB, so that a shard has 10 GB.
const TENSORS: u64 = 100;
const TENSOR_BYTES: u64 = 100_000_000;
const TENSOR_SHAPE: &str = "[10000,5000]";
/// Files of a folder among many.
const FILES_OF_A_FOLDER: u64 = 1000;
/// Files of a folder of a deep tree, and how deep such folders lie.
const FILES_OF_A_DEEP_FOLDER: u64 = 20;
const DEPTH: u32 = 10;
/// What the pickle scanner reads copies of: a training state as torch saves it.
const PICKLES: &str = "e2e/fixtures/torch/training";

/// A sharded Hugging Face model, 10 GB for each shard. Returns how many tensors it has.
pub fn shards(root: &Path, count: u64) -> Result<u64> {
    fs::create_dir_all(root)?;
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}"#;
    fs::write(root.join("config.json"), config)?;
    let mut index = BufWriter::new(File::create(root.join("model.safetensors.index.json"))?);
    write!(index, r#"{{"metadata": {{"total_size": {}}}, "weight_map": {{"#, count * TENSORS * TENSOR_BYTES)?;
    for shard in 0..count {
        let name = format!("model-{:05}-of-{count:05}.safetensors", shard + 1);
        let mut header = String::from("{");
        for number in 0..TENSORS {
            let tensor = format!("model.layers.{shard}.mlp.experts.{number}.gate_proj.weight");
            let comma = if number == 0 { "" } else { "," };
            let (begin, end) = (number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES);
            write!(
                header,
                r#"{comma}"{tensor}":{{"dtype":"BF16","shape":{TENSOR_SHAPE},"data_offsets":[{begin},{end}]}}"#
            )?;
            write!(index, "{}\"{tensor}\": \"{name}\"", if shard + number == 0 { "" } else { ", " })?;
        }
        header.push('}');
        sparse_safetensors(&root.join(name), &header, TENSORS * TENSOR_BYTES)?;
    }
    index.write_all(b"}}")?;
    index.flush()?;
    Ok(count * TENSORS)
}

/// Safetensors files of exactly so many bytes, of one tensor each.
pub fn sized_shards(root: &Path, count: u64, size: u64) -> Result<()> {
    fs::create_dir_all(root)?;
    (0..count).try_for_each(|number| sized_shard(root, number, size))
}

/// As [`sized_shards`], in folders of [`FILES_OF_A_DEEP_FOLDER`] that lie [`DEPTH`] folders deep.
pub fn deep(root: &Path, count: u64, size: u64) -> Result<()> {
    for number in 0..count {
        let mut rest = number / FILES_OF_A_DEEP_FOLDER;
        let mut folder = root.to_owned();
        for level in 0..DEPTH {
            folder.push(format!("level-{level}-{}", rest % 3));
            rest /= 3;
        }
        fs::create_dir_all(&folder)?;
        sized_shard(&folder, number, size)?;
    }
    Ok(())
}

/// One of [`sized_shards`].
pub fn sized_shard(folder: &Path, number: u64, size: u64) -> Result<()> {
    const HEADER: u64 = 256;
    let data = size.checked_sub(8 + HEADER).context("a file must hold its header")?;
    let header = format!(r#"{{"tensor.{number}":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
    let padded = format!("{header:width$}", width = usize::try_from(HEADER)?);
    sparse_safetensors(&folder.join(format!("{number:05}.safetensors")), &padded, data)
}

/// Small safetensors files of one tensor each, a thousand to a folder. Returns how many tensors there are.
pub fn files(root: &Path, count: u64) -> Result<u64> {
    for number in 0..count {
        let folder = root.join(format!("part-{:03}", number / FILES_OF_A_FOLDER));
        if number % FILES_OF_A_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        let header = format!(r#"{{"tensor.{number}":{{"dtype":"F32","shape":[64],"data_offsets":[0,256]}}}}"#);
        sparse_safetensors(&folder.join(format!("{number:06}.safetensors")), &header, 256)?;
    }
    Ok(count)
}

/// Copies of what torch wrote, a thousand to a folder.
pub fn pickles(root: &Path, count: u64) -> Result<()> {
    let folder = paths::workspace().join(PICKLES);
    let first = fs::read_dir(&folder)?.next().with_context(|| format!("{} is empty", folder.display()))??;
    let bytes = fs::read(first.path())?;
    for number in 0..count {
        let folder = root.join(format!("part-{:03}", number / FILES_OF_A_FOLDER));
        if number % FILES_OF_A_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("{number:06}.pt")), &bytes)?;
    }
    Ok(())
}

/// A file with a header and `data` bytes behind it that take no room.
fn sparse_safetensors(path: &Path, header: &str, data: u64) -> Result<()> {
    let padded = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.set_len(8 + padded.len() as u64 + data)
        .with_context(|| format!("{} lies on a file system without sparse files", path.display()))?;
    file.write_all_at(&(padded.len() as u64).to_le_bytes(), 0)?;
    file.write_all_at(padded.as_bytes(), 8)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_as_large_as_they_say() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(shards(&folder.path().join("s"), 2).unwrap(), 200);
        let shard = fs::metadata(folder.path().join("s/model-00002-of-00002.safetensors")).unwrap();
        assert!(shard.len() > 10_000_000_000);
        let index = fs::read_to_string(folder.path().join("s/model.safetensors.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["weight_map"].as_object().unwrap().len(), 200);
        assert_eq!(files(&folder.path().join("f"), 1001).unwrap(), 1001);
        assert!(folder.path().join("f/part-001/001000.safetensors").exists());
        sized_shards(&folder.path().join("z"), 2, 1 << 20).unwrap();
        assert_eq!(fs::metadata(folder.path().join("z/00001.safetensors")).unwrap().len(), 1 << 20);
        deep(&folder.path().join("d"), 21, 1024).unwrap();
        let second =
            "d/level-0-1/level-1-0/level-2-0/level-3-0/level-4-0/level-5-0/level-6-0/level-7-0/level-8-0/level-9-0";
        assert!(folder.path().join(second).join("00020.safetensors").exists());
        pickles(&folder.path().join("p"), 2).unwrap();
        assert!(folder.path().join("p/part-000/000001.pt").exists());
    }
}
