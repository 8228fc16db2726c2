//! A `checkpoint-N` folder of the Hugging Face Trainer: `trainer_state.json` is written last and tells how far it came. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    evidence::{Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    hugging_face,
    json::{Event, Limits, Sink},
    names, peft,
    probe::{Collect, JsonProbe, Probe, Problem},
    table::Family,
};
use crate::contract::{Contents, Format, Reason};

const STATE: &str = "trainer_state.json";
/// The Trainer leaves it where a save was interrupted.
const SENTINEL: &str = "checkpoint-is-incomplete.txt";
/// The largest state that is read, in bytes; the log history of long runs is in it.
const MAX_STATE: u64 = 16 << 20;
const MAX_METRICS: usize = 64;
/// Beginning of the names of files with random states.
const RANDOM: &str = "rng_state";
/// The most missing files that are named.
const SHOWN: usize = 8;
const LIMITS: Limits = Limits { depth: 100, text: 4 << 10, python: true, halves: false };

/// A Trainer's folder.
pub(super) const FAMILY: Family = Family {
    format: Format::TrainerCheckpoint,
    claims,
    probe: |tree, file| {
        (tree.at_home(STATE) == Some(file)).then(|| {
            let file = tree.file(file);
            let sink = StateSink::default();
            Box::new(JsonProbe::new(&file.path, file.size, MAX_STATE, LIMITS, sink)) as Box<dyn Probe>
        })
    },
    check,
    describe,
    places: |evidence| if claims(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    judged: "`trainer_state.json`, which is written last; weights, optimizer and scheduler, all ranks of sharded optimizers and random states; the mark of an interrupted save",
    ..Family::of(Format::TrainerCheckpoint)
};

/// What `trainer_state.json` says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct State {
    step: Option<i64>,
    epoch: Option<String>,
    metrics: BTreeMap<String, String>,
    problem: Option<String>,
}

