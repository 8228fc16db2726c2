//! Streams that are what they seem, and streams made to deceive.

use super::*;

/// Puts opcodes together. Nothing in these tests runs a pickle.
#[derive(Clone, Default)]
pub(in crate::format) struct Assembler(Vec<u8>);

impl Assembler {
    pub fn protocol(number: u8) -> Self {
        Self(vec![0x80, number])
    }

    pub fn bare() -> Self {
        Self::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap();
        self.raw(b"X").raw(&length.to_le_bytes()).raw(text.as_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap();
        self.raw(b"B").raw(&length.to_le_bytes()).raw(bytes)
    }

    /// Calls what is on the stack with one text.
    pub fn call(self, argument: &str) -> Self {
        self.text(argument).raw(b"\x85R")
    }

    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }

    pub fn open(self) -> Vec<u8> {
        self.0
    }
}

/// Judges a file in memory, as one whose name says nothing.
pub(in crate::format) fn judged(bytes: &[u8]) -> Option<PickleFact> {
    judge_all(&Window::of_bytes(bytes), "").unwrap()
}

#[track_caller]
fn is(bytes: &[u8], tier: PickleTier, words: &str) {
    let fact = judged(bytes).unwrap_or_else(|| panic!("no pickle: {bytes:?}"));
    assert_eq!(fact.tier, tier, "{}", fact.what);
    assert!(fact.what.contains(words), "{words:?} is not in {:?}", fact.what);
}

fn call(module: &str, name: &str) -> Vec<u8> {
    Assembler::protocol(2).global(module, name).call("marker").stop()
}

