//! Checkpoints that the real libraries wrote (e2e/fixtures), as they are and systematically damaged (file I/O, no network).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::Mutex,
    time::{Duration, Instant},
};

use checkpoint_operator::{
    contract::{Depth, Format, PickleTier, Reason, Validation},
    format::Verdict,
};
use checkpoint_operator_e2e::fixtures::{self, Files, bytes_alone};

/// A fixture, and what it is.
struct Fixture {
    folder: &'static str,
    format: Format,
    pickle: PickleTier,
    /// The part of each file that its header does not describe byte by byte: damage there shows only at depth `Content`.
    lenient: bool,
}

const fn fixture(folder: &'static str, format: Format, pickle: PickleTier) -> Fixture {
    Fixture { folder, format, pickle, lenient: false }
}

const fn lenient(folder: &'static str, format: Format, pickle: PickleTier) -> Fixture {
    Fixture { folder, format, pickle, lenient: true }
}

const FIXTURES: &[Fixture] = &[
    fixture("torch/state_dict", Format::Torch, PickleTier::TensorsOnly),
    fixture("torch/training", Format::Torch, PickleTier::TensorsOnly),
    fixture("torch/dtypes", Format::Torch, PickleTier::TensorsOnly),
    fixture("torch/legacy", Format::Torch, PickleTier::TensorsOnly),
    fixture("torch/module", Format::Torch, PickleTier::Code),
    fixture("torch/script", Format::TorchScript, PickleTier::KnownSafe),
    fixture("torch/export", Format::TorchExport, PickleTier::TensorsOnly),
    fixture("dcp", Format::TorchDistributed, PickleTier::TensorsOnly),
    // The sizes of records are NumPy's own business, so a truncated one passes.
    lenient("numpy/npy", Format::NumPy, PickleTier::None),
    fixture("numpy/npz", Format::NumPy, PickleTier::None),
    fixture("numpy/objects", Format::NumPy, PickleTier::KnownSafe),
    // The writer pads the last tensor; readers do not need the padding.
    lenient("gguf", Format::Gguf, PickleTier::None),
    fixture("hdf5", Format::Hdf5, PickleTier::None),
    fixture("hdf5-latest", Format::Hdf5, PickleTier::None),
    fixture("keras/sharded", Format::Hdf5, PickleTier::None),
    fixture("keras/plain", Format::Keras, PickleTier::None),
    fixture("keras/weights", Format::Hdf5, PickleTier::None),
    fixture("keras/legacy", Format::Hdf5, PickleTier::None),
    // A text without its last lines, and a graph without its last parts, are whole to their readers.
    lenient("tensorflow/checkpoint", Format::TensorFlowCheckpoint, PickleTier::None),
    lenient("tensorflow/checkpoint_v1", Format::TensorFlowCheckpoint, PickleTier::None),
    lenient("tensorflow/saved_model", Format::SavedModel, PickleTier::None),
    lenient("tensorflow/saved_model_assets", Format::SavedModel, PickleTier::None),
    fixture("tflite", Format::TfLite, PickleTier::None),
    fixture("onnx/inside", Format::Onnx, PickleTier::None),
    fixture("onnx/external", Format::Onnx, PickleTier::None),
    fixture("joblib/plain", Format::Joblib, PickleTier::Code),
    fixture("joblib/zlib", Format::Joblib, PickleTier::Code),
    fixture("joblib/gzip", Format::Joblib, PickleTier::Code),
    fixture("joblib/bzip2", Format::Joblib, PickleTier::Code),
    fixture("joblib/lzma", Format::Joblib, PickleTier::Code),
    fixture("joblib/xz", Format::Joblib, PickleTier::Code),
    fixture("sklearn/pickle", Format::Pickle, PickleTier::Code),
    fixture("sklearn/skops", Format::Skops, PickleTier::None),
    // Parameters and importances follow the trees, and LightGBM does without them.
    lenient("lightgbm", Format::LightGbm, PickleTier::None),
    fixture("peft", Format::PeftAdapter, PickleTier::None),
    // A few bytes of `optimizer.bin` may be any file.
    lenient("accelerate", Format::Accelerate, PickleTier::KnownSafe),
    fixture("xgboost/json", Format::XgBoost, PickleTier::None),
    fixture("xgboost/ubjson", Format::XgBoost, PickleTier::None),
    fixture("xgboost/dart", Format::XgBoost, PickleTier::None),
    fixture("xgboost/linear", Format::XgBoost, PickleTier::None),
    fixture("catboost/cbm", Format::CatBoost, PickleTier::None),
    fixture("catboost/json", Format::CatBoost, PickleTier::None),
    fixture("flax/msgpack", Format::Flax, PickleTier::None),
    fixture("flax/checkpoint", Format::Flax, PickleTier::None),
    fixture("dcp-ranks", Format::TorchDistributed, PickleTier::TensorsOnly),
    fixture("dcp-safetensors", Format::TorchDistributed, PickleTier::None),
    fixture("dcp-safetensors-consolidated", Format::ShardedSafetensors, PickleTier::None),
    // Descriptions of shardings, and what single processes wrote before it was merged, are not needed; chunks are compressed.
    lenient("orbax/standard", Format::Orbax, PickleTier::None),
    lenient("orbax/v1", Format::Orbax, PickleTier::None),
    lenient("orbax/zarr", Format::Orbax, PickleTier::None),
    lenient("orbax/zarr3", Format::Orbax, PickleTier::None),
    lenient("orbax/prefixed", Format::Orbax, PickleTier::None),
    lenient("orbax/manager/7", Format::Orbax, PickleTier::None),
    // Tokenizers, settings of generation and the like are not read.
    lenient("trainer/checkpoint-2", Format::TrainerCheckpoint, PickleTier::KnownSafe),
    lenient("trainer/sharded", Format::TrainerCheckpoint, PickleTier::KnownSafe),
    lenient("trainer/model_only", Format::TrainerCheckpoint, PickleTier::KnownSafe),
    lenient("trainer/adapter", Format::PeftAdapter, PickleTier::KnownSafe),
    lenient("fsdp", Format::Accelerate, PickleTier::KnownSafe),
    lenient("accelerate-full", Format::Accelerate, PickleTier::KnownSafe),
    lenient("diffusers", Format::Diffusers, PickleTier::None),
    lenient("diffusers-text", Format::Diffusers, PickleTier::None),
    lenient("sentence_transformers", Format::SentenceTransformers, PickleTier::None),
    lenient("hugging_face/single", Format::HuggingFace, PickleTier::None),
    lenient("hugging_face/sharded", Format::HuggingFace, PickleTier::None),
    lenient("hugging_face/quantised", Format::HuggingFace, PickleTier::None),
    lenient("mlflow/catboost", Format::MlflowModel, PickleTier::None),
    lenient("mlflow/lightgbm", Format::MlflowModel, PickleTier::None),
    lenient("mlflow/onnx", Format::MlflowModel, PickleTier::None),
    lenient("mlflow/sklearn", Format::MlflowModel, PickleTier::None),
    lenient("mlflow/sklearn_pickle", Format::MlflowModel, PickleTier::Code),
    lenient("mlflow/pytorch", Format::MlflowModel, PickleTier::TensorsOnly),
    lenient("mlflow/pytorch_pickle", Format::MlflowModel, PickleTier::Code),
    lenient("mlflow/transformers", Format::MlflowModel, PickleTier::None),
    lenient("mlflow/xgboost", Format::MlflowModel, PickleTier::None),
    // What is left of a file that marks a checkpoint of AIR, or describes a component of RLlib, is not compared with anything.
    lenient("ray/air_files", Format::RayAir, PickleTier::None),
    lenient("ray/air_packed", Format::RayAir, PickleTier::None),
    lenient("ray/air_dict", Format::RayAir, PickleTier::Code),
    lenient("ray/rllib", Format::Rllib, PickleTier::Code),
    lenient("ray/rllib_old", Format::Rllib, PickleTier::KnownSafe),
];

