//! Small files that ask for much time or memory.

use std::time::{Duration, Instant};

use super::*;
use crate::format::pickle::tests::{Assembler, memory};

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let two = |body: Vec<u8>| Assembler::protocol(2).raw(&body).stop();
    let many = 4_000_000;
    let memo: Vec<u8> = (0..1_300_000u32).flat_map(|key| [&b"r"[..], &key.to_le_bytes()].concat()).collect();
    let shape = [b"(".to_vec(), b"K\x01".repeat(200_000), b"tq\x000".to_vec()].concat();
    vec![
        ("marks", two(vec![b'('; many])),
        ("copies", two([vec![b'N'], vec![b'2'; many]].concat())),
        ("lists", two(vec![b']'; many])),
        ("nested lists", two([vec![b']'; many], vec![b'a'; many]].concat())),
        ("memo by number", two([vec![b'N'], memo].concat())),
        ("memo by order", Assembler::protocol(4).raw(b"N").raw(&vec![0x94; many]).stop()),
        ("tuples", two([vec![b'N'], vec![0x85; many]].concat())),
        ("objects", two([b"ccollections\nOrderedDict\nq\x000".to_vec(), b"h\x00)R0".repeat(500_000)].concat())),
        ("imports", two(b"cmarker\nrun\n0".repeat(400_000))),
        (
            "one list filled from the memo",
            two([b"Nq\x000](".to_vec(), b"h\x00".repeat(1_000_000), b"e".to_vec()].concat()),
        ),
        (
            "one shape of many arrays",
            two([
                shape,
                b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}X\x05\0\0\0shapeh\x00s".to_vec(),
                b"q\x01b".to_vec(),
            ]
            .concat()),
        ),
        (
            "one pickle loaded many times",
            two([
                b"ctorch.storage\n_load_from_bytes\nq\x00B".to_vec(),
                1_000_000u32.to_le_bytes().to_vec(),
                b"N0".repeat(500_000),
                b"q\x01".to_vec(),
                b"h\x00h\x01\x85R0".repeat(200_000),
            ]
            .concat()),
        ),
        ("text without an end", two(b"V".repeat(1_000_000))),
    ]
}

#[test]
fn time_and_memory_are_bounded() {
    for (name, bytes) in bombs() {
        let begun = Instant::now();
        assert!(memory(&bytes) < 32 << 20, "{name}: {} bytes", memory(&bytes));
        let verdict = Folder::new([("model.pkl", bytes)]).judge();
        assert!(verdict.contents.pickle >= Some(PickleTier::None), "{name}");
        // Seconds where it is optimised; tests are not.
        assert!(begun.elapsed() < Duration::from_mins(1), "{name}: {:?}", begun.elapsed());
    }
}
