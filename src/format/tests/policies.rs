//! What the user asked for.

use super::{
    super::{pickle::tests::Assembler, zip::tests::archive},
    *,
};
use crate::contract::{Format, PickleTier, filter::Filter};

fn folder() -> Folder {
    let marker = Assembler::protocol(2).global("marker", "run").call("marker").stop();
    Folder::new([
        ("model.safetensors", tensors(&[("a", 1)])),
        ("sub/optimizer.pt", archive(&[("archive/data.pkl", &marker), ("archive/version", b"3")])),
        ("notes.txt", marker),
    ])
}

fn volume(exclude: &[&str]) -> Selector {
    Filter { include: vec![], exclude: exclude.iter().map(|&glob| glob.into()).collect() }.compile().unwrap()
}

/// A file whose name says nothing, with a pickle that imports this.
fn importing(module: &str, name: &str) -> Folder {
    let pickle = Assembler::protocol(2).global(module, name).call("marker").stop();
    Folder::new([("model.safetensors", tensors(&[("a", 1)])), ("notes.txt", pickle)])
}

#[test]
fn pickles_are_accepted_up_to_the_policy() {
    use PicklePolicy::{Allow, Forbid, KnownSafe, TensorsOnly};
    let plain = Folder::new([("a.pkl", b"\x80\x04N.".to_vec())]);
    for (folder, tier, setting, accepting) in [
        (plain, PickleTier::None, "TensorsOnly", &[TensorsOnly, KnownSafe, Allow][..]),
        (
            importing("collections", "OrderedDict"),
            PickleTier::TensorsOnly,
            "TensorsOnly",
            &[TensorsOnly, KnownSafe, Allow],
        ),
        (importing("fractions", "Fraction"), PickleTier::KnownSafe, "KnownSafe", &[KnownSafe, Allow]),
        (importing("marker", "run"), PickleTier::Code, "Allow", &[Allow]),
        (importing("os", "system"), PickleTier::Dangerous, "Allow", &[Allow]),
    ] {
        for pickle in [Forbid, TensorsOnly, KnownSafe, Allow] {
            let verdict = folder.judge_with(&Validation { pickle, ..Validation::default() }, &[]);
            assert_eq!(verdict.contents.pickle, Some(tier));
            if accepting.contains(&pickle) {
                assert_good(&verdict);
            } else {
                let file = if tier == PickleTier::None { "a.pkl" } else { "notes.txt imports" };
                assert_bad(&verdict, Reason::UnsafePickle, file, &format!("validation.pickle: {setting}"));
            }
        }
    }
}

#[test]
fn what_cannot_be_looked_into_passes_only_when_allowed() {
    let folder = Folder::new([("model.pt", b"7z\xbc\xaf\x27\x1c and more".to_vec())]);
    for pickle in [PicklePolicy::Forbid, PicklePolicy::TensorsOnly, PicklePolicy::KnownSafe] {
        let verdict = folder.judge_with(&Validation { pickle, ..Validation::default() }, &[]);
        assert_bad(&verdict, Reason::UnsafePickle, "model.pt is a 7z archive", "validation.pickle: Allow");
        assert_eq!(verdict.contents.pickle, Some(PickleTier::Unchecked));
    }
    let verdict = folder.judge();
    assert_good(&verdict);
    assert!(verdict.message.contains("not checked"), "{}", verdict.message);
}

#[test]
fn only_what_volumes_take_is_judged_for_pickles() {
    let validation = Validation::default();
    let narrow = volume(&["optimizer*", "*.txt"]);
    assert_good(&folder().judge_with(&validation, std::slice::from_ref(&narrow)));
    let verdict = folder().judge_with(&validation, &[narrow, volume(&["*.txt"])]);
    assert_bad(&verdict, Reason::UnsafePickle, "sub/optimizer.pt", "imports marker.run in its archive/data.pkl");
}

#[test]
fn depth_listing_goes_by_names() {
    let validation = Validation { depth: Depth::Listing, ..Validation::default() };
    let verdict = folder().judge_with(&validation, &[]);
    assert_bad(&verdict, Reason::UnsafePickle, "sub/optimizer.pt", "validation.depth: Headers");
    assert_eq!(verdict.findings.len(), 1);
}

#[test]
fn reasons_have_their_order() {
    let strict = Validation {
        formats: vec![Format::HuggingFace, Format::PeftAdapter],
        required_files: vec!["tokenizer.json".into(), "*.txt".into()],
        ..Validation::default()
    };
    let verdict = folder().judge_with(&strict, &[]);
    assert_bad(&verdict, Reason::FormatNotAllowed, "Safetensors", "only HuggingFace, PeftAdapter");
    let reasons: Vec<_> = verdict.findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(
        reasons,
        [Reason::FormatNotAllowed, Reason::MissingRequiredFile, Reason::UnsafePickle, Reason::UnsafePickle]
    );
    let broken = folder().with("z.safetensors", "x").judge_with(&strict, &[]);
    assert_eq!(broken.reason, Reason::Corrupt);
    let lax = Validation { formats: vec![Format::Safetensors], pickle: PicklePolicy::Allow, ..strict.clone() };
    assert_bad(&folder().judge_with(&lax, &[]), Reason::MissingRequiredFile, "\"tokenizer.json\"", "requiredFiles");
    let wrong = Validation { required_files: vec!["[".into()], ..Validation::default() };
    assert_bad(&folder().judge_with(&wrong, &[]), Reason::InvalidSpec, "requiredFiles", "not a glob");
}

#[test]
fn findings_are_bounded_and_the_worst_stay() {
    let mut many = Folder::default();
    let marker = Assembler::protocol(2).global("marker", "run").call("marker").stop();
    for number in 0..2000 {
        many = many.with(&format!("{:04}.pkl", 2000 - number), marker.clone());
    }
    let many = many.with("zzz.safetensors", "x");
    let verdict = many.judge_with(&Validation::default(), &[]);
    assert_bad(&verdict, Reason::Corrupt, "zzz.safetensors", "(and 2000 more problems)");
    assert_eq!(verdict.findings.len(), 256);
    assert_eq!(verdict.findings[1].file.as_deref(), Some("0001.pkl"));
}
