//! Whose turn it is to create a worker Job: limits in all and per namespace, fair between namespaces. In memory, no I/O.
//!
//! What runs is what the cache of Jobs shows, plus the Jobs that were granted and are not in the cache yet. Turns go round
//! robin over namespaces and, within one, to whoever waits longest; one tenant with a thousand Checkpoints delays another
//! by one Job and not by a thousand.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::runtime::lock;

/// A grant counts for at most this long without its Job showing up; only lost watch events make it matter.
const RESERVATION: Duration = Duration::from_mins(1);

/// A Job by namespace and name.
pub type JobKey = (String, String);

/// How many worker Jobs may be unfinished at once; 0 means any number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// In one namespace.
    pub per_namespace: usize,
}

/// A Checkpoint that wants to create worker Jobs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asker {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Whether it may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// These of the Jobs may be created now; the rest is to be asked for again.
    Granted(BTreeSet<String>),
    /// None: this many Jobs run, in all or in the namespace, whichever limit is in the way. It is in the queue now.
    Waiting {
        /// Unfinished worker Jobs and granted turns.
        running: usize,
    },
}

/// The queue and the grants.
#[derive(Debug, Default)]
pub struct Turns {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By how long they wait, longest first.
    waiting: Vec<Asker>,
    /// When each namespace last had a turn, by a counter.
    served: HashMap<String, u64>,
    turn: u64,
    reserved: HashMap<JobKey, Instant>,
}

impl Turns {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Asks for Jobs with these names. `running` reads the unfinished Jobs of the cache; it is called with the queue locked,
    /// because a grant may be dropped only after the cache shows its Job.
    pub fn request(
        &self,
        asker: &Asker,
        jobs: &BTreeSet<String>,
        running: impl FnOnce() -> BTreeSet<JobKey>,
        now: Instant,
    ) -> Answer {
        let mut state = lock(&self.state);
        let running = state.running(running(), now);
        let key = |job: &String| (asker.namespace.clone(), job.clone());
        let (there, wanted): (BTreeSet<&String>, BTreeSet<&String>) =
            jobs.iter().partition(|job| running.contains(&key(job)));
        if !wanted.is_empty() && !state.waiting.iter().any(|other| other.uid == asker.uid) {
            state.waiting.push(asker.clone());
        }
        let grants = state.grants(self.limits, &running);
        if !wanted.is_empty() && !grants.iter().any(|other| other.uid == asker.uid) {
            return if there.is_empty() {
                Answer::Waiting { running: self.in_the_way(&running, &grants, &asker.namespace) }
            } else {
                Answer::Granted(there.into_iter().cloned().collect())
            };
        }
        let spare = self.spare(&running, &grants, &asker.namespace);
        let granted: Vec<&String> = wanted.into_iter().take(spare.saturating_add(1)).collect();
        state.waiting.retain(|other| other.uid != asker.uid);
        if !granted.is_empty() {
            state.turn += 1;
            let turn = state.turn;
            state.served.insert(asker.namespace.clone(), turn);
        }
        for job in &granted {
            state.reserved.insert(key(job), now);
        }
        Answer::Granted(granted.into_iter().chain(there).cloned().collect())
    }

    /// The cache showed this Job, or it was not created after all.
    pub fn release(&self, namespace: &str, job: &str) {
        lock(&self.state).reserved.remove(&(namespace.to_owned(), job.to_owned()));
    }

    /// The Checkpoint wants no turn any more. Returns whether it was waiting.
    pub fn forget(&self, uid: &str) -> bool {
        let mut state = lock(&self.state);
        let before = state.waiting.len();
        state.waiting.retain(|asker| asker.uid != uid);
        state.waiting.len() != before
    }

    /// Who would be granted a Job if it asked now.
    pub fn next(&self, running: impl FnOnce() -> BTreeSet<JobKey>, now: Instant) -> Vec<Asker> {
        let mut state = lock(&self.state);
        if state.waiting.is_empty() {
            return Vec::new();
        }
        let running = state.running(running(), now);
        state.grants(self.limits, &running)
    }

    /// Number of Checkpoints that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// How many Jobs beyond the grants fit.
    fn spare(&self, running: &BTreeSet<JobKey>, grants: &[Asker], namespace: &str) -> usize {
        let granted_there = grants.iter().filter(|asker| asker.namespace == namespace).count();
        let total = room(self.limits.total, running.len() + grants.len());
        total.min(room(self.limits.per_namespace, count(running, namespace) + granted_there))
    }

    /// What fills the limit that is in the way. Who was granted a turn and has not taken it yet counts as running:
    /// otherwise the number would change with each hand-over of a turn, and every status that shows it with it.
    fn in_the_way(&self, running: &BTreeSet<JobKey>, grants: &[Asker], namespace: &str) -> usize {
        let there = count(running, namespace) + grants.iter().filter(|asker| asker.namespace == namespace).count();
        if room(self.limits.per_namespace, there) == 0 { there } else { running.len() + grants.len() }
    }
}

