//! What `torch.save` writes: zip archives since 1.6, five pickles and raw storages before; TorchScript and torch.export beside
//! them (torch 2.15, `torch/serialization.py` and `caffe2/serialize`). Pure, no I/O.

pub(super) mod legacy;
pub(super) mod old;
pub(super) mod parallel;
pub(super) mod tensors;

use super::{
    archive::{self, Kind},
    counts::Counts,
    evidence::{Evidence, fact},
    names,
    table::Family,
    tar,
};
use crate::contract::{Contents, Format};

use tensors::Saved;

/// Files of `torch.save`.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !places(evidence).is_empty(),
    places,
    probe: old::probe,
    sniff: |path, size, start| legacy::sniff(path, size, start).or_else(|| archive::sniff(path, size, start)),
    follow: archive::follow,
    check: old::check,
    describe: |evidence, contents| {
        describe(evidence, contents);
        tar::describe(evidence, Format::Torch, contents);
    },
    judged: "the zip's directory against `data.pkl`: every storage in its size, every tensor within its storage; \
        files of torch before 1.6 too. `Content` recomputes checksums",
    ..Family::of(Format::Torch)
};

/// Checkpoints of Lightning: files of `torch.save` that say so.
pub(super) const LIGHTNING: Family = Family {
    claims: |evidence| files(evidence, is_lightning).next().is_some(),
    places: |evidence| files(evidence, is_lightning).map(|(path, _)| path).collect(),
    describe,
    judged: "as `Torch`; epoch, step and version of Lightning",
    ..Family::of(Format::Lightning)
};

/// Programs of TorchScript.
pub(super) const SCRIPT: Family = Family {
    claims: |evidence| archive::of_kind(evidence, Kind::TorchScript).next().is_some(),
    places: |evidence| archive::paths(evidence, Kind::TorchScript),
    judged: "the archive as `Torch`; TorchScript is code that runs when asked for",
    ..Family::of(Format::TorchScript)
};

/// Programs of torch.export.
pub(super) const EXPORT: Family = Family {
    claims: |evidence| archive::of_kind(evidence, Kind::TorchExport).next().is_some(),
    places: |evidence| archive::paths(evidence, Kind::TorchExport),
    judged: "the zip's directory, every file of weights that the program names, its pickles; `Content` recomputes checksums",
    ..Family::of(Format::TorchExport)
};

fn places(evidence: &Evidence) -> Vec<String> {
    files(evidence, is_plain).map(|(path, _)| path).chain(tar::places(evidence, Format::Torch)).collect()
}

fn is_plain(saved: &Saved) -> bool {
    saved.lightning.is_none() && !saved.script
}

fn is_lightning(saved: &Saved) -> bool {
    saved.lightning.is_some()
}

fn files(evidence: &Evidence, which: fn(&Saved) -> bool) -> impl Iterator<Item = (String, &Saved)> {
    let all = evidence.all::<Saved>().filter(move |(_, saved)| which(saved));
    all.map(|(file, saved)| (evidence.tree.file(file).path.clone(), saved))
}

/// Counts of the files with weights; what optimizers and schedulers keep is no parameter.
fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    let mut saved: Vec<&Saved> = Vec::new();
    for (file, found) in evidence.all::<Saved>() {
        let path = &evidence.tree.file(file).path;
        if names::is_weights(path) || old::is_tensors(path) {
            counts.merge(&found.counts);
            saved.push(found);
        }
    }
    counts.describe(contents);
    if let [only] = saved.as_slice() {
        contents.step = contents.step.or(only.step);
        contents.epoch = contents.epoch.take().or_else(|| only.epoch.map(|epoch| epoch.to_string()));
    }
    if !saved.is_empty() && contents.framework.is_none() {
        let lightning = saved.iter().find_map(|saved| saved.lightning.as_deref());
        contents.framework =
            Some(lightning.map_or("pytorch".to_owned(), |version| format!("lightning {}", fact(version))));
    }
}
