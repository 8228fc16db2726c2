//! Tags and universal checkpoints as DeepSpeed names their files, whole and with files missing.

use super::super::{
    Verdict,
    pickle::tests::Assembler,
    tests::{Folder, assert_bad, assert_good, torch_file},
    zip::tests::archive,
};
use crate::contract::{Format, Reason};

const TWO: [&str; 3] = [
    "mp_rank_00_model_states.pt",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
];
const THREE: [&str; 4] = [
    "zero_pp_rank_0_mp_rank_00_model_states.pt",
    "zero_pp_rank_1_mp_rank_00_model_states.pt",
    "zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "zero_pp_rank_1_mp_rank_00_optim_states.pt",
];
const PIPELINE: [&str; 6] = [
    "mp_rank_00_model_states.pt",
    "mp_rank_01_model_states.pt",
    "layer_00-model_00-model_states.pt",
    "layer_00-model_01-model_states.pt",
    "layer_02-model_00-model_states.pt",
    "layer_02-model_01-model_states.pt",
];
const EXPERTS: [&str; 9] = [
    "mp_rank_00_model_states.pt",
    "layer_0_expert_0_mp_rank_00_model_states.pt",
    "layer_0_expert_1_mp_rank_00_model_states.pt",
    "layer_1_expert_0_mp_rank_00_model_states.pt",
    "layer_1_expert_1_mp_rank_00_model_states.pt",
    "expp_rank_0_mp_rank_00_optim_states.pt",
    "expp_rank_1_mp_rank_00_optim_states.pt",
    "zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "zero_pp_rank_1_mp_rank_00_optim_states.pt",
];
const UNIVERSAL: [&str; 8] = [
    "zero/a.weight/fp32.pt",
    "zero/a.weight/exp_avg.pt",
    "zero/a.weight/exp_avg_sq.pt",
    "zero/b.bias/fp32.pt",
    "zero/b.bias/exp_avg.pt",
    "zero/b.bias/exp_avg_sq.pt",
    "zero/optimizer_state.pt",
    "mp_rank_00_model_states.pt",
];

fn folder(names: &[&str]) -> Folder {
    let files = names.iter().map(|name| (format!("global_step7/{name}"), torch_file()));
    Folder(files.chain([("latest".to_owned(), b"global_step7".to_vec())]).collect())
}

/// A dict of numbers, lists of numbers and a version.
fn states(numbers: &[(&str, &[u8])], nested: &[(&str, &[u8])]) -> Vec<u8> {
    let put = |pickle: Assembler, entries: &[(&str, &[u8])]| {
        entries.iter().fold(pickle, |pickle, (key, value)| pickle.text(key).raw(value).raw(b"s"))
    };
    let pickle = put(Assembler::protocol(2).raw(b"}"), numbers);
    let pickle = put(pickle.text("optimizer_state_dict").raw(b"}"), nested).raw(b"s");
    let pickle = pickle.text("ds_version").text("0.18.3").raw(b"s").stop();
    archive(&[("archive/data.pkl", &pickle), ("archive/version", b"3\n")])
}

fn at(folder: Folder, name: &str, states: Vec<u8>) -> Folder {
    folder.with(&format!("global_step7/{name}"), states)
}

fn without(names: &[&str], lost: &str) -> Verdict {
    folder(names).without(&format!("global_step7/{lost}")).judge()
}

#[test]
fn grids_of_ranks_are_complete() {
    for names in [&TWO[..], &THREE, &PIPELINE, &EXPERTS, &UNIVERSAL] {
        let verdict = folder(names).judge();
        assert_good(&verdict);
        assert_eq!((verdict.contents.format, verdict.contents.step), (Some(Format::DeepSpeed), Some(7)));
        assert_eq!(verdict.contents.framework.as_deref(), Some("deepspeed"));
    }
    for (names, lost) in [
        (&TWO[..], TWO[0]),
        (&TWO, TWO[1]),
        (&THREE, THREE[0]),
        (&THREE, THREE[1]),
        (&THREE, THREE[2]),
        (&PIPELINE, PIPELINE[0]),
        (&PIPELINE, PIPELINE[5]),
        (&EXPERTS, EXPERTS[0]),
        (&EXPERTS, EXPERTS[1]),
        (&EXPERTS, EXPERTS[3]),
        (&EXPERTS, EXPERTS[5]),
        (&EXPERTS, EXPERTS[7]),
        (&UNIVERSAL, UNIVERSAL[0]),
        (&UNIVERSAL, UNIVERSAL[1]),
        (&UNIVERSAL, UNIVERSAL[5]),
        (&UNIVERSAL, UNIVERSAL[6]),
        (&UNIVERSAL, UNIVERSAL[7]),
    ] {
        assert_bad(&without(names, lost), Reason::Incomplete, &format!("global_step7/{lost}"), "is missing");
    }
}