fn read(folder: &str) -> Files {
    fixtures::read(folder).unwrap()
}

fn judge(files: &Files, validation: &Validation) -> Verdict {
    fixtures::judge(files, validation).unwrap()
}

#[test]
fn what_libraries_wrote_is_what_it_is() {
    for fixture in FIXTURES {
        let files = read(fixture.folder);
        for depth in [Depth::Headers, Depth::Content] {
            let verdict = judge(&files, &bytes_alone(depth));
            assert!(verdict.is_good(), "{}: {}", fixture.folder, verdict.message);
            assert_eq!(verdict.contents.format, Some(fixture.format), "{}", fixture.folder);
            assert_eq!(verdict.contents.pickle, Some(fixture.pickle), "{}: {:?}", fixture.folder, verdict.findings);
        }
        let verdict = judge(&files, &Validation::default());
        assert_eq!(
            verdict.is_good(),
            fixture.pickle <= PickleTier::KnownSafe,
            "{}: {}",
            fixture.folder,
            verdict.message
        );
        if !verdict.is_good() {
            assert_eq!(verdict.reason, Reason::UnsafePickle, "{}", fixture.folder);
        }
    }
}

/// What runs when a model is loaded or used is refused unless it is asked for, and nothing else is the matter with it.
#[test]
fn code_that_runs_on_load_is_refused() {
    for (folder, words) in [
        ("keras/lambda", "a Lambda layer"),
        ("keras/legacy_lambda", "a Lambda layer"),
        ("keras/custom", "the registered custom class mine>Scale"),
        ("tensorflow/saved_model_reads_file", "ReadFile, WriteFile"),
    ] {
        let files = read(folder);
        assert!(judge(&files, &bytes_alone(Depth::Content)).is_good(), "{folder}");
        let verdict = judge(&files, &Validation::default());
        assert_eq!(verdict.reason, Reason::UnsafeCode, "{folder}: {}", verdict.message);
        assert!(verdict.message.contains(words), "{folder}: {}", verdict.message);
    }
}

