//! The words of the command line.

use fastclip_testkit::run;

use crate::setting::{Setting, succeed};

#[test]
fn help_is_complete_and_grouped() {
    let setting = Setting::new();
    let mut top = setting.train("--help");
    insta::assert_snapshot!("train", succeed_with_columns(&mut top));
    for command in ["run", "launch", "check", "bench", "eval", "embed", "report", "completions"] {
        let mut help = setting.train(command);
        help.arg("--help");
        insta::assert_snapshot!(command, succeed_with_columns(&mut help));
    }
}

fn succeed_with_columns(command: &mut std::process::Command) -> String {
    run(command.env("COLUMNS", "100")).assert_code(0).stdout
}

#[test]
fn the_version_names_commit_and_libtorch() {
    let text = succeed(Setting::new().train("--version")).stdout;
    assert!(
        text.starts_with("train 0.") && text.contains("commit ") && text.contains("libtorch 2."),
        "{text}"
    );
}

#[test]
fn completions_are_written_for_a_shell() {
    let setting = Setting::new();
    let mut command = setting.train("completions");
    command.arg("bash");
    assert!(succeed(command).stdout.contains("--train-data"));
}

#[test]
fn printed_settings_can_be_fed_back() {
    let setting = Setting::new();
    let mut command = setting.alone("run");
    command.args(["--print-config", "--fastclip_eps", "1e-8"]);
    let printed = succeed(command).stdout;
    assert!(printed.contains("fastclip_eps = 0.00000001\n"), "{printed}");
    std::fs::write(setting.path("run.toml"), &printed).unwrap();
    let mut command = setting.train("launch");
    command.args(["--ranks", "2", "--print-config", "--", "--config", "run.toml"]);
    assert_eq!(succeed(command).stdout, printed);
}
