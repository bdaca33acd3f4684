//! Which program this is.

use std::sync::LazyLock;

/// Version, and the commit it was built from where that is known.
const VERSION: &str = git_version::git_version!(
    prefix = concat!(env!("CARGO_PKG_VERSION"), " (commit "),
    suffix = "",
    args = ["--always", "--dirty=-modified", "--exclude=*"],
    fallback = concat!(env!("CARGO_PKG_VERSION"), " (commit unknown")
);

/// Version, commit and libtorch.
static LONG: LazyLock<String> =
    LazyLock::new(|| format!("{VERSION}, libtorch {})", fastclip_torch_ext::torch_version()));

/// Returns version, commit and libtorch.
pub(super) fn long() -> &'static str {
    &LONG
}

/// Returns what checkpoints and run folders say about their writer.
pub(super) fn program() -> String {
    format!("train {}", long())
}
