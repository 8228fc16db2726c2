//! What file names say: shards, indexes, weights, pickles, files that do not count. Pure, no I/O.

use crate::contract::manifest::METADATA_FILE;

/// Extensions of files that usually are pickles or hold some.
const PICKLE_EXTENSIONS: [&str; 15] = [
    "pt", "pth", "pt2", "bin", "ckpt", "pkl", "pickle", "joblib", "npz", "npy", "distcp", "mar", "nemo", "dill",
    "skops",
];
/// Extensions that promise a pickle or an archive with pickles: anything else under such a name is damaged.
const CERTAIN: [&str; 11] = ["pt", "pth", "pt2", "pkl", "pickle", "joblib", "npz", "npy", "skops", "ckpt", "nemo"];
/// Beginnings of names that frameworks give to files of `torch.save` ending in `.bin`, which alone promises nothing.
const CERTAIN_BINARIES: [&str; 6] =
    ["pytorch_model", "adapter_model", "diffusion_pytorch_model", "optimizer", "scheduler", "training_args"];
/// Names without a telling extension that frameworks give to pickles.
const PICKLE_NAMES: [&str; 3] = [".metadata", ".tune_metadata", "_preprocessor"];
const COMPRESSIONS: [&str; 12] = ["gz", "gzip", "bzip2", "bz2", "xz", "zst", "lz4", "lzma", "z", "7z", "zip", "zlib"];
/// Extensions of files with weights, of any framework.
const WEIGHT_EXTENSIONS: [&str; 20] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "pt2",
    "ckpt",
    "gguf",
    "onnx",
    "msgpack",
    "h5",
    "keras",
    "pb",
    "npz",
    "ot",
    "tflite",
    "distcp",
    "index",
    "ggml",
    "mlmodel",
    "engine",
];
/// Beginnings of the names of files that hold the state of a training, not weights.
const TRAINING_STATE: [&str; 7] =
    ["optimizer", "scheduler", "scaler", "rng_state", "training_args", "sampler", "random_states"];

/// The last segment of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder of a path with its slash; empty for the root.
pub(super) fn folder(path: &str) -> &str {
    &path[..path.len() - base(path).len()]
}

fn extension(name: &str) -> String {
    name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
}

/// Whether the path has this extension, in any case.
pub(super) fn has_extension(path: &str, expected: &str) -> bool {
    extension(base(path)) == expected
}

/// Whether a file of this name alone does not make a checkpoint.
pub(super) fn is_ignorable(path: &str) -> bool {
    path == METADATA_FILE || matches!(base(path), "README.md" | ".gitattributes" | ".validate_storage_marker")
}

/// The extension below that of a compression.
fn inner_extension(name: &str) -> String {
    let last = extension(name);
    if COMPRESSIONS.contains(&last.as_str()) { extension(&name[..name.len() - last.len() - 1]) } else { last }
}

/// Whether the name is one that pickles have, also below a compression's extension.
pub(super) fn is_pickle(path: &str) -> bool {
    let name = base(path);
    PICKLE_EXTENSIONS.contains(&inner_extension(name).as_str()) || PICKLE_NAMES.contains(&name)
}

/// Whether a file of this name must be a pickle, or an archive or array that may hold some.
pub(super) fn is_certain_pickle(path: &str) -> bool {
    let (name, inner) = (base(path), inner_extension(base(path)));
    let binary = inner == "bin" && CERTAIN_BINARIES.iter().any(|beginning| name.starts_with(beginning));
    CERTAIN.contains(&inner.as_str()) || binary
}

/// Whether no library writes an empty file of such a name.
pub(super) fn has_content(path: &str) -> bool {
    const OTHERS: [&str; 5] = ["cbm", "nemo", "ubj", "weights", "zarray"];
    let extension = extension(base(path));
    is_pickle(path) || WEIGHT_EXTENSIONS.contains(&extension.as_str()) || OTHERS.contains(&extension.as_str())
}

