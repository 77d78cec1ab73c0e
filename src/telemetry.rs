//! What the process says of itself: logs on stderr, metrics for `/metrics`.

use std::io;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log filter makes no sense.
    #[error("the log filter {filter:?} cannot be read: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The recorder cannot be set up.
    #[error("metrics cannot be recorded: {0}")]
    Recorder(#[from] BuildError),
}

/// Logs from now on to stderr, as `filter` says, else `RUST_LOG`, else `default`; with `json` one object a line. A second call changes nothing.
///
/// # Errors
/// [`Error::Filter`].
pub fn log(filter: Option<&str>, default: &str, json: bool) -> Result<(), Error> {
    let from_env = std::env::var("RUST_LOG").ok();
    let text = filter.or(from_env.as_deref()).filter(|text| !text.trim().is_empty()).unwrap_or(default);
    let filter = EnvFilter::try_new(text).map_err(|source| Error::Filter { filter: text.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Another subscriber can only be there in tests, and then it serves.
    let _already = match json {
        false => {
            let colours = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(colours).try_init()
        }
        true => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Prints what was recorded. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// Milliseconds: the first is a saga of fast calls, the last a week of waiting.
const SAGA_MS: [f64; 16] = [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 6e4, 3e5, 3.6e6, 8.64e7, 6.048e8];
/// Seconds of a call or a wait.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];
/// Rows of a batch.
const SIZES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];

impl Metrics {
    /// Records from now on. Once per process.
    ///
    /// # Errors
    /// [`Error::Recorder`].
    pub fn record() -> Result<Self, Error> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("saga_duration_ms".to_owned()), &SAGA_MS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?;
        let recorded = Self(builder.install_recorder()?);
        describe();
        metrics::gauge!("hms_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(recorded)
    }

    /// Everything recorded, in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        // Histograms are gathered here: without it their samples pile up.
        self.0.run_upkeep();
        self.0.render()
    }
}

fn describe() {
    describe_histogram!("saga_duration_ms", Unit::Milliseconds, "Time from the start of a saga to its final state");
    describe_counter!("saga_fail_total", Unit::Count, "Sagas that failed");
    describe_counter!("hms_sagas_started_total", Unit::Count, "Sagas that began");
    describe_gauge!("hms_sagas", Unit::Count, "Sagas that have not ended, by state");
    describe_histogram!("hms_step_duration_seconds", Unit::Seconds, "Time from the intent of an attempt to its outcome");
    describe_counter!("hms_step_attempts_total", Unit::Count, "Attempts that ended, by service and outcome");
    describe_histogram!("hms_call_seconds", Unit::Seconds, "Time that a call to a service took");
    describe_histogram!("hms_event_to_first_call_seconds", Unit::Seconds, "Time from an event to the first call of the saga it starts");
    describe_counter!("hms_events_total", Unit::Count, "Events routed");
    describe_counter!("hms_filter_errors_total", Unit::Count, "Filters that failed on an event");
    describe_counter!("hms_stale_inputs_total", Unit::Count, "Replies and orders that came too late to count");
    describe_counter!("hms_fenced_total", Unit::Count, "Writes refused because the saga has another owner");
    describe_histogram!("hms_commit_batch_size", Unit::Count, "Sagas in one commit");
    describe_histogram!("hms_publish_batch_size", Unit::Count, "Events in one publishing statement");
    describe_gauge!("hms_worker_slots_used", Unit::Count, "Calls in flight");
    describe_gauge!("hms_queue_oldest_seconds", Unit::Seconds, "Age of the oldest saga that could run and does not");
    describe_gauge!("hms_human_tasks_open", Unit::Count, "Human tasks that nobody has decided");
    describe_gauge!("hms_locks_waiting", Unit::Count, "Sagas that queue for their object locks");
    describe_gauge!("hms_notify_queue_usage", Unit::Percent, "Part of the notification queue in use, 0 to 1");
    describe_gauge!("hms_listen_ok", Unit::Count, "1 while notifications arrive");
    describe_gauge!("hms_xmin_age_seconds", Unit::Seconds, "Age of the oldest transaction of the database");
    describe_gauge!("hms_build_info", Unit::Count, "1, with the version as label");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_help_and_buckets() {
        let metrics = Metrics::record().expect("the only recorder of this test binary");
        metrics::histogram!("saga_duration_ms", "definition" => "x.v1", "outcome" => "completed").record(7.0);
        metrics::histogram!("hms_call_seconds").record(0.002);
        let text = metrics.render();
        assert!(text.contains("saga_duration_ms_bucket") && text.contains("le=\"10\"") && text.contains("hms_build_info"), "{text}");
        assert!(text.contains("# HELP saga_duration_ms") && text.contains("hms_call_seconds_bucket"), "{text}");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        assert!(log(Some("syncor=loud=very"), "warn", false).is_err());
    }
}
