//! Archives of torch as a whole, hidden pickles, checksums.

use super::{
    super::{
        pickle::tests::Assembler,
        tests::{Folder, allowing, assert_bad, assert_good, torch_file},
        window::{Cache, INFLATED},
        zip::tests::{archive, deflated},
    },
    *,
};
use crate::contract::{Depth, Format, Validation};

/// `{"weight": tensor of 2x3 F32 in storage 0, "global_step": 7}` as `torch.save` pickles it.
fn pickle(shape: [u8; 2], elements: u8) -> Vec<u8> {
    Assembler::protocol(2)
        .raw(b"}(")
        .text("weight")
        .global("torch._utils", "_rebuild_tensor_v2")
        .raw(b"((")
        .text("storage")
        .global("torch", "FloatStorage")
        .text("0")
        .text("cpu")
        .raw(&[b'K', elements, b't', b'Q', b'K', 0])
        .raw(&[b'K', shape[0], b'K', shape[1], 0x86, b'K', shape[1], b'K', 1, 0x86, 0x89])
        .global("collections", "OrderedDict")
        .raw(b")RtR")
        .text("global_step")
        .raw(b"K\x07u")
        .stop()
}

fn saved(pickle: &[u8], data: &[u8]) -> Vec<u8> {
    archive(&[
        ("archive/data.pkl", pickle),
        ("archive/byteorder", b"little"),
        ("archive/data/0", data),
        ("archive/version", b"3\n"),
    ])
}

fn judge(path: &str, bytes: Vec<u8>) -> super::super::Verdict {
    Folder::new([(path, bytes)]).judge_with(&Validation::default(), &[])
}

#[test]
fn a_state_dict_is_judged_by_its_directory() {
    let good = saved(&pickle([2, 3], 6), &[1; 24]);
    for path in ["model.pt", "pytorch_model.bin", "a.ckpt", "no-extension"] {
        let verdict = judge(path, good.clone());
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::Torch));
        assert_eq!(verdict.contents.pickle, Some(PickleTier::TensorsOnly));
    }
    let contents = judge("model.pt", good.clone()).contents;
    assert_eq!((contents.tensors, contents.parameters, contents.step), (Some(1), Some(6), Some(7)));
    assert_eq!(contents.dtypes, [("F32".to_owned(), 6)].into());
    for length in 1..good.len() {
        let verdict = judge("model.pt", good[..length].to_vec());
        assert!(!verdict.is_good(), "{length}: {}", verdict.message);
    }
}

#[test]
fn storages_and_tensors_fit_each_other() {
    for (bytes, words) in [
        (saved(&pickle([2, 3], 6), &[1; 20]), "has 20 bytes, its tensors say 24"),
        (saved(&pickle([2, 4], 6), &[1; 24]), "needs 8 elements of storage 0, which has 6"),
        (
            archive(&[("archive/data.pkl", &pickle([2, 3], 6)), ("archive/version", b"3\n")]),
            "archive/data/0 is missing",
        ),
        (archive(&[("archive/data.pkl", &pickle([2, 3], 6)), ("archive/data/0", &[1; 24])]), "version is missing"),
    ] {
        assert_bad(&judge("model.pt", bytes), Reason::Corrupt, "model.pt", words);
    }
    let pickle = pickle([2, 3], 6);
    let extra = archive(&[
        ("archive/data.pkl", &pickle),
        ("archive/data/0", &[1; 24]),
        ("archive/data/1", &[1; 4]),
        ("archive/version", b"3\n"),
    ]);
    let verdict = judge("model.pt", extra);
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("archive/data/1"), "{:?}", verdict.findings);
}

#[test]
fn a_flipped_byte_is_found_when_everything_is_read() {
    let mut bytes = saved(&pickle([2, 3], 6), &[1; 24]);
    let at = bytes.windows(24).position(|window| window == [1; 24]).unwrap();
    bytes[at] ^= 1;
    assert_good(&judge("model.pt", bytes.clone()));
    let folder = Folder::new([("model.pt", bytes)]);
    let verdict = folder.judge_with(&allowing(Depth::Content), &[]);
    assert_bad(&verdict, Reason::Corrupt, "model.pt", "archive/data/0 has another CRC-32");
}

#[test]
fn pickles_are_found_under_any_name() {
    let marker = Assembler::protocol(2).global("os", "system").call("marker").stop();
    let inner = archive(&[("x.txt", &marker)]);
    for bytes in [
        saved(&marker, &[]),
        archive(&[("readme.txt", &marker)]),
        archive(&[("inner.zip", &inner)]),
        archive(&[
            ("archive/data.pkl", &pickle([2, 3], 6)),
            ("archive/data/0", &[1; 24]),
            ("archive/version", b"3"),
            ("archive/extra", &marker),
        ]),
    ] {
        for path in ["model.pt", "model.safetensors.zip", "data"] {
            assert_bad(&judge(path, bytes.clone()), Reason::UnsafePickle, path, "os.system");
        }
    }
}