/// Whether it is a safetensors file by name.
pub(super) fn is_safetensors(path: &str) -> bool {
    has_extension(path, "safetensors")
}

/// Whether the name is one that weights have, of any framework.
pub(super) fn is_weights(path: &str) -> bool {
    let name = base(path);
    WEIGHT_EXTENSIONS.contains(&extension(name).as_str()) && !is_training_state(name)
}

/// `optimizer.pt` and its like; `rank0-of-8-optimizer.pt` of the Trainer, whose beginning alone says nothing: TensorRT-LLM has
/// weights in `rank0.safetensors`.
fn is_training_state(name: &str) -> bool {
    TRAINING_STATE.iter().any(|state| name.starts_with(state))
        || (name.starts_with("rank") && name.ends_with("-optimizer.pt"))
}

/// `prefix-00002-of-00004suffix` with an extension of weights.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Shard<'a> {
    /// What stands before the number, without the dash.
    pub prefix: &'a str,
    /// What stands behind the total, such as `.safetensors`.
    pub suffix: &'a str,
    /// Which one.
    pub number: u32,
    /// Of how many.
    pub total: u32,
    /// Digits that numbers are written with.
    pub width: usize,
}

impl Shard<'_> {
    /// The name of another shard of the same set.
    pub fn sibling(&self, number: u32) -> String {
        let width = self.width;
        format!("{}-{number:0width$}-of-{:0width$}{}", self.prefix, self.total, self.suffix)
    }
}

/// Reads a shard's name.
pub(super) fn shard(name: &str) -> Option<Shard<'_>> {
    let (left, right) = name.rsplit_once("-of-")?;
    let (prefix, number) = left.rsplit_once('-')?;
    let digits = right.find('.')?;
    let (total, suffix) = right.split_at(digits);
    let numeric = |text: &str| {
        let plausible = (2..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        plausible.then(|| text.parse::<u32>().ok()).flatten()
    };
    let shard = Shard { prefix, suffix, number: numeric(number)?, total: numeric(total)?, width: total.len() };
    (shard.total > 0 && WEIGHT_EXTENSIONS.contains(&extension(name).as_str())).then_some(shard)
}

/// `shard-00002-model-00001-of-00004.safetensors`: what one rank of torch.distributed wrote of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RankShard {
    /// Which rank, from 1.
    pub rank: u32,
    /// Which file, from 1.
    pub number: u32,
    /// Of how many files.
    pub total: u32,
}

impl RankShard {
    /// The file's name.
    pub fn name(&self) -> String {
        format!("shard-{:05}-model-{:05}-of-{:05}.safetensors", self.rank, self.number, self.total)
    }
}

/// Reads the name of a rank's shard.
pub(super) fn rank_shard(name: &str) -> Option<RankShard> {
    let Shard { prefix, suffix, number, total, .. } = shard(name)?;
    let rank = prefix.strip_prefix("shard-")?.strip_suffix("-model")?;
    let digits = !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit());
    (digits && suffix == ".safetensors").then(|| Some(RankShard { rank: rank.parse().ok()?, number, total })).flatten()
}

/// The name of an index of shards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct IndexName {
    /// The file that holds all weights when they are not sharded, in the same folder.
    pub single: String,
    /// Whether the shards are safetensors.
    pub safetensors: bool,
}

/// Reads an index's name: `model.safetensors.index.json`, `model.safetensors.index.fp16.json`,
/// `pytorch_model.bin.index.json` and their like.
pub(super) fn index(name: &str) -> Option<IndexName> {
    let stem = name.strip_suffix(".json")?;
    let (weights, variant) = match stem.strip_suffix(".index") {
        Some(weights) => (weights, None),
        None => stem.rsplit_once(".index.").map(|(weights, variant)| (weights, Some(variant)))?,
    };
    let (stem, extension) = weights.rsplit_once('.')?;
    if variant.is_some_and(|variant| variant.contains('.'))
        || !matches!(extension, "safetensors" | "bin" | "msgpack" | "h5")
    {
        return None;
    }
    let single = variant.map_or_else(|| weights.to_owned(), |variant| format!("{stem}.{variant}.{extension}"));
    Some(IndexName { single, safetensors: extension == "safetensors" })
}

