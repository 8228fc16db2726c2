//! Which files, and which parts of large ones, each of several workers loads: decided from the listing alone. Pure, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{
    storage::Entry,
    worker::{
        selection::{Inventory, Resume, Work},
        transfer::hash::PART,
        volume::Staged,
    },
};

/// Beginning of the temporary name of a file that several workers write.
const SHARED: &str = "shared-";

/// What one of several workers loads. The files are taken one after the other, in their order, and cut into stretches of the
/// same number of bytes: so few files are made up of several shares.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Share {
    worker: u32,
    workers: u32,
    group: String,
    /// By the path: the parts of a file that several workers write; none when all of it is this one's.
    files: BTreeMap<String, Option<Range<usize>>>,
    bytes: u64,
}

impl Share {
    /// The share of this worker. `group` is the same for all of them and for no others that write at the same time.
    pub(in crate::worker) fn of(
        wanted: &[Entry],
        (worker, workers): (u32, u32),
        group: &str,
        in_sequence: bool,
    ) -> Self {
        // A file without bytes is of some weight too: somebody has to make it.
        let total: u128 = wanted.iter().map(|entry| u128::from(entry.size.max(1))).sum();
        let owner = |offset: u128| offset * u128::from(workers) / total.max(1);
        let mut share = Self { worker, workers, group: group.to_owned(), files: BTreeMap::new(), bytes: 0 };
        let mut offset = 0;
        for entry in wanted {
            let count = if in_sequence { 1 } else { usize::try_from(entry.size.div_ceil(PART)).unwrap_or(usize::MAX) };
            let own = |part: usize| owner(offset + part as u128 * u128::from(PART)) == u128::from(worker);
            let first = (0..count.max(1)).find(|part| own(*part));
            if let Some(first) = first {
                let end = (first..count.max(1)).find(|part| !own(*part)).unwrap_or(count.max(1));
                let whole = end - first == count.max(1);
                share.files.insert(entry.path.clone(), (!whole).then_some(first..end));
                let to = if whole { entry.size } else { (end as u64 * PART).min(entry.size) };
                share.bytes += to - first as u64 * PART;
            }
            offset += u128::from(entry.size.max(1));
        }
        share
    }

    /// Number of the worker.
    pub(in crate::worker) fn worker(&self) -> u32 {
        self.worker
    }

    /// Bytes of the share.
    pub(in crate::worker) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The files that are this worker's alone.
    pub(in crate::worker) fn whole_files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, parts)| parts.is_none()).map(|(path, _)| path.as_str())
    }

    /// The parts of this file that this worker writes, if others write parts of it too.
    pub(in crate::worker) fn parts(&self, path: &str) -> Option<&Range<usize>> {
        self.files.get(path)?.as_ref()
    }

    /// The temporary name of a file that several workers write, when none of them has begun it. All of them see the same names
    /// spent.
    fn shared_name(&self, entry: &Entry, is_spent: impl Fn(&str) -> bool) -> String {
        let key = (entry.path.as_str(), entry.size, entry.version.as_str());
        let hash = blake3::hash(format!("{key:?}").as_bytes()).to_hex();
        let mut name = format!("{SHARED}{}-{}", &hash[..16], self.group);
        while is_spent(&name) {
            name.push('x');
        }
        name
    }

    /// Beginning of the temporary names of files that only this worker writes.
    pub(in crate::worker) fn own_names(&self) -> String {
        format!("w{}-", self.worker)
    }

    /// Whether this worker may go on with what has this temporary name.
    pub(in crate::worker) fn may_use(&self, name: &str) -> bool {
        is_shared(name) || name.starts_with(&self.own_names())
    }

    /// Whether some worker may be writing, or may go on with, what has this temporary name.
    fn is_taken(&self, name: &str) -> bool {
        let of_worker = |text: &str| text.parse().is_ok_and(|worker: u32| worker < self.workers);
        let owner = name.strip_prefix('w').and_then(|rest| rest.split_once('-'));
        let group = name.strip_prefix(SHARED).and_then(|rest| rest.split_once('-'));
        owner.is_some_and(|(number, _)| of_worker(number))
            || group.is_some_and(|(_, group)| group.starts_with(&self.group))
    }

    /// Leaves of the work what is this worker's, and says where files are to go that others write too. Nothing is removed that
    /// others may need; but what nobody needs holds space, whoever left it.
    pub(in crate::worker) fn restrict(&self, work: &mut Work, inventory: &Inventory, staged: &[Staged]) {
        let names = |work: &Work| -> BTreeSet<String> {
            let finished = work.finish.iter().map(|record| &record.temporary);
            finished.chain(work.resume.values().map(|begun| &begun.temporary)).cloned().collect()
        };
        let of_all = names(work);
        work.fetch.retain(|entry| self.files.contains_key(&entry.path));
        let is_whole = |path: &str| self.files.get(path).is_some_and(Option::is_none);
        work.keep.retain(|record| is_whole(&record.path));
        work.finish.retain(|record| is_whole(&record.path));
        work.resume.retain(|path, begun| match self.files.get(path) {
            None => false,
            Some(None) => true,
            Some(Some(parts)) => {
                begun.parts.retain(|index, _| parts.contains(index));
                is_shared(&begun.temporary)
            }
        });
        work.remove.clear();
        let (own, useful) = (self.own_names(), names(work));
        let is_useless = |name: &String| {
            if name.starts_with(&own) { !useful.contains(name) } else { !of_all.contains(name) && !self.is_taken(name) }
        };
        work.discard = staged.iter().map(|staged| &staged.name).filter(|name| is_useless(name)).cloned().collect();
        for entry in work.fetch.iter().filter(|entry| self.parts(&entry.path).is_some()) {
            work.resume.entry(entry.path.clone()).or_insert_with(|| {
                let temporary = self.shared_name(entry, |name| inventory.is_spent(name));
                let there = inventory.staged.iter().find(|staged| staged.name == temporary);
                let allocated = there.map_or(0, |staged| staged.allocated);
                Resume { temporary, allocated, parts: BTreeMap::new(), create: true }
            });
        }
    }
}

