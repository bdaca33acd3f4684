//! Who may use whom. A machine without libtorch builds everything up to the loader.

use std::collections::BTreeSet;
use std::process::Command;

use fastclip_testkit::run;

/// Names of all packages that this one needs to run and to be built, itself included.
fn tree(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    let mut command = Command::new(cargo);
    command
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--package",
            package,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let printed = run(&mut command).assert_code(0).stdout;
    printed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn own(package: &str) -> Vec<String> {
    let others = tree(package).into_iter().filter(|name| name != package);
    others.filter_map(|name| name.strip_prefix("fastclip-").map(str::to_owned)).collect()
}

#[test]
fn nothing_up_to_the_loader_depends_on_torch() {
    for package in
        ["fastclip-schemas", "fastclip-shards", "fastclip-ingest", "fastclip-loader", "fastclip-testkit"]
    {
        let tree = tree(package);
        assert!(tree.contains("serde"), "this is no tree of `{package}`: {tree:?}");
        for torch in ["tch", "torch-sys", "fastclip-torch-ext", "fastclip-trainer"] {
            assert!(!tree.contains(torch), "`{package}` depends on `{torch}`");
        }
    }
}

#[test]
fn crates_depend_on_each_other_only_along_the_flow_of_data() {
    assert_eq!(own("fastclip-schemas"), [""; 0]);
    assert_eq!(own("fastclip-shards"), ["schemas"]);
    assert_eq!(own("fastclip-images"), [""; 0]);
    assert_eq!(own("fastclip-pages"), [""; 0]);
    assert_eq!(own("fastclip-ingest"), ["images", "pages", "schemas", "shards"]);
    assert_eq!(own("fastclip-loader"), ["images", "schemas", "shards"]);
    assert_eq!(own("fastclip-torch-ext"), [""; 0]);
    assert_eq!(own("fastclip-trainer"), ["images", "loader", "pages", "schemas", "shards", "torch-ext"]);
}