#[test]
fn the_last_ranks_are_known_from_what_the_files_say() {
    let optimizer = states(&[], &[("partition_count", b"](K\x01K\x03e")]);
    let two = at(folder(&TWO), TWO[1], optimizer);
    let lost = "global_step7/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt";
    assert_bad(&two.judge(), Reason::Incomplete, lost, "is missing");
    let verdict = two.with(lost, torch_file()).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.framework.as_deref(), Some("deepspeed 0.18.3"));

    let models = states(&[("dp_world_size", b"K\x03"), ("mp_world_size", b"K\x01"), ("global_steps", b"K\x09")], &[]);
    let three = at(folder(&THREE), THREE[0], models.clone());
    assert_bad(&three.judge(), Reason::Incomplete, "zero_pp_rank_2_mp_rank_00", "is missing");
    // After a conversion the model states still speak of the ranks before.
    let universal = at(folder(&UNIVERSAL), UNIVERSAL[7], models);
    let verdict = universal.judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.step, Some(9));

    let models = states(&[("mp_world_size", b"K\x02")], &[]);
    let verdict = at(folder(&TWO), TWO[0], models).judge();
    assert_bad(&verdict, Reason::Incomplete, "zero_pp_rank_0_mp_rank_01_optim_states.pt", "is missing");
    assert!(verdict.findings.iter().any(|finding| finding.message.contains("7/mp_rank_01_model_states.pt is missing")));

    let models = |experts: &[u8]| at(folder(&EXPERTS), EXPERTS[0], states(&[("num_experts", experts)], &[])).judge();
    assert_good(&models(b"](K\x02K\x02e"));
    assert_bad(&models(b"](K\x02K\x03e"), Reason::Incomplete, "layer_1_expert_2_mp_rank_00", "is missing");
    assert_bad(&models(b"](K\x02K\x02K\x02e"), Reason::Incomplete, "layer_2_expert_0_mp_rank_00", "is missing");
}

#[test]
fn leftovers_of_a_larger_world_are_named() {
    let optimizer = states(&[], &[("partition_count", b"K\x01")]);
    let verdict = at(folder(&TWO), TWO[1], optimizer).judge();
    assert_good(&verdict);
    let found = &verdict.findings;
    assert!(
        found.iter().any(|finding| finding.message.contains("pp_rank_1") && finding.message.contains("left over")),
        "{found:?}"
    );
}

#[test]
fn latest_names_a_folder_that_is_there() {
    let names = [TWO[0]];
    for name in ["latest", "latest_universal"] {
        let verdict = folder(&names).with(name, "global_step9").judge();
        assert_bad(&verdict, Reason::Incomplete, "global_step9/", &format!("{name} names"));
    }
    assert_good(&folder(&names).without("latest").judge());
    let alone = Folder::new([("latest", b"global_step9\n".to_vec()), ("zero_to_fp32.py", b"pass".to_vec())]).judge();
    assert_bad(&alone, Reason::Incomplete, "global_step9/", "is not there");
    assert_eq!(alone.contents.format, Some(Format::DeepSpeed));
    // Below a folder of the Trainer, and a file of another framework.
    let below =
        Folder(folder(&names).0.into_iter().map(|(path, bytes)| (format!("checkpoint-7/{path}"), bytes)).collect());
    assert_good(&below.with("checkpoint-7/config.json", "{}").judge());
    assert_good(&folder(&names).with("logs/latest", "events.7").judge());
    // A universal checkpoint beside its source.
    let universal = UNIVERSAL
        .iter()
        .fold(folder(&TWO), |folder, name| folder.with(&format!("global_step7_universal/{name}"), torch_file()));
    assert_good(&universal.with("latest_universal", "global_step7_universal").judge());
}

#[test]
fn parameters_without_a_gradient_have_weights_alone() {
    let mut names = UNIVERSAL.to_vec();
    names.retain(|name| !name.starts_with("zero/b.bias/exp"));
    assert_good(&folder(&names).judge());
    // Other optimizers keep other things.
    let muon = [
        "zero/a/fp32.pt",
        "zero/a/momentum_buffer.pt",
        "zero/b/fp32.pt",
        "zero/b/exp_avg.pt",
        UNIVERSAL[6],
        UNIVERSAL[7],
    ];
    assert_good(&folder(&muon).judge());
}

#[test]
fn layers_of_a_pipeline_without_tensor_parallelism_have_one_part() {
    let names = ["mp_rank_00_model_states.pt", "layer_00-model_states.pt", "layer_02-model_states.pt"];
    assert_good(&folder(&names).judge());
}

#[test]
fn absurd_ranks_cost_nothing() {
    for name in [
        "zero_pp_rank_99999999999_mp_rank_99999999_optim_states.pt",
        "layer_99999999999_expert_99999999999_mp_rank_00_model_states.pt",
        "expp_rank_18446744073709551615_mp_rank_00_optim_states.pt",
        "mp_rank_18446744073709551615_model_states.pt",
    ] {
        assert_bad(&folder(&[name]).judge(), Reason::Incomplete, "_states.pt", "is missing");
    }
}
