//! Pickles in archives, arrays, raw gaps and wrappers, and archives that readers disagree about.

use std::io::Write;

use super::{
    Case, case,
    streams::{call, system},
};
use crate::format::{pickle::tests::Assembler, tar::tests::archive as tar, zip::tests::archive};

const DATA: &str = "archive/data.pkl";

/// What `torch.save` would write, with this pickle in it.
pub(super) fn torch(pickle: &[u8]) -> Vec<u8> {
    archive(&[(DATA, pickle), ("archive/version", b"3\n")])
}

/// Where the central directory has this entry.
fn central(bytes: &[u8], nth: usize) -> usize {
    bytes.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x01\x02").nth(nth).unwrap().0
}

/// The archive with a byte of the first central entry changed.
fn patched(offset: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = torch(&system());
    let at = central(&bytes, 0) + offset;
    bytes[at] = change(bytes[at]);
    bytes
}

/// The archive with bytes put in before its directory, which the end record still finds.
fn with_gap(bytes: &[u8], gap: &[u8]) -> Vec<u8> {
    let at = central(bytes, 0);
    let mut out = [&bytes[..at], gap, &bytes[at..]].concat();
    let place = out.len() - 6;
    out[place..place + 4].copy_from_slice(&u32::try_from(at + gap.len()).unwrap().to_le_bytes());
    out
}

pub(super) fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{header}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// An object of joblib's wrapper.
pub(super) fn made() -> Assembler {
    Assembler::protocol(2).global("joblib.numpy_pickle", "NumpyArrayWrapper").raw(b")\x81")
}

/// Sets the state of what is on top: an array of this shape and these elements, up to the opcode that sets it.
pub(super) fn described(made: Assembler, shape: &[u8], kind: &str, alignment: &[u8]) -> Assembler {
    made.raw(b"}(")
        .text("shape")
        .raw(shape)
        .text("dtype")
        .global("numpy", "dtype")
        .text(kind)
        .raw(b"\x85R")
        .text("numpy_array_alignment_bytes")
        .raw(alignment)
        .raw(b"ub")
}

/// A joblib wrapper of one-byte numbers, up to the opcode that sets its state.
fn wrapper(kind: &str, count: u8, alignment: &[u8]) -> Assembler {
    described(made(), &[b'K', count, 0x85], kind, alignment)
}

pub(super) const PAYLOAD: &[u8] = b"cos\nsystem\n(Vmarker\ntR.";

pub(super) fn files() -> Vec<Case> {
    [zips(), arrays(), wrappers()].into_iter().flatten().collect()
}

