//! The thread that writes checkpoints while training goes on.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::contents::FileRecord;
use super::error::{CheckpointError, io_error};
use super::folder::Checkpoints;
use super::snapshot::{Content, Snapshot};
use super::tensors;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Writes this rank's part.
    Write(Snapshot),
    /// Makes a checkpoint complete, whose files all ranks have written. For rank 0.
    Publish {
        steps: u64,
        files: Vec<FileRecord>,
        /// The file of metrics, whose lines must be on the disk before the checkpoint counts.
        journal: Option<File>,
    },
    /// Removes the parts of a checkpoint of which one could not be written. For rank 0.
    Abandon { steps: u64 },
}

/// What the thread has done.
#[derive(Debug)]
pub(super) enum Event {
    Written { snapshot: Snapshot, files: Result<Vec<FileRecord>, CheckpointError>, seconds: f64 },
    Published { steps: u64, result: Result<(), CheckpointError> },
}

/// The handle on the thread. Dropping it breaks off what is being written, and joins the thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    pub(super) events: Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(checkpoints: Checkpoints) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let (outbox, events) = mpsc::channel();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let work = move || {
            while let Ok(job) = inbox.recv() {
                let event = checkpoints.block_on(async {
                    tokio::select! {
                        biased;
                        _ = &mut stopped => None,
                        event = carry_out(&checkpoints, job) => Some(event),
                    }
                });
                match event {
                    None => return,
                    Some(None) => {}
                    Some(Some(event)) => {
                        // Whoever asked has gone away; so does this thread.
                        let _ = outbox.send(event);
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("checkpoint-writer".to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), events, stop: Some(stop), thread: Some(thread) })
    }

    /// Asks for something; whether it is done, an event tells.
    pub(super) fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Fails after a panic of the thread, which then sends no event either.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

async fn carry_out(checkpoints: &Checkpoints, job: Job) -> Option<Event> {
    match job {
        Job::Write(snapshot) => {
            let started = Instant::now();
            let files = write(checkpoints, &snapshot).await;
            Some(Event::Written { snapshot, files, seconds: started.elapsed().as_secs_f64() })
        }
        Job::Publish { steps, files, journal } => {
            let result = publish(checkpoints, steps, files, journal).await;
            if result.is_err() {
                abandon(checkpoints, steps).await;
            } else if let Err(error) = checkpoints.remove_old(steps).await {
                tracing::warn!("old checkpoints could not be removed: {}", error.with_causes());
            }
            Some(Event::Published { steps, result })
        }
        Job::Abandon { steps } => {
            abandon(checkpoints, steps).await;
            None
        }
    }
}

async fn publish(
    checkpoints: &Checkpoints,
    steps: u64,
    files: Vec<FileRecord>,
    journal: Option<File>,
) -> Result<(), CheckpointError> {
    if let Some(journal) = journal {
        journal.sync_data().map_err(io_error("sync", crate::metrics::METRICS_FILE.as_ref()))?;
    }
    checkpoints.publish(steps, files).await
}

async fn abandon(checkpoints: &Checkpoints, steps: u64) {
    // What stays takes room and harms nobody; the next session tries again.
    if let Err(error) = checkpoints.abandon(steps).await {
        tracing::warn!("parts of an unfinished checkpoint could not be removed: {}", error.with_causes());
    }
}

async fn write(checkpoints: &Checkpoints, snapshot: &Snapshot) -> Result<Vec<FileRecord>, CheckpointError> {
    // By every rank, before it writes over a file of it.
    checkpoints.make_room(snapshot.steps).await?;
    let folder = checkpoints.partial_name(snapshot.steps);
    let mut records = Vec::with_capacity(snapshot.files.len());
    for (name, content) in &snapshot.files {
        let path = format!("{folder}/{name}");
        let tensors_failed =
            |source| CheckpointError::Tensors { action: "write", file: path.clone(), source };
        let record = match content {
            Content::Text(text) => {
                let pieces = std::iter::once(Ok(Bytes::from(text.clone())));
                write_file(checkpoints, &path, pieces).await?
            }
            Content::Tensors(named) => {
                let pieces = tensors::pieces(named).map_err(tensors_failed)?;
                let pieces = pieces.map(|piece| piece.map_err(tensors_failed));
                write_file(checkpoints, &path, pieces).await?
            }
        };
        records.push(FileRecord { name: name.clone(), ..record });
    }
    Ok(records)
}

/// Writes a file from its pieces, and notes what it should be read back as.
async fn write_file(
    checkpoints: &Checkpoints,
    path: &str,
    pieces: impl Iterator<Item = Result<Bytes, CheckpointError>>,
) -> Result<FileRecord, CheckpointError> {
    let mut digest = blake3::Hasher::new();
    let mut num_bytes = 0;
    let mut upload = checkpoints.store().upload(path).map_err(checkpoints.failed("write", path))?;
    for piece in pieces {
        let piece = piece?;
        digest.update(&piece);
        num_bytes += piece.len() as u64;
        if let Err(error) = upload.write(piece).await {
            // Best effort: the bucket's own rule for unfinished uploads does the rest.
            let _ = upload.abort().await;
            return Err(checkpoints.failed("write", path)(error));
        }
    }
    upload.finish().await.map_err(checkpoints.failed("write", path))?;
    Ok(FileRecord { name: path.to_owned(), num_bytes, blake3: digest.finalize().to_hex().to_string() })
}
