use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};

/// Path of a program of this workspace, as built in the profile of the running test; of an example it is `examples/` and its name.
///
/// # Panics
/// If it has not been built. Cargo builds binaries for the tests of their own crate only.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // Tests lie in `deps`, beside the programs.
    let folder = test.ancestors().nth(2).expect("the target folder is above `deps`");
    let path = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "there is no `{}`: run `cargo build --workspace --bins --examples` first",
        path.display()
    );
    path
}

/// How a program ended, and what it printed.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    pub(crate) fn new(command: String, output: Output) -> Self {
        Self {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code and returns the same again.
    ///
    /// # Panics
    /// If the program ended otherwise, with all that it printed.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert!(self.status.code() == Some(code), "expected exit code {code}, found {self}");
        self
    }

    /// Asserts that standard error holds all of these texts.
    ///
    /// # Panics
    /// If one is missing, with all that the program printed.
    #[track_caller]
    pub fn assert_says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "standard error lacks `{text}`\n{self}");
        }
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        // What went wrong comes first: logs are read from the top, and cut at the bottom.
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        writeln!(f, "{status} of `{command}`: {last}")?;
        write!(f, "--- standard error\n{stderr}\n--- standard output\n{stdout}")
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    let shown = shown(command);
    match command.output() {
        Ok(output) => Finished::new(shown, output),
        Err(error) => panic!("could not start `{shown}`: {error}"),
    }
}

/// The command as one would type it, near enough; of a script in an argument, its first line.
pub(crate) fn shown(command: &Command) -> String {
    let shown = |word: &OsStr| {
        let word = word.to_string_lossy();
        match word.split_once('\n') {
            Some((first, _)) => format!("'{first} …'"),
            None => word.into_owned(),
        }
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(shown).collect::<Vec<_>>().join(" ")
}
