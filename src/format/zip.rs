//! Zip archives from their central directory (APPNOTE 6.3.10), strict where readers disagree with each other. Pure, no I/O.

use std::{borrow::Cow, collections::BTreeSet, io::Read, ops::Range};

use flate2::{Crc, read::DeflateDecoder};

use super::{
    names,
    window::{Parsed, Stop, Window},
};

/// The most entries that are read.
const ENTRIES: u64 = 500_000;
/// The largest central directory that is read, in bytes.
const DIRECTORY: u64 = 48 << 20;
/// The end record and the longest comment behind it, in bytes.
const TAIL: u64 = 22 + 65_535;
/// The end records that torch writes: with those for large files, without a comment.
const SMALL_TAIL: u64 = 4 << 10;
/// What deflated data has besides its first bytes: tables of codes, in bytes.
const DEFLATE_HEAD: u64 = 1 << 10;
/// The most findings of one archive.
const FINDINGS: usize = 8;

/// An entry of the central directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Its name.
    pub name: String,
    /// How it is compressed: 0 not at all, 8 deflated.
    pub method: u16,
    /// CRC-32 of the content; 0 from writers that compute none.
    pub crc: u32,
    /// Bytes in the archive.
    pub compressed: u64,
    /// Bytes of the content.
    pub size: u64,
    /// Where its local header begins.
    pub header: u64,
    /// General purpose flags.
    flags: u16,
}

/// What an archive holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Directory {
    /// Entries in the order of the directory.
    pub entries: Vec<Entry>,
    /// What makes readers disagree about it; each completes "FILE ".
    pub findings: Vec<String>,
}

