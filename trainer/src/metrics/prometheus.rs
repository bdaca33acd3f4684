//! Figures for a Prometheus server to fetch.
//!
//! Everything that this process counts through the crate `metrics` is there, the loader's figures among it. The text comes
//! from that crate's own exporter; the server is ours, because one page for one reader needs no HTTP library.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{EvalRecord, TrainRecord};

/// How long a reader may take to ask and to be answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often histograms are condensed while nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(5);

/// A request that is longer is no request for a page of ours.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// Serves the figures of this process at `http://ADDRESS/metrics` until it ends, and returns the address; port 0 takes a
/// free one. Every figure has a label with the rank.
///
/// Becomes the process's recorder of metrics.
///
/// # Errors
/// When the address cannot be listened on, or the process has a recorder already.
pub fn serve_prometheus(address: SocketAddr, rank: usize) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let recorder = PrometheusBuilder::new().add_global_label("rank", rank.to_string()).build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|error| io::Error::other(error.to_string()))?;
    let kept = handle.clone();
    thread::Builder::new().name("prometheus upkeep".to_owned()).spawn(move || {
        loop {
            thread::sleep(UPKEEP);
            kept.run_upkeep();
        }
    })?;
    thread::Builder::new().name("prometheus".to_owned()).spawn(move || {
        for reader in listener.incoming().flatten() {
            // A reader that goes away is no failure of ours, and the next one may be better.
            let _ = answer(reader, &handle);
        }
    })?;
    Ok(address)
}

fn answer(mut reader: TcpStream, handle: &PrometheusHandle) -> io::Result<()> {
    reader.set_read_timeout(Some(PATIENCE))?;
    reader.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match reader.read(&mut part)? {
            0 => return Ok(()),
            _ if request.len() > MAX_REQUEST_BYTES => return Ok(()),
            length => request.extend_from_slice(&part[..length]),
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", handle.render())
    } else if request.starts_with(b"GET ") {
        ("404 Not Found", "the figures are at /metrics\n".to_owned())
    } else {
        ("405 Method Not Allowed", String::new())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    reader.write_all(head.as_bytes())?;
    reader.write_all(body.as_bytes())
}

/// Sets the number of steps taken.
pub(super) fn step(step: u64) {
    ::metrics::counter!("fastclip_train_steps_total").absolute(step);
}

/// Sets the figures of a training step, and counts the step when all of them are there.
pub(super) fn train(record: &TrainRecord) {
    let TrainRecord { timing, .. } = record;
    ::metrics::counter!("fastclip_train_samples_total").absolute(record.samples_seen);
    for (name, value) in [
        ("fastclip_train_epoch", record.epoch as f64),
        ("fastclip_train_loss", record.loss),
        ("fastclip_train_learning_rate", record.lr),
        ("fastclip_train_temperature", record.tau),
        ("fastclip_train_samples_per_second", timing.images_per_second),
        ("fastclip_train_step_seconds", timing.step_seconds),
        ("fastclip_train_data_wait_seconds", timing.data_seconds),
    ] {
        ::metrics::gauge!(name).set(value);
    }
    for (name, value) in [
        ("fastclip_train_contrastive_loss", record.contrastive_loss),
        ("fastclip_train_gamma", record.gamma),
        ("fastclip_train_gradient_norm", record.grad_norm),
        ("fastclip_train_gpu_allocated_bytes", timing.gpu_memory.map(|memory| memory.allocated_bytes as f64)),
        ("fastclip_train_gpu_reserved_bytes", timing.gpu_memory.map(|memory| memory.reserved_bytes as f64)),
    ] {
        if let Some(value) = value {
            ::metrics::gauge!(name).set(value);
        }
    }
    for (collective, count) in record.collectives.named() {
        ::metrics::gauge!("fastclip_train_step_received_bytes", "collective" => collective)
            .set(count.num_bytes as f64);
    }
    step(record.step);
}

/// Sets the figures of an evaluation.
pub(super) fn eval(record: &EvalRecord) {
    if let Some(zero_shot) = &record.zero_shot {
        ::metrics::gauge!("fastclip_eval_zero_shot_top1").set(zero_shot.top1);
        ::metrics::gauge!("fastclip_eval_zero_shot_top5").set(zero_shot.top5);
    }
    if let Some(retrieval) = &record.retrieval {
        for (direction, recall) in
            [("image_to_text", retrieval.image_to_text), ("text_to_image", retrieval.text_to_image)]
        {
            for (k, value) in [("1", recall.r1), ("5", recall.r5), ("10", recall.r10)] {
                ::metrics::gauge!("fastclip_eval_recall", "direction" => direction, "k" => k).set(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn figures_are_fetched_under_their_names_with_the_rank() {
        let address = serve_prometheus((std::net::Ipv4Addr::LOCALHOST, 0).into(), 3).unwrap();
        step(7);
        let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("fastclip_train_steps_total{rank=\"3\"} 7"), "{page}");
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        // A reader that says nothing keeps nobody else from asking.
        drop(TcpStream::connect(address).unwrap());
        assert!(ask(address, "GET /metrics HTTP/1.0\r\n\r\n").contains("200 OK"));
        assert!(serve_prometheus(address, 0).is_err(), "the port is taken");
    }
}
