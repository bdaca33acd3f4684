//! `metrics.jsonl`: a file of lines that survives being killed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{METRICS_FILE, MetricsError, Record};

/// Reads the records of a run's folder.
///
/// A last line without its line feed is what a killed process leaves; it is passed over.
///
/// # Errors
/// When the file cannot be read, or a complete line is not a record.
pub fn read_metrics(run_dir: &Path) -> Result<Vec<Record>, MetricsError> {
    let path = run_dir.join(METRICS_FILE);
    let text = std::fs::read(&path).map_err(|source| MetricsError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let lines = complete_lines(&text).enumerate();
    lines.map(|(number, line)| parse(&path, number + 1, line)).collect()
}

/// Appends records to `metrics.jsonl`.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    num_bytes: u64,
}

impl Journal {
    /// Opens the file of a run that stands at `resumed_at`, the step of a checkpoint, or that starts anew.
    ///
    /// Everything after that step, or everything, is cut off: it will be written again.
    pub(super) fn open(run_dir: &Path, resumed_at: Option<u64>) -> Result<Self, MetricsError> {
        let path = run_dir.join(METRICS_FILE);
        let failed = |action, source| MetricsError::Io { action, path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| failed("open", source))?;
        let kept = match resumed_at {
            None => 0,
            Some(step) => {
                let text = std::fs::read(&path).map_err(|source| failed("read", source))?;
                bytes_up_to(&path, &text, step)?
            }
        };
        file.set_len(kept).map_err(|source| failed("truncate", source))?;
        Ok(Self { path, file, num_bytes: kept })
    }

    /// Appends one line in a single write, so that a killed process leaves at most its last line incomplete. A disk that
    /// is full leaves none: what it took of the line is cut off again.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), MetricsError> {
        let mut line = serde_json::to_vec(record).expect("records have string keys and plain values");
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            // Needs no room. If it fails, too, the disk is gone, and nothing can be kept readable on it.
            let _ = self.file.set_len(self.num_bytes);
            return Err(self.failed("write to", source));
        }
        self.num_bytes += line.len() as u64;
        Ok(())
    }

    /// Returns another handle on the file, for waiting until all lines are on the disk.
    pub(super) fn handle(&self) -> Result<File, MetricsError> {
        self.file.try_clone().map_err(|source| self.failed("open", source))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> MetricsError {
        MetricsError::Io { action, path: self.path.clone(), source }
    }
}

/// Returns the length of the lines up to `step`.
///
/// Lines are in the order of their steps, so the first later one ends them. An evaluation at `step` itself is kept: it is
/// one of the very model that the checkpoint holds.
fn bytes_up_to(path: &Path, text: &[u8], step: u64) -> Result<u64, MetricsError> {
    let mut kept = 0;
    for (number, line) in complete_lines(text).enumerate() {
        if parse(path, number + 1, line)?.step() > step {
            break;
        }
        kept += line.len() as u64;
    }
    Ok(kept)
}

fn complete_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn parse(path: &Path, line: usize, text: &[u8]) -> Result<Record, MetricsError> {
    serde_json::from_slice(text).map_err(|source| MetricsError::Line { path: path.to_owned(), line, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::CommCounters;
    use crate::metrics::{EvalRecord, EvalTiming, TrainRecord, TrainTiming};

    fn train(step: u64, seconds: f64) -> Record {
        Record::Train(TrainRecord {
            step,
            epoch: 0,
            samples_seen: step * 64,
            loss: 1.0 / step as f64,
            contrastive_loss: None,
            log_mean: None,
            lr: 1e-3,
            lr_tau: Some(2.5e-4),
            tau: 0.07,
            gamma: Some(0.9),
            grad_norm: None,
            communication_bytes: 4096,
            collectives: CommCounters::default(),
            timing: TrainTiming {
                seconds,
                step_seconds: 0.1,
                data_seconds: 0.01,
                images_per_second: 640.0,
                gpu_memory: None,
                checkpoints: None,
            },
        })
    }

    fn eval(step: u64) -> Record {
        let timing = EvalTiming { seconds: 3.0 };
        Record::Eval(EvalRecord {
            step,
            epoch: 0,
            samples_seen: step * 64,
            zero_shot: None,
            retrieval: None,
            timing,
        })
    }

    fn write(folder: &Path, resumed_at: Option<u64>, records: &[Record]) {
        let mut journal = Journal::open(folder, resumed_at).unwrap();
        records.iter().for_each(|record| journal.append(record).unwrap());
        journal.handle().unwrap().sync_data().unwrap();
    }

    #[test]
    fn a_run_killed_at_any_byte_and_resumed_leaves_the_file_of_an_uninterrupted_run() {
        let records = [train(1, 0.5), train(2, 0.7), eval(2), train(3, 0.9), train(4, 1.1), eval(4)];
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), None, &records);
        let expected = std::fs::read(whole.path().join(METRICS_FILE)).unwrap();

        let end_of_step_2: usize =
            expected.split_inclusive(|&byte| byte == b'\n').take(3).map(<[u8]>::len).sum();
        for killed_at in end_of_step_2..=expected.len() {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(METRICS_FILE), &expected[..killed_at]).unwrap();
            write(folder.path(), Some(2), &records[3..]);
            assert_eq!(std::fs::read(folder.path().join(METRICS_FILE)).unwrap(), expected, "{killed_at}");
        }
    }

    #[test]
    fn a_run_that_starts_anew_in_an_old_folder_keeps_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), None, &[eval(0), train(1, 0.5)]);
        write(folder.path(), None, &[train(1, 9.0)]);
        assert_eq!(read_metrics(folder.path()).unwrap(), [train(1, 9.0)]);
    }

    #[test]
    fn records_are_read_as_they_were_written_even_without_a_finite_loss() {
        let folder = tempfile::tempdir().unwrap();
        let Record::Train(bad) = train(2, 0.2) else { unreachable!("train() makes a training record") };
        let bad = Record::Train(TrainRecord { loss: f64::NAN, ..bad });
        write(folder.path(), None, &[train(1, 0.1), bad, eval(2)]);
        let read = read_metrics(folder.path()).unwrap();
        assert_eq!([&read[0], &read[2]], [&train(1, 0.1), &eval(2)]);
        assert!(matches!(&read[1], Record::Train(record) if record.loss.is_nan()));
    }

    #[test]
    fn a_foreign_line_is_named_and_an_incomplete_last_one_forgiven() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let good = serde_json::to_string(&train(1, 0.1)).unwrap();
        std::fs::write(&path, format!("{good}\n{{\"kind\": \"tr")).unwrap();
        assert_eq!(read_metrics(folder.path()).unwrap().len(), 1);
        std::fs::write(&path, format!("{good}\nhello\n{good}\n")).unwrap();
        let message = read_metrics(folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("holds no record on line 2"), "{message}");
    }

    #[test]
    fn everything_that_depends_on_the_clock_lies_under_timing() {
        let without_timing = |record: &Record| {
            let mut value = serde_json::to_value(record).unwrap();
            value.as_object_mut().unwrap().remove("timing").expect("every record has its timing");
            value
        };
        assert_ne!(train(1, 0.1), train(1, 0.2));
        assert_eq!(without_timing(&train(1, 0.1)), without_timing(&train(1, 0.2)));
    }
}
