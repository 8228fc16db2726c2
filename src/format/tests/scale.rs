//! What the judging costs: it grows with the number of files, never with their sizes.

use std::fmt::Write;

use super::*;

/// Shards of any size whose data is never there, because nobody may ask for it.
struct Synthetic {
    shards: usize,
    tensors: usize,
    size: u64,
}

impl Synthetic {
    fn name(&self, shard: usize) -> String {
        format!("model-{:05}-of-{:05}.safetensors", shard + 1, self.shards)
    }

    fn head(&self, shard: usize) -> Vec<u8> {
        let each = self.size;
        let entries: Vec<_> = (0..self.tensors as u64)
            .map(|number| {
                let (begin, end) = (number * each, (number + 1) * each);
                format!(r#""model.layers.{shard}.{number:06}":{{"dtype":"U8","shape":[{each}],"data_offsets":[{begin},{end}]}}"#)
            })
            .collect();
        let mut header = format!("{{{}}}", entries.join(","));
        // The same length for any size, so that costs can be compared.
        let length = self.tensors * 130 + 10;
        while header.len() < length {
            header.push(' ');
        }
        safetensors(&header, 0)
    }

    fn index(&self) -> Vec<u8> {
        let mut text = String::from("{\"weight_map\":{");
        for shard in 0..self.shards {
            for number in 0..self.tensors {
                let comma = if shard + number > 0 { "," } else { "" };
                write!(text, "{comma}\"model.layers.{shard}.{number:06}\":\"{}\"", self.name(shard)).unwrap();
            }
        }
        text.push_str("}}");
        text.into_bytes()
    }

    fn files(&self) -> Vec<File> {
        let data = self.size * self.tensors as u64;
        let mut files: Vec<_> = (0..self.shards)
            .map(|shard| File { path: self.name(shard), size: self.head(shard).len() as u64 + data })
            .collect();
        files.push(File { path: "model.safetensors.index.json".into(), size: self.index().len() as u64 });
        files
    }
}

impl Source for Synthetic {
    fn read(&self, file: &File, range: Range<u64>) -> Vec<u8> {
        let bytes = match names::shard(&file.path) {
            Some(shard) => self.head(shard.number as usize - 1),
            None => self.index(),
        };
        let mut bytes = bytes[usize::try_from(range.start).unwrap()..].to_vec();
        bytes.resize(usize::try_from(range.end - range.start).unwrap(), 0);
        bytes
    }
}

#[test]
fn ten_terabytes_cost_what_small_shards_cost() {
    let cost = |size| {
        let source = Synthetic { shards: 1000, tensors: 8, size };
        let files = source.files();
        let (verdict, cost) = drive(Judge::new(files.clone(), &Validation::default(), &[]), &files, &source, 3);
        assert_good(&verdict);
        assert_eq!(verdict.contents.tensors, Some(8000));
        (cost, verdict.contents.parameters)
    };
    let (small, _) = cost(100_000);
    let (large, parameters) = cost(1_250_000_000);
    assert_eq!(small, large);
    assert_eq!(parameters, Some(10_000_000_000_000));
    assert!(small.reads <= 1003 && small.bytes <= 1010 * (64 << 10), "{small:?}");
}

#[test]
fn a_hundred_thousand_files_are_read_a_few_at_a_time() {
    struct Zeros;
    impl Source for Zeros {
        fn read(&self, _: &File, range: Range<u64>) -> Vec<u8> {
            vec![0; usize::try_from(range.end - range.start).unwrap()]
        }
    }
    let files: Vec<_> = (0..100_000).map(|number| File { path: format!("{number}.raw"), size: 1 << 40 }).collect();
    let (verdict, cost) = drive(Judge::new(files.clone(), &Validation::default(), &[]), &files, &Zeros, 5);
    assert_good(&verdict);
    assert_eq!(cost, Cost { reads: 100_000, bytes: 100_000 * 512 });
}

#[test]
fn endless_headers_are_given_up() {
    struct Endless;
    impl Source for Endless {
        fn read(&self, _: &File, range: Range<u64>) -> Vec<u8> {
            const ENTRY: usize = 59;
            let text =
                |number: u64| format!("\"{number:08}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},");
            assert_eq!(text(0).len(), ENTRY);
            let mut bytes = Vec::new();
            let mut at = range.start;
            while at < range.end {
                if at < 9 {
                    bytes.push([0x00, 0xE1, 0xF5, 0x05, 0, 0, 0, 0, b'{'][usize::try_from(at).unwrap()]);
                    at += 1;
                } else {
                    let (number, offset) = ((at - 9) / ENTRY as u64, (at - 9) % ENTRY as u64);
                    let piece = &text(number).into_bytes()[usize::try_from(offset).unwrap()..];
                    let room = usize::try_from(range.end - at).unwrap().min(piece.len());
                    bytes.extend(&piece[..room]);
                    at += room as u64;
                }
            }
            bytes
        }
    }
    let files: Vec<_> = (0..3).map(|number| File { path: format!("{number}.safetensors"), size: 1 << 40 }).collect();
    let (verdict, cost) = drive(Judge::new(files.clone(), &Validation::default(), &[]), &files, &Endless, 1);
    assert_bad(&verdict, Reason::Corrupt, "1000000", "more than is read");
    assert!(cost.bytes < 80 << 20, "{cost:?}");
}
