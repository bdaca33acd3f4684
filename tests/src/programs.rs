use std::ffi::OsStr;
use std::process::Command;

use fastclip_testkit::binary;

/// The command `ingest` with these arguments.
pub fn ingest<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    command("ingest", arguments)
}

/// The command `train` with these arguments.
pub fn train<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    command("train", arguments)
}

fn command<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary(name));
    command.args(arguments);
    // A launcher around the tests must not make a single process believe that it is one of many.
    for variable in ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
        command.env_remove(variable);
    }
    command
}
