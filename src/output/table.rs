//! Aligned tables, and numbers for people. No I/O.

use std::time::Duration;

use console::{Alignment, Style, measure_text_width, pad_str};

/// A cell: its text, and its style on a terminal.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
    right: bool,
}

/// Text, aligned to the left.
pub fn text(text: impl Into<String>) -> Cell {
    let text: String = text.into();
    let text = if text.is_empty() { "-".to_owned() } else { text };
    Cell { text, style: Style::new(), right: false }
}

/// A number, aligned to the right.
pub fn number(value: impl Into<String>) -> Cell {
    Cell { right: true, ..text(value) }
}

impl Cell {
    /// Bold, as names of facts are.
    #[must_use]
    pub fn heading(self) -> Self {
        Self { style: Style::new().bold(), ..self }
    }

    /// Green for what is good, red for what is bad, yellow for what is open.
    #[must_use]
    pub fn mood(self, good: Option<bool>) -> Self {
        let style = match good {
            Some(true) => Style::new().green(),
            Some(false) => Style::new().red(),
            None => Style::new().yellow(),
        };
        Self { style, ..self }
    }
}

/// Rows under a head, each column as wide as its widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these column heads.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let cell = |name: &&str| Cell { text: (*name).to_owned(), style: Style::new().bold(), right: false };
        Self { rows: vec![head.iter().map(cell).collect()] }
    }

    /// A table of names and values.
    #[must_use]
    pub fn facts() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Adds a name and its value, if there is one.
    pub fn fact(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.rows.push(vec![Cell { style: Style::new().bold(), ..text(name) }, text(value)]);
        }
    }

    /// The lines.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_within(None)
    }

    /// The lines, none wider than a terminal of so many columns as far as words can be parted: the last column is wrapped.
    #[must_use]
    pub fn render_within(&self, columns: Option<usize>) -> String {
        let number = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..number)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| measure_text_width(&cell.text)).max().unwrap_or(0)
            })
            .collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP.len()).sum();
        let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(LEAST_ROOM));
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let alignment = if self.is_numeric(column) { Alignment::Right } else { Alignment::Left };
                if column + 1 < row.len() {
                    let padded = pad_str(&cell.text, widths[column], alignment, None);
                    line.push_str(&cell.style.apply_to(padded).to_string());
                    line.push_str(GAP);
                } else if alignment == Alignment::Right {
                    line.push_str(
                        &cell.style.apply_to(pad_str(&cell.text, widths[column], alignment, None)).to_string(),
                    );
                } else {
                    // The last column is not padded: lines have no blanks at their ends.
                    for (number, piece) in wrap(&cell.text, room).iter().enumerate() {
                        if number > 0 {
                            line.push('\n');
                            line.push_str(&" ".repeat(before));
                        }
                        line.push_str(&cell.style.apply_to(piece).to_string());
                    }
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.right))
    }
}

/// Between columns.
const GAP: &str = "   ";
/// The last column is never narrower than this: a terminal breaks the lines better than we could.
const LEAST_ROOM: usize = 30;

/// Parts a text between its words; a word that is wider than the room stays whole, so that it can be copied.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let both = measure_text_width(&line).saturating_add(1 + measure_text_width(word));
        if !line.is_empty() && both > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A count with separators, such as `8,030,261,248`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A signed count; what is below zero makes no sense and is shown as zero.
#[must_use]
pub fn signed_count(value: i64) -> String {
    count(u64::try_from(value).unwrap_or(0))
}

/// A duration for people, such as `2m05s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{} ms", duration.as_millis()),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "FILES", "REASON"]);
        table.row(vec![text("größe"), number("7"), text("Ready").mood(Some(true))]);
        table.row(vec![text("模型"), number("1,234,567"), text("")]);
        let lines = "NAME        FILES   REASON\ngröße           7   Ready\n模型    1,234,567   -\n";
        assert_eq!(console::strip_ansi_codes(&table.render()), lines);
    }

    #[test]
    fn long_texts_are_wrapped_below_themselves() {
        let mut table = Table::facts();
        table.fact("Message", Some("a/very/long/path/that/nobody/should/ever/break is damaged: upload it again"));
        table.fact("Files", Some("2"));
        let shown = table.render_within(Some(30));
        let expected = "Message   a/very/long/path/that/nobody/should/ever/break\n          is damaged: upload it again\nFiles     2\n";
        assert_eq!(console::strip_ansi_codes(&shown), expected);
        assert_eq!(console::strip_ansi_codes(&table.render()).lines().count(), 2);
    }

    #[test]
    fn numbers_read_well() {
        let counts = [(0, "0"), (999, "999"), (1000, "1,000"), (8_030_261_248, "8,030,261,248")];
        for (value, expected) in counts {
            assert_eq!(count(value), expected);
        }
        for (seconds, expected) in [(0, "0 ms"), (59, "59s"), (125, "2m05s"), (7260, "2h01m")] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
    }
}