#[allow(clippy::too_many_lines, reason = "it is a table")]
fn zips() -> Vec<Case> {
    let plain = |path, id, bytes| case(id, path, bytes, "imports os.system in its archive/data.pkl");
    let good = torch(&system());
    let polyglot = [Assembler::protocol(2).raw(b"N").stop(), torch(&system())].concat();
    let mut local = good.clone();
    local[30] = b'x';
    vec![
        plain("model.pt", "torch archive", good.clone()),
        case(
            "CVE-2025-1889 another name in an archive",
            "model.pt",
            archive(&[(DATA, b"\x80\x02}."), ("archive/config.p", &system()), ("archive/version", b"3")]),
            "imports os.system in its archive/config.p",
        ),
        case(
            "pickle without a mark under another name in an archive",
            "a.zip",
            archive(&[("x.txt", PAYLOAD)]),
            "imports os.system in its x.txt",
        ),
        plain("model.pt", "CVE-2025-1944 local name differs", local).corrupt("in its own header"),
        case(
            "CVE-2025-1944 central name differs",
            "model.pt",
            patched(46, |_| b'b'),
            "imports os.system in its brchive/data.pkl",
        )
        .corrupt("in its own header"),
        plain("model.pt", "CVE-2025-1945 flag 0x1", patched(8, |flags| flags | 1)).corrupt("marked as encrypted"),
        plain("model.pt", "CVE-2025-1945 flag 0x20", patched(8, |flags| flags | 0x20)).corrupt("marked as encrypted"),
        plain("model.pt", "CVE-2025-1945 flag 0x40", patched(8, |flags| flags | 0x40)).corrupt("marked as encrypted"),
        plain("model.pt", "CVE-2025-10156 wrong CRC", patched(16, |crc| crc ^ 1)).corrupt("CRC-32"),
        plain("model.pt", "bytes behind the archive", [good.clone(), vec![0; 300]].concat())
            .corrupt("300 bytes behind its end"),
        plain("model.pt", "bytes before the directory", with_gap(&good, b"PK\x01\x02 another"))
            .corrupt("between its last entry"),
        case(
            "duplicate entries",
            "model.pt",
            archive(&[(DATA, b"\x80\x02}."), (DATA, &system()), ("archive/version", b"3")]),
            "imports os.system",
        )
        .corrupt("two entries named"),
        case(
            "duplicate entries the other way",
            "model.pt",
            archive(&[(DATA, &system()), (DATA, b"\x80\x02}."), ("archive/version", b"3")]),
            "imports os.system",
        )
        .corrupt("two entries named"),
        case(
            "duplicate entries but for the case",
            "model.pt",
            archive(&[(DATA, b"\x80\x02}."), ("archive/Data.pkl", &system()), ("archive/version", b"3")]),
            "imports os.system",
        )
        .corrupt("but for the case"),
        case(
            "two folders",
            "model.pt",
            archive(&[
                ("evil/version", b"3"),
                ("archive/data.pkl", b"\x80\x02}."),
                ("archive/version", b"3"),
                ("evil/data.pkl", &system()),
            ]),
            "imports os.system in its evil/data.pkl",
        )
        .corrupt("outside of its folder"),
        case("absolute entry name", "a.zip", archive(&[("/data.pkl", &system())]), "imports os.system")
            .corrupt("no safe path"),
        case("backslash in an entry name", "a.zip", archive(&[("a\\data.pkl", &system())]), "imports os.system")
            .corrupt("no safe path"),
        case("bytes before the archive", "model.pt", [b"junk".to_vec(), good.clone()].concat(), "cannot be followed")
            .code()
            .corrupt("is damaged"),
        case("archive behind a pickle", "model.pt", polyglot, "bytes behind its pickle").code(),
        case("archive in an archive", "a.zip", archive(&[("inner.bin", &good)]), "imports os.system"),
        case(
            "torch.export sample inputs",
            "model.pt2",
            archive(&[("m/archive_format", b"pt2"), ("m/data/sample_inputs/model.pt", &good)]),
            "imports os.system",
        ),
        case(
            "constants of TorchScript",
            "script.pt",
            archive(&[
                ("m/data.pkl", b"\x80\x02}."),
                ("m/constants.pkl", &system()),
                ("m/code/__torch__.py", b"x"),
                ("m/version", b"3"),
            ]),
            "imports os.system in its m/constants.pkl",
        ),
        case("old torch with the object in no mark", "model.pt", old(&[PAYLOAD]), "imports os.system"),
        case(
            "old torch with the object behind much",
            "model.pt",
            old(&[b"0N".repeat(300_000).get(1..).unwrap(), PAYLOAD]),
            "imports os.system",
        ),
        case(
            "Keras archive behind another byte",
            "x.keras",
            [b"\0".to_vec(), archive(&[("config.json", b"{}")])].concat(),
            "begins with other bytes",
        )
        .unchecked()
        .corrupt("begins as no archive of Keras"),
        case("tar in an archive", "a.zip", archive(&[("x", &tar(&[("y", PAYLOAD)]))]), "imports os.system in its y"),
        case("metadata of a distributed checkpoint", ".metadata", system(), "imports os.system").corrupt("no metadata"),
    ]
}

/// Five pickles, of which the fourth is this.
fn old(object: &[&[u8]]) -> Vec<u8> {
    let magic: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
    [magic, b"\x80\x02M\xe9\x03.", b"\x80\x02}.", &object.concat(), b"\x80\x02]."].concat()
}

