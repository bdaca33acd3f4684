//! Tells the linker where the binary and the tests of this crate find libtorch at run time.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_FASTCLIP_TORCH_EXT_LIB_DIR");
    // torch-ext knows the folder, but arguments for the linker reach only the crate whose build script prints them.
    let Ok(lib_dir) = env::var("DEP_FASTCLIP_TORCH_EXT_LIB_DIR") else {
        println!("cargo::error=torch-ext did not say where libtorch lies: run scripts/setup");
        return;
    };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib_dir}");
    if cfg!(feature = "cuda") {
        // Nothing refers to the CUDA part by name, it registers itself when it is loaded: without this the linker would
        // leave it out and every GPU would seem to be missing.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,-lc10_cuda,--as-needed");
    }
}
