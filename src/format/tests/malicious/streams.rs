//! Streams for advisories, parser tricks, and known imports that are used in another way than by their libraries.

use super::{Case, case};
use crate::format::pickle::tests::Assembler;

const PATH: &str = "model.pkl";

/// `module.name("marker")`
pub(super) fn call(module: &str, name: &str) -> Vec<u8> {
    Assembler::protocol(2).global(module, name).call("marker").stop()
}

pub(super) fn system() -> Vec<u8> {
    call("os", "system")
}

fn short(text: &str) -> Vec<u8> {
    [&[0x8c, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Protocol 4, with the name's text on the stack.
fn stacked(module: &str, name: &str) -> Vec<u8> {
    Assembler::protocol(4).raw(&short(module)).raw(&short(name)).raw(b"\x93").call("marker").stop()
}

pub(super) fn advisories() -> Vec<Case> {
    let imports = [
        ("CVE-2025-1716 pip.main", "pip", "main", "pip.main"),
        ("CVE-2025-1716 pip internals", "pip._internal.cli.main", "main", "pip._internal.cli.main.main"),
        ("CVE-2025-10157 asyncio submodule", "asyncio.unix_events", "_UnixSubprocessTransport", "asyncio.unix_events"),
        ("CVE-2026-56315 uuid", "uuid", "_get_command_stdout", "uuid._get_command_stdout"),
        ("CVE-2026-56315 imaplib", "imaplib", "IMAP4_stream", "imaplib.IMAP4_stream"),
        ("CVE-2026-56315 _pyrepl", "_pyrepl.pager", "pipe_pager", "_pyrepl.pager.pipe_pager"),
        ("CVE-2026-56315 _osx_support", "_osx_support", "_read_output", "_osx_support._read_output"),
        ("CVE-2026-56315 _aix_support", "_aix_support", "_read_cmd_output", "_aix_support._read_cmd_output"),
        ("CVE-2024-34997 joblib.load", "joblib", "load", "joblib.load"),
        ("CVE-2020-13092 joblib.numpy_pickle.load", "joblib.numpy_pickle", "load", "joblib.numpy_pickle.load"),
        ("CVE-2025-32434 torch.load", "torch", "load", "torch.load"),
        ("CVE-2025-32434 torch.jit.load", "torch.jit", "load", "torch.jit.load"),
        ("importlib.import_module", "importlib", "import_module", "importlib.import_module"),
        ("pickle.loads of bytes", "pickle", "loads", "pickle.loads"),
        ("cPickle of Python 2", "cPickle", "loads", "pickle.loads"),
        ("__builtin__.eval", "__builtin__", "eval", "builtins.eval"),
        ("__builtin__.reduce", "__builtin__", "reduce", "functools.reduce"),
        ("commands.getoutput", "commands", "getoutput", "subprocess.getoutput"),
        ("urllib2.urlopen", "urllib2", "urlopen", "urllib.request.urlopen"),
        ("thread.start_new_thread", "thread", "start_new_thread", "_thread.start_new_thread"),
        ("nt.system", "nt", "system", "nt.system"),
        ("posix.system", "posix", "system", "posix.system"),
        ("functools.partial", "functools", "partial", "functools.partial"),
        ("operator.attrgetter", "operator", "attrgetter", "operator.attrgetter"),
        ("builtins.getattr", "builtins", "getattr", "builtins.getattr"),
        ("pkgutil.resolve_name", "pkgutil", "resolve_name", "pkgutil.resolve_name"),
        ("ssl.get_server_certificate", "ssl", "get_server_certificate", "ssl.get_server_certificate"),
        ("logging.FileHandler", "logging", "FileHandler", "logging.FileHandler"),
        ("_io.FileIO", "_io", "FileIO", "_io.FileIO"),
        ("cloudpickle", "cloudpickle.cloudpickle", "_make_function", "cloudpickle.cloudpickle._make_function"),
        ("distutils.file_util", "distutils.file_util", "write_file", "distutils.file_util.write_file"),
        ("numpy.f2py", "numpy.f2py.crackfortran", "_eval_length", "numpy.f2py.crackfortran._eval_length"),
        ("numpy runstring", "numpy.testing._private.utils", "runstring", "runstring"),
        ("torch collect_env", "torch.utils.collect_env", "run", "torch.utils.collect_env.run"),
        ("torch execWrapper", "torch.jit.unsupported_tensor_ops", "execWrapper", "execWrapper"),
        ("torch._inductor", "torch._inductor.codecache", "compile_file", "torch._inductor.codecache.compile_file"),
        ("scanner deactivation", "picklescan.scanner", "scan_bytes", "picklescan.scanner.scan_bytes"),
        ("pydoc.pipepager", "pydoc", "pipepager", "pydoc.pipepager"),
        ("test.support", "test.support.script_helper", "assert_python_ok", "test.support.script_helper"),
    ];
    let mut cases: Vec<Case> =
        imports.into_iter().map(|(id, module, name, words)| case(id, PATH, call(module, name), words)).collect();
    cases.extend([
        case("an import that nothing knows", PATH, call("marker", "run"), "imports marker.run").code(),
        // The payload has run when the stream breaks.
        case(
            "nullifAI broken behind the payload",
            PATH,
            Assembler::protocol(0).raw(b"cposix\nsystem\n(Vmarker\ntR").raw(b"\x00broken").open(),
            "imports posix.system",
        )
        .corrupt("is no opcode"),
        case("CVE-2025-10155 plain pickle as .bin", "pytorch_model.bin", system(), "imports os.system"),
        case("CVE-2025-10155 plain pickle as .pt", "model.pt", system(), "imports os.system"),
        case("plain pickle under any extension", "weights.dat", system(), "imports os.system"),
        case(
            "plain pickle without a mark under any extension",
            "weights.dat",
            Assembler::bare().raw(b"cos\nsystem\n(Vmarker\ntR").stop(),
            "imports os.system",
        ),
        case(
            "CVE-2026-24747 items set in a size",
            PATH,
            Assembler::protocol(2).global("torch", "Size").raw(b")R").text("a").raw(b"K\x01s").stop(),
            "set items in torch.Size",
        )
        .code(),
        case(
            "CVE-2026-24747 items appended to a storage",
            PATH,
            Assembler::protocol(2).global("torch", "FloatStorage").raw(b")RK\x01a").stop(),
            "append torch.FloatStorage",
        )
        .code(),
        case(
            "fickling GHSA-mxhj OBJ and POP",
            PATH,
            Assembler::protocol(1).raw(b"(").global("os", "system").text("marker").raw(b"o0N").stop(),
            "imports os.system",
        ),
        case("fickling GHSA-5j3x dotted name", PATH, stacked("pathlib", "os.system"), "imports pathlib.os.system"),
        case(
            "fickling GHSA-6ggj frame straddle",
            PATH,
            Assembler::protocol(4).raw(b"\x95\x03\0\0\0\0\0\0\0").text("abcdef").stop(),
            "crosses the end of its frame",
        ),
    ]);
    cases
}

/// Ways to import, to hide an import, and to make readers disagree.
#[allow(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn tricks() -> Vec<Case> {
    let bare = |bytes: &[u8]| Assembler::bare().raw(bytes).stop();
    let four = |bytes: &[u8]| Assembler::protocol(4).raw(bytes).stop();
    let two = |bytes: &[u8]| Assembler::protocol(2).raw(bytes).stop();
    let nothing = || Assembler::protocol(2).raw(b"N").stop();
    let behind = |bytes: Vec<u8>| [nothing(), bytes].concat();
    let big = "x".repeat(300_000);
    let mut cases = vec![
        case("STACK_GLOBAL", PATH, stacked("os", "system"), "imports os.system"),
        case(
            "STACK_GLOBAL operands from the memo",
            PATH,
            four(b"\x8c\x02os\x940\x8c\x06system\x940h\x00h\x01\x93X\x06\0\0\0marker\x85R"),
            "imports os.system",
        ),
        case("STACK_GLOBAL operands STRING", PATH, four(b"S'os'\nS'system'\n\x93(Vmarker\ntR"), "imports os.system"),
        case(
            "STACK_GLOBAL operands BINSTRING",
            PATH,
            four(b"T\x02\0\0\0osU\x06system\x93(Vmarker\ntR"),
            "imports os.system",
        ),
        case("STACK_GLOBAL operands no texts", PATH, four(b"K\x01K\x02\x93"), "whose name it hides"),
        case(
            "STACK_GLOBAL operands escaped STRING",
            PATH,
            four(b"S'\\x6fs'\n\x8c\x06system\x93(Vmarker\ntR"),
            "whose name it hides",
        ),
        case(
            "STACK_GLOBAL operands escaped UNICODE",
            PATH,
            four(b"V\\u006fs\n\x8c\x06system\x93(Vmarker\ntR"),
            "whose name it hides",
        ),
        case("STACK_GLOBAL operands from bytes", PATH, four(b"C\x02os\x8c\x06system\x93"), "whose name it hides"),
        case(
            "STACK_GLOBAL operand from a call",
            PATH,
            four(b"c_codecs\nencode\n\x8c\x02os\x85R\x8c\x06system\x93"),
            "whose name it hides",
        ),
        case("unknown memo key", PATH, two(b"h\x09"), "memo").code().corrupt("memo"),
        case("import behind an unknown memo key", PATH, two(b"h\x09cos\nsystem\n(Vmarker\ntR"), "imports os.system")
            .corrupt("memo"),
        case("import behind an empty stack", PATH, two(b"0cos\nsystem\n(Vmarker\ntR"), "imports os.system")
            .corrupt("empty stack"),
        case("memo key in other digits", PATH, two(b"Np1_0\ncos\nsystem\n(Vmarker\ntR"), "imports os.system")
            .corrupt("memo"),
        case("EXT1", PATH, two(b"\x82\x01"), "registry"),
        case("EXT2", PATH, two(b"\x83\x01\x01"), "registry"),
        case("EXT4", PATH, two(b"\x84\x01\x01\x01\x01"), "registry"),
        case("INST", PATH, bare(b"(Vmarker\nios\nsystem\n"), "imports os.system"),
        case("OBJ", PATH, bare(b"(cos\nsystem\nVmarker\no"), "imports os.system"),
        case("NEWOBJ", PATH, two(b"cos\nsystem\nX\x06\0\0\0marker\x85\x81"), "imports os.system"),
        case("NEWOBJ_EX", PATH, four(b"cos\nsystem\n)}\x92"), "imports os.system"),
        case("BUILD on an object", PATH, two(b"cmarker\nThing\n)\x81}X\x01\0\0\0aK\x01sb"), "imports marker.Thing")
            .code(),
        case("BUILD on an import", PATH, two(b"ccollections\nOrderedDict\n}X\x01\0\0\0aK\x01sb"), "no object").code(),
        case("import that is dropped", PATH, two(b"cos\nsystem\n0N"), "imports os.system"),
        case("import below a mark", PATH, two(b"(cos\nsystem\n1N"), "imports os.system"),
        case("import kept in the memo alone", PATH, two(b"cos\nsystem\nq\x000N"), "imports os.system"),
        case("result of a call is called", PATH, two(b"ctorch\nSize\n)R)R"), "no plain import").code(),
        case("persistent id of the loader's own", PATH, two(b"X\x06\0\0\0markerQ"), "no storage").code(),
        case("persistent id as a line", PATH, bare(b"(dp0\nPmarker\n0cos\nsystem\n(Vmarker\ntR"), "imports os.system"),
        case(
            "numbers of protocol 0",
            PATH,
            bare(b"I1\n0L2L\n0F0.5\n0I01\n0cos\nsystem\n(Vmarker\ntR"),
            "imports os.system",
        ),
        case("number that is none", PATH, bare(b"F1_0.0x\n0cos\nsystem\n(Vmarker\ntR"), "imports os.system")
            .corrupt("no number"),
        case(
            "line of 5000 bytes",
            PATH,
            bare(format!("V{}\n0cos\nsystem\n(Vmarker\ntR", "x".repeat(5000)).as_bytes()),
            "imports os.system",
        ),
        case("missing STOP", PATH, Assembler::protocol(2).global("os", "system").open(), "imports os.system")
            .corrupt("ends at byte"),
        case("missing STOP of plain data", PATH, Assembler::protocol(2).raw(b"N").open(), "cannot be followed")
            .code()
            .corrupt("ends at byte"),
        case("protocol in the middle", PATH, two(b"\x80\x02N"), "in the middle").code(),
        case(
            "unknown protocol",
            PATH,
            Assembler::protocol(6).raw(b"cos\nsystem\n(Vmarker\ntR").stop(),
            "imports os.system",
        )
        .corrupt("protocol 6"),
        case("frame longer than the file", PATH, four(b"\x95\xff\0\0\0\0\0\0\0N"), "frames"),
        case("frame in a frame", PATH, four(b"\x95\x0b\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N"), "frames"),
        case("second pickle", PATH, behind(system()), "imports os.system"),
        case("second pickle without a mark", PATH, behind(bare(b"cos\nsystem\n(Vmarker\ntR")), "imports os.system"),
        case(
            "second pickle without a mark behind much",
            PATH,
            behind(bare(&[b"0N".repeat(300_000).as_slice(), b"cos\nsystem\n(Vmarker\ntR"].concat()).split_off(1)),
            "imports os.system",
        ),
        case(
            "second pickle with a second import of no name",
            PATH,
            behind(bare(b"cos\nsystem\n(Vmarker\ntR0c a b\nx y\n")),
            "imports os.system",
        ),
        case(
            "second pickle with an import that escapes hide",
            PATH,
            behind(bare(b"V\\u006fs\nVsystem\n\x93(Vmarker\ntR")),
            "whose name it hides",
        ),
        case("bytes behind a pickle", PATH, behind(b"\0\0\0\0".to_vec()), "bytes behind its pickle").code(),
        case("buffers from outside", PATH, Assembler::protocol(5).raw(b"\x97").stop(), "buffers").code(),
        case("READONLY_BUFFER", PATH, Assembler::protocol(5).raw(b"C\x01a\x98").stop(), "buffers").code(),
        case(
            "attribute of a module by a whole path",
            PATH,
            stacked("torch", "serialization.load"),
            "torch.serialization.load",
        ),
        case(
            "attribute of an attribute",
            PATH,
            stacked("collections", "OrderedDict.__init__.__globals__"),
            "__globals__",
        ),
        case(
            "method of a harmless class",
            PATH,
            stacked("collections", "OrderedDict.fromkeys"),
            "OrderedDict.fromkeys",
        )
        .code(),
        case("name of Python 2 in protocol 4", PATH, stacked("__builtin__", "eval"), "imports builtins.eval"),
        case("class of TorchScript outside of it", PATH, call("__torch__.model", "M"), "__torch__").code(),
        case(
            "import behind a large text",
            PATH,
            Assembler::protocol(2).text(&big).raw(b"0").global("os", "system").call("marker").stop(),
            "imports os.system",
        ),
        case("pickle in bytes", PATH, Assembler::protocol(3).bytes(&system()).stop(), "imports os.system in its bytes"),
        case(
            "pickle in bytes in bytes",
            PATH,
            Assembler::protocol(3).bytes(&Assembler::protocol(3).bytes(&system()).stop()).stop(),
            "imports os.system",
        ),
        case(
            "bytes for pickle.loads",
            PATH,
            Assembler::protocol(3).global("pickle", "loads").bytes(b"cos\nsystem\n(Vmarker\ntR.").raw(b"\x85R").stop(),
            "imports pickle.loads",
        ),
        case(
            "magic number of torch from a call",
            "model.pt",
            Assembler::protocol(2)
                .global("builtins", "int")
                .text("119547037146038801333356")
                .raw(b"\x85R")
                .stop()
                .into_iter()
                .chain(system())
                .collect(),
            "imports os.system",
        ),
    ];
    let unmarked = |id, start: &str| {
        let stream = bare(&[start.as_bytes(), b"0cos\nsystem\n(Vmarker\ntR"].concat());
        case(id, "weights.dat", stream, "imports os.system")
    };
    let long = |opcode: char| format!("{opcode}{}\n", "0".repeat(1_200_000));
    cases.extend([
        unmarked("memo key in other digits in a file of any name", "Np1_0\n"),
        unmarked("memo key of very many digits in a file of any name", "Np99999999999999999999\n"),
        unmarked("memo key up to a zero in a file of any name", "Np1\0x\n"),
        unmarked("number with an underscore in a file of any name", "F1_0\n"),
        unmarked("number up to a zero in a file of any name", "F1\0x\n"),
        unmarked("text of a megabyte in a file of any name", &long('V')),
        unmarked("number of a megabyte in a file of any name", &long('F')),
        unmarked("memo key of a megabyte in a file of any name", &format!("N{}", long('p'))),
        case("text named .pt", "notes.pt", b"this is a text, no checkpoint\n".to_vec(), "cannot be followed")
            .code()
            .corrupt("is damaged"),
        case("PNG named .pt", "logo.pt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "no storage")
            .code()
            .corrupt("is damaged"),
    ]);
    cases
}

/// Imports that are known, in the hands of somebody else.
pub(super) fn gadgets() -> Vec<Case> {
    let load = |argument: &[u8]| {
        Assembler::protocol(3).global("torch.storage", "_load_from_bytes").bytes(argument).raw(b"\x85R").stop()
    };
    let indirect = Assembler::protocol(3)
        .global("torch._tensor", "_rebuild_from_type_v2")
        .raw(b"(")
        .global("torch.storage", "_load_from_bytes")
        .global("torch", "Tensor")
        .bytes(b"cos\nsystem\n(Vmarker\ntR.")
        .raw(b"\x85NtR")
        .stop();
    let factory = Assembler::protocol(3)
        .global("collections", "defaultdict")
        .global("torch.storage", "_load_from_bytes")
        .raw(b"\x85R")
        .stop();
    let array = |flags: &[u8], kind: &str| {
        Assembler::protocol(2)
            .global("numpy", "dtype")
            .text(kind)
            .raw(b"\x89\x88\x87R(K\x03")
            .text("|")
            .raw(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff")
            .raw(flags)
            .raw(b"tb")
            .stop()
    };
    vec![
        case("torch loads a pickle from bytes", PATH, load(&system()), "imports os.system in its bytes"),
        case(
            "torch loads a pickle without a mark",
            PATH,
            load(b"cos\nsystem\n(Vmarker\ntR."),
            "imports os.system in its bytes",
        ),
        case("torch loads an archive from bytes", PATH, load(b"PK\x03\x04\x0a\x2e and more"), "in its bytes").code(),
        case("torch loads bytes that another follows", PATH, load(b"N.sys_info\0\0\0\0"), "bytes").code(),
        case(
            "torch loads bytes that a call makes",
            PATH,
            Assembler::protocol(2)
                .raw(b"ctorch.storage\n_load_from_bytes\nc_codecs\nencode\nX\x01\0\0\0aX\x06\0\0\0latin1\x86R\x85R")
                .stop(),
            "hides",
        )
        .code(),
        case("torch rebuilds with a loader", PATH, indirect, "rebuilds no tensor").code(),
        case("a factory that loads", PATH, factory, "hands on torch.storage._load_from_bytes").code(),
        case(
            "numpy.ndarray over bytes",
            PATH,
            Assembler::protocol(3)
                .global("numpy", "ndarray")
                .raw(b"K\x01\x85X\x01\0\0\0O")
                .bytes(&[0; 8])
                .raw(b"\x87R")
                .stop(),
            "calls numpy.ndarray",
        )
        .code(),
        case("numpy.dtype of objects without their flags", PATH, array(b"K\x00", "O8"), "data type").code(),
        case("numpy.dtype of numbers with flags of objects", PATH, array(b"K?", "f8"), "data type").code(),
        case(
            "numpy.dtype of a record in a text",
            PATH,
            Assembler::protocol(2).global("numpy", "dtype").text("f8,O").raw(b"\x85R").stop(),
            "data type",
        )
        .code(),
        case(
            "constructor that opens connections",
            PATH,
            Assembler::protocol(2).global("accelerate.state", "PartialState").raw(b")R").stop(),
            "calls accelerate.state.PartialState",
        )
        .code(),
    ]
}