fn arrays() -> Vec<Case> {
    let objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
    let twice = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'descr': '|O'}";
    let record = "{'descr': 'f8,O', 'fortran_order': False, 'shape': (1,), }";
    let comment = "{ # 'descr': '|u1',\n'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
    let field = "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }";
    let odd =
        |id, header| case(id, "a.npy", npy(header, &system()), "damaged NumPy array").unchecked().corrupt("its header");
    vec![
        case("array of objects", "a.npy", npy(objects, &system()), "imports os.system"),
        case("array of objects without a mark", "a.npy", npy(objects, PAYLOAD), "imports os.system"),
        case("record of objects", "a.npy", npy(field, &system()), "imports os.system"),
        case(
            "array of objects in .npz",
            "a.npz",
            archive(&[("x.npy", &npy(objects, &system()))]),
            "imports os.system in its x.npy",
        ),
        case(
            "array of objects that breaks",
            "a.npy",
            npy(objects, &[&system()[..system().len() - 1], &[0]].concat()),
            "imports os.system",
        )
        .corrupt("its pickle"),
        odd("array header with a key twice", twice),
        odd("array header with a comment", comment),
        odd("array header with a record in a text", record),
    ]
}

fn wrappers() -> Vec<Case> {
    let swallow = |length: usize| [b"X", &u32::try_from(length).unwrap().to_le_bytes()[..]].concat();
    let hidden = [b"0".as_slice(), PAYLOAD].concat();
    let count = u8::try_from(hidden.len()).unwrap();
    vec![
        case("joblib array of objects", "m.joblib", wrapper("O8", 1, b"N").raw(&system()).stop(), "imports os.system"),
        case(
            "joblib behind an array",
            "m.joblib",
            wrapper("u1", 4, b"N").raw(b"\0\0\0\0").raw(b"0cos\nsystem\n(Vmarker\ntR").stop(),
            "imports os.system",
        ),
        case(
            "joblib padded array",
            "m.joblib",
            wrapper("u1", 4, b"K\x10").raw(b"\x02\xff\xff\0\0\0\0").raw(b"0cos\nsystem\n(Vmarker\ntR").stop(),
            "imports os.system",
        ),
        case(
            "opcodes in a raw array",
            "m.pkl",
            wrapper("u1", count, b"N").raw(&hidden).stop(),
            "imports os.system in a raw array",
        ),
        case(
            "joblib array in other words",
            "m.joblib",
            wrapper("|u1", 5, b"N").raw(&swallow(30)).raw(b"0cos\nsystem\n(Vmarker\ntR").stop(),
            "a way that joblib does not",
        )
        .code()
        .corrupt("joblib does not"),
        case(
            "joblib padding in other words",
            "m.joblib",
            wrapper("u1", 5, b"\x88").raw(&swallow(30)).raw(b"0cos\nsystem\n(Vmarker\ntR").stop(),
            "a way that joblib does not",
        )
        .code()
        .corrupt("joblib does not"),
        case("joblib record", "m.joblib", wrapper("f8,O", 1, b"N").raw(&system()).stop(), "data type")
            .code()
            .corrupt("joblib does not"),
        case("gzip of a pickle", "m.pkl.gz", gzip(&system()), "imports os.system in its compressed data"),
        case(
            "gzip of a pickle, named as a pickle",
            "m.joblib",
            gzip(&call("marker", "run")),
            "imports marker.run in its compressed data",
        )
        .code(),
        case(
            "nullifAI 7z named as weights",
            "pytorch_model.bin",
            b"7z\xbc\xaf\x27\x1c\0\x04 and more".to_vec(),
            "7z archive",
        )
        .unchecked(),
        case("7z in an archive", "a.zip", archive(&[("model.pt", b"7z\xbc\xaf\x27\x1c\0\x04 and more")]), "7z archive")
            .unchecked(),
        case(
            "gzip in an archive",
            "a.zip",
            archive(&[("m.pkl.gz", &gzip(&system()))]),
            "imports os.system in its m.pkl.gz",
        ),
    ]
}
