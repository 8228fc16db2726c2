//! The README's table of formats is the one that the code says; `CHECKPOINT_E2E_UPDATE=1` writes it (file I/O).

use std::fmt::Write as _;
use std::{env, fs};

use checkpoint_operator::format;

use crate::repository;

const HEAD: &str = "| format | judged at `Headers` |\n|---|---|\n";

fn rows() -> String {
    format::formats().fold(String::new(), |mut rows, (format, judged)| {
        writeln!(rows, "| `{}` | {judged} |", format.as_str()).unwrap();
        rows
    })
}

#[test]
fn the_table_of_formats_is_the_codes() {
    let path = repository("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, table) = readme.split_once(HEAD).expect("the README has no table of formats");
    let end = table.split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
    let (written, after) = table.split_at(end);
    let expected = rows();
    if env::var_os("CHECKPOINT_E2E_UPDATE").is_some() {
        fs::write(&path, format!("{before}{HEAD}{expected}{after}")).unwrap();
        return;
    }
    assert_eq!(
        written, expected,
        "the README's table of formats is out of date: run this test with CHECKPOINT_E2E_UPDATE=1, which writes it"
    );
}