impl Directory {
    /// The entry of a name; the last one, as in Python.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.name == name)
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// The end of the archive.
struct End {
    /// Where the central directory begins.
    offset: u64,
    /// Its length in bytes.
    size: u64,
    entries: u64,
    /// Where the first end record begins.
    at: u64,
    trailing: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + N).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads the central directory.
///
/// # Errors
/// `Bad` when there is none or it is damaged.
pub(super) fn directory(window: &Window<'_>) -> Parsed<Directory> {
    let end = end(window)?;
    if end.entries > ENTRIES || end.size > DIRECTORY {
        return Err(Stop::TooLarge(format!("its directory has {} entries and {} bytes", end.entries, end.size)));
    }
    let mut directory = Directory::default();
    if end.trailing > 0 {
        directory
            .note(format!("has {} bytes behind its end, which some readers take for another archive", end.trailing));
    }
    if end.offset.checked_add(end.size) != Some(end.at) {
        directory.note("has bytes before its beginning or its end that are no part of it".to_owned());
    }
    let bytes = window.bytes(end.offset..end.offset.saturating_add(end.size))?;
    let mut at = 0;
    while at < bytes.len() {
        let (entry, next) = entry(bytes, at)?;
        directory.entries.push(entry);
        at = next;
        if directory.entries.len() as u64 > ENTRIES {
            return Err(Stop::TooLarge(format!("its directory has more than {ENTRIES} entries")));
        }
    }
    if directory.entries.len() as u64 != end.entries {
        let found = directory.entries.len();
        return Err(Stop::Bad(format!("its end announces {} entries, its directory has {found}", end.entries)));
    }
    apart(&directory)?;
    check(window, &mut directory, end.offset)?;
    Ok(directory)
}

/// No library lays entries over each other; an archive that does makes its readers read the same bytes as often as it likes.
fn apart(directory: &Directory) -> Parsed<()> {
    let mut places: Vec<(u64, u64)> =
        directory.entries.iter().map(|entry| (entry.header, entry.compressed.saturating_add(30))).collect();
    places.sort_unstable();
    let over = |(here, next): (&(u64, u64), &(u64, u64))| here.0.saturating_add(here.1) > next.0;
    if places.iter().zip(places.iter().skip(1)).any(over) {
        return Err(Stop::bad("two of its entries lie in one place"));
    }
    Ok(())
}

/// What the entries say together.
fn check(window: &Window<'_>, directory: &mut Directory, end: u64) -> Parsed<()> {
    let first = directory.entries.iter().map(|entry| entry.header).min().unwrap_or(0);
    if first > 0 {
        directory.note(format!("has {first} bytes before its first entry"));
    }
    let mut names = BTreeSet::new();
    let mut notes = Vec::new();
    for entry in &directory.entries {
        let shown = names::shown(&entry.name);
        if entry.header.saturating_add(30).saturating_add(entry.compressed) > end {
            return Err(Stop::Bad(format!("its entry {shown} does not fit before its directory")));
        }
        if !names.insert(entry.name.as_str()) {
            notes.push(format!("has two entries named {shown}, and readers differ in which they take"));
        }
        if entry.flags & 0x2061 != 0 {
            notes.push(format!(
                "has an entry {shown} that is marked as encrypted or patched, which some readers ignore"
            ));
        }
        let unsafe_name = entry.name.starts_with('/')
            || entry.name.contains(['\\', '\0'])
            || entry.name.split('/').any(|part| part == "..")
            || entry.name.as_bytes().get(1) == Some(&b':');
        if unsafe_name {
            notes.push(format!("has an entry {shown}, which is no safe path"));
        }
        if notes.len() >= FINDINGS {
            break;
        }
    }
    let mut order: Vec<&Entry> = directory.entries.iter().collect();
    order.sort_by_key(|entry| entry.header);
    for (entry, next) in order.iter().zip(order.iter().skip(1)) {
        if entry.header + 30 + entry.name.len() as u64 + entry.compressed > next.header {
            notes.push(format!(
                "has entries {} and {} in one place",
                names::shown(&entry.name),
                names::shown(&next.name)
            ));
            break;
        }
    }
    if let Some(last) = order.last() {
        notes.extend(behind_last(window, last, end)?);
    }
    for note in notes {
        directory.note(note);
    }
    Ok(())
}

/// What lies between the last entry and the directory: another directory there is what other readers take.
fn behind_last(window: &Window<'_>, last: &Entry, end: u64) -> Parsed<Option<String>> {
    let (range, _) = match locate(window, last) {
        Err(Stop::Bad(text)) => return Ok(Some(format!("is damaged at its last entry: {text}"))),
        located => located?,
    };
    let between = end.checked_sub(range.end);
    // Sizes that were not known in time stand behind the data, with or without a mark, in 32 or 64 bits.
    let described = last.flags & 8 != 0 && matches!(between, Some(12 | 16 | 20 | 24));
    let fits = described || between == Some(0);
    Ok((!fits).then(|| "has bytes between its last entry and its directory".to_owned()))
}

fn end(window: &Window<'_>) -> Parsed<End> {
    let missing = || Stop::bad("its end is missing, where a zip archive has its directory: it is truncated");
    let mut found = None;
    for length in [SMALL_TAIL, TAIL] {
        let begin = window.len().saturating_sub(length);
        let tail = window.bytes(begin..window.len())?;
        if let Some(at) = (0..tail.len().saturating_sub(21)).rev().find(|at| tail[*at..].starts_with(b"PK\x05\x06")) {
            found = Some((begin + at as u64, &tail[at..]));
            break;
        }
    }
    let (at, record) = found.ok_or_else(missing)?;
    let comment = number::<2>(record, 20);
    let trailing = (record.len() as u64).saturating_sub(22 + comment);
    if 22 + comment > record.len() as u64 {
        return Err(Stop::bad("its end promises a comment that is not there: it is truncated"));
    }
    if number::<2>(record, 4) != 0 || number::<2>(record, 6) != 0 {
        return Err(Stop::bad("it is one of several parts"));
    }
    let mut end = End {
        offset: number::<4>(record, 16),
        size: number::<4>(record, 12),
        entries: number::<2>(record, 10),
        at,
        trailing,
    };
    let Some(locator_at) = at.checked_sub(20) else { return Ok(end) };
    let locator = window.bytes(locator_at..at)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(end);
    }
    let large_at = number::<8>(locator, 8);
    let large = window.bytes(large_at..large_at.saturating_add(56))?;
    if !large.starts_with(b"PK\x06\x06") {
        return Err(Stop::bad("its end record for large archives is missing"));
    }
    // Python takes the record that lies right before the locator, others the one that the locator names.
    if large_at.saturating_add(12).saturating_add(number::<8>(large, 4)) != locator_at {
        return Err(Stop::bad("its end record for large archives is not where it must be"));
    }
    let both = [
        (end.entries, number::<8>(large, 32), 0xFFFF),
        (end.size, number::<8>(large, 40), 0xFFFF_FFFF),
        (end.offset, number::<8>(large, 48), 0xFFFF_FFFF),
    ];
    if both.iter().any(|(small, large, unset)| small != unset && small != large) {
        return Err(Stop::bad("its two end records contradict each other"));
    }
    [end.entries, end.size, end.offset] = both.map(|(_, large, _)| large);
    end.at = large_at;
    Ok(end)
}

