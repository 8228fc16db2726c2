//! Reads files of SHA-256 sums. Pure, no I/O.

use serde_json::Value;

use super::Sum;

/// How a file of sums is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// `{"algorithm": "sha256", "files": {name: sum}}`
    Integrity,
    /// Lines of sha256sum, also with `--tag`, or a sum alone.
    Lines,
}

/// What a file of sums says.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Sums {
    /// Names of files and their sums, in the order of the file.
    pub named: Vec<(String, Sum)>,
}

/// Reads a file of this kind and name.
///
/// # Errors
/// Why it is not used; completes "FILE was not used: ".
pub(super) fn sums(kind: Kind, text: &str, own: &str) -> Result<Sums, String> {
    let named = match kind {
        Kind::Integrity => integrity(text)?,
        Kind::Lines => lines(text, own)?,
    };
    if named.is_empty() { Err("it has no sums".to_owned()) } else { Ok(Sums { named }) }
}

/// Sixty-four hexadecimal digits.
fn sum(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(sum)
}

fn integrity(text: &str) -> Result<Vec<(String, Sum)>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let algorithm = value.get("algorithm").map_or(Some("sha256"), Value::as_str).unwrap_or("?");
    if algorithm != "sha256" {
        return Err(format!("its algorithm is {algorithm:?}, and only \"sha256\" is known"));
    }
    let files = value.get("files").and_then(Value::as_object).ok_or("it has no \"files\"")?;
    let named = |(name, value): (&String, &Value)| {
        let sum = value.as_str().and_then(sum).ok_or_else(|| format!("its sum of {name:?} is no SHA-256"))?;
        Ok((name.clone(), sum))
    };
    files.iter().map(named).collect()
}

fn lines(text: &str, own: &str) -> Result<Vec<(String, Sum)>, String> {
    let mut named = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(entry) = line_of_sum(line) {
            named.push(entry);
        } else if let (Some(sum), Some(name)) = (sum(line.trim()), stem(own)) {
            named.push((name.to_owned(), sum));
        } else {
            return Err(format!("a line of it is no sum: {:?}", crate::contract::report::clean(line, 80)));
        }
    }
    Ok(named)
}

/// `model.bin` for `model.bin.sha256`
fn stem(own: &str) -> Option<&str> {
    let (stem, extension) = own.rsplit_once('.')?;
    (extension.eq_ignore_ascii_case("sha256") && !stem.is_empty()).then_some(stem)
}

/// `SUM  NAME`, `SUM *NAME`, `SHA256 (NAME) = SUM`; a backslash before it marks escapes in the name.
fn line_of_sum(line: &str) -> Option<(String, Sum)> {
    let (escaped, line) = line.strip_prefix('\\').map_or((false, line), |line| (true, line));
    let (name, found) = if let Some(rest) = line.strip_prefix("SHA256 (") {
        let (name, found) = rest.rsplit_once(") = ")?;
        (name, sum(found)?)
    } else {
        let (found, name) = line.split_at_checked(64)?;
        let name =
            name.strip_prefix("  ").or_else(|| name.strip_prefix(" *")).or_else(|| name.strip_prefix(['\t', ' ']))?;
        (name.trim_start(), sum(found)?)
    };
    let name = if escaped { name.replace("\\n", "\n").replace("\\\\", "\\") } else { name.to_owned() };
    (!name.is_empty()).then_some((name, found))
}
