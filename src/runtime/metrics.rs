//! What Prometheus sees; every label is a closed set, never a name of an object or an error's text. No I/O of its own.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

/// Prefix of every metric's name.
const PREFIX: &str = "checkpoint_operator";

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reconciled {
    /// Nothing was to be done.
    Unchanged,
    /// Something was written.
    Changed,
    /// The API server refused a write for good; the status says so.
    Refused,
    /// Somebody else wrote first; it is repeated soon.
    Conflict,
    /// The object or its namespace goes or is gone.
    Gone,
    /// The object cannot be read as a Checkpoint.
    Undecodable,
    /// It ended with an error; it is repeated later.
    Failed,
}

/// Classes of errors.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorClass {
    /// The API server answered with an error.
    Api,
    /// The API server did not answer in time.
    Timeout,
    /// The API server could not be reached, or its answer not be read.
    Connection,
    /// A watch failed and starts again.
    Watch,
    /// An object cannot be read as what it should be.
    Undecodable,
    /// An event could not be published.
    Event,
    /// A bug: a reconcile panicked, or a value cannot be encoded.
    Internal,
}

/// What became of a worker's message about how far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It was taken.
    Taken,
    /// There was no token, or it is not one for this endpoint, or nobody vouches for it.
    Unauthenticated,
    /// The pod is no worker that is known here.
    Unknown,
    /// It is not a message, or not a sensible one.
    Invalid,
    /// A later one came before.
    Overtaken,
    /// The worker told something a moment ago.
    TooOften,
    /// Too many came at once, or one took too long.
    Busy,
    /// The API server could not be asked.
    Unavailable,
}

/// Values that are computed at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Number of Checkpoints by condition type, its status and reason.
    pub checkpoints: BTreeMap<[String; 3], i64>,
    /// Claims that hold published data of Checkpoints that are gone.
    pub retained_claims: i64,
    /// Checkpoints that wait for their turn.
    pub queued: i64,
    /// Worker Jobs that are not finished.
    pub workers: i64,
    /// Workers that told within the last minute how far they are.
    pub telling_workers: i64,
    /// Bytes per second, of all of them.
    pub bytes_per_second: i64,
    /// Bytes that they have not done yet.
    pub bytes_left: i64,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    errors: Family<ClassLabel, Counter>,
    results: Family<ResultLabel, Counter>,
    bytes_fetched: Counter,
    progress_messages: Family<OutcomeLabel, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabel {
    task: &'static str,
    outcome: &'static str,
}

/// Counts a reconcile and its duration when dropped, so that no way out of the function is missed.
#[derive(Debug)]
pub struct Timer<'a> {
    metrics: &'a Metrics,
    started: Instant,
    /// What is counted; [`Reconciled::Failed`] until it is set.
    pub outcome: Reconciled,
}

impl Metrics {
    /// All metrics at zero; `gauges` is called at each scrape.
    pub fn new(gauges: impl Fn() -> Gauges + Send + Sync + 'static) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Self {
            reconciles: Family::default(),
            // 1 ms to 16 s: a reconcile without I/O takes well below 20 ms, one with a dead API server up to the deadlines.
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            errors: Family::default(),
            results: Family::default(),
            bytes_fetched: Counter::default(),
            progress_messages: Family::default(),
            registry: Registry::default(),
        };
        registry.register("reconciles", "Reconciles by how they ended", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "Duration of reconciles", metrics.duration.clone());
        registry.register("errors", "Errors by class", metrics.errors.clone());
        registry.register("worker_results", "Results of worker Jobs", metrics.results.clone());
        registry.register("bytes_fetched", "Bytes that workers read from sources", metrics.bytes_fetched.clone());
        registry.register(
            "progress_messages",
            "What workers told of how far they are, by what became of it",
            metrics.progress_messages.clone(),
        );
        registry.register("build", "The build", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Scrape(Box::new(gauges))));
        Self { registry, ..metrics }
    }

    /// Starts the clock of a reconcile.
    #[must_use]
    pub fn timer(&self) -> Timer<'_> {
        Timer { metrics: self, started: Instant::now(), outcome: Reconciled::Failed }
    }

    /// Counts an error.
    pub fn error(&self, class: ErrorClass) {
        self.errors.get_or_create(&ClassLabel { class: class.as_str() }).inc();
    }

    /// Counts the result of a worker, by names of closed enums, and the bytes that it read from the source.
    pub fn result(&self, task: &'static str, outcome: &'static str, bytes_fetched: u64) {
        self.results.get_or_create(&ResultLabel { task, outcome }).inc();
        self.bytes_fetched.inc_by(bytes_fetched);
    }

    /// Counts what a worker told.
    pub fn heard(&self, heard: Heard) {
        self.progress_messages.get_or_create(&OutcomeLabel { outcome: heard.as_str() }).inc();
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// When a value cannot be written, which is a bug.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    fn reconciled(&self, outcome: Reconciled, duration: Duration) {
        self.reconciles.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.metrics.reconciled(self.outcome, self.started.elapsed());
    }
}

