//! The loader is usable alone.

use std::process::Command;

#[test]
fn the_loader_does_not_depend_on_torch() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "fastclip-loader",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.contains("turbojpeg"), "this is the loader's tree: {tree}");
    for name in ["tch", "torch-sys", "fastclip-torch-ext", "fastclip-trainer"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(name)), "{name} is in {tree}");
    }
}