/// Weights are counted without the optimizer's state, and once.
#[test]
fn facts_of_tensorflow_and_keras_are_those_of_the_libraries() {
    let expected = [
        // The optimizer has made no step.
        ("tensorflow/checkpoint", Some(1), Some(12), Some(0), Some("tensorflow")),
        ("tensorflow/checkpoint_v1", Some(2), Some(16), None, Some("tensorflow 2.21.0")),
        ("tensorflow/saved_model", Some(1), Some(12), Some(7), Some("tensorflow 2.21.0")),
        ("keras/plain", Some(4), Some(26), None, Some("keras 3.15.1")),
        ("keras/weights", Some(4), Some(26), None, None),
        ("keras/sharded", Some(4), Some(26), None, None),
        ("keras/legacy", Some(4), Some(26), None, Some("keras 3.15.1")),
    ];
    let found: Vec<_> = expected
        .iter()
        .map(|(folder, ..)| {
            let contents = judge(&read(folder), &bytes_alone(Depth::Headers)).contents;
            (*folder, contents.tensors, contents.parameters, contents.step, contents.framework)
        })
        .collect();
    let found: Vec<_> = found
        .iter()
        .map(|(folder, tensors, parameters, step, framework)| {
            (*folder, *tensors, *parameters, *step, framework.as_deref())
        })
        .collect();
    assert_eq!(found, expected);
}

/// What a damage came to, for the table.
#[derive(Default)]
struct Tally {
    found: usize,
    passed: usize,
}

/// What damaging one fixture in many places came to.
#[derive(Default)]
struct Damaged {
    tallies: BTreeMap<&'static str, Tally>,
    wrong: Vec<String>,
}

