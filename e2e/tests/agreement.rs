//! Verdicts on damaged fixtures beside the answers of the formats' own readers (`e2e/fixtures/agreement.json`; file I/O).
//!
//! Where a reader refuses a damaged copy, the judge must, too, at depth `Content` at the latest. Where it does not, because the
//! damage is nothing that the reader looks at, `EXCEPTIONS` says why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::collections::BTreeMap;

use checkpoint_operator::contract::Depth;
use checkpoint_operator_e2e::{
    fixtures::{self, Files},
    paths,
};
use serde::Deserialize;

/// One case of `agreement.json`.
#[derive(Debug, Deserialize)]
struct Case {
    fixture: String,
    file: Option<String>,
    damage: Option<Damage>,
    reader: Option<String>,
    answer: Answer,
    #[serde(default)]
    why: String,
}

/// What is done to a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Damage {
    Truncate(usize),
    Flip(usize, u8),
    Append(String),
    Remove(bool),
    Replace(usize, String),
    Swap(String),
}

/// What the format's own reader came to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Refused,
    Same,
    Other,
    Crashed,
    None,
}

impl Damage {
    fn name(&self) -> &'static str {
        match self {
            Self::Truncate(_) => "truncate",
            Self::Flip(..) => "flip",
            Self::Append(_) => "append",
            Self::Remove(_) => "remove",
            Self::Replace(..) => "replace",
            Self::Swap(_) => "swap",
        }
    }

    /// The files as they are then.
    fn apply(&self, files: &Files, path: &str) -> Files {
        let mut changed = files.clone();
        let bytes = changed.get_mut(path).unwrap_or_else(|| panic!("there is no {path}"));
        match self {
            Self::Truncate(length) => bytes.truncate(*length),
            Self::Flip(at, mask) => bytes[*at] ^= mask,
            Self::Append(hex) => bytes.extend(unhex(hex)),
            Self::Replace(at, hex) => {
                let new = unhex(hex);
                bytes.splice(*at..*at + new.len(), new);
            }
            Self::Remove(whole) => {
                assert!(whole, "a removal that is none");
                changed.remove(path);
            }
            Self::Swap(other) => {
                let theirs = files[other].clone();
                let ours = std::mem::replace(bytes, theirs);
                changed.insert(other.clone(), ours);
            }
        }
        changed
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(paths::workspace().join("e2e/fixtures/agreement.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Damages that a reader refuses and the judge accepts: fixture, file (empty: any), damage (empty: any), and why that is right.
const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[];

fn is_excepted(case: &Case, damage: &Damage) -> bool {
    EXCEPTIONS.iter().any(|(fixture, file, kind, _)| {
        case.fixture == *fixture
            && (file.is_empty() || case.file.as_deref() == Some(*file))
            && (kind.is_empty() || *kind == damage.name())
    })
}

/// Found at `Headers`, only at `Content`, or not at all.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    headers: u32,
    content: u32,
    accepted: u32,
}

#[test]
fn what_the_own_reader_refuses_is_refused() {
    let mut table: BTreeMap<(String, &str, Answer), Tally> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut fixture = (String::new(), Files::new());
    for case in cases() {
        let (Some(path), Some(damage)) = (&case.file, &case.damage) else { continue };
        if fixture.0 != case.fixture {
            fixture = (case.fixture.clone(), fixtures::read(&case.fixture).unwrap());
        }
        let changed = damage.apply(&fixture.1, path);
        let good = |depth| {
            let verdict = fixtures::judge(&changed, &fixtures::bytes_alone(depth)).unwrap();
            (verdict.is_good(), verdict.message)
        };
        let tally = table.entry((case.fixture.clone(), damage.name(), case.answer)).or_default();
        if !good(Depth::Headers).0 {
            tally.headers += 1;
            continue;
        }
        let (accepted, message) = good(Depth::Content);
        if !accepted {
            tally.content += 1;
            continue;
        }
        tally.accepted += 1;
        if case.answer == Answer::Refused && !is_excepted(&case, damage) {
            let reader = case.reader.as_deref().unwrap_or_default();
            wrong.push(format!("{} {path} {damage:?}: {reader} refuses ({}), here: {message}", case.fixture, case.why));
        }
    }
    println!("{:32} {:9} {:9} {:>8} {:>8} {:>8}", "fixture", "damage", "reader", "headers", "content", "accepted");
    let mut sums: BTreeMap<Answer, Tally> = BTreeMap::new();
    for ((fixture, damage, answer), tally) in &table {
        let answer_name = format!("{answer:?}").to_lowercase();
        println!(
            "{fixture:32} {damage:9} {answer_name:9} {:8} {:8} {:8}",
            tally.headers, tally.content, tally.accepted
        );
        let sum = sums.entry(*answer).or_default();
        sum.headers += tally.headers;
        sum.content += tally.content;
        sum.accepted += tally.accepted;
    }
    for (answer, sum) in &sums {
        println!("all that is {answer:?}: {sum:?}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
