//! Compiles the C++ side against the libtorch that torch-sys found, and tells dependents where it lies.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources of the CPU part; the part for CUDA is in files of its own, so that each builds without the other's needs.
const SOURCES: [&str; 11] = [
    "cpp/buckets.cpp",
    "cpp/fused.cpp",
    "cpp/gloo.cpp",
    "cpp/group.cpp",
    "cpp/memory.cpp",
    "cpp/ops.cpp",
    "cpp/profile.cpp",
    "cpp/reads.cpp",
    "cpp/recompute.cpp",
    "cpp/store.cpp",
    "cpp/stream.cpp",
];
const CUDA_SOURCES: [&str; 3] = ["cpp/cuda.cpp", "cpp/kernels.cpp", "cpp/nccl.cpp"];

/// Folders with the headers of CUDA and NCCL, separated by colons, for a libtorch that has no NVIDIA wheels beside it.
const CUDA_INCLUDE_VARIABLE: &str = "FASTCLIP_CUDA_INCLUDE";

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    // Known because this crate depends on torch-sys directly; cargo passes such values one step far only.
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    println!("cargo::rerun-if-env-changed={CUDA_INCLUDE_VARIABLE}");
    let lib_dir = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from).unwrap_or_else(|| {
        fail("torch-sys did not say which libtorch it uses");
    });
    let Some(libtorch) = lib_dir.parent() else {
        fail(&format!("the libtorch in `{}` has no folder above it", lib_dir.display()));
    };

    let include_dirs = include_dirs(libtorch);
    compile(&include_dirs);
    println!("cargo::metadata=lib_dir={}", lib_dir.display());
    // For the tests of this crate. Dependents have build scripts of their own, since these arguments do not travel.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib_dir.display());
    if cfg!(feature = "cuda") {
        println!("cargo::rustc-link-search=native={}", lib_dir.display());
        println!("cargo::rustc-link-lib=torch_cuda");
        println!("cargo::rustc-link-lib=c10_cuda");
    }
}

/// Returns the folders of headers, after checking that what we need is in them.
fn include_dirs(libtorch: &Path) -> Vec<PathBuf> {
    let include = libtorch.join("include");
    // Libraries of the system and some archives of libtorch come without the distributed part.
    let needed = include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp");
    if !needed.exists() {
        fail(&format!("the libtorch in `{}` lacks `{}`", libtorch.display(), needed.display()));
    }
    let mut dirs = vec![include.join("torch/csrc/api/include"), include];
    if cfg!(feature = "cuda") {
        dirs.extend(nvidia_include_dirs(libtorch));
    }
    dirs
}

/// Returns the header folders of the NVIDIA wheels that are installed beside torch, and those that the environment names.
fn nvidia_include_dirs(libtorch: &Path) -> Vec<PathBuf> {
    let nvidia = libtorch.with_file_name("nvidia");
    let wheels = fs::read_dir(&nvidia)
        .unwrap_or_else(|error| fail(&format!("could not list `{}`: {error}", nvidia.display())));
    let mut dirs: Vec<PathBuf> =
        wheels.filter_map(|wheel| Some(wheel.ok()?.path().join("include"))).collect();
    // read_dir has no order, and the order of include paths must not change between builds.
    dirs.sort();
    if let Some(more) = env::var_os(CUDA_INCLUDE_VARIABLE) {
        dirs.extend(env::split_paths(&more));
    }
    let dirs: Vec<PathBuf> = dirs
        .into_iter()
        .flat_map(|include| [include.join("cccl"), include])
        .filter(|dir| dir.is_dir())
        .collect();
    for header in ["nccl.h", "crt/host_defines.h", "cuda_runtime_api.h"] {
        if !dirs.iter().any(|dir| dir.join(header).exists()) {
            fail(&format!(
                "neither the wheels below `{}` nor {CUDA_INCLUDE_VARIABLE} bring `{header}`, which feature `cuda` needs",
                nvidia.display()
            ));
        }
    }
    dirs
}

fn compile(include_dirs: &[PathBuf]) {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        // Thin wrappers: optimising and describing them for debuggers costs minutes and buys nothing.
        .opt_level(1)
        .debug(false)
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include("cpp")
        .include("cpp/stubs")
        .files(SOURCES);
    if cfg!(feature = "cuda") {
        build.define("USE_C10D_NCCL", None).define("FASTCLIP_CUDA", None).files(CUDA_SOURCES);
    }
    for dir in include_dirs {
        // As headers of the system, so that warnings are about our code alone.
        build.flag("-isystem").flag(dir);
    }
    build.compile("fastclip_torch_ext");
}

/// Ends the build with a message that says what to do.
fn fail(reason: &str) -> ! {
    let needs_cuda = if cfg!(feature = "cuda") { " --cuda" } else { "" };
    println!("cargo::error={reason}");
    println!(
        "cargo::error=run scripts/setup{needs_cuda}, which installs a libtorch that fits and sets LIBTORCH"
    );
    std::process::exit(1);
}