/// Cuts, flips and removes: so many places of each file.
const CUTS: usize = 37;
const FLIPS: usize = 23;

fn damaged(fixture: &Fixture) -> Damaged {
    let mut out = Damaged::default();
    let files = read(fixture.folder);
    let default = Validation::default();
    let safe = judge(&files, &default).is_good();
    for (path, bytes) in &files {
        let mut try_out = |damage: &'static str, changed: Files, depth: Depth, must: bool| {
            // A pickle that was refused before must be refused after, too; other files are judged by their bytes alone.
            let verdict =
                judge(&changed, &if safe { bytes_alone(depth) } else { Validation { depth, ..default.clone() } });
            let tally = out.tallies.entry(damage).or_default();
            if verdict.is_good() {
                tally.passed += 1;
                // What is left of a file whose name tells nothing may be any other file.
                if must && verdict.contents.format != Some(Format::Generic) {
                    out.wrong.push(format!("{} {damage} of {path}: {}", fixture.folder, verdict.message));
                }
            } else {
                tally.found += 1;
            }
        };
        let with = |bytes: Vec<u8>| {
            let mut changed = files.clone();
            changed.insert(path.clone(), bytes);
            changed
        };
        let points = (1..bytes.len()).step_by((bytes.len() / CUTS).max(1)).chain(bytes.len().checked_sub(1));
        for point in points {
            try_out("truncation", with(bytes[..point].to_vec()), Depth::Headers, !fixture.lenient);
        }
        let mut header = bytes.clone();
        for byte in header.iter_mut().take(8) {
            *byte ^= 0xFF;
        }
        try_out("magic", with(header), Depth::Headers, false);
        for point in (0..bytes.len()).step_by((bytes.len() / FLIPS).max(1)) {
            let mut flipped = bytes.clone();
            flipped[point] ^= 0x10;
            try_out("flipped byte", with(flipped), Depth::Content, false);
        }
        if files.len() > 1 {
            let mut missing = files.clone();
            missing.remove(path);
            // Others are something else and whole without it: an adapter without its configuration is a safetensors file.
            let must = matches!(fixture.format, Format::TorchDistributed | Format::Onnx);
            try_out("missing file", missing, Depth::Headers, must);
        }
    }
    out
}

