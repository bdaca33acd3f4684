use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::runtime;
use tokio::sync::oneshot;

use super::{Counters, ProgressSnapshot};

/// Answers Prometheus, in its text format.
///
/// The crate for it brings a registry, histograms and a push gateway. There are a handful of counters here, which exist anyway.
pub(super) struct MetricsServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    pub(super) fn start(address: SocketAddr, counters: Arc<Counters>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, counters) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only answers questions; what it may have panicked of is not worth a result.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, counters: Arc<Counters>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let counters = Arc::clone(&counters);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(request.uri().path(), &counters.snapshot());
            async move { Ok::<_, Infallible>(answer) }
        });
        // Whoever hangs up has asked for nothing that could be missed.
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await)
        });
    }
}

fn answer(path: &str, snapshot: &ProgressSnapshot) -> Response<Full<Bytes>> {
    let (status, kind, text) = match path {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text(snapshot)),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "counters are at /metrics\n".to_owned()),
    };
    let answer = Response::builder().status(status).header(CONTENT_TYPE, kind);
    answer.body(Full::from(text)).expect("constants are valid headers")
}

/// Names of outcomes are identifiers, so no label needs escaping.
fn text(snapshot: &ProgressSnapshot) -> String {
    let ProgressSnapshot {
        action,
        unit,
        done,
        done_before,
        total,
        num_bytes,
        in_flight,
        outcomes,
        paused,
        ..
    } = snapshot;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP ingest_{name} {help}\n# TYPE ingest_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "ingest_{name}{{action=\"{action}\"{labels}}} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    family(
        "done_total",
        "counter",
        &format!("What is done, in {unit}, whatever its outcome."),
        &one((done - done_before) as f64),
    );
    family("done_before", "gauge", "What earlier runs had done.", &one(*done_before as f64));
    if let Some(total) = total {
        family("expected", "gauge", "All there is to do.", &one(*total as f64));
    }
    let by_outcome: Vec<_> =
        outcomes.iter().map(|(outcome, count)| (format!(",outcome=\"{outcome}\""), *count as f64)).collect();
    if !by_outcome.is_empty() {
        family("outcomes_total", "counter", "What is done, by outcome.", &by_outcome);
    }
    family("bytes_total", "counter", "Bytes that were taken in.", &one(*num_bytes as f64));
    family("in_flight", "gauge", "Requests on their way.", &one(*in_flight as f64));
    family("paused", "gauge", "1 while nothing can be reached.", &one(f64::from(u8::from(paused.is_some()))));
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::super::{Progress, SUCCESS};
    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn prometheus_reads_the_counters_by_outcome() {
        let progress = Progress::silent();
        progress.set_total(5);
        for outcome in [SUCCESS, SUCCESS, "http_404"] {
            progress.advance(1, 100);
            progress.count(outcome);
        }
        let _request = progress.in_flight();
        let server =
            MetricsServer::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&progress.counters)).unwrap();
        let answer = get(server.address(), "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in [
            "# TYPE ingest_outcomes_total counter\n",
            "\ningest_outcomes_total{action=\"\",outcome=\"success\"} 2\n",
            "\ningest_outcomes_total{action=\"\",outcome=\"http_404\"} 1\n",
            "\ningest_done_total{action=\"\"} 3\n",
            "\ningest_expected{action=\"\"} 5\n",
            "\ningest_bytes_total{action=\"\"} 300\n",
            "\ningest_in_flight{action=\"\"} 1\n",
            "\ningest_paused{action=\"\"} 0\n",
        ] {
            assert!(answer.contains(line), "{line:?} is not in {answer}");
        }
        assert!(get(server.address(), "/").starts_with("HTTP/1.1 404 "));
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "it still listens");
    }
}