fn entry(bytes: &[u8], at: usize) -> Parsed<(Entry, usize)> {
    let damaged = || Stop::Bad(format!("its directory is damaged at byte {at}"));
    let fixed = bytes.get(at..at + 46).filter(|fixed| fixed.starts_with(b"PK\x01\x02")).ok_or_else(damaged)?;
    let small = |at| u16::try_from(number::<2>(fixed, at)).unwrap_or_default();
    let [name_length, extra_length, comment_length] = [28, 30, 32].map(|at| usize::from(small(at)));
    let name_at = at + 46;
    let extra_at = name_at + name_length;
    let next = extra_at + extra_length + comment_length;
    let name = bytes.get(name_at..extra_at).ok_or_else(damaged)?;
    let extra = bytes.get(extra_at..extra_at + extra_length).ok_or_else(damaged)?;
    if next > bytes.len() {
        return Err(damaged());
    }
    let mut large = large_fields(extra).ok_or_else(damaged)?;
    let mut field = |at| match number::<4>(fixed, at) {
        0xFFFF_FFFF => large.next().ok_or_else(damaged),
        value => Ok(value),
    };
    let size = field(24)?;
    let compressed = field(20)?;
    let header = field(42)?;
    let entry = Entry {
        name: String::from_utf8_lossy(name).into_owned(),
        method: small(10),
        crc: u32::try_from(number::<4>(fixed, 16)).unwrap_or_default(),
        compressed,
        size,
        header,
        flags: small(8),
    };
    if entry.method == 0 && entry.size != entry.compressed {
        return Err(Stop::Bad(format!("its entry {} is stored, but has two sizes", names::shown(&entry.name))));
    }
    Ok((entry, next))
}

/// The 64-bit numbers of the extra field 1, in the order: size, compressed size, offset. None when there are two such fields.
fn large_fields(extra: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let mut rest = extra;
    let mut fields: Option<&[u8]> = None;
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let length = usize::try_from(number::<2>(head, 2)).unwrap_or_default();
        let Some((body, next)) = tail.split_at_checked(length) else { break };
        if number::<2>(head, 0) == 1 && fields.replace(body).is_some() {
            return None;
        }
        rest = next;
    }
    Some(fields.unwrap_or_default().chunks_exact(8).map(|chunk| number::<8>(chunk, 0)))
}

/// The length of a local header, which must agree with the directory.
///
/// # Errors
/// `Bad` when it does not.
pub(super) fn local_length(fixed: &[u8], entry: &Entry) -> Parsed<u64> {
    match local(fixed, entry)? {
        (length, None) => Ok(length),
        (_, Some(problem)) => Err(Stop::Bad(problem)),
    }
}

/// The length of a local header by its fixed part, and how it contradicts the directory.
fn local(fixed: &[u8], entry: &Entry) -> Parsed<(u64, Option<String>)> {
    let shown = || names::shown(&entry.name);
    if !fixed.starts_with(b"PK\x03\x04") || fixed.len() < 30 {
        return Err(Stop::Bad(format!("its entry {} has no header of its own", shown())));
    }
    let length = 30 + number::<2>(fixed, 26) + number::<2>(fixed, 28);
    if number::<2>(fixed, 8) != u64::from(entry.method) || number::<2>(fixed, 6) & 0x2061 != 0 {
        return Ok((length, Some(format!("its entry {} is described in two ways", shown()))));
    }
    let streamed = number::<2>(fixed, 6) & 8 != 0;
    let sizes = [number::<4>(fixed, 18), number::<4>(fixed, 22)];
    let agree = |local: u64, central: u64| local == central || local == 0xFFFF_FFFF || (streamed && local == 0);
    let agree = agree(sizes[0], entry.compressed) && agree(sizes[1], entry.size);
    let problem =
        (!agree).then(|| format!("its entry {} has other sizes in its header than in the directory", shown()));
    Ok((length, problem))
}

