//! Arrays as NumPy writes them, and damaged ones.

use super::{
    super::{
        pickle::tests::Assembler,
        zip::tests::{archive, deflated},
    },
    *,
};
use crate::{
    contract::{PickleTier, Validation},
    format::tests::{Folder, assert_bad, assert_good},
};

/// An array as NumPy writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn judge(path: &str, bytes: Vec<u8>) -> crate::format::Verdict {
    Folder::new([(path, bytes)]).judge_with(&Validation::default(), &[])
}

#[test]
fn arrays_have_the_size_that_they_say() {
    let good = npy("'<f4'", "(2, 3)", &[0; 24]);
    let verdict = judge("a.npy", good.clone());
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::NumPy));
    assert_eq!((verdict.contents.tensors, verdict.contents.parameters), (Some(1), Some(6)));
    for length in 1..good.len() {
        let verdict = judge("a.npy", good[..length].to_vec());
        assert!(!verdict.is_good(), "{length}: {}", verdict.message);
    }
    assert_bad(&judge("a.npy", [good, vec![0]].concat()), Reason::Corrupt, "a.npy", "its header describes 152");
    for (descr, shape, data) in
        [("'|b1'", "()", 1), ("'<U2'", "(3,)", 24), ("'<M8[ns]'", "(1,)", 8), ("[('Open', '<f8')]", "(1,)", 8)]
    {
        assert_good(&judge("a.npy", npy(descr, shape, &vec![0; data])));
    }
    for (descr, shape) in [("'<f4'", "(-1,)"), ("'<x4'", "()"), ("'<f8'", "(9223372036854775807, 4)")] {
        assert!(!judge("a.npy", npy(descr, shape, &[])).is_good(), "{descr} {shape}");
    }
}

#[test]
fn arrays_of_objects_are_pickles() {
    let marker = Assembler::protocol(3).global("os", "system").call("marker").stop();
    let bytes = npy("'|O'", "(1,)", &marker);
    for (path, bytes) in [("a.npy", bytes.clone()), ("a.npz", archive(&[("x.npy", &bytes)])), ("a.dat", bytes.clone())]
    {
        let verdict = judge(path, bytes);
        assert_bad(&verdict, Reason::UnsafePickle, path, "imports os.system");
        assert_eq!(verdict.contents.pickle, Some(PickleTier::Dangerous));
    }
    assert_good(&judge("a.npy", npy("'|O'", "(1,)", b"\x80\x02N.")));
}

#[test]
fn archives_of_arrays() {
    let (one, two) = (npy("'<i8'", "(2,)", &[0; 16]), npy("'<f8'", "()", &[0; 8]));
    let verdict = judge("a.npz", archive(&[("one.npy", &one), ("two.npy", &two)]));
    assert_good(&verdict);
    assert_eq!((verdict.contents.format, verdict.contents.parameters), (Some(Format::NumPy), Some(3)));
    let short = judge("a.npz", archive(&[("one.npy", &one[..one.len() - 1])]));
    assert_bad(&short, Reason::Corrupt, "a.npz", "one.npy");
}

/// NumPy evaluates headers: a reader that sees other numbers there than NumPy takes a pickle for numbers.
#[test]
fn only_headers_that_mean_one_thing_are_read() {
    let judged = |header: &str| {
        let mut text = header.to_owned();
        text.push('\n');
        let length = u16::try_from(text.len()).unwrap();
        let bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes(), &[0; 8]].concat();
        judge("a.npy", bytes)
    };
    assert_good(&judged("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"));
    assert_good(&judged("{'descr': [('a', '<f4'), ('b', '<i2', (2,))], 'fortran_order': True, 'shape': (1,), }"));
    for header in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'descr': '|O'}",
        "{ # 'descr': '<f4',\n'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
        "{'d\\x65scr': '|O', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'des' 'cr': '|O'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), u'descr': '|O'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), **{'descr': '|O'}}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2)}",
        "{'descr': [('a', 'f8,O')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', 'object')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4'), ('b', '<f2')], 'fortran_order': False, 'shape': (1,)}",
        "dict(descr='|O')",
        "",
    ] {
        let verdict = judged(header);
        assert!(!verdict.is_good(), "{header}: {}", verdict.message);
    }
}

#[test]
fn one_file_takes_several_arrays() {
    let (first, second) = (npy("'<f4'", "(2, 3)", &[0; 24]), npy("'<c32'", "(2,)", &[0; 64]));
    let both = [first.clone(), second.clone()].concat();
    let verdict = judge("a.npy", both.clone());
    assert_good(&verdict);
    assert_eq!((verdict.contents.tensors, verdict.contents.parameters), (Some(2), Some(8)));
    for length in (1..both.len()).filter(|length| *length != first.len()) {
        assert!(!judge("a.npy", both[..length].to_vec()).is_good(), "{length}");
    }
    let marker = Assembler::protocol(3).global("os", "system").call("marker").stop();
    let objects = [first, npy("'|O'", "(1,)", &marker)].concat();
    assert_bad(&judge("a.npy", objects), Reason::UnsafePickle, "a.npy", "imports os.system");
}

#[test]
fn deflated_arrays_are_read_at_their_beginning() {
    let large = npy("'<f4'", "(9000000,)", &vec![0; 36_000_000]);
    let verdict = judge("a.npz", deflated(&[("x.npy", &large)]));
    assert_good(&verdict);
    assert_eq!(verdict.contents.parameters, Some(9_000_000));
    let short = deflated(&[("x.npy", &large[..large.len() - 4])]);
    assert_bad(&judge("a.npz", short), Reason::Corrupt, "a.npz", "x.npy: it has");
    let marker = Assembler::protocol(3).global("os", "system").call("marker").stop();
    let objects = deflated(&[("x.npy", &npy("'|O'", "(1,)", &marker))]);
    assert_bad(&judge("a.npz", objects), Reason::UnsafePickle, "a.npz", "imports os.system");
}

#[test]
fn archives_may_have_many_arrays_and_arrays_may_be_compressed() {
    let one = npy("'<i8'", "(2,)", &[0; 16]);
    let names: Vec<String> = (0..1500).map(|number| format!("arr_{number}.npy")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), one.as_slice())).collect();
    let verdict = judge("a.npz", archive(&entries));
    assert_good(&verdict);
    assert_eq!(verdict.contents.tensors, Some(1500));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &one).unwrap();
    assert_good(&judge("x.npy.gz", encoder.finish().unwrap()));
}
