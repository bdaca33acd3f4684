//! Writing checkpoints, as the steps of a rank see it.
//!
//! A checkpoint is due after the same step on all ranks. Each copies its part and goes on; its thread writes. What ranks
//! must agree on travels with the all-reduce that every step makes anyway: whether a rank's part is written. So all know
//! after the same step that all parts are there, and rank 0 makes the checkpoint complete; or that one failed, and the
//! checkpoint is given up while the run and the checkpoint before it stay. Ranks that waited for each other at files would
//! have to poll, and could not tell a slow disk from a dead rank.

use std::fs::File;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::contents::FileRecord;
use super::error::CheckpointError;
use super::folder::Checkpoints;
use super::snapshot::{Buffers, Snapshot, shard_name};
use super::state::RunState;
use super::writer::{Event, Job, Writer};
use crate::distributed::Communicator;
use crate::gradients::{Part, Parts};
use crate::metrics::CheckpointTiming;
use crate::step::Trainer;

/// Bytes by which a rank tells rank 0 what it wrote: a size and a digest.
const RECORD_BYTES: usize = 8 + blake3::OUT_LEN;

/// Writes the checkpoints of a run. At most one is being written at a time.
#[derive(Debug)]
pub struct Saver {
    checkpoints: Checkpoints,
    /// Resolved settings of the run, as TOML.
    settings: String,
    /// Where collectives want their tensors.
    device: Device,
    writer: Writer,
    buffers: Buffers,
    pending: Option<Pending>,
    /// The checkpoint that rank 0 is making complete.
    publishing: Option<u64>,
    last_complete: Option<u64>,
    figures: CheckpointTiming,
}

/// A checkpoint whose parts are being written.
#[derive(Debug)]
struct Pending {
    steps: u64,
    journal: Option<File>,
    part: Option<Result<Vec<FileRecord>, ()>>,
}