/// Where the bytes of an entry lie, and how its own header contradicts the directory, whose word counts as in Python and torch.
///
/// # Errors
/// `Bad` when there is no such place.
pub(super) fn locate(window: &Window<'_>, entry: &Entry) -> Parsed<(Range<u64>, Option<String>)> {
    let fixed = window.bytes(entry.header..entry.header.saturating_add(30))?;
    let (length, mut problem) = local(fixed, entry)?;
    let name_at = entry.header + 30;
    let name = window.bytes(name_at..name_at + number::<2>(fixed, 26))?;
    if String::from_utf8_lossy(name) != entry.name {
        problem = Some(format!(
            "its entry {} is named {} in its own header",
            names::shown(&entry.name),
            names::shown(&String::from_utf8_lossy(name))
        ));
    }
    let begin = entry.header + length;
    Ok((begin..begin.saturating_add(entry.compressed), problem))
}

/// Where the bytes of an entry lie. Its own header is compared with the directory's.
///
/// # Errors
/// `Bad` when they contradict each other.
pub(super) fn data(window: &Window<'_>, entry: &Entry) -> Parsed<Range<u64>> {
    match locate(window, entry)? {
        (range, None) => Ok(range),
        (_, Some(problem)) => Err(Stop::Bad(problem)),
    }
}

/// The content of an entry of at most `limit` bytes; its CRC-32 is checked when there is one.
///
/// # Errors
/// `Bad` when it is damaged, `TooLarge` when it is larger or compressed in another way than deflate.
pub(super) fn content<'a>(window: &Window<'a>, entry: &Entry, limit: u64) -> Parsed<Cow<'a, [u8]>> {
    let content = unpack(window, entry, data(window, entry)?, limit)?;
    match checksum(entry, &content) {
        Some(problem) => Err(Stop::Bad(problem)),
        None => Ok(content),
    }
}

/// What is wrong with the checksum of an entry.
pub(super) fn checksum(entry: &Entry, content: &[u8]) -> Option<String> {
    let mut crc = Crc::new();
    crc.update(content);
    (entry.crc != 0 && crc.sum() != entry.crc)
        .then(|| format!("its entry {} has another CRC-32 than the directory says", names::shown(&entry.name)))
}

/// The content of an entry that lies there, whatever its checksum.
///
/// # Errors
/// As [`content`].
pub(super) fn unpack<'a>(window: &Window<'a>, entry: &Entry, range: Range<u64>, limit: u64) -> Parsed<Cow<'a, [u8]>> {
    let shown = || names::shown(&entry.name);
    if entry.size > limit || entry.compressed > limit {
        let size = entry.size.max(entry.compressed);
        return Err(Stop::TooLarge(format!("its entry {} has {size} bytes, more than {limit}", shown())));
    }
    let bytes = window.bytes(range)?;
    match entry.method {
        0 => Ok(Cow::Borrowed(bytes)),
        8 => {
            window.inflate(entry.size)?;
            let mut content = Vec::new();
            let read = DeflateDecoder::new(bytes).take(entry.size + 1).read_to_end(&mut content);
            if read.is_err() || content.len() as u64 != entry.size {
                return Err(Stop::Bad(format!("its entry {} cannot be unpacked", shown())));
            }
            Ok(Cow::Owned(content))
        }
        method => Err(Stop::TooLarge(format!("its entry {} is compressed by method {method}", shown()))),
    }
}

/// The first bytes of a deflated entry that lies there, at most so many; fewer when it is shorter or damaged.
///
/// # Errors
/// `Need`, and `TooLarge` when it is compressed in another way.
pub(super) fn beginning(window: &Window<'_>, entry: &Entry, range: &Range<u64>, most: u64) -> Parsed<Vec<u8>> {
    if entry.method != 8 {
        let shown = names::shown(&entry.name);
        return Err(Stop::TooLarge(format!("its entry {shown} is compressed by method {}", entry.method)));
    }
    // What cannot be compressed grows by a few bytes only.
    let packed = window.part(range.clone())?.up_to(0, most + DEFLATE_HEAD)?;
    window.inflate(most)?;
    let mut content = Vec::new();
    // A part of a stream ends with an error, behind all that came out of it.
    let _ = DeflateDecoder::new(packed).take(most).read_to_end(&mut content);
    Ok(content)
}

#[cfg(test)]
pub(in crate::format) mod tests;