impl State {
    fn running(&mut self, mut cached: BTreeSet<JobKey>, now: Instant) -> BTreeSet<JobKey> {
        self.reserved.retain(|_, since| now.saturating_duration_since(*since) < RESERVATION);
        cached.extend(self.reserved.keys().cloned());
        cached
    }

    /// The waiting Checkpoints that fit, one Job each, in the order of their turns.
    fn grants(&self, limits: Limits, running: &BTreeSet<JobKey>) -> Vec<Asker> {
        let mut queues: BTreeMap<&str, std::collections::VecDeque<&Asker>> = BTreeMap::new();
        for asker in &self.waiting {
            queues.entry(&asker.namespace).or_default().push_back(asker);
        }
        let mut busy: HashMap<&str, usize> = queues.keys().map(|name| (*name, count(running, name))).collect();
        let mut served: HashMap<&str, u64> =
            queues.keys().map(|name| (*name, self.served.get(*name).copied().unwrap_or(0))).collect();
        let mut turn = self.turn;
        let mut grants = Vec::new();
        while room(limits.total, running.len() + grants.len()) > 0 {
            let fits = |name: &&&str| room(limits.per_namespace, busy.get(**name).copied().unwrap_or(0)) > 0;
            let next = queues.keys().filter(fits).min_by_key(|name| served.get(**name).copied()).copied();
            let Some(namespace) = next else { break };
            if let Some(asker) = queues.get_mut(namespace).and_then(std::collections::VecDeque::pop_front) {
                grants.push(asker.clone());
                *busy.entry(namespace).or_default() += 1;
                turn += 1;
                served.insert(namespace, turn);
            }
            if queues.get(namespace).is_none_or(std::collections::VecDeque::is_empty) {
                queues.remove(namespace);
            }
        }
        grants
    }
}

fn count(running: &BTreeSet<JobKey>, namespace: &str) -> usize {
    running.iter().filter(|(there, _)| there == namespace).count()
}

