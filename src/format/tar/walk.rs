//! Walks the headers of a tar archive (POSIX.1-2001 pax, ustar, GNU and the older form without a magic), strict where readers
//! disagree with each other. It is handed ranges one after another and holds none of the members. Pure, no I/O.

use std::{collections::BTreeSet, mem, ops::Range};

use super::super::{
    names,
    window::{Parsed, Stop},
};

/// Headers and the data behind them fill blocks of this size.
pub(super) const BLOCK: u64 = 512;
/// The most members that are walked over.
pub(super) const MEMBERS: usize = 10_000;
/// The longest extension of a header (a long name, or pax records), in bytes.
const EXTENSION: u64 = 64 << 10;
/// Zeros that writers put behind the end to fill a record; 20 blocks by default, in bytes.
const PADDING: u64 = 64 << 10;
/// The most findings of one archive.
const FINDINGS: usize = 8;

/// A regular file in the archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    /// Its path, without `./` before it.
    pub name: String,
    /// Where its bytes lie in the archive.
    pub data: Range<u64>,
}

/// What an archive holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    /// Its files, in their order.
    pub members: Vec<Member>,
    /// What no library writes, or what readers take differently; each completes "FILE ".
    pub findings: Vec<String>,
    /// Links in it, each with its target.
    pub links: Vec<String>,
}

