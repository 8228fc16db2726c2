//! Tables in Markdown that also read well on a terminal, and their places in a document (file I/O).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Rows of cells; the first row is the head, and all columns but the first `left` are numbers.
pub fn markdown(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let written =
                if column < left { write!(out, "| {cell:width$} ") } else { write!(out, "| {cell:>width$} ") };
            written.ok();
        }
        out.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                out.push('|');
                out.push_str(&"-".repeat(width + 1));
                out.push(if column < left { '-' } else { ':' });
            }
            out.push_str("|\n");
        }
    }
    out
}

/// Replaces what stands between the marks `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a document.
pub fn write_between(document: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let missing = || format!("{} has no marks of `{name}`", document.display());
    let (before, rest) = old.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    fs::write(document, format!("{before}{begin}{text}{end}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["what".to_owned(), "s".to_owned()], vec!["x".to_owned(), "12.5".to_owned()]];
        assert_eq!(markdown(&rows, 1), "| what |    s |\n|------|-----:|\n| x    | 12.5 |\n");
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.md");
        fs::write(&path, "a\n<!-- t: begin -->\nold\n<!-- t: end -->\nz\n").unwrap();
        write_between(&path, "t", "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n<!-- t: begin -->\nnew\n<!-- t: end -->\nz\n");
        assert!(write_between(&path, "other", "").unwrap_err().to_string().contains("`other`"));
    }
}