impl Reconciled {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Undecodable => "undecodable",
            Self::Failed => "failed",
        }
    }
}

impl Heard {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unauthenticated => "unauthenticated",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Overtaken => "overtaken",
            Self::TooOften => "too_often",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }
}

impl ErrorClass {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Watch => "watch",
            Self::Undecodable => "undecodable",
            Self::Event => "event",
            Self::Internal => "internal",
        }
    }
}

struct Scrape(Box<dyn Fn() -> Gauges + Send + Sync>);

impl fmt::Debug for Scrape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = (self.0)();
        let mut family = encoder.encode_descriptor(
            "checkpoints",
            "Checkpoints by condition, its status and reason",
            None,
            MetricType::Gauge,
        )?;
        for ([condition, status, reason], count) in &gauges.checkpoints {
            let labels = [("condition", condition.as_str()), ("status", status), ("reason", reason)];
            ConstGauge::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let singles = [
            ("retained_claims", "Claims with published data of Checkpoints that are gone", gauges.retained_claims),
            ("queued", "Checkpoints that wait for their turn", gauges.queued),
            ("workers", "Worker Jobs that are not finished", gauges.workers),
            ("progress_workers", "Workers that told within the last minute how far they are", gauges.telling_workers),
            ("progress_bytes_per_second", "Rate of all these workers", gauges.bytes_per_second),
            ("progress_bytes_left", "Bytes that these workers have not done yet", gauges.bytes_left),
        ];
        for (name, help, value) in singles {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_the_documented_ones() {
        let metrics = Metrics::new(|| Gauges {
            checkpoints: BTreeMap::from([(["Ready".into(), "True".into(), "Ready".into()], 3)]),
            retained_claims: 1,
            queued: 2,
            workers: 4,
            telling_workers: 5,
            bytes_per_second: 6,
            bytes_left: 7,
        });
        metrics.timer().outcome = Reconciled::Changed;
        drop(metrics.timer());
        metrics.error(ErrorClass::Timeout);
        metrics.result("load", "good", 7);
        metrics.heard(Heard::Taken);
        metrics.heard(Heard::TooOften);
        let text = metrics.encode().unwrap();
        for line in [
            r#"checkpoint_operator_reconciles_total{outcome="changed"} 1"#,
            r#"checkpoint_operator_reconciles_total{outcome="failed"} 1"#,
            "checkpoint_operator_reconcile_duration_seconds_count 2",
            r#"checkpoint_operator_errors_total{class="timeout"} 1"#,
            r#"checkpoint_operator_worker_results_total{task="load",outcome="good"} 1"#,
            "checkpoint_operator_bytes_fetched_total 7",
            r#"checkpoint_operator_checkpoints{condition="Ready",status="True",reason="Ready"} 3"#,
            "checkpoint_operator_retained_claims 1",
            "checkpoint_operator_queued 2",
            "checkpoint_operator_workers 4",
            "checkpoint_operator_progress_workers 5",
            "checkpoint_operator_progress_bytes_per_second 6",
            "checkpoint_operator_progress_bytes_left 7",
            r#"checkpoint_operator_progress_messages_total{outcome="taken"} 1"#,
            r#"checkpoint_operator_progress_messages_total{outcome="too_often"} 1"#,
            "checkpoint_operator_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