#[test]
fn plain_data_is_followed() {
    let window = |bytes: &'static [u8]| read(&Window::of_bytes(bytes), 0, &Limits::WHOLE).unwrap();
    // {'step': 3, 'loss': 0.5, 'names': ['a', 'b'], 'big': 2**70, 'none': None} by Python's pickle at protocols 0, 2 and 4.
    for stream in [
        window(b"(dp0\nVstep\np1\nI3\nsVloss\np2\nF0.5\nsVnames\np3\n(lp4\nVa\np5\naVb\np6\nasVbig\np7\nL1180591620717411303424L\nsVnone\np8\nNs."),
        window(b"\x80\x02}q\x00(X\x04\x00\x00\x00stepq\x01K\x03X\x04\x00\x00\x00lossq\x02G?\xe0\x00\x00\x00\x00\x00\x00X\x05\x00\x00\x00namesq\x03]q\x04(X\x01\x00\x00\x00aq\x05X\x01\x00\x00\x00bq\x06eX\x03\x00\x00\x00bigq\x07\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@X\x04\x00\x00\x00noneq\x08Nu."),
        window(b"\x80\x04\x95K\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04step\x94K\x03\x8c\x04loss\x94G?\xe0\x00\x00\x00\x00\x00\x00\x8c\x05names\x94]\x94(\x8c\x01a\x94\x8c\x01b\x94e\x8c\x03big\x94\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8c\x04none\x94Nu."),
    ] {
        assert_eq!((stream.tier, &stream.problem), (PickleTier::None, &None));
        let (values, root) = (&stream.values, stream.root.unwrap());
        let entry = |key| values.get(values.entry(root, key).unwrap());
        assert_eq!(*entry("step"), Value::Int(3));
        assert_eq!(*entry("loss"), Value::Float(0.5));
        assert_eq!(*entry("big"), Value::BigInt);
        assert_eq!(*entry("none"), Value::None);
        let names = values.elements(values.entry(root, "names").unwrap()).unwrap();
        assert_eq!(names.iter().map(|id| values.text(*id).unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[test]
fn imports_decide() {
    is(&call("torch._utils", "_rebuild_tensor_v2"), PickleTier::TensorsOnly, "torch._utils._rebuild_tensor_v2");
    is(&call("numpy", "dtype"), PickleTier::KnownSafe, "numpy.dtype");
    is(&call("marker", "run"), PickleTier::Code, "imports marker.run");
    is(&call("posix", "system"), PickleTier::Dangerous, "imports posix.system");
    is(&call("__builtin__", "eval"), PickleTier::Dangerous, "imports builtins.eval");
    is(&Assembler::protocol(2).raw(b"}").stop(), PickleTier::None, "plain data");
    is(&Assembler::protocol(2).global("os", "system").raw(b"0N").stop(), PickleTier::Dangerous, "os.system");
}

/// One stream for each advisory of public scanners.
#[test]
fn advisories() {
    for (module, name) in [
        ("pip", "main"),                                            // CVE-2025-1716
        ("asyncio.unix_events", "_UnixSubprocessTransport._start"), // CVE-2025-10157
        ("uuid", "_get_command_stdout"),                            // CVE-2026-56315
        ("imaplib", "IMAP4_stream"),
        ("_pyrepl.pager", "pipe_pager"),
        ("_osx_support", "_read_output"),
        ("_aix_support", "_read_cmd_output"),
        ("importlib", "import_module"),
        ("joblib", "load"), // CVE-2024-34997
        ("torch", "load"),  // CVE-2025-32434
    ] {
        is(&call(module, name), PickleTier::Dangerous, name);
    }
    // nullifAI: broken behind the payload, which has run by then.
    let broken = Assembler::protocol(0).raw(b"cposix\nsystem\n(Vmarker\ntR").raw(b"\x00broken").open();
    is(&broken, PickleTier::Dangerous, "posix.system");
    // CVE-2026-24747: items set in something that takes none.
    let set = Assembler::protocol(2).global("torch", "Size").raw(b")R").text("a").raw(b"K\x01s").stop();
    is(&set, PickleTier::Code, "torch.Size");
    // fickling GHSA-mxhj: OBJ whose result is dropped.
    let dropped = Assembler::protocol(1).raw(b"(").global("os", "system").text("marker").raw(b"o0N").stop();
    is(&dropped, PickleTier::Dangerous, "os.system");
    // fickling GHSA-5j3x: a name that leads through another module.
    let dotted = Assembler::protocol(4).raw(b"\x8c\x07pathlib\x8c\x09os.system\x93").call("marker").stop();
    is(&dotted, PickleTier::Dangerous, "pathlib.os.system");
    // fickling GHSA-6ggj: an argument that crosses its frame's end.
    let straddle = Assembler::protocol(4).raw(b"\x95\x03\0\0\0\0\0\0\0").text("abcdef").stop();
    is(&straddle, PickleTier::Dangerous, "frame");
}

#[test]
fn tricks() {
    let hidden = PickleTier::Dangerous;
    // Operands of STACK_GLOBAL from the memo, and from strings of Python 2.
    let memo = Assembler::protocol(4).raw(b"\x8c\x02os\x940\x8c\x06system\x940h\x00h\x01\x93").call("marker").stop();
    is(&memo, hidden, "os.system");
    let old = Assembler::protocol(4).raw(b"S'os'\nU\x06system\x93").call("marker").stop();
    is(&old, hidden, "os.system");
    // Operands that are no texts, or that escapes hide.
    is(&Assembler::protocol(4).raw(b"K\x01K\x02\x93").stop(), hidden, "hides");
    is(&Assembler::protocol(4).raw(b"S'\\x6fs'\n\x8c\x06system\x93").stop(), hidden, "hides");
    // A place in the memo that holds nothing.
    is(&Assembler::protocol(2).raw(b"h\x09").stop(), PickleTier::Code, "memo");
    // The registry of copyreg.
    is(&Assembler::protocol(2).raw(b"\x82\x01").stop(), hidden, "registry");
    // INST without a class on the stack.
    is(&Assembler::protocol(0).raw(b"(Vmarker\nios\nsystem\n").stop(), hidden, "os.system");
    // A second stream behind the first, also without a mark of its own.
    let mut second = Assembler::protocol(2).raw(b"N").stop();
    second.extend(call("os", "system"));
    is(&second, hidden, "os.system");
    let mut bare = Assembler::protocol(2).raw(b"N").stop();
    bare.extend(Assembler::bare().global("os", "system").raw(b"(Vmarker\ntR").stop());
    is(&bare, hidden, "os.system");
    // A missing STOP.
    is(&Assembler::protocol(2).global("collections", "OrderedDict").open(), PickleTier::Code, "cannot be followed");
    // The result of a call is called.
    let twice = Assembler::protocol(2).global("torch", "Size").raw(b")R)R").stop();
    is(&twice, PickleTier::Code, "no plain import");
    // A pickle in the bytes of another.
    let inner = Assembler::protocol(3).bytes(&call("os", "system")).stop();
    is(&inner, hidden, "in its bytes");
    // Names that dots lead astray.
    is(&call("collections", "OrderedDict.__init__.__globals__"), hidden, "__globals__");
    // A frame longer than the file; a protocol in the middle.
    is(&Assembler::protocol(4).raw(b"\x95\xff\0\0\0\0\0\0\0N").stop(), hidden, "frames");
    is(&Assembler::protocol(2).raw(b"\x80\x02N").stop(), PickleTier::Code, "middle");
    // POP below a mark, which some unpicklers allow.
    is(&Assembler::protocol(2).raw(b"N(00").stop(), PickleTier::Code, "cannot be followed");
}

#[test]
fn torch_in_bytes_is_as_safe_as_the_bytes() {
    let load = |bytes: &[u8]| {
        Assembler::protocol(3).global("torch.storage", "_load_from_bytes").bytes(bytes).raw(b"\x85R").stop()
    };
    is(&load(&Assembler::protocol(2).raw(b"N").stop()), PickleTier::KnownSafe, "_load_from_bytes");
    is(&load(&call("os", "system")), PickleTier::Dangerous, "os.system");
    is(&load(b"unknown bytes"), PickleTier::Code, "bytes");
    let hidden = Assembler::protocol(3).global("torch.storage", "_load_from_bytes").raw(b"N\x85R").stop();
    is(&hidden, PickleTier::Code, "hides");
}

#[test]
fn other_files_are_no_pickles() {
    for bytes in [
        &b"(hello)"[..],
        b"cat\ndog\nbird\n",
        b"{\"a\": 1}",
        b"I am a text.\n",
        b"N.",
        b"",
        b"GGUF\x03\0\0\0",
        b"\x80\x02\0\0\0\0\0\0{",
        b"\x89PNG\r\n\x1a\n",
    ] {
        assert_eq!(judged(bytes), None, "{bytes:?}");
    }
    is(b"cos\nsystem\n(Vmarker\ntR.", PickleTier::Dangerous, "os.system");
}

/// Their magic begins with letters that are opcodes too.
#[test]
fn compressed_pickles_are_never_clean() {
    use super::super::tests::Folder;
    for (path, start) in
        [("m.joblib.bz2", &b"BZh91AY&SY"[..]), ("m.joblib.gzip", b"\x1f\x8b\x08\x00"), ("m.pkl", b"BZh91AY&SY")]
    {
        let verdict = Folder::new([(path, start.to_vec())]).judge();
        assert!(verdict.contents.pickle >= Some(PickleTier::Unchecked), "{path}: {:?}", verdict.contents.pickle);
    }
}

#[test]
fn size_is_bounded() {
    let endless = Assembler::protocol(2).raw(&vec![b'N'; 4 << 20]).stop();
    assert!(matches!(judge_all(&Window::of_bytes(&endless), ""), Err(Stop::TooLarge(_))));
    // A large array is passed over without being fetched.
    let mut array = Assembler::protocol(4).raw(b"\x8e").raw(&(5u64 << 20).to_le_bytes()).open();
    let rest = array.len() as u64 + (5 << 20);
    let mut cache = super::super::window::Cache::default();
    cache.insert(0, &array);
    let window = Window::of_file(&cache, rest + 1);
    assert_eq!(read(&window, 0, &Limits::WHOLE).err(), Some(Stop::Need(rest..rest + 1)));
    array.clear();
}

proptest::proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let window = Window::of_bytes(&bytes);
        let _ = judge_named(&window, "x");
        let marked: Vec<u8> = [&[0x80, 4][..], &bytes].concat();
        let _ = judge_all(&Window::of_bytes(&marked), "");
    }

    /// Opcodes that fit each other go further than bytes at random.
    #[test]
    fn any_opcodes_end(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..40)) {
        let bytes: Vec<u8> = pieces.concat();
        let _ = judge_named(&Window::of_bytes(&bytes), "x");
    }

    #[test]
    fn one_changed_byte_is_never_cleaner_by_accident(at in 0usize..40, byte in proptest::prelude::any::<u8>()) {
        let mut bytes = call("os", "system");
        let at = at % bytes.len();
        bytes[at] = byte;
        // Only a change of the names themselves, or of what makes it a pickle, may make it anything but dangerous.
        if let Some(fact) = judged(&bytes) {
            let names = 2..13;
            proptest::prop_assert!(names.contains(&at) || fact.tier >= PickleTier::Code, "{} at {at}", fact.what);
        }
    }
}

const PIECES: &[&[u8]] = &[
    b"\x80\x04",
    b"(",
    b"0",
    b"1",
    b"2",
    b"N",
    b"]",
    b")",
    b"}",
    b"\x8f",
    b"l",
    b"t",
    b"d",
    b"\x91",
    b"\x85",
    b"\x86",
    b"a",
    b"e",
    b"\x90",
    b"s",
    b"u",
    b"h\x00",
    b"q\x00",
    b"\x94",
    b"cos\nsystem\n",
    b"\x93",
    b"R",
    b"\x81",
    b"\x92",
    b"o",
    b"b",
    b"Q",
    b"P1\n",
    b"\x8c\x01a",
    b"K\x01",
    b"C\x02ab",
    b".",
    b"\x95\x05\0\0\0\0\0\0\0",
    b"\x97",
    b"\x98",
    b"\x82\x01",
    b"I01\n",
    b"L5L\n",
    b"\x8a\x00",
];
