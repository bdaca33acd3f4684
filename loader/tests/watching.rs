//! What programs learn of a running loader.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Members, Toy, at, good, read};
use fastclip_loader::Tail;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing_subscriber::fmt::MakeWriter;

/// Every fifth sample lacks its caption.
fn some_bad(number: u32) -> Members {
    let mut members = good(number);
    if number.is_multiple_of(5) {
        members.pop();
    }
    members
}

/// Name and labels of a metric, as one reads them.
fn named(key: &metrics::Key) -> String {
    let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
    [key.name().to_owned()].into_iter().chain(labels).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_recorder_gets_what_the_statistics_say() {
    let toy = Toy::with(40, 20, some_bad);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let loader = metrics::with_local_recorder(&recorder, || {
        let budget = fastclip_loader::BadSampleBudget { max_fraction: 1.0, ..Default::default() };
        toy.loader(8).tail(Tail::Keep).bad_sample_budget(budget).build().unwrap()
    });
    read(&loader, at(0, 0), at(1, 0));

    let (mut counts, mut timings, mut gauges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let name = named(key.key());
        match value {
            DebugValue::Counter(count) => drop(counts.insert(name, count)),
            DebugValue::Gauge(level) => drop(gauges.insert(name, level.into_inner())),
            DebugValue::Histogram(times) => drop(timings.insert(name, times.len() as u64)),
        }
    }
    let stats = loader.stats();
    assert_eq!((stats.num_batches, stats.num_samples, stats.num_bad()), (5, 32, 8));
    assert_eq!(counts["fastclip_loader_batches_total"], 5);
    assert_eq!(counts["fastclip_loader_samples_total"], 32);
    assert_eq!(counts["fastclip_loader_bytes_read_total"], stats.bytes_read);
    assert_eq!(counts["fastclip_loader_bad_samples_total reason=no caption"], 8);
    assert_eq!(counts["fastclip_loader_bad_samples_total reason=no image"], 0);
    assert_eq!(gauges["fastclip_loader_bytes_in_flight"], 0.0);
    for (name, timing) in [
        ("fastclip_loader_stage_seconds stage=fetch", stats.fetch),
        ("fastclip_loader_stage_seconds stage=decode", stats.decode),
        ("fastclip_loader_stage_seconds stage=transform", stats.transform),
        ("fastclip_loader_stage_seconds stage=tokenize", stats.tokenize),
        ("fastclip_loader_wait_seconds edge=reader_for_index", stats.index_wait),
        ("fastclip_loader_wait_seconds edge=reader_for_room", stats.room_wait),
        ("fastclip_loader_wait_seconds edge=dispatcher_for_run", stats.run_wait),
        ("fastclip_loader_wait_seconds edge=dispatcher_for_decoder", stats.decoder_wait),
        ("fastclip_loader_wait_seconds edge=decoder_for_work", stats.job_wait),
        ("fastclip_loader_wait_seconds edge=caller_for_batch", stats.batch_wait),
        ("fastclip_loader_caller_seconds", stats.caller),
    ] {
        assert!(timing.count > 0, "{name}");
        assert_eq!(timings[name], timing.count, "{name}");
    }
}

/// Lines of a log.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn a_stream_logs_a_line_that_names_the_bottleneck_as_often_as_asked() {
    let toy = Toy::new(40, 20);
    let logged = |interval: Option<Duration>| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let builder = toy.loader(8);
            let builder =
                if let Some(interval) = interval { builder.report_every(interval) } else { builder };
            read(&builder.build().unwrap(), at(0, 0), at(1, 0));
        });
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    };
    let lines = logged(Some(Duration::ZERO));
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(lines.lines().all(|line| line.contains("INFO") && line.contains("bottleneck: ")), "{lines}");
    assert!(lines.contains("40 samples in 5 batches"), "{lines}");
    assert_eq!(logged(Some(Duration::from_secs(3600))), "");
    assert_eq!(logged(None), "");
}