/// A path for a message: bounded, without control characters.
pub(super) fn shown(path: &str) -> String {
    crate::contract::report::clean(path, 256)
}

/// `1 tensor`, `2 tensors`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards() {
        let read = shard("model-00002-of-00004.safetensors").unwrap();
        assert_eq!((read.prefix, read.number, read.total, read.suffix), ("model", 2, 4, ".safetensors"));
        assert_eq!(read.sibling(3), "model-00003-of-00004.safetensors");
        let variant = shard("model-00001-of-00002.fp16.safetensors").unwrap();
        assert_eq!((variant.suffix, variant.prefix), (".fp16.safetensors", "model"));
        assert_eq!(shard("a-of-b-00001-of-00002.gguf").unwrap().prefix, "a-of-b");
        for name in [
            "model.safetensors",
            "model-1-of-2.safetensors",
            "x-00001-of-00002.txt",
            "x-00001-of-00000.bin",
            "-of-.",
            "é-00001-of-0000é2.bin",
        ] {
            assert_eq!(shard(name), None, "{name}");
        }
    }

    #[test]
    fn shards_of_ranks() {
        let shard = rank_shard("shard-00002-model-00001-of-00004.safetensors").unwrap();
        assert_eq!(shard, RankShard { rank: 2, number: 1, total: 4 });
        assert_eq!(shard.name(), "shard-00002-model-00001-of-00004.safetensors");
        for name in
            ["model-00001-of-00004.safetensors", "shard--model-00001-of-00004.safetensors", "shard-1.safetensors"]
        {
            assert_eq!(rank_shard(name), None, "{name}");
        }
    }

    #[test]
    fn indexes() {
        let table = [
            ("model.safetensors.index.json", Some(("model.safetensors", true))),
            ("model.fp16.safetensors.index.json", Some(("model.fp16.safetensors", true))),
            ("model.safetensors.index.fp16.json", Some(("model.fp16.safetensors", true))),
            ("pytorch_model.bin.index.json", Some(("pytorch_model.bin", false))),
            ("diffusion_pytorch_model.safetensors.index.json", Some(("diffusion_pytorch_model.safetensors", true))),
            ("flax_model.msgpack.index.json", Some(("flax_model.msgpack", false))),
            ("tf_model.h5.index.json", Some(("tf_model.h5", false))),
            ("index.json", None),
            ("a.index.json", None),
            ("config.json", None),
        ];
        for (name, expected) in table {
            let read = index(name);
            assert_eq!(read.as_ref().map(|read| (read.single.as_str(), read.safetensors)), expected, "{name}");
        }
    }

    #[test]
    fn pickles_weights_and_files_that_do_not_count() {
        for name in ["a/model.pt", "x.PKL", "dump.joblib.gz", ".metadata", "m.npz", "a.npy"] {
            assert!(is_pickle(name), "{name}");
        }
        for name in ["README.pt.md", "model.safetensors", "pt", "config.json", "x.gz"] {
            assert!(!is_pickle(name), "{name}");
        }
        assert!(is_weights("a/pytorch_model.bin") && !is_weights("optimizer.pt") && !is_weights("training_args.bin"));
        assert!(is_weights("rank0.safetensors") && is_weights("rank_zephyr.gguf") && is_weights("a/rank1.engine"));
        assert!(!is_weights("rank3-of-8-optimizer.pt") && !is_weights("rng_state_0.pth"));
        assert!(is_ignorable(".metadata.json") && !is_ignorable("a/.metadata.json") && is_ignorable("a/README.md"));
        assert_eq!((base("a/b"), folder("a/b"), folder("b")), ("b", "a/", ""));
    }
}
