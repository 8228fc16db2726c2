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

/// Judges a file in memory, as one that is a pickle by its name; worse than all when it is too large.
pub(in crate::format) fn judged_named(bytes: &[u8]) -> PickleTier {
    judge_named(&Window::of_bytes(bytes), "").map_or(PickleTier::Dangerous, |fact| fact.unwrap().tier)
}

/// What the values of the first stream take, as they are counted.
pub(in crate::format) fn memory(bytes: &[u8]) -> u64 {
    machine::run(Window::of_bytes(bytes), 0, &Limits::WHOLE, &mut |_, _, _| Ok(None)).unwrap().values.held()
}

/// Where the opcodes of the first stream begin, without following what they do.
pub(in crate::format) fn opcodes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    let mut found = Vec::new();
    while let Some(next) = next(bytes, at) {
        found.push(at);
        at = next;
        if bytes[*found.last().unwrap()] == b'.' {
            break;
        }
    }
    found.into_iter()
}

/// The worst import that a mere list of the opcodes shows; none when there is none.
pub(in crate::format) fn imports(bytes: &[u8]) -> Option<PickleTier> {
    let found = opcodes(bytes).filter(|at| matches!(bytes[*at], b'c' | b'i')).filter_map(|at| {
        let text = std::str::from_utf8(&bytes[at + 1..]).ok().or_else(|| {
            let end = next(bytes, at)?;
            std::str::from_utf8(&bytes[at + 1..end]).ok()
        })?;
        let mut lines = text.lines();
        let (module, name) = (lines.next()?, lines.next()?);
        Some(tier(module, name, false))
    });
    found.max()
}

/// The opcode behind the one at `at`; none where the list of opcodes ends.
fn next(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at + 1..)?;
    let line = |from: usize| Some(from + rest.get(from..)?.iter().position(|byte| *byte == b'\n')? + 1);
    let sized = |width: usize| {
        let number = rest.get(..width)?.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        Some(width + usize::try_from(number).ok()?)
    };
    let length = match bytes.get(at)? {
        b'.'
        | b'('
        | b'0'..=b'2'
        | b'N'
        | b']'
        | b')'
        | b'}'
        | b'l'
        | b't'
        | b'd'
        | b'a'
        | b'e'
        | b's'
        | b'u'
        | b'R'
        | b'o'
        | b'b'
        | b'Q'
        | 0x81
        | 0x85..=0x89
        | 0x8F..=0x94
        | 0x97
        | 0x98 => Some(0),
        b'K' | b'h' | b'q' | 0x80 | 0x82 => Some(1),
        b'M' | 0x83 => Some(2),
        b'J' | b'j' | b'r' | 0x84 => Some(4),
        b'G' | 0x95 => Some(8),
        b'I' | b'L' | b'F' | b'S' | b'V' | b'g' | b'p' | b'P' => line(0),
        b'c' | b'i' => line(line(0)?),
        b'U' | b'C' | 0x8A | 0x8C => sized(1),
        b'T' | b'X' | b'B' | 0x8B => sized(4),
        0x8D | 0x8E | 0x96 => sized(8),
        _ => None,
    }?;
    (length <= rest.len()).then_some(at + 1 + length)
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
    is(&call("fractions", "Fraction"), PickleTier::KnownSafe, "fractions.Fraction");
    is(&call("marker", "run"), PickleTier::Code, "imports marker.run");
    is(&call("posix", "system"), PickleTier::Dangerous, "imports posix.system");
    is(&call("__builtin__", "eval"), PickleTier::Dangerous, "imports builtins.eval");
    is(&Assembler::protocol(2).raw(b"}").stop(), PickleTier::None, "plain data");
    is(&Assembler::protocol(2).global("os", "system").raw(b"0N").stop(), PickleTier::Dangerous, "os.system");
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
        // Numbers that begin like a protocol's mark.
        b"\x80\x03\x12\xbe\x34\x56",
        b"\x80\x00N\x3f\x00\x00\x80\x3f",
        b"\x80\x05]\xff\xff\xff",
        b"\x80\x02bR\x93o\xff",
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
fn the_metadata_of_distributed_checkpoints_may_be_larger() {
    let large = Assembler::protocol(2).raw(&vec![b']'; 800_000]).stop();
    let window = Window::of_bytes(&large);
    assert!(matches!(judge_named(&window, ""), Err(Stop::TooLarge(_))));
    let found = judge(&window, "", Context { named: true, metadata: true, ..Context::default() });
    assert_eq!(found.unwrap().unwrap().tier, PickleTier::None);
}

#[test]
fn size_is_bounded() {
    let endless = Assembler::protocol(2).raw(&vec![b']'; 4 << 20]).stop();
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

/// Marks of two bytes stand at the beginning of some files of numbers.
#[test]
fn numbers_that_begin_like_compressed_data_are_numbers() {
    use super::super::tests::Folder;
    let numbers: Vec<u8> = (1..500u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (path, mark) in [("w.bin", b"\x78\x9c"), ("w.bin", b"\x5d\0"), ("w.dat", b"\x1f\x8b"), ("w.raw", b"\x78\xda")] {
        let verdict = Folder::new([(path, [&mark[..], &numbers].concat())]).judge();
        assert_eq!((verdict.is_good(), verdict.contents.pickle), (true, Some(PickleTier::None)), "{path} {mark:?}");
    }
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

#[test]
fn estimators_tell_the_version_of_their_library() {
    let state = |key: &str| {
        let object = Assembler::protocol(2).global("sklearn.linear_model", "LinearRegression").raw(b")\x81}");
        object.text(key).text("1.9.1").raw(b"sb").stop()
    };
    for (name, key, expected) in [
        ("m.pkl", "_sklearn_version", Some("sklearn 1.9.1")),
        ("m.joblib", "_sklearn_version", Some("sklearn 1.9.1")),
        ("m.pkl", "version", None),
    ] {
        let verdict = crate::format::tests::Folder::new([(name, state(key))]).judge();
        assert_eq!(verdict.contents.framework.as_deref(), expected, "{name} {key}: {}", verdict.message);
        assert_eq!(verdict.contents.versions.contains_key("sklearn"), expected.is_some());
    }
}