impl Saver {
    /// Starts the thread that writes. `last_complete` is the checkpoint from which the run continues.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        checkpoints: Checkpoints,
        settings: String,
        device: Device,
        last_complete: Option<u64>,
    ) -> Result<Self, CheckpointError> {
        let writer = Writer::start(checkpoints.clone()).map_err(CheckpointError::Start)?;
        Ok(Self {
            checkpoints,
            settings,
            device,
            writer,
            buffers: Buffers::default(),
            pending: None,
            publishing: None,
            last_complete,
            figures: CheckpointTiming::default(),
        })
    }

    /// The newest complete checkpoint that this rank knows of: in the beginning, and after [`finish`](Self::finish), all
    /// know the same.
    pub fn last_complete(&self) -> Option<u64> {
        self.last_complete
    }

    /// What has come of checkpoints in this session, if any was due.
    pub fn figures(&self) -> Option<CheckpointTiming> {
        (self.figures != CheckpointTiming::default()).then_some(self.figures)
    }

    /// Looks what the thread has done, without waiting, and says what the other ranks should know.
    pub fn part(&mut self) -> Part {
        while let Ok(event) = self.writer.events.try_recv() {
            self.note(event);
        }
        match self.pending.as_ref().and_then(|pending| pending.part.as_ref()) {
            None => Part::Nothing,
            Some(Ok(_)) => Part::Written,
            Some(Err(())) => Part::Failed,
        }
    }

    /// Goes on with a checkpoint when all ranks have said what became of their parts. Collective.
    ///
    /// # Errors
    /// When ranks cannot reach each other. A checkpoint that failed is none.
    pub fn settle(&mut self, parts: &Parts, comm: &dyn Communicator) -> Result<(), CheckpointError> {
        if parts.num_reported == comm.world_size() {
            self.resolve(parts.first_failed, comm)?;
        }
        Ok(())
    }

    /// Begins a checkpoint: copies what training changes, which is all that the step waits for. Collective.
    ///
    /// Waits for the one before if that is still being written, and warns.
    ///
    /// # Errors
    /// When ranks cannot reach each other, or there is no memory for the copy.
    pub fn save(
        &mut self,
        trainer: &Trainer,
        state: &RunState,
        journal: Option<File>,
        comm: &dyn Communicator,
    ) -> Result<(), CheckpointError> {
        if let Some(Pending { steps: before, .. }) = self.pending {
            let started = Instant::now();
            self.wait_for_parts(comm)?;
            self.figures.wait_seconds = started.elapsed().as_secs_f64();
            if comm.rank() == 0 {
                tracing::warn!(
                    "waited {:.3} s for the checkpoint of step {before} before that of step {}: checkpoints come \
                     faster than they can be written",
                    self.figures.wait_seconds,
                    state.steps
                );
            }
        }
        let started = Instant::now();
        let snapshot = Snapshot::take(trainer, state, &self.settings, comm, &mut self.buffers)?;
        self.figures.copy_seconds = started.elapsed().as_secs_f64();
        self.pending = Some(Pending { steps: state.steps, journal, part: None });
        self.writer.ask(Job::Write(snapshot));
        Ok(())
    }

    /// Waits until nothing is being written, and returns the newest complete checkpoint. Collective.
    ///
    /// # Errors
    /// When ranks cannot reach each other. A checkpoint that failed is none.
    pub fn finish(&mut self, comm: &dyn Communicator) -> Result<Option<u64>, CheckpointError> {
        if self.pending.is_some() {
            self.wait_for_parts(comm)?;
        }
        while self.publishing.is_some() {
            self.wait_for_event();
        }
        // Also what lets no rank leave, and a launcher end the others, before rank 0 is done.
        let steps = self.last_complete.map_or(-1, |steps| steps as i64);
        let steps = Tensor::from_slice(&[steps]).to_device(self.device);
        comm.broadcast(&steps, 0)?;
        self.last_complete = u64::try_from(steps.int64_value(&[0])).ok();
        Ok(self.last_complete)
    }

    /// Where the checkpoint of so many steps is, fit for messages.
    pub fn location_of(&self, steps: u64) -> String {
        self.checkpoints.location_of(steps)
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Written { snapshot, files, seconds } => {
                let steps = snapshot.steps;
                self.buffers.reclaim(snapshot);
                self.figures.write_seconds = seconds;
                let part = files.map_err(|error| {
                    tracing::warn!(
                        "a part of the checkpoint of step {steps} could not be written, and the run goes on: {}",
                        error.with_causes()
                    );
                });
                if let Some(pending) = &mut self.pending {
                    pending.part = Some(part);
                }
            }
            Event::Published { steps, result } => {
                self.publishing = None;
                match result {
                    Ok(()) => {
                        self.last_complete = Some(steps);
                        self.figures.num_written += 1;
                        tracing::info!(
                            "checkpoint of step {steps} is in {} (copied in {:.3} s, written in {:.3} s)",
                            self.location_of(steps),
                            self.figures.copy_seconds,
                            self.figures.write_seconds
                        );
                    }
                    Err(error) => {
                        tracing::warn!(
                            "the checkpoint of step {steps} could not be completed: {}",
                            error.with_causes()
                        );
                        self.give_up(steps);
                    }
                }
            }
        }
    }

    fn give_up(&mut self, steps: u64) {
        self.figures.num_failed += 1;
        let kept = self.last_complete.map_or("there is none".to_owned(), |steps| self.location_of(steps));
        tracing::warn!(
            "there is no checkpoint of step {steps}, and the run goes on; the last complete one: {kept}"
        );
    }

    /// Waits for an event; a thread that ended without one has failed.
    fn wait_for_event(&mut self) {
        match self.writer.events.recv() {
            Ok(event) => self.note(event),
            Err(_) => {
                if let Some(pending) = &mut self.pending {
                    pending.part.get_or_insert(Err(()));
                }
                self.publishing = None;
            }
        }
    }

    /// Waits until all parts of the pending checkpoint are written or failed. Collective.
    fn wait_for_parts(&mut self, comm: &dyn Communicator) -> Result<(), CheckpointError> {
        while self.pending.as_ref().is_some_and(|pending| pending.part.is_none()) {
            self.wait_for_event();
        }
        let has_failed = matches!(&self.pending, Some(Pending { part: Some(Err(())), .. }));
        let failed = Tensor::zeros([comm.world_size() as i64], (Kind::Float, self.device));
        let _ = failed.get(comm.rank() as i64).fill_(f64::from(u8::from(has_failed)));
        comm.all_reduce_sum(&failed)?;
        let failed: Vec<f32> = failed.to_device(Device::Cpu).try_into().expect("a vector of floats converts");
        self.resolve(failed.iter().position(|&mark| mark != 0.0), comm)
    }

    /// Goes on with the pending checkpoint, whose parts are all written unless one failed.
    fn resolve(&mut self, failed: Option<usize>, comm: &dyn Communicator) -> Result<(), CheckpointError> {
        let Some(Pending { steps, journal, part }) = self.pending.take() else { return Ok(()) };
        let is_first = comm.rank() == 0;
        if let Some(rank) = failed {
            if is_first {
                tracing::warn!("rank {rank} could not write its part of the checkpoint of step {steps}");
                self.give_up(steps);
                self.writer.ask(Job::Abandon { steps });
            }
            return Ok(());
        }
        let mut files = part.and_then(Result::ok).unwrap_or_default();
        let own = if is_first { None } else { files.first() };
        let records = Tensor::from_slice(&to_bytes(own)).to_device(self.device);
        let records = comm.all_gather(&records)?.to_device(Device::Cpu);
        if is_first {
            let bytes: Vec<u8> = records.try_into().expect("a vector of bytes converts");
            let num_ranks = comm.world_size();
            let others = bytes.chunks_exact(RECORD_BYTES).enumerate();
            files.extend(others.filter_map(|(rank, bytes)| from_bytes(shard_name(rank, num_ranks), bytes)));
            self.publishing = Some(steps);
            self.writer.ask(Job::Publish { steps, files, journal });
        }
        Ok(())
    }
}

fn to_bytes(record: Option<&FileRecord>) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    if let Some(record) = record {
        bytes[..8].copy_from_slice(&record.num_bytes.to_le_bytes());
        let digest = blake3::Hash::from_hex(&record.blake3).expect("it was written as one");
        bytes[8..].copy_from_slice(digest.as_bytes());
    }
    bytes
}

/// Returns what a rank wrote, or nothing for a rank that had nothing to write.
fn from_bytes(name: String, bytes: &[u8]) -> Option<FileRecord> {
    let (num_bytes, digest) = bytes.split_first_chunk::<8>()?;
    let num_bytes = u64::from_le_bytes(*num_bytes);
    let digest = blake3::Hash::from_slice(digest).ok()?;
    (num_bytes > 0).then(|| FileRecord { name, num_bytes, blake3: digest.to_hex().to_string() })
}