impl Listing {
    fn note(&mut self, finding: String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// What the next range is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Header,
    /// The data of an extension of this kind (`L`, `K`, `x`, `g`) and length.
    Extension(u8, u64),
    /// The second of the two blocks of zeros at the end.
    SecondZeros,
    /// Whatever stands behind them.
    Padding,
    Done,
}

/// What extensions say of the member that follows them.
#[derive(Debug, Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

/// The walk over one archive.
#[derive(Debug)]
pub(super) struct Walk {
    size: u64,
    at: u64,
    stage: Stage,
    extended: Extended,
    names: BTreeSet<String>,
    listing: Listing,
}

/// Whether a file begins with the header of a tar archive: its checksum is right, whatever its magic.
pub(super) fn is_header(start: &[u8]) -> bool {
    start.get(..512).is_some_and(checked)
}

impl Walk {
    /// A walk over an archive of this size.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            at: 0,
            stage: Stage::Header,
            extended: Extended::default(),
            names: BTreeSet::new(),
            listing: Listing::default(),
        }
    }

    /// The range that is needed next; none at the end.
    pub fn next(&self) -> Option<Range<u64>> {
        let length = match self.stage {
            Stage::Header | Stage::SecondZeros => BLOCK,
            Stage::Extension(_, length) => length,
            Stage::Padding => self.size - self.at,
            Stage::Done => return None,
        };
        let end = self.at.saturating_add(length).min(self.size);
        Some(self.at..end)
    }

    /// Takes the bytes of that range, which are fewer at the end of the archive.
    pub fn take(&mut self, bytes: &[u8]) -> Parsed<()> {
        match self.stage {
            Stage::Header => self.header(bytes),
            Stage::Extension(kind, length) => self.extension(kind, length, bytes),
            Stage::SecondZeros => {
                if bytes.len() < 512 || bytes.iter().any(|byte| *byte != 0) {
                    return Err(Stop::bad("its end is damaged: one block of zeros stands there instead of two"));
                }
                self.at += BLOCK;
                self.stage = if self.at < self.size { Stage::Padding } else { Stage::Done };
                if self.size - self.at > PADDING {
                    let count = self.size - self.at;
                    self.listing
                        .note(format!("has {count} bytes behind its end, which some readers take for another archive"));
                    self.stage = Stage::Done;
                }
                Ok(())
            }
            Stage::Padding => {
                if bytes.iter().any(|byte| *byte != 0) {
                    let count = bytes.len();
                    self.listing.note(format!(
                        "has {count} bytes behind its end that are not zero, which some readers take for another archive"
                    ));
                }
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Done => Ok(()),
        }
    }

    /// How many files were found so far.
    pub fn found(&self) -> u64 {
        self.listing.members.len() as u64
    }

    /// What it came to, when it is done.
    pub fn finish(self) -> Listing {
        self.listing
    }

    fn header(&mut self, bytes: &[u8]) -> Parsed<()> {
        let at = self.at;
        let Some(block) = bytes.get(..512) else {
            return Err(Stop::bad("its end is missing, two blocks of zeros: it is truncated"));
        };
        if block.iter().all(|byte| *byte == 0) {
            self.at += BLOCK;
            self.stage = Stage::SecondZeros;
            return Ok(());
        }
        if !checked(block) {
            return Err(Stop::Bad(format!("its header at byte {at} is damaged: its checksum is wrong")));
        }
        let damaged = || Stop::Bad(format!("its header at byte {at} has no size"));
        let size = number(&block[124..136]).ok_or_else(damaged)?;
        let kind = block[156];
        let begin = at + BLOCK;
        if matches!(kind, b'L' | b'K' | b'x' | b'g' | b'X') {
            if size > EXTENSION {
                return Err(Stop::Bad(format!("its header at byte {at} goes on for {size} bytes")));
            }
            self.fits(begin, size, "an extended header")?;
            self.at = begin;
            self.stage = Stage::Extension(if kind == b'X' { b'x' } else { kind }, size);
            return Ok(());
        }
        self.member(block, kind, begin, size)
    }

    fn member(&mut self, block: &[u8], kind: u8, begin: u64, size: u64) -> Parsed<()> {
        let extended = mem::take(&mut self.extended);
        let name = extended.name.unwrap_or_else(|| name(block));
        let size = extended.size.unwrap_or(size);
        let shown = names::shown(&name);
        self.path(&name);
        let is_folder = kind == b'5' || (matches!(kind, b'0' | 0) && name.ends_with('/'));
        let is_file = !is_folder && !matches!(kind, b'1'..=b'6');
        // Some readers skip what such a header announces, others go on behind it.
        if !is_file && size > 0 {
            return Err(Stop::Bad(format!("its member {shown} is no file and has {size} bytes")));
        }
        // Folders are not kept.
        if self.listing.members.len() + self.listing.links.len() >= MEMBERS && !is_folder {
            return Err(Stop::TooLarge(format!("it has more than {MEMBERS} members")));
        }
        match kind {
            b'1' | b'2' => {
                let target = extended.link.unwrap_or_else(|| text(&block[157..257]));
                self.path(&target);
                self.listing.links.push(format!("{shown} to {}", names::shown(&target)));
            }
            b'3' | b'4' | b'6' => self.listing.note(format!("has a member {shown}, which is a device or a pipe")),
            b'S' => self.listing.note(format!("has a member {shown} with holes, which readers take differently")),
            0 | b'0' | b'5' | b'7' => {}
            other => self.listing.note(format!("has a member {shown} of an unknown kind {:?}", char::from(other))),
        }
        if extended.sparse {
            self.listing.note(format!("has a member {shown} with holes, which readers take differently"));
        }
        if is_file {
            self.fits(begin, size, &shown)?;
            let name = plain(&name).to_owned();
            if !self.names.insert(name.clone()) {
                self.listing.note(format!("has two members named {shown}, and readers differ in which they take"));
            }
            self.listing.members.push(Member { name, data: begin..begin + size });
        }
        self.go_on(begin, size)
    }

    /// Whether a path leads out of the folder that it is unpacked into.
    fn path(&mut self, path: &str) {
        let is_unsafe = path.starts_with('/')
            || path.contains(['\\', '\0'])
            || path.split('/').any(|part| part == "..")
            || path.as_bytes().get(1) == Some(&b':')
            || plain(path).is_empty() && !matches!(path, "." | "./");
        if is_unsafe {
            self.listing.note(format!("has a member or a link {}, which is no safe path", names::shown(path)));
        }
    }

    fn fits(&self, begin: u64, size: u64, what: &str) -> Parsed<()> {
        let end = begin.checked_add(size).filter(|end| *end <= self.size);
        if end.is_some() {
            return Ok(());
        }
        Err(Stop::Bad(format!(
            "it is truncated: it has {} bytes, and {what} goes on to byte {}",
            self.size,
            begin.saturating_add(size)
        )))
    }

    fn go_on(&mut self, begin: u64, size: u64) -> Parsed<()> {
        let next = size.checked_next_multiple_of(BLOCK).and_then(|padded| begin.checked_add(padded));
        self.at = next.filter(|next| *next <= self.size).ok_or_else(|| {
            Stop::Bad(format!("it is truncated: it has {} bytes, its last member does not end there", self.size))
        })?;
        self.stage = Stage::Header;
        Ok(())
    }

    fn extension(&mut self, kind: u8, length: u64, bytes: &[u8]) -> Parsed<()> {
        let begin = self.at;
        match kind {
            b'L' => self.extended.name = Some(text(bytes)),
            b'K' => self.extended.link = Some(text(bytes)),
            _ => self.records(kind == b'g', bytes)?,
        }
        self.go_on(begin, length)
    }

    /// `LENGTH KEY=VALUE\n` again and again.
    fn records(&mut self, global: bool, bytes: &[u8]) -> Parsed<()> {
        let damaged = || Stop::bad("an extended header in it is damaged");
        let mut rest = bytes;
        // Some writers fill the block with zeros.
        while rest.first().is_some_and(|first| *first != 0) {
            let space = rest.iter().take(21).position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let length: usize =
                std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse().ok()).ok_or_else(damaged)?;
            let (record, next) = rest.split_at_checked(length).ok_or_else(damaged)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.record(global, key, value)?;
            rest = next;
        }
        Ok(())
    }

    fn record(&mut self, global: bool, key: &[u8], value: &[u8]) -> Parsed<()> {
        let value = || String::from_utf8_lossy(value).into_owned();
        if global && matches!(key, b"path" | b"linkpath" | b"size") {
            self.listing.note("has a header that renames all its members, which readers take differently".to_owned());
        }
        match key {
            b"path" => self.extended.name = Some(value()),
            b"linkpath" => self.extended.link = Some(value()),
            b"size" => {
                let size =
                    value().parse().map_err(|_| Stop::bad("an extended header in it has a size that is none"))?;
                self.extended.size = Some(size);
            }
            _ if key.starts_with(b"GNU.sparse.") => self.extended.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// A path as it is below the folder that it is unpacked into.
fn plain(path: &str) -> &str {
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    path
}

/// A field up to its first zero.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The name, with the prefix that ustar has for longer ones; GNU keeps other things there.
fn name(block: &[u8]) -> String {
    let name = text(&block[..100]);
    let prefix = if block.get(257..263) == Some(b"ustar\0") { text(&block[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// Octal digits, or a number of base 256 when its first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // A negative size, and one that 64 bits do not hold, is none.
        let mut digits = std::iter::once(first & 0x7F).chain(rest.iter().copied());
        return digits.try_fold(0u64, |number, byte| (number >> 56 == 0).then_some(number << 8 | u64::from(byte)));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// Whether the checksum of a header is right; old writers added bytes with their signs.
fn checked(block: &[u8]) -> bool {
    let Some(stored) = block.get(148..156).and_then(number) else { return false };
    let bytes = || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let plain: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stored == plain || i64::try_from(stored) == Ok(signed)
}
