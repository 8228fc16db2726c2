//! Pickles that the usual ways of looking miss: behind joblib's arrays, in compressed files of any name, under the names of other
//! files, in archives in bytes.

use std::io::Write;

use super::{
    Case,
    archives::{PAYLOAD, described, gzip, made, npy, torch},
    case,
    streams::system,
};
use crate::format::{pickle::tests::Assembler, tar::tests::archive as tar};

pub(super) fn files() -> Vec<Case> {
    [gaps(), packed(), elsewhere()].into_iter().flatten().collect()
}

/// Arrays that joblib passes over otherwise than they seem to lie.
fn gaps() -> Vec<Case> {
    let hidden = PAYLOAD[..PAYLOAD.len() - 1].to_vec();
    let length = u32::try_from(hidden.len() + 1).unwrap().to_le_bytes();
    // Joblib goes on behind the first five bytes, which take what follows for a text.
    let swallowed = [b"X", &length[..], b"0", &hidden].concat();
    let one = [b'K', 1, 0x85];
    let state = b"(K\x03X\x01\0\0\0|NNNK\x06K\x01K\x00tb";
    let sized = Assembler::protocol(2)
        .global("joblib.numpy_pickle", "NumpyArrayWrapper")
        .raw(b")\x81}(")
        .text("shape")
        .raw(&one)
        .text("dtype")
        .global("numpy", "dtype")
        .text("S1")
        .raw(b"\x85R")
        .raw(state)
        .raw(b"ub");
    let class = |base: &str| {
        Assembler::protocol(2)
            .global("copyreg", "_reconstructor")
            .global("joblib.numpy_pickle", "NumpyArrayWrapper")
            .global("builtins", base)
            .raw(b"N\x87R")
    };
    let grown = b"cbuiltins\nlist\nK\x05\x85\x85RK\x01a";
    let set = b"\x8f(K\x05\x90";
    let method = made().raw(b"}(").text("safe_get_numpy_array_alignment_bytes").global("builtins", "list");
    let method = method.text("shape").raw(&[b'K', 5, 0x85]).text("dtype").global("numpy", "dtype").text("u1");
    let odd = |id, stream: Assembler| {
        case(id, "m.joblib", stream.raw(&swallowed).stop(), "a way that joblib does not")
            .code()
            .corrupt("joblib does not")
    };
    let code = |id, stream: Vec<u8>, words| case(id, "m.joblib", stream, words).code();
    let reconstructor = Assembler::protocol(2)
        .global("copyreg", "_reconstructor")
        .global("transformers.training_args", "TrainingArguments")
        .global("transformers.training_args", "TrainingArguments")
        .text("marker")
        .raw(b"\x87R");
    vec![
        code(
            "joblib array whose wrapper another makes",
            described(class("object"), &[b'K', 5, 0x85], "u1", b"N").raw(&swallowed).stop(),
            "hands on joblib.numpy_pickle.NumpyArrayWrapper",
        ),
        code("constructor by the base of a class", reconstructor.stop(), "hands on transformers"),
        code("joblib array of texts in two sizes", sized.raw(b"a").raw(&swallowed).stop(), "data type"),
        odd("joblib array with a list for its shape", described(made(), grown, "u1", b"N")),
        odd("joblib array with a set for its shape", described(made(), set, "u1", b"N")),
        odd("joblib array with a method in its state", method.raw(b"\x85Rub")),
        code(
            "joblib array that is described twice",
            described(
                described(made().raw(b"q\x00"), &[b'K', 0, 0x85], "u1", b"N").raw(b"0h\x00"),
                &[b'K', 4, 0x85],
                "u1",
                b"N",
            )
            .raw(b"\0\0\0\0")
            .stop(),
            "describes one array twice",
        ),
        case(
            "opcodes in a raw array behind many imports",
            "m.pkl",
            many(
                &described(
                    Assembler::bare().global("joblib.numpy_pickle", "NumpyArrayWrapper").raw(b")\x81"),
                    &[b'K', u8::try_from(PAYLOAD.len() + 1).unwrap(), 0x85],
                    "u1",
                    b"N",
                )
                .raw(b"0")
                .raw(PAYLOAD)
                .stop(),
            ),
            "imports os.system in a raw array",
        ),
        case(
            "opcodes in a raw array with many imports",
            "m.pkl",
            {
                let array = [b"0".to_vec(), IMPORT.repeat(1100), PAYLOAD.to_vec()].concat();
                let count = u16::try_from(array.len()).unwrap().to_le_bytes();
                described(made(), &[b'M', count[0], count[1], 0x85], "u1", b"N").raw(&array).stop()
            },
            "imports os.system in a raw array",
        ),
    ]
}