/// How many more fit under the limit.
fn room(limit: usize, used: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit.saturating_sub(used) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asker(namespace: &str, name: &str) -> Asker {
        Asker { uid: format!("{namespace}/{name}"), namespace: namespace.into(), name: name.into() }
    }

    fn jobs(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn granted(answer: &Answer) -> usize {
        match answer {
            Answer::Granted(jobs) => jobs.len(),
            Answer::Waiting { .. } => 0,
        }
    }

    #[test]
    fn a_grant_counts_until_its_job_is_seen_and_after_that_the_job_counts() {
        let turns = Turns::new(Limits { total: 1, per_namespace: 0 });
        let now = Instant::now();
        let first = turns.request(&asker("a", "1"), &jobs(&["x"]), BTreeSet::new, now);
        assert_eq!(first, Answer::Granted(jobs(&["x"])));
        let second = |cached: &[(&str, &str)]| {
            let cached: BTreeSet<JobKey> = cached.iter().map(|(ns, job)| ((*ns).into(), (*job).into())).collect();
            turns.request(&asker("b", "1"), &jobs(&["y"]), || cached, now)
        };
        assert_eq!(second(&[]), Answer::Waiting { running: 1 });
        assert_eq!(second(&[("a", "x")]), Answer::Waiting { running: 1 });
        turns.release("a", "x");
        assert_eq!(second(&[("a", "x")]), Answer::Waiting { running: 1 });
        assert_eq!(turns.next(BTreeSet::new, now), [asker("b", "1")]);
        assert_eq!(second(&[]), Answer::Granted(jobs(&["y"])));
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn a_job_that_runs_already_needs_no_turn() {
        let turns = Turns::new(Limits { total: 1, per_namespace: 1 });
        let running = || BTreeSet::from([("a".to_owned(), "x".to_owned())]);
        let answer = turns.request(&asker("a", "1"), &jobs(&["x", "y"]), running, Instant::now());
        assert_eq!(answer, Answer::Granted(jobs(&["x"])));
        let again = turns.request(&asker("a", "1"), &jobs(&["x"]), running, Instant::now());
        assert_eq!(again, Answer::Granted(jobs(&["x"])));
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn the_limit_in_the_way_is_the_one_that_is_told() {
        let turns = Turns::new(Limits { total: 9, per_namespace: 1 });
        let running =
            || BTreeSet::from([("a".to_owned(), "x".to_owned()), ("b".into(), "x".into()), ("c".into(), "x".into())]);
        let answer = turns.request(&asker("a", "1"), &jobs(&["y"]), running, Instant::now());
        assert_eq!(answer, Answer::Waiting { running: 1 });
        assert!(turns.forget("a/1"));
        assert!(!turns.forget("a/1"));
    }

    #[test]
    fn several_jobs_take_what_is_left_and_no_more() {
        let turns = Turns::new(Limits { total: 3, per_namespace: 2 });
        let answer = turns.request(&asker("a", "1"), &jobs(&["x", "y", "z"]), BTreeSet::new, Instant::now());
        assert_eq!(granted(&answer), 2);
    }

    #[test]
    fn a_lost_reservation_expires() {
        let turns = Turns::new(Limits { total: 1, per_namespace: 0 });
        let now = Instant::now();
        turns.request(&asker("a", "1"), &jobs(&["x"]), BTreeSet::new, now);
        let later = now + RESERVATION;
        assert_eq!(granted(&turns.request(&asker("a", "2"), &jobs(&["y"]), BTreeSet::new, later)), 1);
    }

    #[test]
    fn a_crowded_namespace_delays_another_by_one_turn() {
        let turns = Turns::new(Limits { total: 1, per_namespace: 0 });
        let now = Instant::now();
        let busy = || BTreeSet::from([("z".to_owned(), "z".to_owned())]);
        for index in 0..50 {
            turns.request(&asker("crowd", &index.to_string()), &jobs(&["x"]), busy, now);
        }
        turns.request(&asker("lone", "1"), &jobs(&["x"]), busy, now);
        let mut order = Vec::new();
        while let Some(next) = turns.next(BTreeSet::new, now).first().cloned() {
            let job = format!("{}-{}", next.namespace, next.name);
            assert_eq!(granted(&turns.request(&next, &jobs(&[&job]), BTreeSet::new, now)), 1);
            turns.release(&next.namespace, &job);
            order.push(next);
        }
        assert_eq!(order.len(), 51);
        assert!(order.iter().position(|asker| asker.namespace == "lone").unwrap() <= 1);
        let crowd: Vec<_> = order.iter().filter(|asker| asker.namespace == "crowd").map(|asker| &asker.name).collect();
        assert!(crowd.is_sorted_by_key(|name| name.parse::<u32>().unwrap()), "who waits longest is first");
    }

    proptest! {
        /// Checkpoints of four namespaces ask, Jobs appear in the cache late and finish in any order: the limits hold at
        /// every step, and in the end everybody had a turn.
        #[test]
        fn limits_hold_and_everybody_gets_a_turn(
            total in 1usize..5,
            per_namespace in 1usize..4,
            wants in proptest::collection::vec((0usize..4, 1usize..4), 1..30),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 400),
        ) {
            let turns = Turns::new(Limits { total, per_namespace });
            let now = Instant::now();
            let mut left: HashMap<String, (Asker, BTreeSet<String>)> = HashMap::new();
            for (index, (namespace, count)) in wants.iter().enumerate() {
                let who = asker(&format!("ns{namespace}"), &format!("c{index}"));
                let names = (0..*count).map(|job| format!("c{index}-{job}")).collect();
                left.insert(who.uid.clone(), (who, names));
            }
            let (mut unseen, mut cached): (Vec<JobKey>, BTreeSet<JobKey>) = (Vec::new(), BTreeSet::new());
            let mut to_ask: Vec<String> = left.keys().cloned().collect();
            for pick in picks.iter().cycle().take(4000) {
                if left.is_empty() { break; }
                if to_ask.is_empty() {
                    to_ask = turns.next(|| cached.clone(), now).into_iter().map(|asker| asker.uid).collect();
                }
                let asking = (!to_ask.is_empty()).then(|| to_ask.swap_remove(pick.index(to_ask.len())));
                let answer = asking.as_ref().and_then(|uid| left.get(uid)).map(|(who, names)| {
                    turns.request(who, names, || cached.clone(), now)
                });
                if let Some(Answer::Waiting { running }) = &answer {
                    prop_assert!(*running == total || *running == per_namespace, "{running} fill no limit");
                }
                if let (Some(uid), Some(Answer::Granted(jobs))) = (asking, answer)
                    && let Some((who, names)) = left.get_mut(&uid)
                {
                    prop_assert!(!jobs.is_empty());
                    unseen.extend(jobs.iter().map(|job| (who.namespace.clone(), job.clone())));
                    names.retain(|name| !jobs.contains(name));
                    if names.is_empty() { left.remove(&uid); } else { to_ask.push(uid); }
                } else if !unseen.is_empty() {
                    let job = unseen.swap_remove(pick.index(unseen.len()));
                    cached.insert(job.clone());
                    turns.release(&job.0, &job.1);
                } else if !cached.is_empty() {
                    let job = cached.iter().nth(pick.index(cached.len())).unwrap().clone();
                    cached.remove(&job);
                }
                let running: BTreeSet<JobKey> = cached.iter().chain(&unseen).cloned().collect();
                prop_assert!(running.len() <= total);
                for namespace in 0..4 {
                    let there = count(&running, &format!("ns{namespace}"));
                    prop_assert!(there <= per_namespace);
                }
            }
            prop_assert!(left.is_empty(), "never had a turn: {left:?}");
        }
    }
}
