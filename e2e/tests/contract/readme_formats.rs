//! The README's table of formats names every format once, and no other.

use std::fs;

use checkpoint_operator::contract::Format;

use crate::repository;

#[test]
fn the_table_of_formats_is_complete() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let (_, table) = readme.split_once("| format | judged at `Headers` |").expect("no table of formats");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
    let mut named: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let mut formats: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
    named.sort_unstable();
    formats.sort_unstable();
    assert_eq!(named, formats);
}
