use crate::support::Scratch;

fn help(arguments: &[&str]) -> String {
    Scratch::new().ingest_well(&[arguments, &["--help"]].concat()).stdout
}

#[test]
fn the_help_names_every_command() {
    insta::assert_snapshot!("help", help(&[]));
}

#[test]
fn the_help_of_each_command_is_complete_and_grouped() {
    for command in [
        "download",
        "finish",
        "retry",
        "pack",
        "reshard",
        "index",
        "verify",
        "stats",
        "inspect",
        "synth",
        "completions",
    ] {
        insta::assert_snapshot!(format!("help-{command}"), help(&[command]));
    }
}

#[test]
fn the_version_names_the_commit() {
    let version = Scratch::new().ingest_well(&["--version"]).stdout;
    let expected = concat!("ingest ", env!("CARGO_PKG_VERSION"), " (");
    assert!(version.starts_with(expected) && version.ends_with(")\n"), "{version}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = Scratch::new().ingest_well(&["completions", shell]).stdout;
        assert!(text.contains("max-bad-fraction"), "{shell}");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let scratch = Scratch::new();
    for arguments in [
        &["pack"][..],
        &["pack", "--input", "x", "--output", "y", "--max-bad-fraction", "2"],
        &["pack", "--input", "x", "--output", "y", "--resume", "--overwrite"],
        &["pack", "--input", "x", "--output", "y", "--samples-per-shard", "0"],
        &["unpack"],
    ] {
        let error = scratch.ingest_refused(arguments);
        assert!(error.starts_with("error: "), "{error}");
    }
}
