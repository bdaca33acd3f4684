use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::{Finished, run};

/// Names the folder with what others read and write datasets with: `webdataset`, `numpy` and `PIL`. `scripts/setup --tests`
/// makes it and sets this for Cargo.
const DATA_PACKAGES: (&str, &str) = ("FASTCLIP_TEST_PYTHON", "webdataset");

/// The same for what others train with: `torch`, `open_clip` and `safetensors`.
const TORCH_PACKAGES: (&str, &str) = ("FASTCLIP_TEST_TORCH", "open_clip");

/// What OpenCLIP's own pipeline reads shards with, beside those: `webdataset` as old as it needs, and `pandas`.
const OPEN_CLIP_PACKAGES: (&str, &str) = ("FASTCLIP_TEST_OPEN_CLIP", "webdataset");

/// A Python with the packages of others that tests compare with.
#[derive(Debug, Clone)]
pub struct Python {
    /// Folders of packages; the first that has one provides it.
    packages: Vec<PathBuf>,
}

impl Python {
    /// Finds one with `webdataset`, `numpy` and `PIL`.
    ///
    /// # Panics
    /// If they are not there, with what to do.
    #[expect(clippy::new_without_default, reason = "it may panic, which a default should not")]
    pub fn new() -> Self {
        Self { packages: vec![find(DATA_PACKAGES)] }
    }

    /// Finds one with `torch`, `open_clip`, `numpy` and `safetensors`.
    ///
    /// # Panics
    /// If the packages are not there, with what to do.
    pub fn with_torch() -> Self {
        Self { packages: vec![find(TORCH_PACKAGES)] }
    }

    /// Finds one for OpenCLIP's own pipeline from shards to batches.
    ///
    /// # Panics
    /// If the packages are not there, with what to do.
    pub fn with_open_clip_pipeline() -> Self {
        Self { packages: vec![find(OPEN_CLIP_PACKAGES), find(TORCH_PACKAGES)] }
    }

    /// Runs a script with these arguments, in `sys.argv` from 1 on, and returns what it printed.
    ///
    /// # Panics
    /// If it fails, with its traceback.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, script: &str, arguments: &[A]) -> String {
        self.try_run(script, arguments).assert_code(0).stdout
    }

    /// Runs a script that may fail.
    #[track_caller]
    pub fn try_run<A: AsRef<OsStr>>(&self, script: &str, arguments: &[A]) -> Finished {
        run(self.command().arg("-c").arg(script).args(arguments))
    }

    /// A command that starts it, for a test that follows what it does.
    ///
    /// # Panics
    /// If the folder of a package has a colon in its name.
    pub fn command(&self) -> Command {
        let path =
            std::env::join_paths(&self.packages).expect("folders of packages have no colons in their names");
        // Packages of the user must not decide whether a test passes.
        let mut command = Command::new("python3");
        command.arg("-s").env("PYTHONPATH", path);
        command
    }
}

/// The folder that a variable of `scripts/setup --tests` names, with a package in it.
pub(crate) fn find((variable, package): (&str, &str)) -> PathBuf {
    let packages = std::env::var_os(variable).map(PathBuf::from).unwrap_or_default();
    assert!(
        packages.join(package).is_dir(),
        "{variable} is `{}`, which holds no `{package}`: run `scripts/setup --tests` first",
        packages.display()
    );
    packages
}
