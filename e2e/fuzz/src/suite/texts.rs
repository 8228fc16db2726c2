//! Subjects that are texts and not files of a checkpoint: reports, progress, listings, paths, globs, YAML. Pure, no I/O.

use std::path::{Component, Path};

use checkpoint_operator::{
    contract::{
        ProgressMessage, Report,
        filter::{Filter, Pattern},
        progress::MESSAGE_LIMIT,
        report::TERMINATION_MESSAGE_LIMIT,
    },
    storage::{
        listing::{Gathering, s3::Page},
        paths,
    },
    yaml,
};

/// A termination message: what can be read is written again within its bound, and means the same.
pub(super) fn report(text: &str) {
    let Ok(report) = Report::decode(text) else { return };
    let encoded = report.encode(TERMINATION_MESSAGE_LIMIT);
    assert!(encoded.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes", encoded.len());
    let again = Report::decode(&encoded).map(|again| (again.outcome, again.reason));
    assert_eq!(again, Ok((report.outcome, report.reason)), "{encoded}");
}

/// What a worker tells: what is taken can be true, and fits its bound.
pub(super) fn progress(text: &str) {
    let Ok(message) = ProgressMessage::decode(text.as_bytes()) else { return };
    assert!(message.bytes_done <= message.bytes_total, "{message:?}");
    assert!(i64::try_from(message.bytes_total).is_ok(), "{message:?}");
    let encoded = serde_json::to_vec(&message).unwrap_or_default();
    assert!(encoded.len() <= MESSAGE_LIMIT, "{} bytes", encoded.len());
    assert_eq!(ProgressMessage::decode(&encoded), Ok(message));
}

/// The body of a bucket's answer: every file of a listing can be made below a folder, and is there once.
pub(super) fn listing(text: &str) {
    let Some(page) = Page::parse(text.as_bytes()) else { return };
    let mut gathering = Gathering::new("s3://bucket".to_owned(), "");
    if gathering.add(page.contents.into_iter().map(Into::into)).is_err() {
        return;
    }
    let Ok(Some(listing)) = gathering.finish() else { return };
    assert!(listing.entries.windows(2).all(|pair| pair[0].path < pair[1].path), "{listing:?}");
    for entry in &listing.entries {
        assert_eq!(paths::check(&entry.path), Ok(()));
    }
}

/// A path that passes stays below its root, and names what it says.
pub(super) fn path(text: &str) {
    if paths::check(text).is_ok() {
        let path = Path::new(text);
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{text:?}");
        assert!(Path::new("/root").join(path).starts_with("/root"), "{text:?}");
    }
}

/// A glob in the first line, paths in the others: an exclusion always wins, and a folder means its tree.
pub(super) fn glob(text: &str) {
    let mut lines = text.lines();
    let glob = lines.next().unwrap_or_default();
    let Ok(pattern) = Pattern::new(glob) else { return };
    let globs = || vec![glob.to_owned()];
    let taken = Filter { include: globs(), exclude: Vec::new() }.compile();
    let left = Filter { include: Vec::new(), exclude: globs() }.compile();
    let (Ok(taken), Ok(left)) = (taken, left) else { unreachable!("{glob:?} is a glob and no filter") };
    for path in lines.filter(|path| paths::check(path).is_ok()) {
        let matches = pattern.matches(path);
        assert_eq!((taken.selects(path), left.selects(path)), (matches, !matches), "{glob:?} {path:?}");
        assert!(!matches || pattern.matches(&format!("{path}/below")), "{glob:?} takes {path:?} and not its tree");
    }
}

/// YAML: what it means can be written so that it means the same.
pub(super) fn yaml(text: &str) {
    for value in yaml::documents(text).unwrap_or_default() {
        if let Ok(written) = yaml::to_string(&value)
            && written.len() <= yaml::LIMIT
        {
            assert_eq!(yaml::documents(&written).ok().as_deref(), Some(&[value][..]), "{written}");
        }
    }
}
