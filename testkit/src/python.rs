use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::{Finished, run};

/// Names the folder with the Python packages for tests. `scripts/setup --tests` makes it and sets this for
/// Cargo.
const PACKAGES_VARIABLE: &str = "FASTCLIP_TEST_PYTHON";

/// A Python with `webdataset`, `numpy` and `PIL`: what others read and write datasets with.
#[derive(Debug, Clone)]
pub struct Python {
    packages: PathBuf,
}

impl Python {
    /// Finds the packages.
    ///
    /// # Panics
    /// If they are not there, with what to do.
    #[expect(clippy::new_without_default, reason = "it may panic, which a default should not")]
    pub fn new() -> Self {
        let packages = std::env::var_os(PACKAGES_VARIABLE).map(PathBuf::from).unwrap_or_default();
        assert!(
            packages.join("webdataset").is_dir(),
            "{PACKAGES_VARIABLE} is `{}`, which holds no `webdataset`: run `scripts/setup --tests` first",
            packages.display()
        );
        Self { packages }
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
        // Packages of the user must not decide whether a test passes.
        let mut command = Command::new("python3");
        command.arg("-s").arg("-c").arg(script).args(arguments).env("PYTHONPATH", &self.packages);
        run(&mut command)
    }
}