#[test]
fn damage_is_found() {
    let queue = Mutex::new(FIXTURES.iter());
    let work = || {
        let next = || queue.lock().unwrap().next();
        std::iter::from_fn(next).map(|fixture| (fixture.folder, damaged(fixture))).collect::<Vec<_>>()
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let ended: Vec<(&str, Damaged)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut table: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (folder, damaged) in ended {
        table.extend(damaged.tallies.into_iter().map(|(damage, tally)| ((folder, damage), tally)));
        wrong.extend(damaged.wrong);
    }
    println!("{:22} {:14} {:>6} {:>6}", "fixture", "damage", "found", "passed");
    for ((folder, damage), tally) in &table {
        println!("{folder:22} {damage:14} {:6} {:6}", tally.found, tally.passed);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Bytes of zip archives, whose checksums are recomputed, cannot change unseen.
#[test]
fn a_flipped_byte_in_a_tensor_is_found_at_depth_content() {
    for (folder, file) in [("torch/state_dict", "model.pt"), ("torch/dtypes", "d.pt"), ("numpy/npz", "a.npz")] {
        let mut files = read(folder);
        let bytes = files.get_mut(file).unwrap();
        let at = bytes.len() / 3;
        let window = bytes[at..].windows(4).position(|four| four == [0; 4]).map(|found| found + at);
        let length = bytes.len();
        let Some(at) = window.filter(|at| *at < length / 2) else { continue };
        bytes[at] ^= 1;
        let verdict = judge(&files, &bytes_alone(Depth::Content));
        assert!(!verdict.is_good(), "{folder} byte {at}: {}", verdict.message);
    }
}

/// How many mutations of each fixture are judged, shared among its files; set `CHECKPOINT_E2E_MUTATIONS` for a longer search.
const MUTATIONS: u64 = 150;

/// Random numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

/// One change as fuzzers make them: bytes, numbers at the edges, pieces removed, doubled or moved.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let length = bytes.len();
    if length == 0 {
        return bytes.push(random.next().to_le_bytes()[0]);
    }
    let at = random.below(length);
    let piece = at..(at + 1 + random.below(32)).min(length);
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next().to_le_bytes()[0],
        2 => {
            let edge = [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 63, (length as u64) + 1][random.below(6)];
            for (byte, new) in bytes[piece].iter_mut().zip(edge.to_le_bytes()) {
                *byte = new;
            }
        }
        3 => drop(bytes.drain(piece)),
        4 => {
            let copy = bytes[piece].to_vec();
            let to = random.below(length);
            bytes.splice(to..to, copy);
        }
        _ => bytes.truncate(at),
    }
}

/// Whatever is done to a file, it is judged: no panic, no read out of bounds, no endless work.
#[test]
fn mutated_files_are_judged() {
    let count = std::env::var("CHECKPOINT_E2E_MUTATIONS").map_or(MUTATIONS, |count| count.parse().unwrap());
    let mut random = Random(20_261_124);
    let mut slowest = (Duration::ZERO, String::new());
    for fixture in FIXTURES {
        let files = read(fixture.folder);
        for path in files.keys() {
            for number in 0..(count / files.len() as u64).max(8) {
                let mut changed = files.clone();
                let bytes = changed.get_mut(path).unwrap();
                for _ in 0..=random.below(4) {
                    mutate(bytes, &mut random);
                }
                let depth = if number % 4 == 0 { Depth::Content } else { Depth::Headers };
                let begin = Instant::now();
                judge(&changed, &bytes_alone(depth));
                if begin.elapsed() > slowest.0 {
                    slowest = (begin.elapsed(), format!("{} {path} number {number}", fixture.folder));
                }
            }
        }
    }
    println!("slowest: {:?} for {}", slowest.0, slowest.1);
}

/// Files without which a loader fails, or loads something else, one after another.
#[test]
fn a_missing_file_that_loaders_need_is_found() {
    for (folder, needed) in [
        ("orbax/standard", &["manifest.ocdbt", "d/", "_METADATA"][..]),
        ("orbax/v1", &["state/manifest.ocdbt", "state/d/"]),
        ("orbax/zarr", &["params.w/", "opt.0/", "step/.zarray"]),
        ("orbax/zarr3", &["manifest.ocdbt", "d/"]),
        ("trainer/checkpoint-2", &["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"]),
        ("trainer/sharded", &["checkpoint-2/model-00001-of-00002.safetensors", "checkpoint-2/optimizer.pt"]),
        ("fsdp", &["pytorch_model_fsdp_0/", "optimizer_0/", "random_states_0.pkl"]),
        ("diffusers", &["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]),
        ("sentence_transformers", &["2_Dense/model.safetensors", "1_Pooling/config.json"]),
        ("mlflow/transformers", &["model/model.safetensors", "conda.yaml", "python_env.yaml"]),
        ("mlflow/lightgbm", &["model.lgb"]),
        ("ray/rllib", &["learner_group/state.pkl", "learner_group/learner/rl_module/default_policy/module_state.pkl"]),
        ("ray/rllib_old", &["policies/default_policy/policy_state.pkl"]),
        ("dcp-safetensors-consolidated", &["model-00001-of-00002.safetensors"]),
    ] {
        let files = read(folder);
        for path in files.keys().filter(|path| needed.iter().any(|needed| path.starts_with(needed))) {
            let mut changed = files.clone();
            changed.remove(path);
            let verdict = judge(&changed, &bytes_alone(Depth::Headers));
            assert!(!verdict.is_good(), "{folder} without {path}: {}", verdict.message);
        }
    }
}
