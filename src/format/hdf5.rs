//! HDF5 files: the superblock against the file's size, and the layers of Keras models in them (HDF5 file format 3.0). No I/O.

use super::{
    evidence::{CodeFact, Evidence},
    findings::Notes,
    keras, names,
    probe::{Probe, Problem, note_problem},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::Format;

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// How much of a file is searched for the configuration of a Keras model, in bytes.
const SEARCHED: u64 = 16 << 20;

/// HDF5 files.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<IsHdf5>().next().is_some(),
    places: |evidence| evidence.all::<IsHdf5>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    judged: "the superblock against the file's size",
    ..Family::of(Format::Hdf5)
};

struct IsHdf5;

struct Hdf5File;

fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let named = ["h5", "hdf5"].iter().any(|extension| names::has_extension(path, extension));
    (named || start.starts_with(SIGNATURE)).then(|| WindowProbe::boxed(Hdf5File, size, start))
}

impl Parse for Hdf5File {
    type Output = Vec<(bool, String)>;

    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        check(file)?;
        Ok(layers(file.up_to(0, SEARCHED)?, file.len() > SEARCHED))
    }

    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(code) => {
                for (on_load, what) in code {
                    evidence.note_code(CodeFact { on_load, file, what });
                }
                evidence.put(file, IsHdf5);
            }
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// The superblock says where the file ends.
pub(super) fn check(file: &Window<'_>) -> Parsed<()> {
    let begins = [0].into_iter().chain((0..12).map(|power| 512 << power)).take_while(|at| *at + 8 <= file.len());
    let mut found = None;
    for at in begins {
        if file.up_to(at, 8)? == SIGNATURE {
            found = Some(at);
            break;
        }
    }
    let Some(at) = found else { return Err(Stop::bad("it has no HDF5 signature")) };
    let (width_at, end_at) = match file.array::<1>(at + 8)? {
        [0] => (13, 24),
        [1] => (13, 28),
        [2 | 3] => (9, 12),
        [other] => return Err(Stop::Bad(format!("its superblock has the unknown version {other}"))),
    };
    let [width] = file.array::<1>(at + width_at)?;
    if width != 8 {
        return Err(Stop::Bad(format!("its addresses have {width} bytes, where every library writes 8")));
    }
    // Base address, one more address, end of file.
    let end = u64::from_le_bytes(file.array(at + end_at + 16)?).saturating_add(at);
    if end == file.len() {
        return Ok(());
    }
    let how = if end > file.len() { "it is truncated: it" } else { "it" };
    Err(Stop::Bad(format!("{how} has {} bytes, its superblock says {end}", file.len())))
}

/// Layers of a Keras model that run code. The configuration is a JSON text in the file; where it stands depends on its length.
fn layers(bytes: &[u8], cut: bool) -> Vec<(bool, String)> {
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    if !holds(b"model_config") {
        return Vec::new();
    }
    let config = bytes.windows(14).position(|window| window == b"{\"class_name\":").and_then(|at| {
        let mut values = serde_json::Deserializer::from_slice(bytes.get(at..)?).into_iter::<serde_json::Value>();
        values.next()?.ok()
    });
    match config {
        Some(config) => keras::code(&config),
        None if cut => vec![(true, format!("layers of a Keras model that lie behind its first {SEARCHED} bytes"))],
        None => vec![(true, "layers of a Keras model that cannot be read".to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock of version 0 and so many bytes in all.
    fn file(end: u64, length: usize) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]);
        bytes.extend([0; 8]);
        bytes.extend([0xFF; 8]);
        bytes.extend(end.to_le_bytes());
        bytes.resize(length, 0);
        bytes
    }

    #[test]
    fn the_end_is_the_size() {
        let read = |bytes: &[u8]| check(&Window::of_bytes(bytes));
        assert_eq!(read(&file(100, 100)), Ok(()));
        for length in (0..100).chain([101]) {
            assert!(read(&file(100, length.max(48))[..length.min(100)]).is_err() || length > 100, "{length}");
        }
        assert!(read(&file(100, 101)).is_err());
        assert!(read(&[vec![0; 512], file(100, 100)].concat()).is_ok());
        assert!(read(b"no signature").is_err());
    }

    #[test]
    fn layers_of_keras_are_found() {
        let mut bytes = file(100, 100);
        bytes.extend(b"model_config");
        assert!(layers(&bytes, false)[0].1.contains("cannot be read"));
        let with = |class: &str| {
            [&bytes[..], format!("{{\"class_name\": \"Sequential\", \"config\": {{\"layers\": [{{\"class_name\": \"{class}\", \"config\": {{}}}}]}}}}").as_bytes(), b"\0\0"].concat()
        };
        assert_eq!(layers(&with("Dense"), false), []);
        assert_eq!(layers(&with("Lambda"), false).len(), 1);
        assert_eq!(layers(b"weights only", false), []);
    }
}