/// Whether this is the temporary name of a file that several workers write.
pub(in crate::worker) fn is_shared(name: &str) -> bool {
    name.starts_with(SHARED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::journal::PartRecord;

    fn entries(sizes: &[u64]) -> Vec<Entry> {
        let entry = |(index, size): (usize, &u64)| Entry {
            path: format!("f{index:04}"),
            size: *size,
            version: "1".into(),
            checksum: None,
            content: None,
        };
        sizes.iter().enumerate().map(entry).collect()
    }

    proptest! {
        #[test]
        fn every_part_is_in_one_share(
            sizes in proptest::collection::vec(prop_oneof![0u64..5, 0..3 * PART, PART..40 * PART], 1..30),
            workers in 2u32..9,
            in_sequence: bool,
        ) {
            let wanted = entries(&sizes);
            let shares: Vec<Share> =
                (0..workers).map(|worker| Share::of(&wanted, (worker, workers), "g", in_sequence)).collect();
            for entry in &wanted {
                let count = usize::try_from(entry.size.div_ceil(PART)).unwrap().max(1);
                let mut owners = vec![0; count];
                for share in &shares {
                    match share.files.get(&entry.path) {
                        None => {}
                        Some(None) => owners.iter_mut().for_each(|owner| *owner += 1),
                        Some(Some(parts)) => owners[parts.clone()].iter_mut().for_each(|owner| *owner += 1),
                    }
                }
                prop_assert!(owners.iter().all(|owner| *owner == 1), "{} {owners:?}", entry.path);
            }
            let total: u64 = sizes.iter().sum();
            prop_assert_eq!(shares.iter().map(Share::bytes).sum::<u64>(), total);
            if !in_sequence {
                let fair = total / u64::from(workers) + 30;
                prop_assert!(shares.iter().all(|share| share.bytes() <= fair + PART), "{shares:?}");
            }
        }
    }

    #[test]
    fn one_large_file_is_shared_and_named_alike() {
        let wanted = entries(&[10 * PART]);
        let share = |worker| Share::of(&wanted, (worker, 2), "g", false);
        assert_eq!((share(0).parts("f0000"), share(1).parts("f0000")), (Some(&(0..5)), Some(&(5..10))));
        let name = share(0).shared_name(&wanted[0], |_| false);
        assert_eq!(name, share(1).shared_name(&wanted[0], |_| false));
        assert!(is_shared(&name) && share(1).may_use(&name) && share(1).may_use("w1-x") && !share(1).may_use("w10-x"));
        let other = Share::of(&wanted, (0, 2), "another", false);
        assert_ne!(name, other.shared_name(&wanted[0], |_| false));
        let spent = [name.clone(), format!("{name}x")];
        let next = share(0).shared_name(&wanted[0], |name| spent.iter().any(|spent| spent == name));
        assert_eq!(next, format!("{name}xx"), "what was given up is never gone on with");
    }

    #[test]
    fn what_nobody_needs_goes_and_what_others_need_stays() {
        let wanted = entries(&[10 * PART, 5]);
        let share = Share::of(&wanted, (0, 2), "group-2", false);
        let staged = |name: &str| Staged { name: name.into(), size: 10 * PART, allocated: 10 * PART };
        let part = |temporary: &str| PartRecord {
            path: "f0000".into(),
            size: 10 * PART,
            version: "1".into(),
            temporary: temporary.into(),
            length: PART,
            index: 7,
            blake3: "00".repeat(32),
            pieces: vec![],
        };
        let stay = ["shared-1-group-1", "shared-3-group-2", "w1-a-0"];
        let go = ["shared-2-group-1", "w0-a-0", "w2-a-0", "abcd-0", "probe"];
        let all: Vec<Staged> = stay.iter().chain(&go).map(|name| staged(name)).collect();
        let usable = all.iter().filter(|staged| share.may_use(&staged.name)).cloned().collect();
        let mut inventory = Inventory { staged: usable, ..Inventory::default() };
        inventory.past.parts.insert(stay[0].into(), vec![part(stay[0])]);
        let mut work = inventory.work(&wanted).unwrap();
        share.restrict(&mut work, &inventory, &all);
        assert_eq!(work.discard, go);
        let begun = &work.resume["f0000"];
        assert_eq!((begun.temporary.as_str(), begun.parts.len(), begun.create), (stay[0], 0, false));
    }
}
