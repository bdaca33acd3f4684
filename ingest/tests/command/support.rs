use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use fastclip_schemas::Manifest;
use fastclip_shards::{Dataset, Sample};
use serde_json::Value;
use tempfile::TempDir;

/// Variables of this process that would change what the command does: the width of the terminal, and those of an array job, which
/// name a part.
const FOREIGN_VARIABLES: [&str; 10] = [
    "COLUMNS",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_ARRAY_TASK_COUNT",
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "AWS_BATCH_JOB_ARRAY_SIZE",
    "JOB_COMPLETION_INDEX",
    "INGEST_NUM_PARTS",
];

/// A folder of its own for a test.
pub(crate) struct Scratch {
    folder: TempDir,
}

/// What a finished process left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The command, run in this folder so that its messages hold no random path.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingest"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in FOREIGN_VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn ingest(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Runs the command and insists that it is done.
    #[track_caller]
    pub(crate) fn ingest_well(&self, arguments: &[&str]) -> Ran {
        let ran = self.ingest(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?} printed {}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs the command, insists that it is refused, and gives its message.
    #[track_caller]
    pub(crate) fn ingest_refused(&self, arguments: &[&str]) -> String {
        let ran = self.ingest(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?} printed {}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    /// A table of `num_rows` good rows, `pairs/table.jsonl`.
    pub(crate) fn pairs(&self, num_rows: usize) {
        let mut table = String::new();
        for row in 0..num_rows {
            self.write(&format!("pairs/images/{row:04}.jpg"), jpeg(row));
            table += &format!("{{\"image\": \"images/{row:04}.jpg\", \"caption\": \"{}\"}}\n", caption(row));
        }
        self.write("pairs/table.jsonl", table);
    }

    /// Name and content of every file in a folder.
    pub(crate) fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(folder)).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }

    /// Every sample of a dataset in order: key, members by extension.
    pub(crate) fn samples(&self, folder: &str) -> Vec<(String, BTreeMap<String, Vec<u8>>)> {
        read(&self.path(folder))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

pub(crate) fn caption(row: usize) -> String {
    format!("picture number {row}")
}

/// A small JPEG that differs from row to row.
pub(crate) fn jpeg(row: usize) -> Vec<u8> {
    let (width, height) = (24 + row % 8, 16);
    let pixels: Vec<u8> = (0..width * height * 3).map(|at| (at * 7 + row * 31) as u8).collect();
    let pixels = pixels.as_slice();
    let image =
        turbojpeg::Image { pixels, width, pitch: 3 * width, height, format: turbojpeg::PixelFormat::RGB };
    turbojpeg::compress(image, 80, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
}

pub(crate) fn manifest(folder: &Path) -> Manifest {
    Manifest::from_json(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn read(folder: &Path) -> Vec<(String, BTreeMap<String, Vec<u8>>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dataset = Dataset::open(folder.to_str().unwrap()).await.unwrap();
        let mut samples = Vec::new();
        for shard in 0..dataset.manifest().shards.len() {
            let index = dataset.index(shard).await.unwrap();
            let run = dataset.fetch(shard, &index, 0..index.len()).await.unwrap();
            samples.extend(run.samples().map(|position| owned(&run.sample(position).unwrap())));
        }
        samples
    })
}

fn owned(sample: &Sample<'_>) -> (String, BTreeMap<String, Vec<u8>>) {
    let members = sample.members().map(|(extension, data)| (extension.to_owned(), data.to_vec()));
    (sample.key().to_owned(), members.collect())
}

#[expect(unsafe_code, reason = "the standard library cannot send SIGTERM")]
pub(crate) fn kill(child: &Child, signal: i32) -> i32 {
    // SAFETY: no memory is involved, and the child has not been waited for, so its id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) }
}

/// Waits for a process to end. Gives its exit code and the most memory that it held, in bytes.
#[expect(unsafe_code, reason = "the standard library does not tell what a process has used")]
pub(crate) fn wait_for_peak(child: Child) -> (Option<i32>, u64) {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to live variables, and nobody else has waited for the child.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, child.id() as libc::pid_t);
    // SAFETY: a structure of numbers is valid when it is all zeros, and the call has filled it in.
    let usage = unsafe { usage.assume_init() };
    (libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)), usage.ru_maxrss as u64 * 1024)
}