#[test]
fn scripts_are_code_that_runs_when_asked_for() {
    let script = archive(&[
        ("m/data.pkl", b"\x80\x02}."),
        ("m/constants.pkl", b"\x80\x02)."),
        ("m/code/__torch__.py", b"class M:\n"),
        ("m/version", b"3"),
    ]);
    let verdict = judge("model.pt", script);
    assert_eq!(verdict.contents.format, Some(Format::TorchScript));
    assert_eq!(verdict.contents.code, ["model.pt: a TorchScript program"]);
    assert_good(&verdict);
}

#[test]
fn archives_that_no_library_writes_are_damaged() {
    let twice = archive(&[
        ("a/data.pkl", &pickle([2, 3], 6)),
        ("a/data/0", &[1; 24]),
        ("a/data/0", &[1; 24]),
        ("a/version", b"3"),
    ]);
    assert_bad(&judge("model.pt", twice), Reason::Corrupt, "model.pt", "two entries named");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}

/// What is unpacked of a file is bounded in all, however often its parser begins again and however deep it lies.
#[test]
fn unpacking_is_bounded_in_all() {
    let zeros = vec![0; 1 << 20];
    let zeros = deflated(&[("zeros", &zeros)]);
    let stored: Vec<(String, &[u8])> = (0..100).map(|number| (number.to_string(), zeros.as_slice())).collect();
    let stored: Vec<(&str, &[u8])> = stored.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let bomb = deflated(&[("inner", &archive(&stored))]);
    let mut cache = Cache::default();
    cache.insert(0, &bomb);
    let window = Window::of_file(&cache, bomb.len() as u64);
    assert_eq!(item(&window).unwrap().worst, None);
    let once = cache.inflated();
    assert!((100 << 20..110 << 20).contains(&once), "{once}");
    for _ in 0..2 {
        cache.spend((INFLATED - (8 << 20)).saturating_sub(cache.inflated()));
        assert_eq!(item(&window).unwrap().worst.unwrap().tier, PickleTier::Unchecked);
        assert!(cache.inflated() <= INFLATED);
    }
}

#[test]
fn compressed_archives_are_what_is_in_them() {
    let scan = item(&Window::of_bytes(&gzip(&torch_file()))).unwrap();
    assert_eq!((scan.worst.unwrap().tier, scan.problems), (PickleTier::None, Vec::<String>::new()));
    let verdict = judge("m.pt.gz", gzip(&saved(&pickle([2, 3], 6), &[1; 24])));
    assert_good(&verdict);
    assert_eq!(verdict.contents.pickle, Some(PickleTier::TensorsOnly));
    let mut cut = torch_file();
    cut.pop();
    assert_bad(&judge("m.pt.gz", gzip(&cut)), Reason::Corrupt, "m.pt.gz", "truncated");
}

#[test]
fn raw_weights_are_passed_over_however_many() {
    let weights: Vec<(String, Vec<u8>)> = (0..1200u32)
        .map(|number| {
            (format!("m/data/weights/weight_{number}"), [number.to_le_bytes(), *b"\x80\x02\x3f\xbe"].concat())
        })
        .collect();
    let mut entries: Vec<(&str, &[u8])> =
        weights.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    entries.push(("m/archive_format", b"pt2"));
    let verdict = judge("model.pt2", archive(&entries));
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::TorchExport));
}

#[test]
fn what_documents_in_an_archive_name_is_there() {
    let config = br#"{"config": {"w": {"path_name": "weight_0", "use_pickle": false}}}"#;
    let export = |weight: &str, config: &[u8]| {
        archive(&[
            (&format!("m/data/weights/{weight}"), b"1234"),
            ("m/data/weights/model_weights_config.json", config),
            ("m/archive_format", b"pt2"),
        ])
    };
    assert_good(&judge("m.pt2", export("weight_0", config)));
    let verdict = judge("m.pt2", export("weight_1", config));
    assert_bad(&verdict, Reason::Corrupt, "m.pt2", "m/data/weights/weight_0 is missing");
    assert_bad(&judge("m.pt2", export("weight_0", &config[..40])), Reason::Corrupt, "m.pt2", "no usable JSON");
    let schema = br#"{"content": [{"type": "numpy", "file": "1.npy", "content": {"file": {"file": "1.npy"}}}]}"#;
    let array = b"\x93NUMPY\x01\0\x38\0{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n1";
    let skops = |name: &str, schema: &[u8]| archive(&[(name, array), ("schema.json", schema)]);
    let verdict = judge("m.skops", skops("1.npy", schema));
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Skops));
    assert_bad(&judge("m.skops", skops("2.npy", schema)), Reason::Corrupt, "m.skops", "1.npy is missing");
    assert_bad(&judge("m.skops", skops("1.npy", &schema[..40])), Reason::Corrupt, "m.skops", "no usable JSON");
}
