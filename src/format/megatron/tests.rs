//! Iterations as Megatron-LM names their files, whole and with files missing.

use super::super::{
    pickle::tests::Assembler,
    tests::{Folder, assert_bad, assert_good, torch_file},
    zip::tests::archive,
};
use crate::contract::{Format, Reason};

const TRACKER: &str = "latest_checkpointed_iteration.txt";

fn files(paths: &[String]) -> Folder {
    let files = paths.iter().map(|path| (format!("iter_0000500/{path}"), torch_file()));
    Folder(files.chain([(TRACKER.to_owned(), b"500\n".to_vec())]).collect())
}

fn folder(ranks: &[&str]) -> Folder {
    files(&ranks.iter().map(|rank| format!("mp_rank_{rank}/model_optim_rng.pt")).collect::<Vec<_>>())
}

/// `{"args": Namespace(...), "iteration": 500}`
fn states(tensor: u8, pipeline: u8, expert: u8) -> Vec<u8> {
    let arguments = [
        ("tensor_model_parallel_size", tensor),
        ("pipeline_model_parallel_size", pipeline),
        ("expert_model_parallel_size", expert),
    ];
    let pickle = Assembler::protocol(2).raw(b"}").text("args").global("argparse", "Namespace").raw(b")\x81}");
    let pickle = arguments.iter().fold(pickle, |pickle, (name, size)| pickle.text(name).raw(&[b'K', *size, b's']));
    let pickle = pickle.raw(b"bs").text("iteration").raw(b"M\xf4\x01s").stop();
    archive(&[("archive/data.pkl", &pickle), ("archive/version", b"3\n")])
}

#[test]
fn grids_of_ranks_are_complete() {
    for ranks in [&["00"][..], &["00", "01"], &["00_000", "00_001", "01_000", "01_001"], &["00_000_000", "00_000_001"]]
    {
        let verdict = folder(ranks).judge();
        assert_good(&verdict);
        assert_eq!((verdict.contents.format, verdict.contents.step), (Some(Format::Megatron), Some(500)));
        assert_eq!(verdict.contents.framework.as_deref(), Some("megatron-lm"));
    }
    let verdict = folder(&["00_000", "00_001", "01_001"]).judge();
    assert_bad(&verdict, Reason::Incomplete, "iter_0000500/mp_rank_01_000/model_optim_rng.pt", "is missing");
    let lost = folder(&["00", "01"])
        .without("iter_0000500/mp_rank_01/model_optim_rng.pt")
        .with("iter_0000500/mp_rank_00/distrib_optim.pt", torch_file())
        .with("iter_0000500/mp_rank_01/distrib_optim.pt", torch_file());
    assert_bad(&lost.judge(), Reason::Incomplete, "mp_rank_01/model_optim_rng.pt", "is missing");
    assert_bad(&folder(&["99999999_999999999"]).judge(), Reason::Incomplete, "mp_rank_00_000", "is missing");
}

#[test]
fn the_last_ranks_are_known_from_the_arguments() {
    for (ranks, sizes, lost) in [
        (&["00", "01"][..], (4, 1, 1), "mp_rank_02/"),
        (&["00_000", "00_001"], (1, 3, 1), "mp_rank_00_002/"),
        (&["00_000", "00_001"], (1, 1, 4), "mp_rank_00_002/"),
        (&["00_000_000", "00_001_000"], (1, 2, 2), "mp_rank_00_000_001/"),
    ] {
        let path = format!("iter_0000500/mp_rank_{}/model_optim_rng.pt", ranks[0]);
        let verdict = folder(ranks).with(&path, states(sizes.0, sizes.1, sizes.2)).judge();
        assert_bad(&verdict, Reason::Incomplete, lost, "is missing");
    }
    let verdict = folder(&["00", "01"]).with("iter_0000500/mp_rank_00/model_optim_rng.pt", states(2, 1, 1)).judge();
    assert_good(&verdict);
}

#[test]
fn optimizers_are_in_every_rank_or_in_none() {
    let ranks = ["00", "01"];
    let both = ranks.iter().fold(folder(&ranks), |folder, rank| {
        folder.with(&format!("iter_0000500/mp_rank_{rank}/distrib_optim.pt"), torch_file())
    });
    assert_good(&both.judge());
    let lost = "iter_0000500/mp_rank_01/distrib_optim.pt";
    assert_bad(&both.without(lost).judge(), Reason::Incomplete, lost, "is missing");

    let layer = |rank: &str, number: u32| format!("iter_0000500/mp_rank_{rank}/layer_wise_optimizer_{number}.pt");
    let wise = (0..3).fold(folder(&["00"]), |folder, number| folder.with(&layer("00", number), torch_file()));
    assert_good(&wise.judge());
    assert_bad(&wise.without(&layer("00", 1)).judge(), Reason::Incomplete, &layer("00", 1), "is missing");

    // In 2022 the optimizer had folders of its own, with the data-parallel rank.
    let old: Vec<String> = ["mp_rank_00/model_rng.pt", "mp_rank_01/model_rng.pt"]
        .map(str::to_owned)
        .into_iter()
        .chain(["00_000", "00_001", "01_000", "01_001"].map(|rank| format!("mp_rank_{rank}/optim.pt")))
        .collect();
    assert_good(&files(&old).judge());
    for lost in [&old[0], &old[3], &old[4]] {
        let path = format!("iter_0000500/{lost}");
        assert_bad(&files(&old).without(&path).judge(), Reason::Incomplete, &path, "is missing");
    }
}

#[test]
fn the_tracker_names_an_iteration_that_is_there() {
    assert_bad(&folder(&["00"]).with(TRACKER, "600").judge(), Reason::Incomplete, "iter_0000600/", TRACKER);
    for wrong in ["soon", "-1", "", "0x1F4"] {
        assert_bad(&folder(&["00"]).with(TRACKER, wrong).judge(), Reason::Corrupt, TRACKER, "no iteration");
    }
    assert_bad(&folder(&["00"]).with(TRACKER, "release").judge(), Reason::Incomplete, "release/", TRACKER);
    let release =
        Folder::new([(TRACKER, b"release".to_vec()), ("release/mp_rank_00/model_optim_rng.pt", torch_file())]);
    assert_good(&release.judge());
    let below = Folder(
        folder(&["00"]).with(TRACKER, "600").0.into_iter().map(|(path, bytes)| (format!("a/{path}"), bytes)).collect(),
    );
    assert_bad(&below.with("b/notes.txt", "x").judge(), Reason::Incomplete, "a/iter_0000600/", TRACKER);
}

#[test]
fn folders_of_ranks_of_others_are_theirs() {
    let verdict = Folder::new([("mp_rank_00/other.pt", torch_file()), ("mp_rank_02/other.pt", torch_file())]).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Torch));
}