const IMPORT: &[u8] = b"ccollections\nOrderedDict\n0";

/// The stream behind more imports than are remembered.
fn many(stream: &[u8]) -> Vec<u8> {
    [b"\x80\x02".to_vec(), IMPORT.repeat(1100), stream.to_vec()].concat()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that cannot be compressed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Compressed files whose names promise nothing, or something else.
fn packed() -> Vec<Case> {
    let damaged = |content: &[u8]| {
        let mut bytes = gzip(&[content, &noise(4096)].concat());
        let end = bytes.len() - 2000;
        bytes.truncate(end);
        bytes
    };
    let large = Assembler::protocol(3).bytes(&noise(2 << 20)).raw(b"0").global("os", "system").call("marker").stop();
    let huge = [b"V".to_vec(), vec![b'x'; 25 << 20], b"\n0".to_vec(), PAYLOAD.to_vec()].concat();
    let seen = |id, path, bytes| case(id, path, bytes, "imports os.system in its compressed data");
    vec![
        seen("zlib under any name", "model.dat", zlib(&system())),
        seen("zlib under a compression's name", "model.z", zlib(PAYLOAD)),
        case(
            "pickle larger than is unpacked of a file of any name",
            "model.gz",
            gzip(&large),
            "goes on as a pickle may",
        )
        .unchecked(),
        case("pickle that unpacks to more than is read", "model.txt.gz", gzip(&huge), "goes on as a pickle may")
            .unchecked(),
        seen("compressed data that is damaged behind the payload", "model.gz", damaged(&system())),
        seen("gzip of a pickle named as an archive", "x.tgz", gzip(&system())),
        seen("gzip of a pickle named as another archive", "x.tar.gz", gzip(PAYLOAD)),
        case(
            "archive that unpacks to more than is read",
            "x.tar.gz",
            gzip(&tar(&[("a", &vec![0; 25 << 20])])),
            "not checked",
        )
        .unchecked(),
        case("gzip in gzip", "m.dat", gzip(&gzip(&system())), "imports os.system"),
        case("gzip of an archive", "m.dat", gzip(&torch(&system())), "imports os.system in its archive/data.pkl"),
    ]
}

/// Files that other readers than those of pickles know by their name, and archives in bytes.
fn elsewhere() -> Vec<Case> {
    let import = |id, path| case(id, path, PAYLOAD.to_vec(), "imports os.system");
    let held = |id, bytes: &[u8], words| case(id, "m.pkl", Assembler::protocol(3).bytes(bytes).stop(), words);
    let objects = npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", PAYLOAD);
    let deep = |bytes: &[u8]| Assembler::protocol(3).bytes(bytes).stop();
    vec![
        import("pickle named as a file of sums", "SHA256SUMS"),
        import("pickle named as the sum of a file", "model.sha256"),
        import("pickle named as a tracker", "latest"),
        held("torch archive in bytes", &torch(&system()), "imports os.system in its archive/data.pkl"),
        held("tar in bytes", &tar(&[("x", PAYLOAD)]), "imports os.system in its x"),
        held("gzip in bytes", &gzip(PAYLOAD), "imports os.system in its bytes"),
        held("array of objects in bytes", &objects, "imports os.system in its bytes"),
        held("torch archive in a tar in bytes", &tar(&[("model.pt", &torch(&system()))]), "imports os.system"),
        held("damaged archive in bytes", b"PK\x03\x04 and more", "was not checked").unchecked(),
        held("7z in bytes", b"7z\xbc\xaf\x27\x1c\0\x04 and more", "7z archive").unchecked(),
        held(
            "archives in bytes, deeper than is read",
            &torch(&deep(&torch(&deep(&torch(&deep(&torch(&system()))))))),
            "archives within archives",
        )
        .unchecked(),
        case("old torch with bytes that torch loads", "model.pth", old_torch(), "cannot be followed")
            .code()
            .corrupt("storages"),
    ]
}

/// An archive of the first torch without storages, whose count comes with more.
fn old_torch() -> Vec<u8> {
    let count = Assembler::protocol(3).raw(b"K\x00").global("torch.storage", "_load_from_bytes").bytes(b"evil");
    let storages = [count.raw(b"\x85R0").stop(), b"\x80\x02].".to_vec()].concat();
    tar(&[
        ("sys_info", b"\x80\x02}."),
        ("pickle", b"\x80\x02}."),
        ("tensors", b"\x80\x02K\x00."),
        ("storages", &storages),
    ])
}