fn claims(evidence: &Evidence) -> bool {
    let has = |name: &str| evidence.tree.at_home(name).is_some();
    // The state is written last: without it, these two only stand together in an unfinished save.
    has(STATE) || has(SENTINEL) || (has("optimizer.pt") && has("training_args.bin"))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if !claims(evidence) {
        return;
    }
    let tree = &evidence.tree;
    let in_home = |name: &str| format!("{}{name}", tree.home());
    if let Some(file) = tree.at_home(SENTINEL) {
        let path = &tree.file(file).path;
        let message = format!(
            "the save was interrupted: the Trainer left {} in it; use an earlier checkpoint",
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
    if tree.at_home(STATE).is_none() {
        let path = in_home(STATE);
        let message = format!(
            "{} is missing: the Trainer writes it last, so the save or the upload did not finish; upload it again or use an earlier checkpoint",
            names::shown(&path)
        );
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
    let others = [peft::FAMILY, hugging_face::FAMILY];
    if !hugging_face::has_weights(evidence) && !others.iter().any(|family| (family.claims)(evidence)) {
        let path = in_home("model.safetensors");
        let message =
            format!("the weights are missing: there is neither {} nor shards of it; upload them", names::shown(&path));
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
    resumable(evidence, notes);
    optimizer_ranks(evidence, notes);
    random_ranks(evidence, notes);
    let Some(state) = &evidence.trainer else { return };
    let path = in_home(STATE);
    if let Some(problem) = &state.problem {
        notes.fatal(
            Reason::Corrupt,
            Some(&path),
            format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path)),
        );
    }
    let folder = tree.home().trim_end_matches('/').rsplit('/').next().and_then(|name| name.strip_prefix("checkpoint-"));
    let number = folder.and_then(|number| number.parse::<i64>().ok());
    if let (Some(number), Some(step)) = (number, state.step)
        && number != step
    {
        let message =
            format!("{} says step {step}, the folder says {number}: they are of different saves", names::shown(&path));
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
}

/// The Trainer saves the state of the training whole, or (with `save_only_model`) none of it. When it resumes and a part is missing,
/// it begins anew with that part without a word.
fn resumable(evidence: &Evidence, notes: &mut Notes) {
    let tree = &evidence.tree;
    let home = tree.home();
    let inside = || tree.iter().filter_map(|(_, file)| file.path.strip_prefix(home));
    let below = |beginning: &str| inside().any(|name| name.starts_with(beginning));
    // DeepSpeed keeps optimizer and scheduler in its own folder.
    let deepspeed = below("global_step");
    let optimizer = ["optimizer.pt", "optimizer.bin"].iter().any(|name| tree.at_home(name).is_some())
        || below("optimizer_")
        || tree.home_names().any(|name| name.starts_with("rank") && name.ends_with("-optimizer.pt"))
        || deepspeed;
    let scheduler = tree.at_home("scheduler.pt").is_some();
    let random = tree.home_names().any(|name| name.starts_with(RANDOM));
    for (there, name) in [(optimizer, "optimizer.pt"), (scheduler || deepspeed, "scheduler.pt")] {
        if !there && (optimizer || scheduler || random) {
            let path = format!("{home}{name}");
            let message = format!(
                "{} is missing: other files of the training's state are there, and the Trainer would resume without this one; upload it",
                names::shown(&path)
            );
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
    }
    if (optimizer || scheduler) && !random {
        let path = format!("{home}{RANDOM}.pth");
        let message = format!("{} is missing: a resumed training draws other random numbers", names::shown(&path));
        notes.warn(Reason::Incomplete, Some(&path), message);
    }
}

/// `rng_state_3.pth`: the random state of every process up to the last.
fn random_ranks(evidence: &Evidence, notes: &mut Notes) {
    let rank = |name: &str| name.strip_prefix(RANDOM)?.strip_prefix('_')?.strip_suffix(".pth")?.parse::<u32>().ok();
    let ranks: BTreeSet<u32> = evidence.tree.home_names().filter_map(rank).collect();
    let Some(last) = ranks.last().copied() else { return };
    for rank in (0..last).filter(|rank| !ranks.contains(rank)).take(SHOWN) {
        let path = format!("{}{RANDOM}_{rank}.pth", evidence.tree.home());
        let message =
            format!("{} is missing: the random state of process {last} is there; upload it", names::shown(&path));
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
}

/// `rank2-of-8-optimizer.pt`: all ranks' parts of the optimizer are there.
fn optimizer_ranks(evidence: &Evidence, notes: &mut Notes) {
    let mut ranks: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for name in evidence.tree.home_names() {
        let parts = name.strip_prefix("rank").and_then(|rest| rest.strip_suffix("-optimizer.pt")?.split_once("-of-"));
        if let Some((rank, total)) = parts
            && let (Ok(rank), Ok(total)) = (rank.parse(), total.parse())
        {
            ranks.entry(total).or_default().push(rank);
        }
    }
    for (total, mut present) in ranks {
        present.sort_unstable();
        if let Some(missing) = (0..total).find(|rank| present.binary_search(rank).is_err()) {
            let path = format!("{}rank{missing}-of-{total}-optimizer.pt", evidence.tree.home());
            let message =
                format!("{} is missing: {} of {total} ranks are there; upload it", names::shown(&path), present.len());
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    if let Some(state) = &evidence.trainer {
        contents.step = state.step;
        contents.epoch.clone_from(&state.epoch);
        contents.metrics.clone_from(&state.metrics);
    }
}

/// Reads the state as a stream: of the log only the last evaluation stays.
#[derive(Debug, Default)]
struct StateSink {
    depth: u32,
    /// The member of the root that is being read.
    member: String,
    /// The member of an entry of the log.
    key: String,
    entry: BTreeMap<String, String>,
    state: State,
}

impl StateSink {
    fn scalar(&mut self, text: &str) {
        match (self.depth, self.member.as_str()) {
            (1, "global_step") => self.state.step = text.parse().ok(),
            (1, "epoch") => self.state.epoch = Some(fact(text.strip_suffix(".0").unwrap_or(text))),
            (3, "log_history") if self.key.starts_with("eval_") && self.entry.len() < MAX_METRICS => {
                self.entry.insert(self.key.chars().take(128).collect(), fact(text));
            }
            _ => {}
        }
    }
}

impl Sink for StateSink {
    fn event(&mut self, event: Event<'_>, _: Range<u64>) -> Result<(), String> {
        match event {
            Event::BeginObject | Event::BeginArray => {
                if self.depth == 0 && event != Event::BeginObject {
                    return Err("it is not a JSON object".to_owned());
                }
                self.depth += 1;
            }
            Event::EndObject | Event::EndArray => {
                if self.depth == 3 && !self.entry.is_empty() {
                    self.state.metrics = std::mem::take(&mut self.entry);
                }
                self.depth = self.depth.saturating_sub(1);
            }
            Event::Key(key) if self.depth == 1 => key.clone_into(&mut self.member),
            Event::Key(key) => key.clone_into(&mut self.key),
            Event::Number(text) | Event::NotFinite(text) => self.scalar(text),
            Event::String(_) | Event::Bool(_) | Event::Null if self.depth == 0 => {
                return Err("it is not a JSON object".to_owned());
            }
            Event::String(_) | Event::Bool(_) | Event::Null => {}
        }
        Ok(())
    }
}

impl Collect for StateSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let state = match outcome {
            Ok(()) => self.state,
            Err(Problem::Broken(problem)) => State { problem: Some(problem), ..State::default() },
            Err(Problem::Foreign) => return,
            Err(Problem::TooLarge(text)) => {
                let path = &evidence.tree.file(file).path;
                notes.warn(Reason::Corrupt, Some(path), format!("{} was not read: {text}", names::shown(path)));
                return;
            }
        };
        evidence.trainer = Some(state);
    }
}
